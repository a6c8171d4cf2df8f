use std::net::Ipv4Addr;

use axum::Router;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message as Sent,
        client::IntoClientRequest,
        protocol::frame::coding::{CloseCode, Data, OpCode},
        protocol::frame::{CloseFrame as SentClose, Frame},
    },
};

use super::*;

/// Far longer than anything here takes; only a defect waits this long.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_PACKET: usize = 64 * 1024;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server whose streams come out of a channel.
struct Server {
    address: SocketAddr,
    streams: mpsc::Receiver<Stream>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn new() -> Self {
        let (sender, streams) = mpsc::channel(16);
        let handler = move |upgrade: WebSocketUpgrade| {
            let sender = sender.clone();
            async move {
                accept(upgrade, MAX_PACKET, |io| async move {
                    sender.send(io).await.unwrap();
                })
            }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async {
            axum::serve(listener, Router::new().route("/mqtt", any(handler)))
                .await
                .unwrap()
        });
        Self {
            address,
            streams,
            _tasks: tasks,
        }
    }

    async fn try_connect(
        &self,
        subprotocols: Option<&str>,
    ) -> Result<(Client, Option<String>), tungstenite::Error> {
        let mut request = format!("ws://{}/mqtt", self.address)
            .into_client_request()
            .unwrap();
        if let Some(subprotocols) = subprotocols {
            request
                .headers_mut()
                .insert("sec-websocket-protocol", subprotocols.parse().unwrap());
        }
        let (client, response) = timeout(PATIENCE, connect_async(request)).await.unwrap()?;
        let chosen = response.headers().get("sec-websocket-protocol");
        Ok((client, chosen.map(|chosen| chosen.to_str().unwrap().to_owned())))
    }

    /// A client and the server's end of its stream.
    async fn pair(&mut self) -> (Client, Stream) {
        let (client, _) = self.try_connect(Some("mqtt")).await.unwrap();
        let io = timeout(PATIENCE, self.streams.recv()).await.unwrap().unwrap();
        (client, io)
    }
}

async fn read(io: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, io.read_exact(&mut bytes))
        .await
        .expect("bytes come")
        .unwrap();
    bytes
}

async fn next(client: &mut Client) -> Sent {
    timeout(PATIENCE, client.next())
        .await
        .expect("a message comes")
        .expect("not the end")
        .unwrap()
}

#[tokio::test]
async fn the_subprotocol_is_chosen_when_offered_and_needed() {
    let server = Server::new().await;
    for (offered, chosen) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1, mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("chat, mqtt", "mqtt"),
    ] {
        let (_, answer) = server.try_connect(Some(offered)).await.unwrap();
        assert_eq!(answer.as_deref(), Some(chosen), "{offered}");
    }
    for offered in [None, Some("chat")] {
        let error = server.try_connect(offered).await.unwrap_err();
        let tungstenite::Error::Http(response) = error else {
            panic!("{error}")
        };
        assert_eq!(response.status(), 400);
    }
}

#[tokio::test]
async fn packets_may_span_and_share_messages_and_frames() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    client.send(Sent::binary(&b"ab"[..])).await.unwrap();
    client.send(Sent::binary(&b""[..])).await.unwrap();
    client.send(Sent::binary(&b"cdef"[..])).await.unwrap();
    let part =
        |bytes: &'static [u8], code, last| Sent::Frame(Frame::message(bytes, OpCode::Data(code), last));
    client.send(part(b"gh", Data::Binary, false)).await.unwrap();
    // A control frame may come between the parts of a message.
    client.send(Sent::Ping(Bytes::new())).await.unwrap();
    client.send(part(b"ij", Data::Continue, true)).await.unwrap();
    assert_eq!(read(&mut io, 3).await, b"abc");
    assert_eq!(read(&mut io, 7).await, b"defghij");

    let wrote = io
        .write_vectored(&[IoSlice::new(b"set"), IoSlice::new(b""), IoSlice::new(b"point")])
        .await;
    assert_eq!(wrote.unwrap(), 8);
    io.write_all(b"!").await.unwrap();
    io.flush().await.unwrap();
    assert_eq!(next(&mut client).await, Sent::Pong(Bytes::new()));
    assert_eq!(next(&mut client).await, Sent::binary(&b"setpoint"[..]));
    assert_eq!(next(&mut client).await, Sent::binary(&b"!"[..]));
}

