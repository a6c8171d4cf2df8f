//! Signing in, staying signed in, and signing out.

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{
    Role,
    credential::{Secret, SecretHash},
};
use setpoint_store::{
    audit::NewEntry,
    sessions::{Begun, NewSession, Session},
    totp::SecondFactor,
    users::User,
};

use super::{
    Actor, App, Error, Principal, passwords, policy,
    sealing::ServerKey,
    throttle::{Throttle, network},
    tokens::new_id,
};
use crate::config;

/// What a session's cookie begins with, so that secret scanners recognise one.
const SESSION_PREFIX: &str = "sps_";

/// What signing in needs beside the database.
#[derive(Debug)]
pub struct SignIn {
    config: config::SignIn,
    failures: Throttle<Guesser>,
    /// Seals what people sign in with and this server must know in clear.
    pub(super) key: ServerKey,
}

/// Who may be guessing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Guesser {
    /// At one account from one address.
    Pair(String, Option<IpAddr>),
    /// At one account, from wherever.
    Account(String),
    /// From one address, at whomever.
    Address(IpAddr),
    /// At the second factor of one account, by who knows its password: so nobody else is locked out by it.
    Code(String),
}

/// An attempt at guessing, which counts as failed until it is taken back.
#[must_use]
pub(super) struct Attempt<'a> {
    failures: &'a Throttle<Guesser>,
    guessers: Vec<Guesser>,
}

impl Attempt<'_> {
    /// It was none.
    pub(super) fn taken_back(self) {
        for guesser in &self.guessers {
            self.failures.succeed(guesser);
        }
    }
}

/// How many failures more are borne at one account from everywhere, or from one address at everybody: an attacker
/// must not be able to lock somebody out cheaply, nor a household behind one address itself.
const WIDER: u32 = 10;

impl SignIn {
    /// With these limits and this key.
    pub fn new(config: config::SignIn, key: ServerKey) -> Self {
        let failures = Throttle::new(config.failure_window);
        Self {
            config,
            failures,
            key,
        }
    }

    /// Whether people of this role must have a second factor.
    pub(super) fn requires_totp(&self, role: Role) -> bool {
        self.config.require_totp_for.contains(&role)
    }

    /// Begins an attempt at an account's password.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`] for a name or address with too many failures.
    pub(super) fn attempt(&self, username: &str, address: Option<IpAddr>) -> Result<Attempt<'_>, Error> {
        self.begin(self.guessers(username, address))
    }

    /// Begins an attempt at an account's second factor.
    ///
    /// # Errors
    /// [`Error::TooManyAttempts`] for an account with too many failures.
    pub(super) fn code_attempt(&self, username: &str) -> Result<Attempt<'_>, Error> {
        self.begin(vec![(
            Guesser::Code(username.to_owned()),
            self.config.max_failures,
        )])
    }

    fn begin(&self, guessers: Vec<(Guesser, u32)>) -> Result<Attempt<'_>, Error> {
        let waits = guessers
            .iter()
            .filter_map(|(guesser, most)| self.failures.wait(guesser, *most));
        if let Some(after) = waits.max() {
            return Err(Error::TooManyAttempts { after });
        }
        let guessers: Vec<_> = guessers.into_iter().map(|(guesser, _)| guesser).collect();
        for guesser in &guessers {
            self.failures.fail(guesser.clone());
        }
        Ok(Attempt {
            failures: &self.failures,
            guessers,
        })
    }

    fn guessers(&self, username: &str, address: Option<IpAddr>) -> Vec<(Guesser, u32)> {
        let most = self.config.max_failures;
        let address = address.map(network);
        let mut guessers = vec![
            (Guesser::Pair(username.to_owned(), address), most),
            (Guesser::Account(username.to_owned()), most.saturating_mul(WIDER)),
        ];
        if let Some(address) = address {
            guessers.push((Guesser::Address(address), most.saturating_mul(WIDER)));
        }
        guessers
    }

    /// When a session that began then ends at the latest.
    pub fn end_of(&self, begun: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let lifetime = TimeDelta::from_std(self.config.session_lifetime).ok()?;
        begun.checked_add_signed(lifetime)
    }

    /// The times before which a session must not have been idle, and not have begun.
    pub fn horizons(&self, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let before = |span: Duration| {
            let span = TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
            now.checked_sub_signed(span).unwrap_or(DateTime::UNIX_EPOCH)
        };
        (
            before(self.config.session_idle),
            before(self.config.session_lifetime),
        )
    }
}

/// How a person has proved who they are.
pub(super) enum Proof {
    /// By their password, and their second factor if they have one.
    Password(Option<SecondFactor>),
    /// This issuer says so.
    Provider(String),
}

