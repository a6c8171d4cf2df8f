//! Clients that send exactly what they are told.

use std::{fmt::Debug, net::SocketAddr, num::NonZeroU16};

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{
    types::{Publish, QoS},
    v3, v5,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder};

use super::PATIENCE;

/// A client of one version.
pub(crate) struct Client<C> {
    pub(crate) stream: TcpStream,
    codec: C,
    buffer: BytesMut,
}

pub(crate) type V3 = Client<v3::Codec>;
pub(crate) type V5 = Client<v5::Codec>;

impl V3 {
    pub(crate) async fn v3(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            codec: v3::Codec::new(0),
            buffer: BytesMut::new(),
        }
    }

    /// Connects and yields whether there was a session.
    pub(crate) async fn welcome(&mut self, connect: v3::Connect) -> bool {
        self.send(v3::Packet::Connect(Box::new(connect))).await;
        match self.recv().await {
            v3::Packet::ConnectAck(ack) => {
                assert_eq!(ack.return_code, v3::ConnectAckReason::ConnectionAccepted);
                ack.session_present
            }
            other => panic!("{other:?}"),
        }
    }

    /// Connects and yields why not.
    pub(crate) async fn refused(&mut self, connect: v3::Connect) -> u8 {
        self.send(v3::Packet::Connect(Box::new(connect))).await;
        let v3::Packet::ConnectAck(ack) = self.recv().await else {
            panic!("no CONNACK")
        };
        self.closed().await;
        ack.return_code.into()
    }

    /// Subscribes to one filter and yields the return code.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        let topic_filters = vec![(filter.into(), qos)];
        self.send(v3::Packet::Subscribe {
            packet_id: id(9),
            topic_filters,
        })
        .await;
        match self.recv().await {
            v3::Packet::SubscribeAck { packet_id, status } => {
                assert_eq!(packet_id, id(9));
                match status.as_slice() {
                    [v3::SubscribeReturnCode::Success(qos)] => qos.value(),
                    [v3::SubscribeReturnCode::Failure] => 0x80,
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a PUBLISH and acknowledges it.
    pub(crate) async fn message(&mut self) -> Publish {
        let v3::Packet::Publish(publish) = self.recv().await else {
            panic!("no PUBLISH")
        };
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => self.send(v3::Packet::PublishAck { packet_id }).await,
            (QoS::ExactlyOnce, Some(packet_id)) => {
                self.send(v3::Packet::PublishReceived { packet_id }).await;
                assert_eq!(self.recv().await, v3::Packet::PublishRelease { packet_id });
                self.send(v3::Packet::PublishComplete { packet_id }).await;
            }
            _ => {}
        }
        *publish
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, packet_id: u16) {
        self.send(v3::Packet::Publish(Box::new(publish(
            topic, payload, qos, packet_id,
        ))))
        .await;
    }

    /// Nothing waits for the client: the answer to PINGREQ is the next thing it hears.
    pub(crate) async fn silent(&mut self) {
        self.send(v3::Packet::PingRequest).await;
        assert_eq!(self.recv().await, v3::Packet::PingResponse);
    }

    pub(crate) async fn disconnect(mut self) {
        self.send(v3::Packet::Disconnect).await;
        self.closed().await;
    }
}

impl V5 {
    pub(crate) async fn v5(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            codec: v5::Codec::new(0, 0),
            buffer: BytesMut::new(),
        }
    }

    /// Connects and yields the CONNACK.
    pub(crate) async fn welcome(&mut self, connect: v5::Connect) -> v5::ConnectAck {
        self.send(v5::Packet::Connect(Box::new(connect))).await;
        match self.recv().await {
            v5::Packet::ConnectAck(ack) => {
                assert_eq!(ack.reason_code, v5::ConnectAckReason::Success);
                *ack
            }
            other => panic!("{other:?}"),
        }
    }

    /// Connects and yields why not.
    pub(crate) async fn refused(&mut self, connect: v5::Connect) -> u8 {
        self.send(v5::Packet::Connect(Box::new(connect))).await;
        let v5::Packet::ConnectAck(ack) = self.recv().await else {
            panic!("no CONNACK")
        };
        self.closed().await;
        ack.reason_code.into()
    }

    /// Subscribes and yields the reason codes.
    pub(crate) async fn subscribe_all(
        &mut self,
        filters: Vec<(&str, v5::SubscriptionOptions)>,
        sub_id: Option<u32>,
    ) -> Vec<u8> {
        self.send(v5::Packet::Subscribe(v5::Subscribe {
            packet_id: id(9),
            id: sub_id.map(|id| id.try_into().unwrap()),
            user_properties: Vec::new(),
            topic_filters: filters
                .into_iter()
                .map(|(filter, options)| (filter.into(), options))
                .collect(),
        }))
        .await;
        match self.recv().await {
            v5::Packet::SubscribeAck(ack) => ack.status.into_iter().map(u8::from).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Subscribes to one filter and yields the reason code.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        self.subscribe_all(vec![(filter, subscription(qos))], None).await[0]
    }

    /// Waits for a PUBLISH and acknowledges it.
    pub(crate) async fn message(&mut self) -> Publish {
        let publish = self.unacknowledged().await;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => self.puback(packet_id).await,
            (QoS::ExactlyOnce, Some(packet_id)) => {
                let ack = v5::PublishAck {
                    packet_id,
                    ..Default::default()
                };
                self.send(v5::Packet::PublishReceived(ack)).await;
                let v5::Packet::PublishRelease(release) = self.recv().await else {
                    panic!("no PUBREL")
                };
                assert_eq!(release.packet_id, packet_id);
                let ack = v5::PublishAck2 {
                    packet_id,
                    ..Default::default()
                };
                self.send(v5::Packet::PublishComplete(ack)).await;
            }
            _ => {}
        }
        publish
    }

    /// Waits for a PUBLISH.
    pub(crate) async fn unacknowledged(&mut self) -> Publish {
        match self.recv().await {
            v5::Packet::Publish(publish) => *publish,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn puback(&mut self, packet_id: NonZeroU16) {
        self.send(v5::Packet::PublishAck(v5::PublishAck {
            packet_id,
            ..Default::default()
        }))
        .await;
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, packet_id: u16) {
        self.send(v5::Packet::Publish(Box::new(publish(
            topic, payload, qos, packet_id,
        ))))
        .await;
    }

    /// Publishes with QoS 1 and yields the reason code of its PUBACK.
    pub(crate) async fn publish_acked(&mut self, publish: Publish) -> v5::PublishAck {
        self.send(v5::Packet::Publish(Box::new(publish))).await;
        match self.recv().await {
            v5::Packet::PublishAck(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing waits for the client: the answer to PINGREQ is the next thing it hears.
    pub(crate) async fn silent(&mut self) {
        self.send(v5::Packet::PingRequest).await;
        assert_eq!(self.recv().await, v5::Packet::PingResponse);
    }

    /// The server says DISCONNECT with this code, and closes.
    pub(crate) async fn disconnected(&mut self) -> u8 {
        match self.recv().await {
            v5::Packet::Disconnect(disconnect) => {
                self.closed().await;
                disconnect.reason_code.into()
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn disconnect(mut self) {
        self.send(v5::Packet::Disconnect(v5::Disconnect::default())).await;
        self.closed().await;
    }
}

impl<C> Client<C> {
    pub(crate) async fn send<P>(&mut self, packet: P)
    where
        C: Encoder<P>,
        C::Error: Debug,
    {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        // The server may have closed already.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn recv<P>(&mut self) -> P
    where
        C: Decoder<Item = (P, u32)>,
        C::Error: Debug,
    {
        timeout(PATIENCE, async {
            loop {
                if let Some((packet, _)) = self.codec.decode(&mut self.buffer).unwrap() {
                    return packet;
                }
                assert_ne!(
                    self.stream.read_buf(&mut self.buffer).await.unwrap(),
                    0,
                    "the server closed"
                );
            }
        })
        .await
        .expect("the server says nothing")
    }

    /// The server closes without another byte.
    pub(crate) async fn closed(&mut self) {
        assert!(self.buffer.is_empty(), "{:?}", self.buffer);
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer))
            .await
            .expect("the server does not close");
        assert!(matches!(read, Ok(0) | Err(_)), "{:?}", self.buffer);
    }
}

pub(crate) fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

pub(crate) fn publish(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: NonZeroU16::new(packet_id).filter(|_| qos != QoS::AtMostOnce),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: None,
    }
}

pub(crate) fn subscription(qos: QoS) -> v5::SubscriptionOptions {
    v5::SubscriptionOptions {
        qos,
        ..Default::default()
    }
}

/// A device's CONNECT: client id and user name are the serial.
pub(crate) fn connect3(serial: &str) -> v3::Connect {
    v3::Connect {
        clean_session: true,
        client_id: serial.into(),
        username: Some(serial.into()),
        password: Some(Bytes::from_static(b"secret")),
        ..Default::default()
    }
}

/// A device's CONNECT: client id and user name are the serial.
pub(crate) fn connect5(serial: &str) -> v5::Connect {
    v5::Connect {
        clean_start: true,
        client_id: serial.into(),
        username: Some(serial.into()),
        password: Some(Bytes::from_static(b"secret")),
        ..Default::default()
    }
}

pub(crate) fn operator3(client_id: &str) -> v3::Connect {
    v3::Connect {
        username: Some("token".into()),
        password: Some(Bytes::from_static(b"operator")),
        ..connect3(client_id)
    }
}

pub(crate) fn operator5(client_id: &str) -> v5::Connect {
    v5::Connect {
        username: Some("token".into()),
        password: Some(Bytes::from_static(b"operator")),
        ..connect5(client_id)
    }
}