#[tokio::test]
async fn a_large_packet_arrives_whole_both_ways() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    let large: Vec<u8> = (0..MAX_PACKET * PACKETS_PER_MESSAGE)
        .map(|n| (n % 251) as u8)
        .collect();

    let sent = Sent::binary(large.clone());
    let (sending, received) = tokio::join!(client.send(sent), read(&mut io, large.len()));
    sending.unwrap();
    assert!(received == large);

    let mut echoed = Vec::new();
    let send = async {
        let (first, second) = large.split_at(large.len() / 2);
        io.write_all(first).await.unwrap();
        let mut rest = IoSlice::new(second);
        while !rest.is_empty() {
            let wrote = io.write_vectored(&[rest, IoSlice::new(b"")]).await.unwrap();
            rest.advance(wrote);
        }
        io.flush().await.unwrap();
    };
    let receive = async {
        while echoed.len() < large.len() {
            let Sent::Binary(message) = next(&mut client).await else {
                panic!("not binary")
            };
            assert!(message.len() <= LONGEST_SENT);
            echoed.extend_from_slice(&message);
        }
    };
    tokio::join!(send, receive);
    assert!(echoed == large);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_connection() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    let too_large = Sent::binary(vec![0; MAX_PACKET * PACKETS_PER_MESSAGE + 1]);
    let (_, read) = tokio::join!(client.send(too_large), async {
        timeout(PATIENCE, io.read(&mut [0; 16])).await.expect("an answer")
    });
    assert!(read.is_err());
    // In parts too, whose sum counts.
    let (mut client, mut io) = server.pair().await;
    let part = |code, last| Sent::Frame(Frame::message(vec![0; MAX_PACKET], OpCode::Data(code), last));
    let send = async {
        client.send(part(Data::Binary, false)).await?;
        for _ in 0..PACKETS_PER_MESSAGE {
            client.send(part(Data::Continue, false)).await?;
        }
        Ok::<_, tungstenite::Error>(())
    };
    let (_, read) = tokio::join!(send, async {
        timeout(PATIENCE, io.read(&mut [0; 16])).await.expect("an answer")
    });
    assert!(read.is_err());
}

#[tokio::test]
async fn a_text_frame_is_a_protocol_error() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    client.send(Sent::binary(&b"ab"[..])).await.unwrap();
    client.send(Sent::text("hello")).await.unwrap();
    assert_eq!(read(&mut io, 2).await, b"ab");
    let error = timeout(PATIENCE, io.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let Sent::Close(Some(SentClose { code, .. })) = next(&mut client).await else {
        panic!("no close")
    };
    assert_eq!(code, CloseCode::Unsupported);
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0, "and then the end");
}

#[tokio::test]
async fn a_ping_is_answered_while_a_read_waits() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    client.send(Sent::Ping(Bytes::from_static(b"?"))).await.unwrap();
    tokio::select! {
        pong = next(&mut client) => assert_eq!(pong, Sent::Pong(Bytes::from_static(b"?"))),
        read = io.read_u8() => panic!("there is nothing to read, but {read:?}"),
    }
    client.send(Sent::binary(&b"a"[..])).await.unwrap();
    assert_eq!(read(&mut io, 1).await, b"a");
}

#[tokio::test]
async fn the_closing_handshake_works_from_either_side() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    client.close(None).await.unwrap();
    assert_eq!(timeout(PATIENCE, io.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert_eq!(next(&mut client).await, Sent::Close(None));
    io.shutdown().await.unwrap();
    assert!(io.write(b"late").await.is_err());

    let (mut client, mut io) = server.pair().await;
    io.write_all(b"last words").await.unwrap();
    timeout(PATIENCE, io.shutdown()).await.unwrap().unwrap();
    assert_eq!(next(&mut client).await, Sent::binary(&b"last words"[..]));
    assert_eq!(next(&mut client).await, Sent::Close(None));

    // A client that just goes is an error, as with a reset of TCP.
    let (client, mut io) = server.pair().await;
    drop(client);
    timeout(PATIENCE, io.read(&mut [0])).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection() {
    let mut server = Server::new().await;
    let (mut client, mut io) = server.pair().await;
    let flood = async {
        while client.send(Sent::Ping(Bytes::new())).await.is_ok() {
            // The answers are read, so that it is not the full socket that ends it.
            let Some(Ok(_)) = client.next().await else { return };
        }
    };
    let mut buffer = [0];
    let read = timeout(PATIENCE, io.read(&mut buffer));
    let (_, read) = tokio::join!(timeout(PATIENCE, flood), read);
    assert_eq!(
        read.expect("it ends").unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[tokio::test]
async fn a_client_that_never_reads_stops_the_writer() {
    let mut server = Server::new().await;
    let (client, mut io) = server.pair().await;
    let block = vec![0; 256 * 1024];
    let mut written = 0;
    let mut context = Context::from_waker(std::task::Waker::noop());
    // Loopback sockets hold some megabytes; without a bound this would go on until memory ends.
    while let Poll::Ready(wrote) = Pin::new(&mut io).poll_write(&mut context, &block) {
        written += wrote.unwrap();
        assert!(written < 256 << 20, "the writer is never held back");
        tokio::task::yield_now().await;
    }
    assert!(written > 0);
    drop(client);
}
