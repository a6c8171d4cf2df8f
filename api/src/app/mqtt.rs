//! What the broker's edge asks of the server: who a client is, and what to do with what it sends.

mod answers;
mod notes;
mod words;

use std::{net::IpAddr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::json;
use setpoint_broker::{
    Ack, Authenticated, Backend, Inbound, Login, Outcome, Peer, Refusal, SessionEvent, SessionInfo,
};
use setpoint_model::{
    Channel, Identity, Scope, Serial, Topic,
    access::Operator,
    event::SettingsStage,
    presence::{DisconnectReason, Presence},
    timeline::{Entry, Facts},
};

use super::{
    Actor, App, Error, Principal,
    policy::{Action, Reach},
    settings::Acknowledgement,
};
use words::{printable, protocol, transport};

/// Pauses between attempts while Postgres is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The user name with which the holder of an API token signs in.
const TOKEN_USERNAME: &str = "token";

impl App {
    /// The server as the broker's edge sees it.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(MqttBackend { app: self.clone() })
    }
}

struct MqttBackend {
    app: App,
}

impl Backend for MqttBackend {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Authenticated, Refusal>> {
        async move { self.sign_in(login).await.map_err(|error| refusal(&error)) }.boxed()
    }

    fn is_current(&self, authenticated: &Authenticated) -> bool {
        match &authenticated.identity {
            Identity::Device(serial) => self.app.credentials.is_current(serial, authenticated.epoch),
            Identity::Operator(operator) => {
                self.app.tokens.deletions() == authenticated.epoch && !operator.view.has_ended()
            }
        }
    }

    fn inbound(&self, message: Inbound, ack: Ack) -> BoxFuture<'_, ()> {
        self.dispatch(message, ack).boxed()
    }

    fn inbound_at_once(&self, message: Inbound, ack: Ack) -> Option<(Inbound, Ack)> {
        if message.topic.channel != Channel::Telemetry {
            return Some((message, ack));
        }
        let Inbound {
            topic, payload, at, ..
        } = &message;
        match self.app.ingest.take_at_once(&topic.serial, payload, *at, ack) {
            Some(ack) => Some((message, ack)),
            None => {
                self.seen(&message);
                None
            }
        }
    }

    fn delivered(&self, topic: &Topic, receipt: u64) {
        if topic.channel == Channel::Settings {
            // The publisher gives the version as the receipt.
            let Ok(version) = i64::try_from(receipt) else {
                return;
            };
            let at = self.app.clock.now();
            self.app.settings.marks.delivered(&topic.serial, version, at);
            let stage = SettingsStage::Delivered;
            self.app
                .events
                .settings(&topic.serial, version, stage, at, json!({}));
        }
    }

    fn event(&self, event: SessionEvent) {
        match event {
            SessionEvent::Started(session) => self.started(&session),
            SessionEvent::SettingsSubscription { .. } => {}
            SessionEvent::Ended {
                session,
                reason,
                others,
                at,
            } => self.ended(&session, reason, others, at),
            SessionEvent::Denied { session, what, at } => self.denied(&session, what, at),
            SessionEvent::Refused {
                serial,
                peer,
                refusal,
                at,
            } => {
                if let Some(serial) = serial {
                    self.login_refused(serial, &peer, refusal, at);
                }
            }
        }
    }
}

/// Who a client is.
impl MqttBackend {
    /// A device by certificate or token, or the holder of an API token; the certificate's name must be the
    /// device's if both are given.
    async fn sign_in(&self, login: Login) -> Result<Authenticated, Error> {
        let result = self.identify(&login).await;
        if let Err(Error::Stolen) = &result {
            let peer = &login.peer;
            let claimed = peer.certificate.as_deref().or(login.username.as_deref());
            if let Some(Ok(serial)) = claimed.map(str::parse::<Serial>) {
                let way = transport(peer.transport);
                self.app.stolen_seen(serial, peer.address.to_string(), way);
            }
        }
        result
    }

