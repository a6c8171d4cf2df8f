//! One device: its sessions, and whether that makes it online.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rmqtt_codec::types::QoS;
use setpoint_model::{
    Channel, Serial, Topic,
    presence::{DisconnectReason, Presence},
};
use tokio::time::Instant;

use super::{Permit, State, retained::Retained, subscribers::Subscribers};
use crate::{
    backend::SessionInfo,
    broker::Core,
    message::{Message, Outgoing},
    session::{Claim, Delivery, Live, Newcomer, Session, bound_device},
    status::DeviceStatus,
};

/// A device that has a session, live or stored, a listener, or something retained.
#[derive(Default)]
pub(crate) struct Device {
    pub(crate) sessions: Vec<Arc<Session>>,
    pub(super) subscribers: Subscribers,
    pub(crate) retained: Retained,
    /// The presence last published, if it was since the start.
    presence: Option<(bool, DateTime<Utc>)>,
    /// Connections that wait for the one they take over to be gone: meanwhile the device stays online.
    successors: u32,
    /// The connection last taken over, while there are successors.
    predecessor: Option<(Arc<SessionInfo>, DisconnectReason)>,
}

/// What follows from a connection's end, or from a successor that did not make it.
#[derive(Default)]
pub(crate) struct Settled {
    /// Whether another session of the device is live, or about to take over.
    pub(crate) others: bool,
    /// Sessions that are over; their subscriptions are gone already.
    pub(crate) over: Vec<Arc<Session>>,
    /// A connection that was said to have a successor, and has none after all.
    pub(crate) orphaned: Option<(Arc<SessionInfo>, DisconnectReason)>,
}

impl Device {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.subscribers.is_empty()
            && self.retained.len() == 0
            && self.successors == 0
    }

    fn live(&self) -> impl Iterator<Item = Arc<Live>> {
        self.sessions
            .iter()
            .filter_map(|session| session.lock().live.clone())
    }

    pub(crate) fn status(&self, serial: &Serial) -> Option<DeviceStatus> {
        let (online, since) = self.presence?;
        let hears_settings = self.live().any(|live| {
            live.session
                .lock()
                .subscriptions
                .iter()
                .any(|s| s.hears_settings(serial))
        });
        Some(DeviceStatus {
            online,
            since,
            hears_settings,
        })
    }

    /// Whether it has a live session that was welcomed.
    pub(crate) fn is_online(&self) -> bool {
        self.live().any(|live| live.is_started())
    }
}

impl State {
    /// A device's client wants in. With [`Claim::Busy`] the newcomer counts as a successor until it claims again or
    /// gives up ([`Self::give_up`]).
    pub(crate) fn claim(
        &mut self,
        serial: &Serial,
        newcomer: &Newcomer,
        successor: bool,
        core: &Core,
        connect: impl FnOnce(Arc<Session>) -> Arc<Live>,
    ) -> Claim {
        let device = self.devices.entry(serial.clone()).or_default();
        let claim = crate::session::claim(
            &mut device.sessions,
            newcomer,
            core.config.max_sessions_per_device,
            connect,
        );
        match &claim {
            Claim::Busy(_) if !successor => device.successors += 1,
            Claim::Taken { live, present, .. } => {
                if successor {
                    device.successors -= 1;
                }
                if *present {
                    device.catch_up(serial, live);
                }
            }
            _ => {}
        }
        if let Claim::Taken { discarded, .. } = &claim {
            for session in discarded {
                self.forget_session(session.id, Some(serial));
            }
        }
        claim
    }

    /// The client is welcome: its device is online.
    pub(crate) fn start(&mut self, serial: &Serial, live: &Live, permit: Option<Permit<'_>>, core: &Core) {
        live.set_started();
        let Some(device) = self.devices.get_mut(serial) else {
            return;
        };
        device.predecessor = None;
        if device.presence.is_none_or(|(online, _)| !online) {
            let info = &live.info;
            self.set_presence(serial, true, info.since, info, None, permit, core);
        }
    }

    /// A connection of the device ended.
    pub(crate) fn leave(
        &mut self,
        serial: &Serial,
        live: &Arc<Live>,
        reason: DisconnectReason,
        permit: Option<Permit<'_>>,
        core: &Core,
    ) -> Settled {
        let Some(device) = self.devices.get_mut(serial) else {
            return Settled::default();
        };
        let max_stored = core.config.max_stored_sessions_per_device;
        let over = crate::session::leave(
            &mut device.sessions,
            &live.session,
            max_stored,
            &core.config,
            &core.metrics,
        );
        bound_device(&device.sessions, &core.config, &core.metrics);
        let others = device.live().next().is_some() || device.successors > 0;
        if device.successors > 0 {
            device.predecessor = Some((Arc::clone(&live.info), reason));
        }
        for session in &over {
            self.forget_session(session.id, Some(serial));
        }
        live.set_gone();
        self.settle(serial, &live.info, reason, permit, core);
        self.tidy(serial);
        Settled {
            others,
            over,
            orphaned: None,
        }
    }

