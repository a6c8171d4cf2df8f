//! API tokens: who is asking, and the tokens' own life.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use setpoint_model::{
    Clock, Role, Scope,
    credential::{API_TOKEN_PREFIX, Secret, SecretHash},
};
use setpoint_store::{Store, tokens::ApiToken};
use tokio::time::Instant;
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    Actor, App, Error, Principal, audit,
    policy::{Action, Reach},
};

/// The most tokens remembered; beyond it the oldest knowledge is dropped.
const MAX_CACHED: usize = 1_024;
/// How long a token is believed without a look, so that one deleted by another process also ends.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// The longest name, in characters.
const MAX_NAME: usize = 100;

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// From when on it no longer holds; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Tokens seen lately, so that a busy client costs no query per request, and when each was last used.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    tokens: HashMap<[u8; 32], (ApiToken, Instant)>,
    used: HashMap<Uuid, DateTime<Utc>>,
    /// Counts deletions: a look that began before one must not be remembered after it.
    deletions: u64,
}

impl Tokens {
    /// How many tokens were deleted so far: a sign-in holds for sure while this hasn't moved since before it.
    pub fn deletions(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).deletions
    }

    fn get(&self, hash: &SecretHash) -> (Option<ApiToken>, u64) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let token = seen
            .tokens
            .get(hash.as_bytes())
            .filter(|(_, at)| at.elapsed() < CACHED_FOR);
        (token.map(|(token, _)| token.clone()), seen.deletions)
    }

    fn remember(&self, hash: &SecretHash, token: &ApiToken, deletions: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.deletions != deletions {
            return;
        }
        if seen.tokens.len() >= MAX_CACHED {
            seen.tokens.retain(|_, (_, at)| at.elapsed() < CACHED_FOR);
        }
        if seen.tokens.len() < MAX_CACHED {
            seen.tokens
                .insert(*hash.as_bytes(), (token.clone(), Instant::now()));
        }
    }

    /// Ends what is remembered of a token.
    pub fn forget(&self, id: Uuid) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.deletions += 1;
        seen.tokens.retain(|_, (token, _)| token.id != id);
        seen.used.remove(&id);
    }

    /// Ends what is remembered of all tokens.
    pub(super) fn forget_all(&self) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.deletions += 1;
        seen.tokens.clear();
    }

    fn note_use(&self, id: Uuid, at: DateTime<Utc>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.used.len() < MAX_CACHED || seen.used.contains_key(&id) {
            seen.used.insert(id, at);
        }
    }

    fn take_used(&self) -> Vec<(Uuid, DateTime<Utc>)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .used
            .drain()
            .collect()
    }
}

impl App {
    /// Who holds this API token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a token that is unknown, deleted or expired.
    pub async fn authenticate_token(&self, presented: &[u8]) -> Result<Actor, Error> {
        if !presented.starts_with(API_TOKEN_PREFIX.as_bytes()) {
            return Err(Error::Unauthenticated);
        }
        let hash = SecretHash::of(presented);
        let (cached, deletions) = self.tokens.get(&hash);
        let token = match cached {
            Some(token) => token,
            None => {
                let token = self
                    .store
                    .token_by_hash(&hash)
                    .await?
                    .ok_or(Error::Unauthenticated)?;
                self.tokens.remember(&hash, &token, deletions);
                token
            }
        };
        let now = self.clock.now();
        if token.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::Unauthenticated);
        }
        self.tokens.note_use(token.id, now);
        let principal = Principal::Token {
            id: token.id,
            name: token.name,
            user: token.created_by,
        };
        Ok(Actor {
            principal,
            // A token made on the server itself has no maker to be measured by.
            role: token.maker_role.unwrap_or(Role::Admin),
            scopes: token.scopes,
            address: None,
        })
    }

    /// Makes a token and tells its secret, this once.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `tokens:write` or for a scope that the actor lacks; [`Error::Invalid`] for an empty
    /// or long name, no scopes, an end in the past, or one after that of the token it is made with.
    pub async fn create_token(&self, actor: &Actor, new: NewToken) -> Result<(ApiToken, Secret), Error> {
        self.authorize(actor, Action::ManageTokens)?;
        create_token(&self.store, &*self.clock, actor, new).await
    }

    /// Up to `limit` tokens, newest first, those older than `before` if it is given: one's own, or everybody's for an
    /// administrator.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `tokens:write`.
    pub async fn list_tokens(
        &self,
        actor: &Actor,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ApiToken>, Error> {
        let maker = match (self.authorize(actor, Action::ManageTokens)?, actor.user()) {
            (Reach::All, _) => None,
            (_, Some(user)) => Some(user),
            (_, None) => return Ok(Vec::new()),
        };
        Ok(self.store.tokens(maker, before, limit).await?)
    }

    /// One token.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `tokens:write`, [`Error::NotFound`].
    pub async fn token(&self, actor: &Actor, id: Uuid) -> Result<ApiToken, Error> {
        let reach = self.authorize(actor, Action::ManageTokens)?;
        let token = self.store.token(id).await?;
        let theirs = |token: &ApiToken| {
            reach == Reach::All || (token.created_by.is_some() && token.created_by == actor.user())
        };
        token.filter(theirs).ok_or(Error::NotFound { what: "token" })
    }

    /// Deletes a token: it ends at once, and with it the MQTT sessions that signed in with it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `tokens:write`, [`Error::NotFound`].
    pub async fn delete_token(&self, actor: &Actor, id: Uuid) -> Result<(), Error> {
        let token = self.token(actor, id).await?;
        let entry = self.entry(actor, "token.delete", format!("token:{}", token.name));
        let there = self.store.delete_token(id, &entry.before(shown(&token))).await?;
        self.token_ended(id).await;
        if !there {
            return Err(Error::NotFound { what: "token" });
        }
        tracing::info!(token = %id, by = actor.label(), "API token deleted");
        Ok(())
    }

    /// Writes down when tokens were last used; called about once a minute and at the end.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; what was noted is then lost, which costs a minute's precision.
    pub async fn record_token_use(&self) -> Result<(), Error> {
        let used = self.tokens.take_used();
        if used.is_empty() {
            Ok(())
        } else {
            Ok(self.store.touch_tokens(&used).await?)
        }
    }
}