    /// Boxed is what most logins don't need: a fleet that comes back is known already, and one that comes back all at
    /// once should not move twenty kilobytes for each device.
    async fn identify(&self, login: &Login) -> Result<Authenticated, Error> {
        let password = login.password.as_deref();
        let address = login.peer.address.ip().to_canonical();
        match (
            login.username.as_deref(),
            login.peer.certificate.as_deref(),
            password,
        ) {
            (Some(TOKEN_USERNAME), _, Some(token)) => Box::pin(self.operator(token)).await,
            (Some(name), Some(certified), None) if name == certified => {
                Box::pin(self.certified_device(certified, address)).await
            }
            (None, Some(certified), None) => Box::pin(self.certified_device(certified, address)).await,
            (Some(name), None, Some(token)) => self.device(name, token).await,
            (Some(name), Some(certified), Some(token)) if name == certified => self.device(name, token).await,
            _ => Err(Error::Unauthenticated),
        }
    }

    async fn operator(&self, token: &[u8]) -> Result<Authenticated, Error> {
        // Before the look: a deletion meanwhile must show.
        let epoch = self.app.tokens.deletions();
        let actor = self.app.authenticate_token(token).await?;
        let rights = self.app.watch_rights(&actor, Action::ConnectMqtt).await?;
        // The scope `mqtt` brings these with it, as far as the role has them.
        let may = |action: Action| action.reach(actor.role) != Reach::None;
        let (sets, speaks) = (may(Action::WriteSettings), may(Action::SpeakOnMqtt));
        match actor.principal {
            Principal::Token { id, name, user } => Ok(Authenticated {
                identity: Identity::Operator(Arc::new(Operator {
                    token: id,
                    name,
                    user,
                    role: actor.role,
                    sets,
                    speaks,
                    view: Arc::clone(rights.view()),
                })),
                epoch,
            }),
            Principal::User { .. } | Principal::Device(_) | Principal::System(_) => {
                Err(Error::Unauthenticated)
            }
        }
    }

    async fn device(&self, name: &str, token: &[u8]) -> Result<Authenticated, Error> {
        let serial: Serial = name.parse().map_err(|_| Error::Unauthenticated)?;
        let epoch = self.app.sign_in_device(&serial, token).await?.epoch;
        Ok(Authenticated {
            identity: Identity::Device(serial),
            epoch,
        })
    }

    async fn certified_device(&self, name: &str, address: IpAddr) -> Result<Authenticated, Error> {
        let serial: Serial = name.parse().map_err(|_| Error::Unauthenticated)?;
        let epoch = self.app.sign_in_certified(&serial, address).await?.epoch;
        Ok(Authenticated {
            identity: Identity::Device(serial),
            epoch,
        })
    }
}

/// Only a database that is away is told apart: a client learns nothing else from a refusal.
fn refusal(error: &Error) -> Refusal {
    match error {
        Error::Unavailable(_) | Error::Contended(_) | Error::Stopping => Refusal::Unavailable,
        Error::TooManyAttempts { .. } => Refusal::TooManyAttempts,
        Error::Internal(cause) => {
            tracing::error!(error = &**cause as &dyn std::error::Error, "a login failed");
            Refusal::Unavailable
        }
        _ => Refusal::NotAuthorized,
    }
}

/// What a client sends.
impl MqttBackend {
    async fn dispatch(&self, message: Inbound, ack: Ack) {
        self.seen(&message);
        match message.topic.channel {
            Channel::Telemetry => {
                self.app
                    .ingest
                    .from_mqtt(&message.topic.serial, &message.payload, message.at, ack)
                    .await;
            }
            Channel::SettingsAck => {
                let Inbound {
                    payload, at, topic, ..
                } = message;
                let acknowledgement = Acknowledgement {
                    serial: topic.serial,
                    payload,
                    at,
                    done: ack,
                };
                self.app.settings.acknowledgements.submit(acknowledgement).await;
            }
            Channel::SettingsSet => {
                let result = self.set_settings(&message).await;
                self.answer(&message, &result);
                ack.complete(match result {
                    Ok(_) => Outcome::Accepted,
                    Err(error) => Outcome::Invalid(error.sentence()),
                });
            }
            Channel::CommandResult(id) => {
                self.note(&message, ack, |result| Facts::CommandResult { id, result })
                    .await;
            }
            Channel::FirmwareStatus => {
                self.note(&message, ack, |status| Facts::FirmwareStatus { status })
                    .await;
            }
            Channel::Settings
            | Channel::Presence
            | Channel::Commands
            | Channel::Firmware
            | Channel::Discovery => {
                // The topic rules let nobody publish here.
                ack.complete(Outcome::Invalid("not a topic for clients".to_owned()));
            }
        }
    }