impl App {
    /// Signs a person in: what their cookie holds from now on, and who they are.
    ///
    /// A wrong password and an unknown name get the same answer after the same time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]; [`Error::TotpRequired`] and [`Error::TotpInvalid`] for who has the right password and a
    /// second factor; [`Error::TooManyAttempts`] for a name or address with too many failures.
    pub async fn sign_in(
        &self,
        username: &str,
        password: String,
        code: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<(Actor, Secret), Error> {
        let username = username.trim().to_lowercase();
        let refused = |why: &'static str, error: Error| {
            self.sign_in_refused(&username, address, why);
            error
        };
        let attempt = self.people.attempt(&username, address);
        let attempt = attempt.map_err(|error| refused("too many attempts", error))?;
        let user = if username.contains('\0') {
            None
        } else {
            self.store.user_by_name(&username).await?
        };
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let right = passwords::verify(password, hash).await?;
        let Some(user) = user.filter(|_| right) else {
            return Err(refused("wrong user name or password", Error::Unauthenticated));
        };
        if user.disabled_at.is_some() {
            return Err(refused("the account is disabled", Error::Unauthenticated));
        }
        if !user.totp {
            let signed_in = self.begin_session(&user, Proof::Password(None), address).await?;
            attempt.taken_back();
            return Ok(signed_in);
        }
        let Some(code) = code.filter(|code| !code.trim().is_empty()) else {
            attempt.taken_back();
            return Err(refused("a code is needed", Error::TotpRequired));
        };
        let code_attempt = self.people.code_attempt(&username);
        let code_attempt = code_attempt.map_err(|error| refused("too many wrong codes", error))?;
        let factor = self.factor(user.id, code).await?;
        let factor = factor.ok_or_else(|| refused("wrong code", Error::TotpInvalid))?;
        let begun = self
            .begin_session(&user, Proof::Password(Some(factor)), address)
            .await;
        let signed_in = begun.map_err(|error| match error {
            Error::TotpInvalid => refused("the code was used before", error),
            error => error,
        })?;
        attempt.taken_back();
        code_attempt.taken_back();
        Ok(signed_in)
    }

    /// Begins the session of a person who has proved who they are.
    pub(super) async fn begin_session(
        &self,
        user: &User,
        proof: Proof,
        address: Option<IpAddr>,
    ) -> Result<(Actor, Secret), Error> {
        let secret = Secret::generate(SESSION_PREFIX).map_err(Error::internal)?;
        let now = self.clock.now();
        let session = NewSession {
            id: new_id(now),
            user_id: user.id,
            hash: secret.hash(),
            address: address.map(|address| address.to_string()),
            provider: match &proof {
                Proof::Password(_) => None,
                Proof::Provider(issuer) => Some(issuer.clone()),
            },
            at: now,
        };
        let factor = match &proof {
            Proof::Password(factor) => *factor,
            Proof::Provider(_) => None,
        };
        let actor = Actor {
            principal: Principal::User {
                id: user.id,
                name: user.username.clone(),
                session: session.id,
            },
            role: user.role,
            scopes: self.scopes(user.role, factor.is_some() || session.provider.is_some()),
            address,
        };
        let by = match &proof {
            Proof::Password(None) => "password",
            Proof::Password(Some(SecondFactor::Step(_))) => "password and code",
            Proof::Password(Some(SecondFactor::Recovery(_))) => "password and recovery code",
            Proof::Provider(_) => "provider",
        };
        let entry = self
            .entry(&actor, "session.begin", format!("user:{}", user.username))
            .after(serde_json::json!({"by": by}));
        let begun = self
            .store
            .insert_session(&session, &user.password_hash, factor, &entry);
        match begun.await? {
            Begun::Done => {}
            Begun::Used => return Err(Error::TotpInvalid),
            Begun::Changed => return Err(Error::Unauthenticated),
        }
        tracing::info!(user = user.username, session = %session.id, by, "signed in");
        Ok((actor, secret))
    }

    /// What a person may do: nothing but enrol, while they lack a second factor that their role must have.
    fn scopes(&self, role: Role, strong: bool) -> Vec<setpoint_model::Scope> {
        if self.people.requires_totp(role) && !strong {
            Vec::new()
        } else {
            policy::scopes(role)
        }
    }

    pub(super) fn sign_in_refused(&self, username: &str, address: Option<IpAddr>, why: &str) {
        let shown: String = username.chars().filter(|c| !c.is_control()).take(64).collect();
        tracing::info!(user = shown, ?address, why, "a sign-in was refused");
        self.audit.refused(NewEntry {
            at: self.clock.now(),
            actor: format!("user:{shown}"),
            user_id: None,
            action: "session.begin",
            object: format!("user:{shown}"),
            address: address.map(|address| address.to_string()),
            refused: true,
            before: None,
            after: Some(serde_json::json!({"reason": why})),
        });
    }

    /// Who holds this session cookie.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for one that is unknown, ended or out of date.
    pub async fn authenticate_session(&self, presented: &[u8]) -> Result<Actor, Error> {
        let session = self.session_of(presented).await?;
        Ok(Actor {
            principal: Principal::User {
                id: session.user_id,
                name: session.username,
                session: session.id,
            },
            role: session.role,
            scopes: self.scopes(session.role, session.totp || session.provider.is_some()),
            address: None,
        })
    }

    async fn session_of(&self, presented: &[u8]) -> Result<Session, Error> {
        if !presented.starts_with(SESSION_PREFIX.as_bytes()) {
            return Err(Error::Unauthenticated);
        }
        let now = self.clock.now();
        let (idle_since, begun_since) = self.people.horizons(now);
        self.store
            .session(&SecretHash::of(presented), idle_since, begun_since, now)
            .await?
            .ok_or(Error::Unauthenticated)
    }

    /// Ends the actor's session, or all of that person.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for who has no session.
    pub async fn sign_out(&self, actor: &Actor, everywhere: bool) -> Result<(), Error> {
        let Principal::User { id, name, session } = &actor.principal else {
            return Err(Error::Unauthenticated);
        };
        let action = if everywhere {
            "session.end_all"
        } else {
            "session.end"
        };
        let entry = self.entry(actor, action, format!("user:{name}"));
        let ended = self.store.end_sessions(*session, everywhere, &entry).await?;
        self.session_ended(*id, (!everywhere).then_some(*session)).await;
        tracing::info!(user = name, sessions = ended, "signed out");
        Ok(())
    }
}
