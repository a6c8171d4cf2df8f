//! MQTT sessions: who is connected to this server, and ending one.

use std::collections::HashSet;

use serde_json::{Value, json};
use setpoint_broker::{Began, SessionInfo, SessionStatus, Transport};
use setpoint_model::{Identity, Serial, presence::DisconnectReason};
use uuid::Uuid;

use super::{
    Actor, App, Error,
    devices::object,
    policy::{Action, Reach},
};

/// Nothing more is said, also of a session that isn't the actor's to see.
const NOT_FOUND: Error = Error::NotFound { what: "session" };

/// Which sessions; a field that is `None` asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Of exactly this device.
    pub serial: Option<String>,
    /// That came in this way.
    pub transport: Option<Transport>,
    /// With this in the serial, the token's name, the client id or the address, in any case.
    pub search: Option<String>,
}

impl SessionFilter {
    fn accepts(&self, info: &SessionInfo) -> bool {
        let serial = self
            .serial
            .as_deref()
            .is_none_or(|serial| info.identity.serial().is_some_and(|own| own.as_str() == serial));
        let transport = self
            .transport
            .is_none_or(|transport| info.peer.transport == transport);
        serial && transport && self.search.as_deref().is_none_or(|part| mentions(info, part))
    }
}

fn mentions(info: &SessionInfo, part: &str) -> bool {
    let part = part.to_lowercase();
    let who = match &info.identity {
        Identity::Device(serial) => serial.as_str(),
        Identity::Operator(operator) => &operator.name,
    };
    let address = info.peer.address.to_string();
    [who, &info.client_id, &address]
        .iter()
        .any(|text| text.to_lowercase().contains(&part))
}

impl App {
    /// The sessions that are live on this server, newest first: at most `limit` of those older than `before`. An owner
    /// sees those of their own devices.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`.
    pub async fn mqtt_sessions(
        &self,
        actor: &Actor,
        filter: &SessionFilter,
        before: Option<Began>,
        limit: usize,
    ) -> Result<Vec<SessionStatus>, Error> {
        let own = match self.authorize(actor, Action::ReadMqttSessions)? {
            Reach::All => None,
            Reach::Own | Reach::None => Some(self.own_serials(actor).await?),
        };
        let visible = |info: &SessionInfo| {
            own.as_ref().is_none_or(|own| {
                info.identity
                    .serial()
                    .is_some_and(|serial| own.contains(serial.as_str()))
            })
        };
        let wanted = |info: &SessionInfo| visible(info) && filter.accepts(info);
        Ok(self.broker.sessions_where(wanted, before, limit))
    }

    /// A live session.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`, [`Error::NotFound`].
    pub async fn mqtt_session(&self, actor: &Actor, id: Uuid) -> Result<SessionStatus, Error> {
        self.reachable_session(actor, Action::ReadMqttSessions, id).await
    }

    /// Ends a session: an MQTT 5 client is told why (0x98, administrative action). What is stored for it stays, and its
    /// client may come back; a device that must not has its credential revoked.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`, [`Error::NotFound`].
    pub async fn end_mqtt_session(&self, actor: &Actor, id: Uuid) -> Result<(), Error> {
        let session = self.reachable_session(actor, Action::EndMqttSession, id).await?;
        let info = &session.info;
        let entry = self.entry(actor, Action::EndMqttSession.name(), whose(&info.identity));
        self.store.insert_audit(&[entry.before(shown(info))]).await?;
        // One that is gone by itself meanwhile is as ended as it was to be.
        self.broker.end_session(id, DisconnectReason::Kicked).await;
        tracing::info!(session = %id, client_id = info.client_id, by = actor.label(), "session ended");
        Ok(())
    }

    async fn reachable_session(
        &self,
        actor: &Actor,
        action: Action,
        id: Uuid,
    ) -> Result<SessionStatus, Error> {
        let reach = self.authorize(actor, action)?;
        let session = self.broker.session(id).ok_or(NOT_FOUND)?;
        if reach == Reach::Own && !self.is_own(actor, session.info.identity.serial()).await? {
            return Err(NOT_FOUND);
        }
        Ok(session)
    }

    async fn is_own(&self, actor: &Actor, serial: Option<&Serial>) -> Result<bool, Error> {
        match (actor.user(), serial) {
            (Some(user), Some(serial)) => Ok(self.store.owns(user, serial).await?),
            _ => Ok(false),
        }
    }

    async fn own_serials(&self, actor: &Actor) -> Result<HashSet<String>, Error> {
        match actor.user() {
            Some(user) => {
                let own = self.store.owned_devices(user).await?.into_iter();
                Ok(own.map(|(serial, _)| serial.to_string()).collect())
            }
            None => Ok(HashSet::new()),
        }
    }
}

/// How the audit log names whose session it is.
fn whose(identity: &Identity) -> String {
    match identity {
        Identity::Device(serial) => object(serial),
        Identity::Operator(operator) => format!("token:{}", operator.name),
    }
}

/// What the audit log keeps of a session.
fn shown(info: &SessionInfo) -> Value {
    json!({
        "session": info.id, "client_id": info.client_id, "address": info.peer.address,
        "transport": info.peer.transport, "since": info.since,
    })
}
