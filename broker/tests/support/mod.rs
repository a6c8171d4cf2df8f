//! A server with a backend of its own for each test, and clients that speak raw packets.

mod backend;
mod client;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use setpoint_broker::{Broker, Config, Edge, Handle, Outgoing, QoS, SessionEvent, transport::Acceptor};
use setpoint_model::{Channel, Serial, SystemClock, Topic};
use tokio::net::TcpListener;

pub(crate) use self::{
    backend::{Answering, TestBackend, text},
    client::{Client, V3, V5, connect3, connect5, id, operator5, publish, subscription},
};

/// Long enough for a loaded machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An edge on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) backend: Arc<TestBackend>,
    pub(crate) handle: Handle,
    pub(crate) edge: Edge,
    pub(crate) metrics: Registry,
}

impl Server {
    /// With two shards and the default limits.
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// With limits of its own.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            shards: 2,
            ..Config::default()
        };
        change(&mut config);
        let mut metrics = Registry::default();
        let broker = Broker::new(config, Arc::new(SystemClock), &mut metrics).unwrap();
        let handle = broker.handle();
        let backend = Arc::new(TestBackend::default());
        let edge = broker.start(backend.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        edge.serve(listener, Acceptor::plain());
        Self {
            address,
            backend,
            handle,
            edge,
            metrics,
        }
    }

    /// A 3.1.1 client that has not said anything yet.
    pub(crate) async fn v3(&self) -> V3 {
        Client::v3(self.address).await
    }

    /// A 5.0 client that has not said anything yet.
    pub(crate) async fn v5(&self) -> V5 {
        Client::v5(self.address).await
    }

    /// A connected device with a clean session, over 3.1.1.
    pub(crate) async fn device3(&self, serial: &str) -> V3 {
        let mut client = self.v3().await;
        client.welcome(connect3(serial)).await;
        client
    }

    /// A connected device with a clean start, over 5.0.
    pub(crate) async fn device5(&self, serial: &str) -> V5 {
        let mut client = self.v5().await;
        client.welcome(connect5(serial)).await;
        client
    }

    /// A connected operator, over 5.0.
    pub(crate) async fn operator5(&self, client_id: &str) -> V5 {
        let mut client = self.v5().await;
        client.welcome(client::operator5(client_id)).await;
        client
    }

    /// A connected operator, over 3.1.1.
    pub(crate) async fn operator3(&self, client_id: &str) -> V3 {
        let mut client = self.v3().await;
        client.welcome(client::operator3(client_id)).await;
        client
    }

    /// Publishes a device's settings as the reconciler does.
    pub(crate) async fn settings(&self, serial: &str, version: u64) {
        self.handle.publish(settings(serial, version)).await.unwrap();
    }

    /// Waits until every message handed in has been through its router.
    pub(crate) async fn settled(&self) {
        eventually("all is delivered", || {
            self.handle.shards().iter().all(|shard| shard.in_flight == 0)
        })
        .await;
    }

    /// The value of a metric, by the beginning of its line.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text.lines()
            .find_map(|l| l.strip_prefix(line)?.trim().parse::<f64>().ok())
            .map_or(0, |value| value as u64)
    }

    /// Waits for an event that `wanted` maps to something; others are passed over.
    pub(crate) async fn event<T>(&self, wanted: impl FnMut(SessionEvent) -> Option<T>) -> T {
        self.backend.event_where(wanted).await
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A settings message.
pub(crate) fn settings(serial: &str, version: u64) -> Outgoing {
    Outgoing {
        topic: topic(serial, Channel::Settings),
        payload: settings_payload(version),
        qos: QoS::AtLeastOnce,
        retain: true,
        receipt: Some(version),
    }
}

/// Its payload.
pub(crate) fn settings_payload(version: u64) -> Bytes {
    format!("{{\"version\":{version},\"settings\":{{}}}}").into()
}

pub(crate) fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

pub(crate) fn topic(serial: &str, channel: Channel) -> Topic {
    Topic::new(serial.parse().unwrap(), channel)
}
