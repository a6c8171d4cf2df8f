//! Rights while a stream is open: an MQTT session, server-sent events.
//!
//! A request is judged once, when it comes. Whoever listens for longer takes [`App::watch_rights`] and from then on asks
//! [`RightsWatch::sees`] of each message, and ends the stream when [`RightsWatch::ended`] resolves. Both follow at
//! once what is changed here: a token deleted or expired, a session signed out, a role, a person, an owner. What another
//! server changed comes in through `tasks::peers`, and a look at everything, every half minute and whenever that was
//! cut off, finds whatever was missed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use chrono::{DateTime, Utc};
use setpoint_model::{Role, Serial, access::View, presence::DisconnectReason};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Actor, App, Error, Principal,
    policy::{Action, Reach},
};

/// Everybody whose rights are watched. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Rights(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<Watched>,
    /// Rung when something is watched that has an end.
    bell: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    held: Vec<Arc<Held>>,
    /// How many there were when those that are over were last cleared out.
    cleared: usize,
}

/// The rights of one stream.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its own.
    id: Uuid,
    user: Option<Uuid>,
    role: Role,
    token: Option<Uuid>,
    session: Option<Uuid>,
    expires_at: Option<DateTime<Utc>>,
    view: Weak<View>,
    ended: CancellationToken,
    /// One look at the owner's devices at a time, so that the newest is the last.
    looking: tokio::sync::Mutex<()>,
}

/// What a stream asks of its rights. They are watched until it is dropped, with every copy of its view.
#[derive(Debug, Clone)]
pub struct RightsWatch {
    held: Arc<Held>,
    view: Arc<View>,
}

impl RightsWatch {
    /// Resolves once the rights are gone: the stream must end.
    pub async fn ended(&self) {
        self.held.ended.cancelled().await;
    }

    /// Whether a message of this device may go out now.
    pub fn sees(&self, serial: &Serial) -> bool {
        self.view.sees(serial)
    }

    /// The devices that may be seen, kept up to date.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }
}

/// Those whose rights are over.
pub(crate) type Over = Vec<Arc<Held>>;

impl Rights {
    fn watch(&self, held: Arc<Held>) {
        let mut watched = self.lock();
        // Each is looked at twice on the average, however many come and go.
        if watched.held.len() >= 2 * watched.cleared.max(32) {
            watched.held.retain(|held| held.view.strong_count() > 0);
            watched.cleared = watched.held.len();
        }
        watched.held.push(held);
        drop(watched);
        self.0.bell.notify_one();
    }

    /// Ends the rights of those that `over` says so of, and yields them.
    fn end(&self, over: impl Fn(&Held) -> bool) -> Over {
        let mut ended = Vec::new();
        self.lock().held.retain(|held| {
            let ends = over(held);
            if ends {
                held.end();
                ended.push(Arc::clone(held));
            }
            !ends
        });
        ended
    }

    fn of(&self, which: impl Fn(&Held) -> bool) -> Vec<Arc<Held>> {
        let watched = self.lock();
        let held = watched.held.iter().filter(|held| held.view.strong_count() > 0);
        held.filter(|held| which(held)).cloned().collect()
    }

    /// When the next of them expires.
    pub(crate) fn next_end(&self) -> Option<DateTime<Utc>> {
        let watched = self.lock();
        watched.held.iter().filter_map(|held| held.expires_at).min()
    }

    /// Resolves when somebody more is watched.
    pub(crate) async fn more(&self) {
        self.0.bell.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn end(&self) {
        if let Some(view) = self.view.upgrade() {
            view.end();
        }
        self.ended.cancel();
    }
}

impl App {
    /// Watches the actor's right to read devices for as long as a stream is open: see the module's own words.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who may not do `action` at all; [`Error::Unauthenticated`] for whose token or session
    /// ended meanwhile; [`Error::Unavailable`].
    pub async fn watch_rights(&self, actor: &Actor, action: Action) -> Result<RightsWatch, Error> {
        let view = match self.authorize(actor, action)? {
            Reach::All => View::of_all(),
            Reach::Own | Reach::None => View::of_own(),
        };
        let view = Arc::new(view);
        let (token, session, expires_at) = match &actor.principal {
            Principal::Token { id, .. } => {
                let token = self.store.token(*id).await?.ok_or(Error::Unauthenticated)?;
                (Some(*id), None, token.expires_at)
            }
            Principal::User { session, .. } => {
                let begun = self.store.session_begun(*session).await?;
                let begun = begun.ok_or(Error::Unauthenticated)?;
                (None, Some(*session), self.people.end_of(begun))
            }
            Principal::Device(_) | Principal::System(_) => (None, None, None),
        };
        let held = Arc::new(Held {
            id: Uuid::new_v4(),
            user: actor.user(),
            role: actor.role,
            token,
            session,
            expires_at,
            view: Arc::downgrade(&view),
            ended: CancellationToken::new(),
            looking: tokio::sync::Mutex::default(),
        });
        // Before the look: a change meanwhile looks again.
        self.rights.watch(Arc::clone(&held));
        self.look_at(&held).await?;
        Ok(RightsWatch { held, view })
    }