    /// Notes that a device was heard of, if it spoke for itself.
    fn seen(&self, message: &Inbound) {
        let serial = &message.topic.serial;
        if message.session.identity.serial() == Some(serial) {
            self.app.presence.seen(serial, message.at);
        }
    }

    /// Applies a settings patch: the version now in force. While Postgres is away it waits, and with it the session.
    async fn set_settings(&self, message: &Inbound) -> Result<i64, Error> {
        let Identity::Operator(operator) = &message.session.identity else {
            // The topic rules let no device publish here.
            return Err(Error::Forbidden {
                scope: Scope::SettingsWrite,
            });
        };
        let principal = Principal::Token {
            id: operator.token,
            name: operator.name.clone(),
            user: operator.user,
        };
        let actor = Actor {
            principal,
            role: operator.role,
            // The scope `mqtt` brings this right with it, as far as the role has it.
            scopes: vec![Scope::SettingsWrite],
            address: Some(message.session.peer.address.ip().to_canonical()),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            match self
                .app
                .set_from_mqtt(&actor, &message.topic.serial, &message.payload)
                .await
            {
                Err(Error::Unavailable(_)) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                result => {
                    if let Err(Error::Internal(cause)) = &result {
                        tracing::error!(
                            error = &**cause as &dyn std::error::Error,
                            "settings were not set"
                        );
                    }
                    return result;
                }
            }
        }
    }
}

/// What happens to sessions.
impl MqttBackend {
    fn started(&self, session: &SessionInfo) {
        let Some(serial) = session.identity.serial() else {
            return;
        };
        let presence = Presence {
            online: true,
            since: session.since,
            session: session.id,
            reason: None,
        };
        self.app.events.presence(serial, &presence, session.since);
        self.app.presence.change(serial, presence, session.since);
        let facts = Facts::Connected {
            session: session.id,
            client_id: printable(&session.client_id),
            address: session.peer.address.to_string(),
            transport: transport(session.peer.transport),
            protocol: protocol(session.version),
        };
        self.record(serial.clone(), session.since, facts);
    }

    fn ended(&self, session: &SessionInfo, reason: DisconnectReason, others: bool, at: DateTime<Utc>) {
        let Some(serial) = session.identity.serial() else {
            return;
        };
        if !others {
            let presence = Presence {
                online: false,
                since: at,
                session: session.id,
                reason: Some(reason),
            };
            self.app.events.presence(serial, &presence, at);
            self.app.presence.change(serial, presence, at);
        }
        if reason == DisconnectReason::CredentialRevoked {
            // It may have been deleted, and its serial may come back as another device.
            self.app.ingest.forget(serial);
        }
        self.record(
            serial.clone(),
            at,
            Facts::Disconnected {
                session: session.id,
                reason,
            },
        );
    }

    fn denied(&self, session: &SessionInfo, what: String, at: DateTime<Utc>) {
        if let Some(serial) = session.identity.serial() {
            let facts = Facts::AccessDenied {
                session: session.id,
                what: printable(&what),
            };
            self.record(serial.clone(), at, facts);
        }
    }

    fn login_refused(&self, serial: Serial, peer: &Peer, refusal: Refusal, at: DateTime<Utc>) {
        let facts = Facts::LoginRefused {
            address: peer.address.to_string(),
            transport: transport(peer.transport).to_owned(),
            reason: refusal.to_string(),
        };
        self.record(serial, at, facts);
    }

    fn record(&self, serial: Serial, at: DateTime<Utc>, facts: Facts) {
        self.app.timeline.record(Entry { serial, at, facts });
    }
}
