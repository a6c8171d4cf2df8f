//! What a server is measured beside, in the same run on the same machine.

pub mod copy;
pub mod database;
mod mosquitto;
mod passwords;
pub mod stack;

use std::str::FromStr;

pub use mosquitto::{Access, Mosquitto, Queue};
use stack::Table;

use crate::endpoint::{InvalidUrl, MqttUrl};

/// A peer, as one names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// `mosquitto`: one that lets everybody in, and one where each device has a password, as a broker that faces the
    /// internet must.
    Mosquitto,
    /// A plain MQTT broker that runs already and lets everybody in.
    Broker(MqttUrl),
    /// `edge=mqtt://...`: the example `edge` of setpoint-broker, our broker without the server. Settings are the server's to
    /// write there, so changes are published to `settings/set`.
    Edge(MqttUrl),
    /// `copy`: a bare COPY into the server's own table, which nothing that stores telemetry there can beat.
    Copy,
    /// `mosquitto-psycopg` or `mosquitto-psycopg-keyed`: what one would build otherwise, Mosquitto and a subscriber in
    /// Python that writes batches.
    Stack(Table),
}

impl FromStr for Peer {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mosquitto" => Ok(Self::Mosquitto),
            "copy" => Ok(Self::Copy),
            text if text == Table::Plain.peer() => Ok(Self::Stack(Table::Plain)),
            text if text == Table::Keyed.peer() => Ok(Self::Stack(Table::Keyed)),
            url => match url.strip_prefix("edge=") {
                Some(url) => url.parse().map(Self::Edge),
                None => url.parse().map(Self::Broker),
            },
        }
    }
}
