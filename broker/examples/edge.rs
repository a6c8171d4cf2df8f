//! The edge alone, with a backend that lets everyone in and accepts everything: for conformance suites and load
//! generators. `cargo run -p setpoint-broker --example edge -- 127.0.0.1:1884`
//!
//! A client with a user name other than `token` is the device of that name; every other one is an operator. What an operator
//! publishes to `settings/set` becomes the device's settings as it is.
#![expect(clippy::print_stderr, reason = "a program for the terminal")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use prometheus_client::registry::Registry;
use setpoint_broker::{
    Ack, Authenticated, Backend, Broker, Config, Handle, Inbound, Login, Outcome, Outgoing, QoS, Refusal,
    SessionEvent, transport::Acceptor,
};
use setpoint_model::{Channel, Identity, SystemClock, Topic, access::Operator};
use tokio::net::TcpListener;
use uuid::Uuid;

struct Open {
    handle: Handle,
    /// The version of the newest settings document.
    version: AtomicU64,
}

impl Backend for Open {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Authenticated, Refusal>> {
        let identity = match login.username.as_deref() {
            None | Some("token") => Ok(Identity::Operator(
                Operator::everywhere(Uuid::nil(), "anyone").into(),
            )),
            Some(serial) => serial
                .parse()
                .map(Identity::Device)
                .map_err(|_| Refusal::NotAuthorized),
        };
        async move { identity.map(|identity| Authenticated { identity, epoch: 0 }) }.boxed()
    }

    fn is_current(&self, _: &Authenticated) -> bool {
        true
    }

    fn inbound(&self, inbound: Inbound, ack: Ack) -> BoxFuture<'_, ()> {
        if inbound.topic.channel != Channel::SettingsSet {
            ack.complete(Outcome::Accepted);
            return std::future::ready(()).boxed();
        }
        let document = Outgoing {
            topic: Topic::new(inbound.topic.serial, Channel::Settings),
            payload: inbound.payload,
            qos: QoS::AtLeastOnce,
            retain: true,
            receipt: Some(self.version.fetch_add(1, Ordering::Relaxed)),
        };
        async move {
            if self.handle.publish(document).await.is_ok() {
                ack.complete(Outcome::Accepted);
            }
        }
        .boxed()
    }

    fn delivered(&self, _: &Topic, _: u64) {}

    fn event(&self, _: SessionEvent) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let config = Config {
        max_messages_per_second: 1_000_000,
        max_bytes_per_second: 1_000_000_000,
        max_denied_per_minute: 0,
        ..Config::default()
    };
    let broker = Broker::new(config, Arc::new(SystemClock), &mut Registry::default())?;
    let handle = broker.handle();
    let edge = broker.start(Arc::new(Open {
        handle,
        version: AtomicU64::new(1),
    }));
    let listener = TcpListener::bind(listen).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    edge.serve(listener, Acceptor::plain());
    tokio::signal::ctrl_c().await?;
    edge.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
