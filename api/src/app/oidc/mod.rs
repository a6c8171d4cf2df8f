//! Signing in with an OpenID Connect provider: authorization code flow with PKCE.
//!
//! What must be remembered while a person is away at the provider is in their own cookie, sealed with the server's key:
//! any server with that key can finish what another began, and nothing piles up for those who never come back.

mod claims;
mod provider;

use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use setpoint_model::credential::{Secret, SecretHash};
use setpoint_store::users::User;
use url::Url;

use self::{
    claims::Mapped,
    provider::{Claims, Provider},
};
use super::{
    Actor, App, Error, audit, passwords,
    sessions::Proof,
    tokens::new_id,
    users::{self, UserPatch, patch_user},
};
use crate::config;

/// Seconds that a person may stay away at the provider.
pub const AWAY: i64 = 600;
/// The longest way back into a page, in bytes.
const MAX_RETURN: usize = 1_024;
/// What the sealed cookie is for.
const PURPOSE: &str = "oidc";
/// How the audit log names what a provider's claims change.
const ACTOR: &str = "oidc";

/// Sign-in with the configured provider, or without any.
pub struct Oidc(Option<Provider>);

/// What is remembered while a person is at the provider.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    return_to: String,
    /// Seconds since 1970 until which it holds.
    until: i64,
}

/// A person on their way to the provider.
pub struct Departure {
    /// Where they go.
    pub url: String,
    /// What their cookie holds meanwhile.
    pub cookie: String,
}

/// What a person comes back with from the provider.
#[derive(Default)]
pub struct Return {
    /// Their cookie.
    pub cookie: Option<String>,
    /// What shows that this is the answer to their own question.
    pub state: Option<String>,
    /// What the provider gives for them.
    pub code: Option<String>,
    /// Why it gives nothing.
    pub error: Option<String>,
    /// Who the provider says it is (RFC 9207).
    pub issuer: Option<String>,
}

impl Oidc {
    /// Of this configuration.
    ///
    /// # Errors
    /// When the system has no certificate authorities to know the provider by.
    pub fn new(config: &config::Oidc) -> std::io::Result<Self> {
        Provider::new(config).map(Self)
    }

    /// What the sign-in page calls the provider; `None` without one.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|provider| &*provider.config.name)
    }

    fn provider(&self) -> Result<&Provider, Error> {
        self.0.as_ref().ok_or_else(|| Error::Conflict {
            code: "oidc_off",
            message: "no provider is configured here".to_owned(),
        })
    }
}

impl App {
    /// Sends a person to the provider, who is to send them back to `redirect`; from there they go on to `return_to`, a path
    /// of this server.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `oidc_off`; [`Error::Invalid`] for `return_to`; [`Error::ProviderUnavailable`].
    pub async fn depart(&self, redirect: &str, return_to: Option<&str>) -> Result<Departure, Error> {
        let provider = self.oidc.provider()?;
        let return_to = local(return_to.unwrap_or("/"))
            .ok_or_else(|| Error::invalid("return_to", "a path of this server, such as /activate"))?;
        let (url, pending) = provider.authorize(redirect, return_to).await?;
        let pending = Pending {
            until: self.clock.now().timestamp().saturating_add(AWAY),
            ..pending
        };
        let clear = serde_json::to_vec(&pending).map_err(Error::internal)?;
        let sealed = self.people.key.seal(PURPOSE, &clear)?;
        Ok(Departure {
            url: url.into(),
            cookie: BASE64_URL_SAFE_NO_PAD.encode(sealed),
        })
    }

    /// Signs in a person who comes back from the provider: what their cookie holds from now on, and where they go on to.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `oidc_off`; [`Error::SignInRefused`], which also goes to the audit log;
    /// [`Error::ProviderUnavailable`].
    pub async fn arrive(
        &self,
        redirect: &str,
        back: Return,
        address: Option<IpAddr>,
    ) -> Result<(Secret, String), Error> {
        let arrived = self.admit(redirect, back, address).await;
        if let Err(Error::SignInRefused { code, .. }) = &arrived {
            self.sign_in_refused(ACTOR, address, code);
        }
        arrived
    }

    async fn admit(
        &self,
        redirect: &str,
        back: Return,
        address: Option<IpAddr>,
    ) -> Result<(Secret, String), Error> {
        let provider = self.oidc.provider()?;
        let pending = self.pending(&back)?;
        if back
            .issuer
            .as_ref()
            .is_some_and(|issuer| *issuer != provider.issuer)
        {
            return Err(refused("oidc_state", "this is another provider's answer"));
        }
        let Some(code) = back.code.filter(|_| back.error.is_none()) else {
            return Err(refused("oidc_denied", "the provider did not sign you in"));
        };
        let return_to = pending.return_to.clone();
        let now = self.clock.now();
        let claims = provider.redeem(redirect, pending, code, now).await?;
        let user = self.person(provider, &claims, address).await?;
        if user.disabled_at.is_some() {
            return Err(refused("account_disabled", "this account is disabled"));
        }
        let proof = Proof::Provider(provider.issuer.clone());
        let (_, secret) = self.begin_session(&user, proof, address).await?;
        Ok((secret, return_to))
    }