    /// A successor did not make it to a session.
    pub(crate) fn give_up(&mut self, serial: &Serial, permit: Option<Permit<'_>>, core: &Core) -> Settled {
        let Some(device) = self.devices.get_mut(serial) else {
            return Settled::default();
        };
        device.successors -= 1;
        let others = device.live().next().is_some() || device.successors > 0;
        let orphaned = if others { None } else { device.predecessor.take() };
        if let Some((info, reason)) = &orphaned {
            self.settle(serial, info, *reason, permit, core);
        }
        self.tidy(serial);
        Settled {
            others,
            over: Vec::new(),
            orphaned,
        }
    }

    /// The device is offline once nothing of it is live and nobody is about to be.
    fn settle(
        &mut self,
        serial: &Serial,
        info: &Arc<SessionInfo>,
        reason: DisconnectReason,
        permit: Option<Permit<'_>>,
        core: &Core,
    ) {
        let gone = self.devices.get(serial).is_some_and(|device| {
            device.successors == 0
                && device.live().next().is_none()
                && device.presence.is_some_and(|(online, _)| online)
        });
        if gone {
            self.set_presence(serial, false, core.clock.now(), info, Some(reason), permit, core);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a presence, and what publishing one takes"
    )]
    fn set_presence(
        &mut self,
        serial: &Serial,
        online: bool,
        since: DateTime<Utc>,
        info: &SessionInfo,
        reason: Option<DisconnectReason>,
        permit: Option<Permit<'_>>,
        core: &Core,
    ) {
        if let Some(device) = self.devices.get_mut(serial) {
            device.presence = Some((online, since));
        }
        let presence = Presence {
            online,
            since,
            session: info.id,
            reason,
        };
        let Ok(payload) = serde_json::to_vec(&presence) else {
            return;
        };
        let message = Outgoing {
            topic: Topic::new(serial.clone(), Channel::Presence),
            // A copy of its own size: this is kept for as long as there is the device.
            payload: Bytes::copy_from_slice(&payload),
            qos: QoS::AtLeastOnce,
            retain: true,
            receipt: None,
        };
        self.admit(
            Message::from_server(message, false, &core.config.discovery),
            permit,
            &core.config,
            &core.metrics,
        );
    }

    /// Ends what became of sessions that stayed away for too long, and of retained messages that expired.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<Arc<Session>> {
        let mut over = Vec::new();
        let mut empty = Vec::new();
        for (serial, device) in &mut self.devices {
            let before = over.len();
            crate::session::expire(&mut device.sessions, now, &mut over);
            for session in over.iter().skip(before) {
                device.subscribers.remove_session(session.id);
            }
            device.retained.expire(now);
            if device.is_empty() {
                empty.push(serial.clone());
            }
        }
        for serial in empty {
            self.devices.remove(&serial);
        }
        over
    }

    /// Drops what is stored for a device and asks its live sessions to end without a trace.
    pub(crate) fn end_device(&mut self, serial: &Serial, reason: DisconnectReason) -> Vec<Arc<Live>> {
        let Some(device) = self.devices.get_mut(serial) else {
            return Vec::new();
        };
        let lives: Vec<Arc<Live>> = device.live().collect();
        let stored: Vec<u64> = device
            .sessions
            .iter()
            .filter(|s| s.lock().live.is_none())
            .map(|s| s.id)
            .collect();
        device.sessions.retain(|session| !stored.contains(&session.id));
        for session in stored {
            self.forget_session(session, Some(serial));
        }
        for live in &lives {
            live.session.lock().discard = true;
            live.end(reason, false);
        }
        self.tidy(serial);
        lives
    }
}

impl Device {
    /// A session that comes back and is subscribed to its settings has the newest first, unless it acknowledged them
    /// already.
    fn catch_up(&self, serial: &Serial, live: &Live) {
        let Some(message) = self.retained.get(Channel::Settings) else {
            return;
        };
        let mut state = live.session.lock();
        // Those on their way through the router are no newer.
        state.settings_after = message.sequence;
        if state.newest_settings() >= message.receipt {
            state.move_settings_first();
            return;
        }
        let hearing = state.subscriptions.iter().filter(|s| s.hears_settings(serial));
        let ids = hearing.clone().filter_map(|s| s.id).collect();
        if let Some(qos) = hearing.map(|s| s.qos).max() {
            let qos = message.qos.less_value(qos);
            state.push_settings_first(Delivery {
                message: Arc::clone(message),
                qos,
                retain: false,
                ids,
                shared: None,
            });
        }
    }
}