/// As [`App::create_token`], for commands on the server's own terminal.
///
/// # Errors
/// As there.
pub async fn create_token(
    store: &Store,
    clock: &dyn Clock,
    actor: &Actor,
    new: NewToken,
) -> Result<(ApiToken, Secret), Error> {
    for scope in &new.scopes {
        if !actor.may_grant(*scope) {
            return Err(Error::Forbidden { scope: *scope });
        }
    }
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::invalid("name", format!("1 to {MAX_NAME} characters")));
    }
    if new.scopes.is_empty() {
        return Err(Error::invalid("scopes", "at least one"));
    }
    let now = clock.now();
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(Error::invalid("expires_at", "must be in the future"));
    }
    let expires_at = match (new.expires_at, end_of(store, actor).await?) {
        (Some(end), Some(latest)) if end > latest => {
            let latest = latest.to_rfc3339_opts(SecondsFormat::Secs, true);
            let message = format!("no later than that of the token it is made with: {latest}");
            return Err(Error::invalid("expires_at", message));
        }
        (end, latest) => end.or(latest),
    };
    let mut scopes = new.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let created_by = actor.user();
    let secret = Secret::generate(API_TOKEN_PREFIX).map_err(Error::internal)?;
    let token = ApiToken {
        id: new_id(now),
        name: name.to_owned(),
        scopes,
        created_by,
        maker_role: created_by.map(|_| actor.role),
        created_at: now,
        expires_at,
        last_used_at: None,
    };
    let entry =
        audit::entry(actor, "token.create", format!("token:{}", token.name), now).after(shown(&token));
    store.insert_token(&token, &secret.hash(), &entry).await?;
    tracing::info!(token = %token.id, name = token.name, by = actor.label(), "API token made");
    Ok((token, secret))
}

/// When the token that the actor holds ends: what it makes ends with it.
async fn end_of(store: &Store, actor: &Actor) -> Result<Option<DateTime<Utc>>, Error> {
    match actor.principal {
        Principal::Token { id, .. } => Ok(store.token(id).await?.and_then(|token| token.expires_at)),
        Principal::User { .. } | Principal::Device(_) | Principal::System(_) => Ok(None),
    }
}

/// What the audit log keeps of a token.
fn shown(token: &ApiToken) -> serde_json::Value {
    serde_json::json!({
        "id": token.id, "name": token.name, "scopes": token.scopes, "expires_at": token.expires_at,
    })
}

/// A version 7 id of this moment: ids sort by age.
pub(super) fn new_id(now: DateTime<Utc>) -> Uuid {
    let since = now
        .signed_duration_since(DateTime::UNIX_EPOCH)
        .max(TimeDelta::zero());
    let seconds = u64::try_from(since.num_seconds()).unwrap_or(0);
    let nanoseconds = u32::try_from(since.subsec_nanos()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u128) -> ApiToken {
        ApiToken {
            id: Uuid::from_u128(id),
            name: "t".into(),
            scopes: vec![Scope::Mqtt],
            created_by: None,
            maker_role: None,
            created_at: DateTime::UNIX_EPOCH,
            expires_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn a_deleted_token_is_not_remembered_by_a_look_that_began_before() {
        let tokens = Tokens::default();
        let hash = SecretHash::of(b"a");
        let (none, before) = tokens.get(&hash);
        assert!(none.is_none());
        tokens.forget(Uuid::from_u128(1));
        tokens.remember(&hash, &token(1), before);
        assert!(tokens.get(&hash).0.is_none());

        let (_, now) = tokens.get(&hash);
        tokens.remember(&hash, &token(1), now);
        assert_eq!(tokens.get(&hash).0, Some(token(1)));
        tokens.forget(Uuid::from_u128(1));
        assert!(tokens.get(&hash).0.is_none());
    }

    #[test]
    fn the_memory_of_tokens_is_bounded() {
        let tokens = Tokens::default();
        for n in 0..2 * MAX_CACHED {
            let id = u128::try_from(n).unwrap();
            tokens.remember(&SecretHash::of(&n.to_le_bytes()), &token(id), 0);
            tokens.note_use(Uuid::from_u128(id), DateTime::UNIX_EPOCH);
        }
        assert_eq!(tokens.0.lock().unwrap().tokens.len(), MAX_CACHED);
        assert_eq!(tokens.take_used().len(), MAX_CACHED);
    }

    #[test]
    fn ids_sort_by_age() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        assert!(new_id(now) < new_id(now + TimeDelta::milliseconds(1)));
    }
}
