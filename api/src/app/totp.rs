//! A person's second factor: enrolling, proving it, and ending it.

use chrono::{DateTime, Utc};
use setpoint_model::totp::{Code, RecoveryCode, TotpSecret};
use setpoint_store::{Store, totp::SecondFactor, users::User};
use uuid::Uuid;

use super::{Actor, App, Error, audit, policy::Action, users};

/// Recovery codes that an enrolment gives.
const RECOVERY_CODES: usize = 10;

/// What an authenticator needs to know.
pub struct Enrolment {
    /// The secret, in base 32.
    pub secret: String,
    /// The same as an address that authenticators take.
    pub url: String,
}

/// What is known of a person's second factor.
#[derive(Debug, Clone, Copy, Default)]
pub struct TotpState {
    /// Since when it is asked for; `None` if it isn't.
    pub since: Option<DateTime<Utc>>,
    /// Recovery codes that are left.
    pub recovery_codes: i64,
    /// Whether their role must have one.
    pub required: bool,
}

impl App {
    /// Begins to enrol: the secret, which counts once [`Self::confirm_totp`] has seen a code made of it.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for who has no session; [`Error::Conflict`] with `totp_enabled`, and with `no_password` for
    /// who never signs in here but with the provider.
    pub async fn enrol_totp(&self, actor: &Actor) -> Result<Enrolment, Error> {
        let user = self.own(actor).await?;
        if !user.has_password() {
            return Err(Error::Conflict {
                code: "no_password",
                message: "the second factor of this account is its provider's affair".to_owned(),
            });
        }
        let secret = TotpSecret::generate().map_err(Error::internal)?;
        let sealed = self.people.key.seal(&purpose(user.id), secret.as_bytes())?;
        if !self.store.begin_totp(user.id, &sealed, self.clock.now()).await? {
            return Err(Error::Conflict {
                code: "totp_enabled",
                message: "there is a second factor already; disable it first".to_owned(),
            });
        }
        let url = secret
            .url(&user.username)
            .ok_or(Error::NotFound { what: "user" })?;
        Ok(Enrolment {
            secret: secret.base32(),
            url,
        })
    }

    /// Ends the enrolment with a first code: from now on one is asked for. The recovery codes, shown this once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `code`; [`Error::Conflict`] with `totp_not_begun`; [`Error::Unauthenticated`] for who has no
    /// session; [`Error::TooManyAttempts`].
    pub async fn confirm_totp(&self, actor: &Actor, code: &str) -> Result<Vec<RecoveryCode>, Error> {
        let user = self.own(actor).await?;
        let attempt = self.people.code_attempt(&user.username)?;
        let begun = self.store.totp(user.id).await?;
        let Some(begun) = begun.filter(|totp| totp.confirmed_at.is_none()) else {
            attempt.taken_back();
            return Err(Error::Conflict {
                code: "totp_not_begun",
                message: "begin with POST /session/totp".to_owned(),
            });
        };
        let now = self.clock.now();
        let step = match Code::parse(code) {
            Some(Code::Totp(digits)) => self
                .secret(user.id, &begun.sealed)
                .and_then(|secret| secret.step(&digits, now)),
            _ => None,
        };
        let step = step.ok_or_else(|| Error::invalid("code", "is not the present code"))?;
        let codes = (0..RECOVERY_CODES).map(|_| RecoveryCode::generate());
        let codes = codes.collect::<Result<Vec<_>, _>>().map_err(Error::internal)?;
        let hashes: Vec<_> = codes.iter().map(RecoveryCode::hash).collect();
        let entry = self.entry(actor, "totp.enable", format!("user:{}", user.username));
        let confirmed = self
            .store
            .confirm_totp(user.id, &begun.sealed, step, &hashes, now, &entry);
        if !confirmed.await? {
            return Err(Error::invalid("code", "is of an enrolment that was begun anew"));
        }
        attempt.taken_back();
        tracing::info!(user = user.username, "second factor enabled");
        Ok(codes)
    }

    /// Ends one's own second factor.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `password` or `code`; [`Error::Conflict`] with `totp_disabled`; [`Error::Unauthenticated`] for
    /// who has no session; [`Error::TooManyAttempts`].
    pub async fn disable_totp(&self, actor: &Actor, password: String, code: &str) -> Result<(), Error> {
        let user = self.own(actor).await?;
        if !user.totp {
            return Err(Error::Conflict {
                code: "totp_disabled",
                message: "there is no second factor".to_owned(),
            });
        }
        self.check_own_password(actor, &user, password, "password")
            .await?;
        let wrong = || Error::invalid("code", "is wrong, or was used before");
        let attempt = self.people.code_attempt(&user.username)?;
        let factor = self.factor(user.id, code).await?.ok_or_else(wrong)?;
        let entry = self.entry(actor, "totp.disable", format!("user:{}", user.username));
        if !self.store.remove_totp(user.id, Some(factor), &entry).await? {
            return Err(wrong());
        }
        attempt.taken_back();
        tracing::info!(user = user.username, "second factor disabled");
        Ok(())
    }

    /// Ends a person's second factor for them, who lost it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`, [`Error::NotFound`] for nobody, or for somebody without one.
    pub async fn reset_totp(&self, actor: &Actor, username: &str) -> Result<(), Error> {
        self.authorize_all(actor, Action::ManageUsers)?;
        reset_totp(&self.store, self.clock.now(), actor, username).await
    }

    /// What is known of a person's second factor.
    pub(super) async fn totp_state(&self, user: &User) -> Result<TotpState, Error> {
        let required = self.people.requires_totp(user.role) && user.has_password();
        let totp = self.store.totp(user.id).await?;
        let confirmed = totp.filter(|totp| totp.confirmed_at.is_some());
        Ok(TotpState {
            since: confirmed.as_ref().and_then(|totp| totp.confirmed_at),
            recovery_codes: confirmed.map_or(0, |totp| totp.recovery_codes),
            required,
        })
    }

    /// What a code proves, but for whether it was used before; `None` for a wrong one.
    pub(super) async fn factor(&self, user: Uuid, code: &str) -> Result<Option<SecondFactor>, Error> {
        Ok(match Code::parse(code) {
            None => None,
            Some(Code::Recovery(hash)) => Some(SecondFactor::Recovery(hash)),
            Some(Code::Totp(digits)) => {
                let totp = self.store.totp(user).await?;
                let secret = totp.and_then(|totp| self.secret(user, &totp.sealed));
                secret
                    .and_then(|secret| secret.step(&digits, self.clock.now()))
                    .map(SecondFactor::Step)
            }
        })
    }

    fn secret(&self, user: Uuid, sealed: &[u8]) -> Option<TotpSecret> {
        let opened = self.people.key.open(&purpose(user), sealed);
        let secret = opened.as_deref().and_then(TotpSecret::from_bytes);
        if secret.is_none() {
            tracing::error!(%user, "a second factor was sealed with another server key: restore that, or reset it");
        }
        secret
    }
}

/// As [`App::reset_totp`], for commands on the server's own terminal.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn reset_totp(
    store: &Store,
    now: DateTime<Utc>,
    actor: &Actor,
    username: &str,
) -> Result<(), Error> {
    let user = users::find(store, username).await?;
    let entry = audit::entry(actor, "totp.reset", format!("user:{}", user.username), now);
    if !store.remove_totp(user.id, None, &entry).await? {
        return Err(Error::NotFound {
            what: "second factor",
        });
    }
    tracing::info!(user = user.username, by = actor.label(), "second factor reset");
    Ok(())
}

/// A person's secret can't be put into another person's row.
fn purpose(user: Uuid) -> String {
    format!("totp:{user}")
}
