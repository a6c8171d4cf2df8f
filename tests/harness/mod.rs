//! One server with a database of its own, and what a test does with it.

pub mod alerts;
pub mod api;
pub mod child;
pub mod database;
pub mod events;
pub mod mosquitto;
pub mod mqtt;
pub mod oidc;
pub mod receiver;
mod server;
pub mod socket;
pub mod wait;

use std::sync::Arc;

use serde_json::{Value, json};
use setpoint_model::{Clock, SystemClock, clock::ManualClock};
use setpoint_store::testing::Held;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use self::{
    api::Api,
    database::Gate,
    mosquitto::Login,
    mqtt::{Connect, Mqtt, Version},
    server::Running,
    socket::Socket,
};

/// Runs a client's part of a test until it is done or aborted.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    TaskTracker::new().spawn(task).abort_handle()
}

/// A server in this process, on ports of its own.
#[derive(Debug)]
pub struct Harness {
    api: Api,
    gate: Option<Gate>,
    server: Running,
}

/// A server to be started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    keys: Vec<(String, String)>,
    gate: bool,
    clock: Option<ManualClock>,
}

impl Setup {
    /// With a configuration key.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With a gate in front of the database, for [`Harness::gate`].
    #[must_use]
    pub fn gated(mut self) -> Self {
        self.gate = true;
        self
    }

    /// With another clock than the machine's.
    #[must_use]
    pub fn at(mut self, clock: &ManualClock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Starts it.
    pub async fn start(self) -> Harness {
        let clock: Arc<dyn Clock> = match self.clock {
            Some(clock) => Arc::new(clock),
            None => Arc::new(SystemClock),
        };
        let (server, gate) = Running::start(&self.keys, self.gate, clock).await;
        let api = Api::new(format!("http://127.0.0.1:{}", server.http_port()));
        let api = api.with_token(server.admin_token());
        Harness { api, gate, server }
    }
}

impl Harness {
    /// Starts a server with the defaults.
    pub async fn start() -> Self {
        Self::setup().start().await
    }

    /// A server to be started with other than the defaults.
    pub fn setup() -> Setup {
        Setup::default()
    }

    /// Another server on the same database.
    pub async fn beside(&self) -> Self {
        let server = self.server.start_beside().await;
        let api = Api::new(format!("http://127.0.0.1:{}", server.http_port()));
        let api = api.with_token(server.admin_token());
        Self {
            api,
            gate: None,
            server,
        }
    }

    /// REST with the administrator's token.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The gate in front of the database.
    ///
    /// # Panics
    /// Without [`Setup::gated`].
    pub fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("a gated setup")
    }

    /// Opens the gate, and waits until REST is back: what is refused connections tries again only after a while.
    ///
    /// # Panics
    /// Without [`Setup::gated`], and when it does not come back.
    pub async fn back(&self) {
        self.gate().open();
        crate::eventually!(self.api().get("/devices").await.status == 200);
    }

    /// The MQTT port.
    pub fn mqtt_port(&self) -> u16 {
        self.server.mqtt_port()
    }

    /// The port of MQTT over TLS.
    pub fn tls_port(&self) -> u16 {
        self.server.tls_port()
    }

    /// Runs SQL on the server's database, to arrange or to look at what has no route.
    pub async fn sql(&self, sql: &str) {
        self.server.database().execute(sql).await;
    }

    /// Runs SQL in a transaction that stays open until it is released.
    pub async fn hold(&self, sql: &str) -> Held {
        self.server.database().hold(sql).await
    }

    /// The value in `/metrics` of the series of exactly this name and these labels; labels stand in the order of the text.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.api.root(reqwest::Method::GET, "/metrics").await.text;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Stops the server in order, and starts another on the same database and data directory.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Stops the server in order; [`Self::start_again`] follows.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Starts another on the same database and data directory.
    pub async fn start_again(&mut self) {
        self.server.start_again().await;
        let api = Api::new(format!("http://127.0.0.1:{}", self.server.http_port()));
        self.api = api.with_token(self.server.admin_token());
    }

    /// Creates a device of the model `home`.
    pub async fn device(&self, serial: &str) -> Device {
        Device::create(&self.api, self.mqtt_port(), serial).await
    }

    /// An MQTT client to be connected as an operator, with the API token `token`.
    pub fn operator(&self, version: Version, token: &str, client_id: &str) -> Connect {
        Connect::new(self.mqtt_port(), version, operator_login(token, client_id))
    }

