//! The server of these tests: it says and hears what the script wants.

use std::num::NonZeroU16;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rmqtt_codec::{
    types::{Publish, QoS},
    v3::{Codec, ConnectAck, ConnectAckReason, Packet, SubscribeReturnCode},
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::codec::Framed;

use super::{Backoff, DeviceOptions, Duration, Endpoint, LIMIT, Token};

/// The server.
pub(super) struct Server {
    pub(super) listener: TcpListener,
}

/// A device's connection to it.
pub(super) struct Connection {
    pub(super) framed: Framed<TcpStream, Codec>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self {
            listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
        }
    }

    pub(super) fn options(&self) -> DeviceOptions {
        let endpoint = Endpoint::loopback(self.listener.local_addr().unwrap().port());
        let mut options = DeviceOptions::new("HOME-1".parse().unwrap(), Some(Token::new("secret")), endpoint);
        options.telemetry = None;
        options.backoff = Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(5),
        };
        options.firmware_step = Duration::from_millis(1);
        options
    }

    /// Accepts a connection and answers its CONNECT.
    pub(super) async fn accept(&self, return_code: ConnectAckReason, session_present: bool) -> Connection {
        let (stream, _) = timeout(LIMIT, self.listener.accept()).await.unwrap().unwrap();
        let mut connection = Connection {
            framed: Framed::new(stream, Codec::new(0)),
        };
        let Packet::Connect(connect) = connection.hear().await else {
            panic!("no CONNECT")
        };
        assert_eq!(
            (&*connect.client_id, connect.username.as_deref()),
            ("HOME-1", Some("HOME-1"))
        );
        assert_eq!(connect.password.as_deref(), Some(b"secret".as_slice()));
        connection
            .say(Packet::ConnectAck(ConnectAck {
                return_code,
                session_present,
            }))
            .await;
        connection
    }

    /// Accepts a connection, and grants it the subscriptions it asks for.
    pub(super) async fn welcome(&self, session_present: bool) -> Connection {
        let mut connection = self
            .accept(ConnectAckReason::ConnectionAccepted, session_present)
            .await;
        let Packet::Subscribe {
            packet_id,
            topic_filters,
        } = connection.hear().await
        else {
            panic!("no SUBSCRIBE")
        };
        let filters: Vec<_> = topic_filters
            .iter()
            .map(|(filter, qos)| (&**filter, *qos))
            .collect();
        let own = [
            "devices/HOME-1/settings",
            "devices/HOME-1/commands",
            "devices/HOME-1/firmware",
        ];
        assert_eq!(filters, own.map(|filter| (filter, QoS::AtLeastOnce)));
        let status = vec![SubscribeReturnCode::Success(QoS::AtLeastOnce); 3];
        connection.say(Packet::SubscribeAck { packet_id, status }).await;
        connection
    }
}

impl Connection {
    pub(super) async fn hear(&mut self) -> Packet {
        timeout(LIMIT, self.framed.next())
            .await
            .unwrap()
            .expect("the device closed")
            .unwrap()
            .0
    }

    pub(super) async fn say(&mut self, packet: Packet) {
        self.framed.send(packet).await.unwrap();
    }

    /// Publishes at QoS 1 and hears the PUBACK.
    pub(super) async fn tell(&mut self, topic: &str, payload: Value) {
        let packet_id = NonZeroU16::new(77).unwrap();
        self.say(Packet::Publish(Box::new(Publish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            topic: format!("devices/HOME-1/{topic}").into(),
            packet_id: Some(packet_id),
            payload: Bytes::from(payload.to_string()),
            properties: None,
        })))
        .await;
        assert_eq!(self.hear().await, Packet::PublishAck { packet_id });
    }

    /// The next publish of the device: its topic, its payload, and what its PUBACK is to name.
    pub(super) async fn told(&mut self) -> (String, Value, Option<NonZeroU16>) {
        let Packet::Publish(publish) = self.hear().await else {
            panic!("no PUBLISH")
        };
        let topic = publish.topic.strip_prefix("devices/HOME-1/").unwrap().to_owned();
        (
            topic,
            serde_json::from_slice(&publish.payload).unwrap(),
            publish.packet_id,
        )
    }

    pub(super) async fn acknowledge(&mut self, packet_id: Option<NonZeroU16>) {
        self.say(Packet::PublishAck {
            packet_id: packet_id.unwrap(),
        })
        .await;
    }
}