    /// Brings the devices of a view up to date.
    async fn look_at(&self, held: &Held) -> Result<(), Error> {
        let Some(view) = held.view.upgrade().filter(|view| !view.is_of_all()) else {
            return Ok(());
        };
        let Some(user) = held.user else { return Ok(()) };
        let _alone = held.looking.lock().await;
        let devices = self.store.owned_devices(user).await?;
        view.replace(devices.into_iter().map(|(serial, _)| serial).collect());
        Ok(())
    }

    /// What is this person's changed: their open streams follow. A look that fails ends them: they may come back.
    pub(crate) async fn ownership_changed(&self, user: Uuid) {
        for held in self.rights.of(|held| held.user == Some(user)) {
            if self.look_at(&held).await.is_err() {
                let over = self.rights.end(|other| other.id == held.id);
                self.close(over).await;
            }
        }
    }

    /// An API token holds no more: what it opened ends.
    pub(crate) async fn token_ended(&self, token: Uuid) {
        self.tokens.forget(token);
        self.rights.end(|held| held.token == Some(token));
        self.broker
            .end_operator(token, DisconnectReason::CredentialRevoked)
            .await;
    }

    /// A person's sign-in session is over: what it opened ends. With `None`, all of theirs.
    pub(crate) async fn session_ended(&self, user: Uuid, session: Option<Uuid>) {
        let over = self.rights.end(|held| {
            held.user == Some(user)
                && held.session.is_some()
                && (session.is_none() || held.session == session)
        });
        self.close(over).await;
    }

    /// A person may do other things than before, or is gone: all they have open ends, and comes back with the rights
    /// that hold now. `tokens` are those they made.
    pub(crate) async fn person_changed(&self, user: Uuid, tokens: &[Uuid]) {
        let over = self.rights.end(|held| held.user == Some(user));
        self.close(over).await;
        for token in tokens {
            self.token_ended(*token).await;
        }
    }

    /// Ends the rights whose time is over; how many there were.
    pub(crate) async fn end_expired_rights(&self) -> usize {
        let now = self.clock.now();
        let over = self
            .rights
            .end(|held| held.expires_at.is_some_and(|end| end <= now));
        let count = over.len();
        self.close(over).await;
        count
    }

    /// Looks at the rights of every open stream anew, and ends those that don't hold any more: for what was missed.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; nothing has changed.
    pub(crate) async fn recheck_rights(&self) -> Result<(), Error> {
        self.end_expired_rights().await;
        let all = self.rights.of(|_| true);
        let tokens: Vec<Uuid> = all.iter().filter_map(|held| held.token).collect();
        let sessions: Vec<Uuid> = all.iter().filter_map(|held| held.session).collect();
        let now = self.clock.now();
        let (idle_since, begun_since) = self.people.horizons(now);
        let (tokens, sessions) = (
            self.store.roles_of_tokens(&tokens).await?,
            self.store
                .roles_of_sessions(&sessions, idle_since, begun_since)
                .await?,
        );
        let holds = |held: &Held| match (held.token, held.session) {
            (Some(token), _) => tokens
                .get(&token)
                .is_some_and(|role| role.is_none_or(|role| role == held.role)),
            (None, Some(session)) => sessions.get(&session) == Some(&held.role),
            (None, None) => true,
        };
        // One that came meanwhile was not asked for.
        let known: HashSet<Uuid> = all.iter().map(|held| held.id).collect();
        let over = self.rights.end(|held| known.contains(&held.id) && !holds(held));
        self.close(over).await;
        for held in self.rights.of(|held| held.user.is_some()) {
            self.look_at(&held).await?;
        }
        Ok(())
    }

    /// Ends the MQTT sessions of rights that are over; every other stream hears of it by itself.
    async fn close(&self, over: Over) {
        let tokens: HashSet<Uuid> = over.iter().filter_map(|held| held.token).collect();
        for token in tokens {
            self.tokens.forget(token);
            self.broker
                .end_operator(token, DisconnectReason::CredentialRevoked)
                .await;
        }
    }
}