    /// An operator with the administrator's token, connected in MQTT 5.
    pub async fn watcher(&self) -> Mqtt {
        let connect = self.operator(Version::V5, self.api.token(), "watcher");
        connect.connect().await
    }

    /// A bare connection to the MQTT port.
    pub async fn socket(&self) -> Socket {
        Socket::connect(self.mqtt_port()).await
    }
}

/// The credentials of an operator's MQTT client.
pub fn operator_login(token: &str, client_id: &str) -> Login {
    Login {
        username: "token".to_owned(),
        password: token.to_owned(),
        client_id: client_id.to_owned(),
    }
}

/// A device that was created, as its owner knows it.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its serial.
    pub serial: String,
    /// Its token.
    pub token: String,
    /// REST with an administrator's token.
    pub api: Api,
    /// Where it connects.
    pub mqtt_port: u16,
}

impl Device {
    /// Creates a device of the model `home`.
    pub async fn create(api: &Api, mqtt_port: u16, serial: &str) -> Self {
        let made = api
            .post("/devices")
            .json(&json!({"serial": serial}))
            .await
            .expect(201);
        let credential = &made["credential"];
        assert_eq!(credential["username"], serial, "{made}");
        Self {
            serial: serial.to_owned(),
            token: credential["token"].as_str().expect("its token").to_owned(),
            api: api.clone(),
            mqtt_port,
        }
    }

    /// The route of the device, or of what is below it: `/settings`.
    pub fn path(&self, below: &str) -> String {
        format!("/devices/{}{below}", self.serial)
    }

    /// A topic of the device: `settings/ack`.
    pub fn topic(&self, channel: &str) -> String {
        format!("devices/{}/{channel}", self.serial)
    }

    /// Its credentials.
    pub fn login(&self) -> Login {
        Login {
            username: self.serial.clone(),
            password: self.token.clone(),
            client_id: self.serial.clone(),
        }
    }

    /// An MQTT client to be connected as this device.
    pub fn mqtt(&self, version: Version) -> Connect {
        Connect::new(self.mqtt_port, version, self.login())
    }

    /// Connected in MQTT 3.1.1.
    pub async fn mqtt_v3(&self) -> Mqtt {
        self.mqtt(Version::V3).connect().await
    }

    /// Connected in MQTT 5.0.
    pub async fn mqtt_v5(&self) -> Mqtt {
        self.mqtt(Version::V5).connect().await
    }

    /// Connected and subscribed to its settings, the document it has now already taken.
    pub async fn listening(&self, version: Version) -> Mqtt {
        let mut mqtt = self.mqtt(version).connect().await;
        let filter = self.topic("#");
        assert_eq!(mqtt.subscribe(&[&filter]).await, [1]);
        mqtt.next(&self.topic("settings")).await;
        mqtt
    }

    /// What REST says of it.
    pub async fn get(&self) -> Value {
        self.api.get(&self.path("")).await.expect(200)
    }

    /// What REST says of its settings.
    pub async fn settings(&self) -> Value {
        self.api.get(&self.path("/settings")).await.expect(200)
    }

    /// Patches its settings: the new version.
    pub async fn change(&self, patch: Value) -> i64 {
        let answer = self.api.patch(&self.path("/settings")).json(&patch).await;
        answer.expect(200)["version"].as_i64().expect("a version")
    }

    /// One version of its settings as history tells it.
    pub async fn version(&self, version: i64) -> Value {
        let path = self.path(&format!("/settings/versions/{version}"));
        self.api.get(&path).await.expect(200)
    }

    /// The entries of its timeline of one kind, newest first.
    pub async fn timeline(&self, kind: &str) -> Vec<Value> {
        let list = self.api.get(&self.path("/timeline")).await.expect(200);
        let items = list["items"].as_array().expect("items").clone();
        items.into_iter().filter(|item| item["kind"] == kind).collect()
    }

    /// The state of one settings key.
    pub async fn key_state(&self, key: &str) -> Value {
        self.settings().await["status"][key]["state"].clone()
    }

    /// Its telemetry, oldest first.
    pub async fn telemetry(&self, query: &str) -> Vec<Value> {
        let list = self
            .api
            .get(&self.path(&format!("/telemetry?{query}")))
            .await
            .expect(200);
        list["items"].as_array().expect("items").clone()
    }
}
