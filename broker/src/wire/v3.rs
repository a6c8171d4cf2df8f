//! MQTT 3.1.1 packets in terms of MQTT 5 and back.

use rmqtt_codec::{
    types::QoS,
    v3,
    v5::{self, Packet, RetainHandling, SubscriptionOptions},
};

/// A packet from a client.
pub(super) fn to_v5(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::Connect(connect) => Packet::Connect(Box::new(connect_to_v5(*connect))),
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Packet::PublishAck(v5::PublishAck {
            packet_id,
            ..Default::default()
        }),
        v3::Packet::PublishReceived { packet_id } => Packet::PublishReceived(v5::PublishAck {
            packet_id,
            ..Default::default()
        }),
        v3::Packet::PublishRelease { packet_id } => Packet::PublishRelease(v5::PublishAck2 {
            packet_id,
            ..Default::default()
        }),
        v3::Packet::PublishComplete { packet_id } => Packet::PublishComplete(v5::PublishAck2 {
            packet_id,
            ..Default::default()
        }),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => Packet::Subscribe(v5::Subscribe {
            packet_id,
            id: None,
            user_properties: Vec::new(),
            topic_filters: topic_filters
                .into_iter()
                .map(|(filter, qos)| {
                    let options = SubscriptionOptions {
                        qos,
                        no_local: false,
                        retain_as_published: false,
                        retain_handling: RetainHandling::AtSubscribe,
                    };
                    (filter, options)
                })
                .collect(),
        }),
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => Packet::Unsubscribe(v5::Unsubscribe {
            packet_id,
            user_properties: Vec::new(),
            topic_filters,
        }),
        v3::Packet::PingRequest => Packet::PingRequest,
        v3::Packet::Disconnect => Packet::Disconnect(v5::Disconnect::default()),
        // Only servers send these; the check after the codec says so.
        v3::Packet::ConnectAck(_) => Packet::ConnectAck(Box::default()),
        v3::Packet::SubscribeAck { packet_id, .. } => Packet::SubscribeAck(v5::SubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: Vec::new(),
        }),
        v3::Packet::UnsubscribeAck { packet_id } => Packet::UnsubscribeAck(v5::UnsubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: Vec::new(),
        }),
        v3::Packet::PingResponse => Packet::PingResponse,
    }
}

fn connect_to_v5(connect: v3::Connect) -> v5::Connect {
    v5::Connect {
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        client_id: connect.client_id,
        username: connect.username,
        password: connect.password,
        last_will: connect.last_will.map(|will| v5::LastWill {
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            message: will.message,
            will_delay_interval_sec: None,
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: Vec::new(),
            is_utf8_payload: None,
            response_topic: None,
        }),
        ..v5::Connect::default()
    }
}

/// A packet to a client; `None` for what MQTT 3.1.1 servers don't send.
pub(super) fn from_v5(packet: Packet) -> Option<v3::Packet> {
    Some(match packet {
        Packet::ConnectAck(ack) => v3::Packet::ConnectAck(v3::ConnectAck {
            return_code: return_code(ack.reason_code),
            session_present: ack.session_present,
        }),
        Packet::Publish(mut publish) => {
            publish.properties = None;
            v3::Packet::Publish(publish)
        }
        Packet::PublishAck(ack) => v3::Packet::PublishAck {
            packet_id: ack.packet_id,
        },
        Packet::PublishReceived(ack) => v3::Packet::PublishReceived {
            packet_id: ack.packet_id,
        },
        Packet::PublishRelease(ack) => v3::Packet::PublishRelease {
            packet_id: ack.packet_id,
        },
        Packet::PublishComplete(ack) => v3::Packet::PublishComplete {
            packet_id: ack.packet_id,
        },
        Packet::SubscribeAck(ack) => v3::Packet::SubscribeAck {
            packet_id: ack.packet_id,
            status: ack
                .status
                .into_iter()
                .map(|status| match status {
                    v5::SubscribeAckReason::GrantedQos0 => v3::SubscribeReturnCode::Success(QoS::AtMostOnce),
                    v5::SubscribeAckReason::GrantedQos1 => v3::SubscribeReturnCode::Success(QoS::AtLeastOnce),
                    v5::SubscribeAckReason::GrantedQos2 => v3::SubscribeReturnCode::Success(QoS::ExactlyOnce),
                    _ => v3::SubscribeReturnCode::Failure,
                })
                .collect(),
        },
        Packet::UnsubscribeAck(ack) => v3::Packet::UnsubscribeAck {
            packet_id: ack.packet_id,
        },
        Packet::PingResponse => v3::Packet::PingResponse,
        Packet::Connect(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingRequest
        | Packet::Disconnect(_)
        | Packet::Auth(_) => return None,
    })
}

/// The return code of MQTT 3.1.1 nearest to a reason code of MQTT 5.
fn return_code(reason: v5::ConnectAckReason) -> v3::ConnectAckReason {
    use v5::ConnectAckReason as Reason;
    match reason {
        Reason::Success => v3::ConnectAckReason::ConnectionAccepted,
        Reason::UnsupportedProtocolVersion => v3::ConnectAckReason::UnacceptableProtocolVersion,
        Reason::ClientIdentifierNotValid => v3::ConnectAckReason::IdentifierRejected,
        Reason::BadUserNameOrPassword => v3::ConnectAckReason::BadUserNameOrPassword,
        Reason::NotAuthorized
        | Reason::Banned
        | Reason::BadAuthenticationMethod
        | Reason::TopicNameInvalid => v3::ConnectAckReason::NotAuthorized,
        _ => v3::ConnectAckReason::ServiceUnavailable,
    }
}
