//! Signing in, staying signed in, and signing out.

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::credential::{Secret, SecretHash};
use setpoint_store::{
    audit::NewEntry,
    sessions::{NewSession, Session},
};

use super::{
    Actor, App, Error, Principal, passwords, policy,
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
}

/// How many failures more are borne at one account from everywhere, or from one address at everybody: an attacker
/// must not be able to lock somebody out cheaply, nor a household behind one address itself.
const WIDER: u32 = 10;

impl SignIn {
    /// With these limits.
    pub fn new(config: config::SignIn) -> Self {
        let failures = Throttle::new(config.failure_window);
        Self { config, failures }
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

impl App {
    /// Signs a person in: what their cookie holds from now on, and who they are.
    ///
    /// A wrong password and an unknown name get the same answer after the same time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]; [`Error::TooManyAttempts`] for a name or address with too many failures.
    pub async fn sign_in(
        &self,
        username: &str,
        password: String,
        address: Option<IpAddr>,
    ) -> Result<(Actor, Secret), Error> {
        let username = username.trim().to_lowercase();
        let guessers = self.people.guessers(&username, address);
        let waits = guessers
            .iter()
            .filter_map(|(guesser, most)| self.people.failures.wait(guesser, *most));
        if let Some(after) = waits.max() {
            self.sign_in_refused(&username, address, "too many attempts");
            return Err(Error::TooManyAttempts { after });
        }
        for (guesser, _) in &guessers {
            self.people.failures.fail(guesser.clone());
        }
        let user = if username.contains('\0') {
            None
        } else {
            self.store.user_by_name(&username).await?
        };
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let right = passwords::verify(password, hash).await?;
        let Some(user) = user.filter(|_| right) else {
            self.sign_in_refused(&username, address, "wrong user name or password");
            return Err(Error::Unauthenticated);
        };
        let secret = Secret::generate(SESSION_PREFIX).map_err(Error::internal)?;
        let now = self.clock.now();
        let session = NewSession {
            id: new_id(now),
            user_id: user.id,
            hash: secret.hash(),
            address: address.map(|address| address.to_string()),
            at: now,
        };
        let actor = Actor {
            principal: Principal::User {
                id: user.id,
                name: user.username.clone(),
                session: session.id,
            },
            role: user.role,
            scopes: policy::scopes(user.role),
            address,
        };
        let entry = self.entry(&actor, "session.begin", format!("user:{username}"));
        if !self
            .store
            .insert_session(&session, &user.password_hash, &entry)
            .await?
        {
            // The password was changed, or the person removed, meanwhile.
            return Err(Error::Unauthenticated);
        }
        for (guesser, _) in &guessers {
            self.people.failures.succeed(guesser);
        }
        tracing::info!(user = user.username, session = %session.id, "signed in");
        Ok((actor, secret))
    }

    fn sign_in_refused(&self, username: &str, address: Option<IpAddr>, why: &str) {
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
            scopes: policy::scopes(session.role),
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

    /// The name of the person behind an actor, if there is one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn username(&self, actor: &Actor) -> Result<Option<String>, Error> {
        let Some(id) = actor.user() else { return Ok(None) };
        Ok(self.store.user(id).await?.map(|user| user.username))
    }

    /// Ends the actor's session, or all of that person.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for who has no session.
    pub async fn sign_out(&self, actor: &Actor, everywhere: bool) -> Result<(), Error> {
        let Principal::User { name, session, .. } = &actor.principal else {
            return Err(Error::Unauthenticated);
        };
        let action = if everywhere {
            "session.end_all"
        } else {
            "session.end"
        };
        let entry = self.entry(actor, action, format!("user:{name}"));
        let ended = self.store.end_sessions(*session, everywhere, &entry).await?;
        tracing::info!(user = name, sessions = ended, "signed out");
        Ok(())
    }
}
