//! A device as the benches need it: subscribed to its settings, and quick.

use rmqtt_codec::{
    types::{Publish, QoS},
    v3::{Packet, SubscribeReturnCode},
};
use setpoint_model::Channel;

use super::{Target, topic};
use crate::wire::{Login, Wire, WireError};

/// No bench lasts this long, so no PINGREQ is needed; in seconds.
pub(super) const KEEP_ALIVE: u16 = 3600;

/// What a device hears.
#[derive(Debug)]
pub(super) enum Heard {
    Subscribed,
    Message(Box<Publish>),
    /// PUBACK.
    Acknowledged,
}

/// A connection that answers each message of QoS 1 with its PUBACK.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) wire: Wire,
}

impl Session {
    /// Connects and asks for the device's settings; the SUBACK is still to come.
    pub(super) async fn open(target: &Target, login: &Login, clean: bool) -> Result<Self, WireError> {
        let mut wire = Wire::connect(target.addr, login, clean, KEEP_ALIVE).await?;
        wire.queue_subscribe(topic(&login.serial, Channel::Settings))?;
        wire.flush().await?;
        Ok(Self { wire })
    }

    /// The same, with the SUBACK received. Messages that come before it are acknowledged and forgotten.
    pub(super) async fn subscribed(target: &Target, login: &Login) -> Result<Self, WireError> {
        let mut session = Self::open(target, login, true).await?;
        while !matches!(session.next().await?, Heard::Subscribed) {}
        Ok(session)
    }

    /// What comes next. A message is acknowledged before it is returned.
    pub(super) async fn next(&mut self) -> Result<Heard, WireError> {
        loop {
            match self.wire.next().await? {
                Packet::Publish(publish) => {
                    if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
                        self.wire.queue(Packet::PublishAck { packet_id })?;
                        self.wire.flush().await?;
                    }
                    return Ok(Heard::Message(publish));
                }
                Packet::SubscribeAck { status, .. } => {
                    let granted = status
                        .iter()
                        .all(|code| matches!(code, SubscribeReturnCode::Success(_)));
                    return if granted {
                        Ok(Heard::Subscribed)
                    } else {
                        Err(WireError::Unexpected)
                    };
                }
                Packet::PublishAck { .. } => return Ok(Heard::Acknowledged),
                Packet::PingResponse => {}
                _ => return Err(WireError::Unexpected),
            }
        }
    }
}
