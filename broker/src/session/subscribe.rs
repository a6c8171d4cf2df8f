//! SUBSCRIBE and UNSUBSCRIBE.

use std::{num::NonZeroU32, sync::Arc};

use bytestring::ByteString;
use rmqtt_codec::v5::{
    DisconnectReasonCode, Packet, RetainHandling, Subscribe, SubscribeAck, SubscribeAckReason,
    SubscriptionOptions, Unsubscribe, UnsubscribeAck, UnsubscribeAckReason,
};
use setpoint_model::{Identity, TopicFilter};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{connection::Connection, finish::End, subscription::Subscription};
use crate::{backend::SessionEvent, metrics::Limit};

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// SUBSCRIBE. Its SUBACK goes out before anything that the subscription brings.
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let heard = self.hears_settings();
        let status = subscribe
            .topic_filters
            .into_iter()
            .map(|(filter, options)| self.subscribe_one(&filter, options, subscribe.id))
            .collect();
        let ack = SubscribeAck {
            packet_id: subscribe.packet_id,
            properties: Vec::new(),
            reason_string: None,
            status,
        };
        self.acknowledge_filters(Packet::SubscribeAck(ack))?;
        self.tell_settings(heard);
        Ok(())
    }

    /// Answers with a code per filter. An answer that is larger than the client takes may not be sent, nor be left out.
    fn acknowledge_filters(&mut self, ack: Packet) -> Result<(), End> {
        if self.wire.encode(ack, self.max_packet, &mut self.output) {
            Ok(())
        } else {
            Err(End::Limit(DisconnectReasonCode::PacketTooLarge))
        }
    }

    fn subscribe_one(
        &mut self,
        text: &ByteString,
        options: SubscriptionOptions,
        id: Option<NonZeroU32>,
    ) -> SubscribeAckReason {
        let filter: TopicFilter = match text.parse() {
            Ok(filter) => filter,
            Err(error) => {
                tracing::debug!(filter = %text, %error, "malformed topic filter");
                return SubscribeAckReason::TopicFilterInvalid;
            }
        };
        let reach = filter.reach(&self.core.config.discovery);
        if !self.live.info.identity.may_subscribe_to(&filter, &reach) {
            self.denied("subscribe", text);
            return SubscribeAckReason::NotAuthorized;
        }
        let subscription = Arc::new(Subscription {
            filter,
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
        });
        let max = match self.live.info.identity {
            Identity::Device(_) => self.core.config.max_subscriptions,
            Identity::Operator(_) => self.core.config.max_operator_subscriptions,
        };
        let new = {
            let mut state = self.live.session.lock();
            let count = state.subscriptions.len();
            match state
                .subscriptions
                .iter_mut()
                .find(|other| other.filter == subscription.filter)
            {
                Some(old) => {
                    *old = Arc::clone(&subscription);
                    false
                }
                None if count >= max => {
                    self.core.metrics.limit(Limit::Subscriptions);
                    return SubscribeAckReason::QuotaExceeded;
                }
                None => {
                    state.subscriptions.push(Arc::clone(&subscription));
                    true
                }
            }
        };
        // [MQTT-3.8.3.1]; a shared subscription has no retained messages.
        let replay = subscription.filter.share().is_none()
            && match options.retain_handling {
                RetainHandling::AtSubscribe => true,
                RetainHandling::AtSubscribeNew => new,
                RetainHandling::NoAtSubscribe => false,
            };
        if replay && !new {
            self.live.session.cancel_replay(&subscription.filter);
        }
        self.core
            .subscribe(&self.live.session, &subscription, &reach, replay);
        match options.qos {
            rmqtt_codec::types::QoS::AtMostOnce => SubscribeAckReason::GrantedQos0,
            rmqtt_codec::types::QoS::AtLeastOnce => SubscribeAckReason::GrantedQos1,
            rmqtt_codec::types::QoS::ExactlyOnce => SubscribeAckReason::GrantedQos2,
        }
    }

    /// UNSUBSCRIBE [MQTT-3.10.4].
    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let heard = self.hears_settings();
        let status = unsubscribe
            .topic_filters
            .iter()
            .map(|filter| self.unsubscribe_one(filter))
            .collect();
        let ack = UnsubscribeAck {
            packet_id: unsubscribe.packet_id,
            properties: Vec::new(),
            reason_string: None,
            status,
        };
        self.acknowledge_filters(Packet::UnsubscribeAck(ack))?;
        self.tell_settings(heard);
        Ok(())
    }

    fn unsubscribe_one(&mut self, text: &ByteString) -> UnsubscribeAckReason {
        let Ok(filter) = text.parse::<TopicFilter>() else {
            return UnsubscribeAckReason::TopicFilterInvalid;
        };
        let found = {
            let mut state = self.live.session.lock();
            let before = state.subscriptions.len();
            state
                .subscriptions
                .retain(|subscription| subscription.filter != filter);
            state.subscriptions.len() < before
        };
        if !found {
            return UnsubscribeAckReason::NoSubscriptionExisted;
        }
        self.core.unsubscribe(self.live.session.id, &filter);
        self.live.session.cancel_replay(&filter);
        UnsubscribeAckReason::Success
    }

    /// Whether this session of a device hears the device's settings.
    fn hears_settings(&self) -> bool {
        self.live.info.identity.serial().is_some_and(|serial| {
            self.live
                .session
                .lock()
                .subscriptions
                .iter()
                .any(|subscription| subscription.hears_settings(serial))
        })
    }

    fn tell_settings(&self, before: bool) {
        let subscribed = self.hears_settings();
        if subscribed != before {
            let session = Arc::clone(&self.live.info);
            self.backend
                .event(SessionEvent::SettingsSubscription { session, subscribed });
        }
    }
}
