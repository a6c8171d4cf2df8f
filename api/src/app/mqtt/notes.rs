//! What devices say of commands and firmware: noted as it comes.

use serde_json::Value;
use setpoint_broker::{Ack, Inbound, Outcome};
use setpoint_model::{
    Channel,
    event::EventType,
    timeline::{Entry, Facts},
};

use super::MqttBackend;

/// The longest command result or firmware status that the timeline shows, in bytes.
const MAX_NOTED: usize = 8 * 1024;

impl MqttBackend {
    /// Notes a JSON object in the device's timeline: acknowledged once it is there.
    pub(super) async fn note(&self, message: &Inbound, ack: Ack, facts: impl FnOnce(Value) -> Facts) {
        let parsed = match message.payload.len() {
            0..=MAX_NOTED => {
                serde_json::from_slice(&message.payload).map_err(|error| format!("not JSON: {error}"))
            }
            _ => Err(format!("more than {MAX_NOTED} bytes")),
        };
        let reason = match parsed {
            Ok(object @ Value::Object(_)) if !has_nul(&object) => {
                self.tell(message, &object);
                let entry = Entry {
                    serial: message.topic.serial.clone(),
                    at: message.at,
                    facts: facts(object),
                };
                return self.app.timeline.keep(entry, ack).await;
            }
            Ok(_) => "expected an object without NUL characters".to_owned(),
            Err(reason) => reason,
        };
        let facts = Facts::MessageRejected {
            channel: message.topic.channel.name().to_owned(),
            reason: reason.clone(),
        };
        self.record(message.topic.serial.clone(), message.at, facts);
        ack.complete(Outcome::Invalid(reason));
    }

    fn tell(&self, message: &Inbound, object: &Value) {
        let kind = match message.topic.channel {
            Channel::FirmwareStatus => EventType::Firmware,
            _ => EventType::Commands,
        };
        self.app
            .events
            .answer(kind, &message.topic.serial, message.at, object);
    }
}

/// Whether a text in the value has a NUL character, which `jsonb` can't hold.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
