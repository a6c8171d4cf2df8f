//! Any session ends, and the one beside it notices nothing.
#![no_main]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use setpoint_broker::{
    Ack, Authenticated, Backend, Broker, Config, Edge, Handle, Inbound, Login, Outcome, Peer, Refusal,
    SessionEvent, Transport,
};
use setpoint_model::{access::Operator, Identity, SystemClock, Topic};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::{Builder, Runtime},
    sync::Mutex,
};

struct Open;

impl Backend for Open {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Authenticated, Refusal>> {
        let serial = login.username.as_deref().unwrap_or("A").parse();
        let identity = match serial {
            Ok(serial) => Identity::Device(serial),
            Err(_) => Identity::Operator(Operator::everywhere(uuid::Uuid::nil(), "").into()),
        };
        Box::pin(async move { Ok(Authenticated { identity, epoch: 0 }) })
    }

    fn is_current(&self, _: &Authenticated) -> bool {
        true
    }

    fn inbound(&self, _: Inbound, ack: Ack) -> BoxFuture<'_, ()> {
        ack.complete(Outcome::Accepted);
        Box::pin(async {})
    }

    fn delivered(&self, _: &Topic, _: u64) {}

    fn event(&self, _: SessionEvent) {}
}

/// The edge, and the connection of a client that must not notice anything.
struct Server {
    runtime: Runtime,
    edge: Edge,
    handle: Handle,
    bystander: Mutex<DuplexStream>,
}

fn peer() -> Peer {
    Peer {
        address: ([127, 0, 0, 1], 1).into(),
        transport: Transport::Tcp,
        certificate: None,
    }
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        // One thread for both ends: with more, each packet waits for another thread to be scheduled.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _guard = runtime.enter();
        let config = Config {
            shards: 1,
            ..Config::default()
        };
        let broker = Broker::new(config, Arc::new(SystemClock), &mut Registry::default()).expect("a broker");
        let handle = broker.handle();
        let edge = broker.start(Arc::new(Open));
        let (mut bystander, io) = tokio::io::duplex(64 * 1024);
        let greeting = async {
            // 3.1.1, without a keep-alive, user name and client id B.
            let connect = b"\x10\x10\0\x04MQTT\x04\x82\0\0\0\x01B\0\x01B";
            bystander.write_all(connect).await.expect("written");
            let mut answer = [0; 4];
            bystander.read_exact(&mut answer).await.expect("CONNACK");
            assert_eq!(answer, [0x20, 2, 0, 0]);
        };
        runtime.block_on(async {
            // The session goes on by itself.
            tokio::select! {
                () = edge.session(io, peer()) => panic!("the bystander is gone"),
                () = greeting => {}
            }
        });
        drop(_guard);
        Server {
            runtime,
            edge,
            handle,
            bystander: Mutex::new(bystander),
        }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let server = server();
    server.runtime.block_on(async {
        let (mut client, io) = tokio::io::duplex(64 * 1024);
        let session = server.edge.session(io, peer());
        let talk = async {
            // Everyone else's CONNECT is well-formed: half of the inputs begin behind it.
            if bytes.first().is_some_and(|byte| byte % 2 == 0) {
                let _ = client.write_all(b"\x10\x0D\0\x04MQTT\x05\x02\0\x3C\0\0\0").await;
            }
            let _ = client.write_all(bytes.get(1..).unwrap_or_default()).await;
            let _ = client.shutdown().await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
        };
        let both = async { tokio::join!(session, talk) };
        tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .expect("a session ends");
        let mut bystander = server.bystander.lock().await;
        bystander.write_all(b"\xC0\0").await.expect("PINGREQ");
        let mut answer = [0; 2];
        bystander.read_exact(&mut answer).await.expect("PINGRESP");
        assert_eq!(answer, [0xD0, 0]);
        assert_eq!(server.handle.counts().router_restarts, 0);
    });
});
