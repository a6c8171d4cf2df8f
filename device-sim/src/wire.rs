//! A lean MQTT 3.1.1 client: one socket, no task, no queue, and no buffer while it is idle.
//!
//! The benches hold tens of thousands of these beside the server they measure, so a connection costs a few
//! hundred bytes, and its caller decides when bytes move.

use std::{io, net::SocketAddr, num::NonZeroU16};

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{
    error::{DecodeError, EncodeError},
    types::{Protocol, Publish, QoS},
    v3::{Codec, Connect, ConnectAckReason, Packet},
};
use setpoint_model::Serial;
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder};

use crate::credential::Token;

/// The largest packet accepted, in bytes.
const MAX_PACKET: u32 = 1 << 20;
/// Room made for each read, in bytes.
const READ: usize = 4096;

/// Who connects.
#[derive(Debug, Clone)]
pub struct Login {
    /// The device: client id and username.
    pub serial: Serial,
    /// Its password; without one, no username is sent either.
    pub token: Option<Token>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// CONNACK with a refusal.
    #[error("the server refused the connection: {}", .0.reason())]
    Refused(ConnectAckReason),
    /// Bytes that aren't MQTT.
    #[error("the server broke the protocol: {0}")]
    Decode(#[from] DecodeError),
    /// A packet that can't be written.
    #[error("cannot write a packet: {0}")]
    Encode(#[from] EncodeError),
    /// A packet that has no place here.
    #[error("the server sent an unexpected packet")]
    Unexpected,
}

/// An open connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    codec: Codec,
    inbox: BytesMut,
    outbox: BytesMut,
    last_id: u16,
}

impl Wire {
    /// Connects and waits for a CONNACK that accepts. `keep_alive` is in seconds.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn connect(
        addr: SocketAddr,
        login: &Login,
        clean_session: bool,
        keep_alive: u16,
    ) -> Result<Self, WireError> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let codec = Codec::new(MAX_PACKET);
        let mut wire = Self {
            stream,
            codec,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            last_id: 0,
        };
        let name = ByteString::from(login.serial.as_str());
        wire.queue(Packet::Connect(Box::new(Connect {
            protocol: Protocol::default(),
            clean_session,
            keep_alive,
            last_will: None,
            client_id: name.clone(),
            username: login.token.is_some().then_some(name),
            password: login
                .token
                .as_ref()
                .map(|token| Bytes::copy_from_slice(token.reveal().as_bytes())),
            cert: None,
        })))?;
        wire.flush().await?;
        match wire.next().await? {
            Packet::ConnectAck(ack) if ack.return_code == ConnectAckReason::ConnectionAccepted => Ok(wire),
            Packet::ConnectAck(ack) => Err(WireError::Refused(ack.return_code)),
            _ => Err(WireError::Unexpected),
        }
    }

    /// The next packet. Cancel safe.
    ///
    /// # Errors
    /// When the connection ends, or the server breaks the protocol.
    pub async fn next(&mut self) -> Result<Packet, WireError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            if self.inbox.is_empty() {
                // Thousands of these wait at once: none holds memory while it does.
                self.inbox = BytesMut::new();
            }
            self.stream.readable().await?;
            self.inbox.reserve(READ);
            match self.stream.try_read_buf(&mut self.inbox) {
                Ok(0) => return Err(WireError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A packet that was read already, if there is one.
    ///
    /// # Errors
    /// When the server breaks the protocol.
    pub fn buffered(&mut self) -> Result<Option<Packet>, WireError> {
        Ok(self.codec.decode(&mut self.inbox)?.map(|(packet, _)| packet))
    }

    /// Makes room for so many bytes more in what [`Wire::flush`] writes, so that many packets are added without it
    /// growing step by step.
    pub fn make_room(&mut self, bytes: usize) {
        self.outbox.reserve(bytes);
    }

    /// Adds a packet to what [`Wire::flush`] writes.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn queue(&mut self, packet: Packet) -> Result<(), WireError> {
        Ok(self.codec.encode(packet, &mut self.outbox)?)
    }

    /// Queues a publish at QoS 1 and returns its packet id.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn queue_publish(
        &mut self,
        topic: ByteString,
        payload: Bytes,
        retain: bool,
    ) -> Result<NonZeroU16, WireError> {
        let id = self.next_id();
        let qos = QoS::AtLeastOnce;
        let publish = Publish {
            dup: false,
            retain,
            qos,
            topic,
            packet_id: Some(id),
            payload,
            properties: None,
        };
        self.queue(Packet::Publish(Box::new(publish)))?;
        Ok(id)
    }

    /// Queues a subscription at QoS 1.
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn queue_subscribe(&mut self, filter: ByteString) -> Result<(), WireError> {
        let packet_id = self.next_id();
        self.queue(Packet::Subscribe {
            packet_id,
            topic_filters: vec![(filter, QoS::AtLeastOnce)],
        })
    }

    /// Writes all that is queued. Cancel safe: what isn't written yet stays queued.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox) {
                Ok(written) => self.outbox.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox = BytesMut::new();
        Ok(())
    }

    /// Says DISCONNECT and closes.
    ///
    /// # Errors
    /// When the connection breaks first.
    pub async fn disconnect(mut self) -> Result<(), WireError> {
        self.queue(Packet::Disconnect)?;
        self.flush().await
    }

    /// Resets the connection, as a power cut does.
    ///
    /// # Errors
    /// When the socket refuses the option.
    pub fn cut(self) -> Result<(), WireError> {
        Ok(self.stream.set_zero_linger()?)
    }

    fn next_id(&mut self) -> NonZeroU16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        NonZeroU16::new(self.last_id).unwrap_or(NonZeroU16::MIN)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{SinkExt, StreamExt};
    use rmqtt_codec::v3::ConnectAck;
    use tokio::{net::TcpListener, time::timeout};
    use tokio_util::codec::Framed;

    use super::*;

    /// A server's end and a client's, connected, with the CONNECT already read.
    async fn pair(
        return_code: ConnectAckReason,
    ) -> (Framed<TcpStream, Codec>, Packet, Result<Wire, WireError>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let login = Login {
            serial: "A".parse().unwrap(),
            token: Some(Token::new("secret")),
        };
        let addr = listener.local_addr().unwrap();
        let server = async {
            let mut framed = Framed::new(listener.accept().await.unwrap().0, Codec::new(0));
            let connect = framed.next().await.unwrap().unwrap().0;
            let ack = ConnectAck {
                return_code,
                session_present: false,
            };
            framed.send(Packet::ConnectAck(ack)).await.unwrap();
            (framed, connect)
        };
        let both = async { tokio::join!(server, Wire::connect(addr, &login, true, 60)) };
        let ((framed, connect), wire) = timeout(Duration::from_secs(60), both).await.unwrap();
        (framed, connect, wire)
    }

    #[tokio::test]
    async fn it_signs_in_as_the_device_and_says_when_it_is_refused() {
        let (_server, connect, wire) = pair(ConnectAckReason::ConnectionAccepted).await;
        assert!(wire.is_ok());
        let Packet::Connect(connect) = connect else {
            panic!("{connect:?}")
        };
        assert_eq!(
            (&*connect.client_id, connect.username.as_deref()),
            ("A", Some("A"))
        );
        assert_eq!(
            (connect.password.as_deref(), connect.keep_alive),
            (Some(b"secret".as_slice()), 60)
        );

        let (_server, _, wire) = pair(ConnectAckReason::NotAuthorized).await;
        assert!(
            matches!(wire, Err(WireError::Refused(ConnectAckReason::NotAuthorized))),
            "{wire:?}"
        );
    }

    #[tokio::test]
    async fn packets_pass_both_ways_and_nothing_is_held_while_it_waits() {
        let (mut server, _, wire) = pair(ConnectAckReason::ConnectionAccepted).await;
        let mut wire = wire.unwrap();
        let large = Bytes::from(vec![b'x'; 300_000]);
        let id = wire
            .queue_publish("devices/A/telemetry".into(), large.clone(), false)
            .unwrap();
        let both = async { tokio::join!(wire.flush(), server.next()) };
        let (flushed, heard) = timeout(Duration::from_secs(60), both).await.unwrap();
        flushed.unwrap();
        let Packet::Publish(publish) = heard.unwrap().unwrap().0 else {
            panic!("no PUBLISH")
        };
        assert_eq!((publish.packet_id, &publish.payload), (Some(id), &large));

        // Two packets in one segment: the second is there already.
        server.feed(Packet::PublishAck { packet_id: id }).await.unwrap();
        server.send(Packet::PingResponse).await.unwrap();
        assert_eq!(wire.next().await.unwrap(), Packet::PublishAck { packet_id: id });
        assert_eq!(wire.next().await.unwrap(), Packet::PingResponse);
        let idle = timeout(Duration::from_millis(1), wire.next()).await;
        assert!(idle.is_err());
        assert_eq!((wire.inbox.capacity(), wire.outbox.capacity()), (0, 0));

        drop(server);
        let ended = timeout(Duration::from_secs(60), wire.next()).await.unwrap();
        assert!(matches!(ended, Err(WireError::Closed)), "{ended:?}");
    }
}
