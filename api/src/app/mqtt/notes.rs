//! What devices say of commands and firmware: noted as it comes.

use serde_json::Value;
use setpoint_broker::{Inbound, Outcome};
use setpoint_model::{Channel, event::EventType, timeline::Facts};

use super::MqttBackend;

/// The longest command result or firmware status that the timeline shows, in bytes.
const MAX_NOTED: usize = 8 * 1024;

impl MqttBackend {
    /// Notes a JSON object in the device's timeline.
    pub(super) fn note(&self, message: &Inbound, facts: impl FnOnce(Value) -> Facts) -> Outcome {
        let parsed = match message.payload.len() {
            0..=MAX_NOTED => {
                serde_json::from_slice(&message.payload).map_err(|error| format!("not JSON: {error}"))
            }
            _ => Err(format!("more than {MAX_NOTED} bytes")),
        };
        let (facts, outcome) = match parsed {
            Ok(object @ Value::Object(_)) if !has_nul(&object) => {
                self.tell(message, &object);
                (facts(object), Outcome::Accepted)
            }
            Ok(_) => self.unreadable(message, "expected an object without NUL characters".to_owned()),
            Err(reason) => self.unreadable(message, reason),
        };
        self.record(message.topic.serial.clone(), message.at, facts);
        outcome
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

    fn unreadable(&self, message: &Inbound, reason: String) -> (Facts, Outcome) {
        let channel = message.topic.channel.name().to_owned();
        (
            Facts::MessageRejected {
                channel,
                reason: reason.clone(),
            },
            Outcome::Invalid(reason),
        )
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
