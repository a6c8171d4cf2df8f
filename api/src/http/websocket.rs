//! MQTT over WebSocket (MQTT 5.0 and 3.1.1, section 6): the upgrade, and the byte stream that the edge reads.
//!
//! Whoever may open it proves nothing by that: cookies are not looked at, and MQTT's own CONNECT says who the
//! client is. Hence any page, from any origin, may try.

use std::{
    error::Error as _,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{
        ConnectInfo, State,
        ws::{
            CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use setpoint_broker::{Edge, Peer, Transport};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{Problem, client::Client};

/// The subprotocol's name [MQTT-6.0.0-3], and the one that MQTT 3.1 clients offered before there was a standard.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Bytes read from the socket at once, allocated per connection.
const READ_BUFFER: usize = 2 * 1024;
/// The longest message sent; a larger packet spans several, which every client must accept [MQTT-6.0.0-2].
const LONGEST_SENT: usize = 16 * 1024;
/// A client may put several packets in one message, and mqtt.js does so with its whole backlog: so many of the
/// largest are taken.
const PACKETS_PER_MESSAGE: usize = 4;
/// Messages without a byte of MQTT (pings, empty ones) that a client may send within [`IDLE_WINDOW`]. The edge does
/// not see them, so its rate limits don't hold for them.
const IDLE_MESSAGES: u32 = 100;
const IDLE_WINDOW: Duration = Duration::from_secs(10);

/// A route at `path`, by default `/mqtt`, whose sessions run in `edge`. `max_packet_size` is the edge's, in bytes.
///
/// The server must be made with connect info, as it tells the client's address.
pub fn routes<S>(path: &str, edge: Edge, max_packet_size: u32) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let listener = Listener {
        edge,
        max_packet_size: usize::try_from(max_packet_size).unwrap_or(usize::MAX),
    };
    Router::new().route(path, any(connect)).with_state(listener)
}

#[derive(Clone)]
struct Listener {
    edge: Edge,
    max_packet_size: usize,
}

async fn connect(
    State(listener): State<Listener>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    client: Option<Extension<Client>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        // Most likely someone who looks at the address in a browser.
        Err(rejection) => {
            return Problem::of_status(rejection.status(), rejection.body_text()).into_response();
        }
    };
    // Limits per address are the client's, not those of a trusted proxy in front; the port is the proxy's.
    let behind = client.and_then(|Extension(client)| client.address);
    let peer = Peer {
        address: SocketAddr::new(behind.unwrap_or(from.ip().to_canonical()), from.port()),
        transport: Transport::WebSocket,
        certificate: None,
    };
    let edge = listener.edge;
    accept(upgrade, listener.max_packet_size, |stream| async move {
        edge.session(stream, peer).await
    })
}

/// Answers the upgrade and has `run` serve the stream, in a task of its own.
fn accept<F>(
    upgrade: WebSocketUpgrade,
    max_packet_size: usize,
    run: impl FnOnce(Stream) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = upgrade.protocols(SUBPROTOCOLS);
    // The client must offer it [MQTT-6.0.0-3], and a browser fails a connection for which none was chosen.
    if upgrade.selected_protocol().is_none() {
        let detail = "Offer the WebSocket subprotocol `mqtt`.";
        return Problem::of_status(StatusCode::BAD_REQUEST, detail).into_response();
    }
    let max_message = max_packet_size.saturating_mul(PACKETS_PER_MESSAGE);
    upgrade
        .max_message_size(max_message)
        .max_frame_size(max_message)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(LONGEST_SENT)
        .max_write_buffer_size(4 * LONGEST_SENT)
        .on_upgrade(|socket| run(Stream::new(socket)))
}

/// A WebSocket as a stream of bytes. Pings and the closing handshake are answered below, while reading.
struct Stream {
    socket: WebSocket,
    /// What is left of the message being read.
    unread: Bytes,
    /// Whether the client will send no more.
    ended: bool,
    /// Messages without content since then.
    idle: (Instant, u32),
}

impl Stream {
    fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            unread: Bytes::new(),
            ended: false,
            idle: (Instant::now(), 0),
        }
    }

    /// Ready when there are unread bytes, or the stream has ended.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.ended {
            match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => self.unread = bytes,
                Some(Ok(Message::Text(_))) => {
                    self.close(cx, close_code::UNSUPPORTED, "MQTT is sent in binary frames");
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a text frame [MQTT-6.0.0-1]",
                    )));
                }
                // After a Close, the next round sends the answer and finds the end.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {
                    if self.idles_too_often() {
                        self.close(cx, close_code::POLICY, "too many messages without content");
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "too many WebSocket messages without content",
                        )));
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Err(io_error(error)));
                }
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn idles_too_often(&mut self) -> bool {
        let (since, count) = &mut self.idle;
        if since.elapsed() > IDLE_WINDOW {
            self.idle = (Instant::now(), 1);
            return false;
        }
        *count += 1;
        *count > IDLE_MESSAGES
    }

    /// Tells the client why, if its socket takes it, and reads no more.
    fn close(&mut self, cx: &mut Context<'_>, code: u16, reason: &'static str) {
        self.ended = true;
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        if self.socket.start_send_unpin(Message::Close(Some(frame))).is_ok() {
            // The connection ends either way, so what became of the notice is of no interest.
            let _ = self.socket.poll_flush_unpin(cx);
        }
    }

    /// Sends `bytes` as one message once the socket has room for it.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: impl FnOnce() -> Bytes) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(io_error)?;
        let bytes = bytes();
        let length = bytes.len();
        self.socket
            .start_send_unpin(Message::Binary(bytes))
            .map_err(io_error)?;
        Poll::Ready(Ok(length))
    }
}

/// The I/O error within, or else one of the protocol, such as a connection that ends without a Close.
fn io_error(error: axum::Error) -> io::Error {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return io::Error::new(error.kind(), error.to_string());
        }
        cause = error.source();
    }
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_message(cx))?;
        let length = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread.split_to(length));
        if this.unread.is_empty() {
            // An empty slice still holds its message's memory.
            this.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, || {
            buf.take(LONGEST_SENT).copy_to_bytes(buf.len().min(LONGEST_SENT))
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, || {
            let all: usize = bufs.iter().map(|buf| buf.len()).sum();
            let mut message = BytesMut::with_capacity(all.min(LONGEST_SENT));
            for buf in bufs {
                let room = LONGEST_SENT.saturating_sub(message.len());
                message.extend_from_slice(buf.get(..room).unwrap_or(buf));
            }
            message.freeze()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sends a Close, or the answer to the client's. One that is closed already can't be closed again.
        self.socket.poll_close_unpin(cx).map(|_| Ok(()))
    }
}

#[cfg(test)]
mod tests;