    /// What the person's cookie remembers, if this is the answer to their own question and not too late.
    fn pending(&self, back: &Return) -> Result<Pending, Error> {
        let lost = || {
            let message = "this sign-in was not begun in this browser, or took too long: begin anew";
            refused("oidc_state", message)
        };
        let sealed = back
            .cookie
            .as_ref()
            .map(|cookie| BASE64_URL_SAFE_NO_PAD.decode(cookie));
        let Some(Ok(sealed)) = sealed else {
            return Err(lost());
        };
        let clear = self.people.key.open(PURPOSE, &sealed).ok_or_else(lost)?;
        let pending: Pending = serde_json::from_slice(&clear).map_err(|_| lost())?;
        let state = back.state.as_deref().unwrap_or_default();
        // Hashes are compared in constant time.
        let same = SecretHash::of(state.as_bytes()).matches(&SecretHash::of(pending.state.as_bytes()));
        if same && self.clock.now().timestamp() < pending.until {
            Ok(pending)
        } else {
            Err(lost())
        }
    }

    /// The person of these claims, with the role that they give; somebody new is added.
    async fn person(
        &self,
        provider: &Provider,
        claims: &Claims,
        address: Option<IpAddr>,
    ) -> Result<User, Error> {
        let mapped = claims::role(&provider.config, &claims.all);
        let nobody = || refused("oidc_no_role", "your account at the provider has no role here");
        let actor = Actor::system(ACTOR).from(address);
        let known = self
            .store
            .user_by_identity(&provider.issuer, &claims.subject)
            .await?;
        match (known, mapped) {
            (_, Mapped::Nobody) => Err(nobody()),
            (Some(user), Mapped::Role(role)) if user.role != role => {
                let patch = UserPatch {
                    role: Some(role),
                    ..UserPatch::default()
                };
                let user = patch_user(&self.store, &*self.clock, &actor, user, patch).await?;
                let tokens = self.store.token_ids_of(user.id).await?;
                self.person_changed(user.id, &tokens).await;
                Ok(user)
            }
            (Some(user), _) => Ok(user),
            (None, Mapped::Role(role) | Mapped::AtFirst(role)) => {
                self.newcomer(provider, claims, role, &actor).await
            }
        }
    }

    /// Adds a person whom the provider vouches for. Somebody here of the same name is somebody else, for all that is known.
    async fn newcomer(
        &self,
        provider: &Provider,
        claims: &Claims,
        role: setpoint_model::Role,
        actor: &Actor,
    ) -> Result<User, Error> {
        if !provider.config.create {
            return Err(refused("oidc_unknown", "an administrator has to add you first"));
        }
        let username = claims::username(&provider.config, &claims.all).ok_or_else(|| {
            refused(
                "oidc_no_name",
                "the provider tells no name that could be used here",
            )
        })?;
        let now = self.clock.now();
        let user = User {
            id: new_id(now),
            username,
            email: claims::email(&claims.all),
            role,
            password_hash: passwords::NO_PASSWORD.to_owned(),
            created_at: now,
            updated_at: now,
            disabled_at: None,
            totp: false,
        };
        let entry = audit::entry(actor, "user.create", users::object(&user), now).after(users::shown(&user));
        let added = self
            .store
            .insert_identity(&user, &provider.issuer, &claims.subject, &entry);
        if !added.await? {
            let message = format!(
                "there is somebody called {} here already, who signs in otherwise",
                user.username
            );
            return Err(refused("oidc_name_taken", message));
        }
        tracing::info!(user = user.username, role = %user.role, "person added by the provider");
        Ok(user)
    }
}

fn refused(code: &'static str, message: impl Into<String>) -> Error {
    Error::SignInRefused {
        code,
        message: message.into(),
    }
}

/// A way back that stays on this server, as a browser would understand it; `None` for any other.
fn local(return_to: &str) -> Option<String> {
    if return_to.len() > MAX_RETURN || !return_to.starts_with('/') {
        return None;
    }
    let here = Url::parse("http://here.invalid/").ok()?;
    let there = here.join(return_to).ok()?;
    if there.origin() != here.origin() {
        return None;
    }
    let path = there.as_str().strip_prefix("http://here.invalid")?;
    // What is left of a path such as `/.//evil.example` would lead away again.
    (!path.starts_with("//")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_way_back_stays_here() {
        for (given, expected) in [
            ("/", Some("/")),
            ("/activate?user_code=A-B#x", Some("/activate?user_code=A-B#x")),
            ("/a/../b", Some("/b")),
            ("", None),
            ("activate", None),
            ("https://evil.example/", None),
            ("//evil.example/", None),
            ("/\\evil.example", None),
            ("/\t/evil.example", None),
            ("/.//evil.example", None),
            ("/x/..//evil.example", None),
            ("javascript:alert(1)", None),
            ("/a\r\nset-cookie: x=y", Some("/aset-cookie:%20x=y")),
        ] {
            assert_eq!(local(given).as_deref(), expected, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_given_the_way_back_stays_here(given in "[/\\\\.a:@?#\\t %-]{0,12}") {
            if let Some(path) = local(&given) {
                let base = Url::parse("https://things.example/api/v1/session/oidc/callback").unwrap();
                let there = base.join(&path).unwrap();
                prop_assert_eq!(there.origin(), base.origin(), "{}", path);
            }
        }
    }
}
