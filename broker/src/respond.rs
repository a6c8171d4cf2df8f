//! Answers to requests of MQTT 5 clients (section 4.10): to the session that asked, and to nobody else.

use std::sync::{Arc, atomic::AtomicBool};

use bytes::Bytes;
use bytestring::ByteString;
use rmqtt_codec::v5::PublishProperties;
use setpoint_model::{Topic, topic::ResponseTopic};
use tokio::time::Instant;

use crate::{
    backend::SessionInfo,
    handle::Handle,
    message::{Message, QoS},
    session::{Delivery, Session},
};

/// An answer to one request.
#[derive(Debug, Clone)]
pub struct Response {
    /// Where the client wants it.
    pub topic: ResponseTopic,
    /// The request's correlation data, which goes back as it came.
    pub correlation: Option<Bytes>,
    /// What it says.
    pub payload: Bytes,
    /// The topic of the request.
    pub request: Topic,
}

impl Handle {
    /// Answers an operator's request, at QoS 1 or what the subscription asks for. `false` if the session is gone, or isn't
    /// subscribed to the response topic: then there is nobody to hear it.
    pub fn respond(&self, to: &SessionInfo, response: Response) -> bool {
        let asked = self
            .core
            .operators
            .bucket(&to.client_id)
            .iter()
            .find(|session| session.client_id == to.client_id && session.identity == to.identity)
            .cloned();
        asked.is_some_and(|session| self.hand_over(&session, response))
    }

    fn hand_over(&self, session: &Arc<Session>, response: Response) -> bool {
        let (mut qos, mut ids) = (None, Vec::new());
        for subscription in &session.lock().subscriptions {
            if subscription.filter.share().is_none() && subscription.filter.matches(response.topic.as_str()) {
                qos = qos.max(Some(subscription.qos));
                ids.extend(subscription.id);
            }
        }
        let Some(qos) = qos else {
            return false;
        };
        let properties = PublishProperties {
            correlation_data: response.correlation,
            ..PublishProperties::default()
        };
        let message = Message {
            name: ByteString::from(response.topic.as_str()),
            topic: response.request,
            payload: response.payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            receipt: None,
            properties: Some(Box::new(properties)),
            publisher: None,
            at: Instant::now(),
            sequence: 0,
            restored: false,
            told: AtomicBool::new(false),
        };
        let delivery = Delivery {
            qos: message.qos.less_value(qos),
            message: Arc::new(message),
            retain: false,
            ids,
            shared: None,
        };
        session.offer(delivery, &self.core.config, &self.core.metrics);
        true
    }
}
