//! Answers to requests: what an MQTT 5 client hears on its response topic.

use serde_json::json;
use setpoint_broker::{Inbound, Response};

use super::MqttBackend;
use crate::app::Error;

impl MqttBackend {
    /// Answers a request on the response topic that the client named, if it named one (MQTT 5).
    pub(super) fn answer(&self, message: &Inbound, result: &Result<i64, Error>) {
        let Some((topic, correlation)) = &message.respond_to else {
            return;
        };
        let Ok(topic) = topic.parse() else {
            tracing::debug!(session = %message.session.id, topic, "not a topic for responses");
            return;
        };
        let payload = match result {
            Ok(version) => json!({"version": version}),
            Err(Error::Invalid { errors }) => {
                json!({"code": "validation_failed", "detail": "some fields are not valid", "errors": errors})
            }
            Err(error) => json!({"code": error.code(), "detail": error.to_string()}),
        };
        let response = Response {
            topic,
            correlation: correlation.clone(),
            payload: payload.to_string().into(),
            request: message.topic.clone(),
        };
        if !self.app.broker.respond(&message.session, response) {
            tracing::debug!(session = %message.session.id, "nobody hears the response");
        }
    }
}
