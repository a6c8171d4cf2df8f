//! The real server, in this process.

use std::{fmt, sync::Arc};

use setpoint_api::{
    config::{Config, Sources},
    server::Server,
};
use setpoint_model::Clock;
use setpoint_store::testing::{TestDatabase, database};
use tempfile::TempDir;

use super::{database::Gate, wait::within};

/// A running server with everything that is its own.
pub(super) struct Running {
    server: Option<Server>,
    database: Arc<TestDatabase>,
    data: TempDir,
    sources: Sources,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Starts a server on port 0, with `keys` of the configuration changed.
    pub(super) async fn start(
        keys: &[(String, String)],
        gated: bool,
        clock: Arc<dyn Clock>,
    ) -> (Self, Option<Gate>) {
        log();
        Self::start_on(Arc::new(database().await), keys, gated, clock).await
    }

    /// Another one on the same database.
    pub(super) async fn start_beside(&self) -> Self {
        let clock = Arc::clone(&self.clock);
        Self::start_on(Arc::clone(&self.database), &[], false, clock)
            .await
            .0
    }

    async fn start_on(
        database: Arc<TestDatabase>,
        keys: &[(String, String)],
        gated: bool,
        clock: Arc<dyn Clock>,
    ) -> (Self, Option<Gate>) {
        let data = tempfile::tempdir().expect("a data directory");
        let gate = if gated {
            Some(Gate::new(&database.url()).await)
        } else {
            None
        };
        let url = gate
            .as_ref()
            .map_or_else(|| database.url(), |gate| gate.url().to_owned());
        let mut sources = Sources::default()
            .with("data_dir", data.path().to_string_lossy())
            .with("database.url", url)
            .with("database.min_connections", "0")
            // That what was answered is published is promised here however busy the machine is.
            .with("settings.publish_wait", "10s")
            .with("http.listen", "127.0.0.1:0")
            .with("mqtt.listen", "127.0.0.1:0")
            // Each shard has a thread, and many tests run at once.
            .with("mqtt.shards", "4");
        if !gated {
            // It is there, only slow at times.
            sources = sources.with("database.acquire_timeout", "20s");
        }
        for (key, value) in keys {
            sources = sources.with(key, value);
        }
        let mut running = Self {
            server: None,
            database,
            data,
            sources,
            clock,
        };
        running.start_server().await;
        (running, gate)
    }

    async fn start_server(&mut self) {
        let config = Config::load(&self.sources).expect("a configuration");
        let started = within(
            "the server to start",
            Box::pin(Server::start_at(config, Arc::clone(&self.clock))),
        )
        .await;
        self.server = Some(started.unwrap_or_else(|error| panic!("the server does not start: {error}")));
    }

    pub(super) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            within("the server to stop", server.stop()).await;
        }
    }

    pub(super) async fn start_again(&mut self) {
        self.start_server().await;
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a running server")
    }

    pub(super) fn http_port(&self) -> u16 {
        self.server().http_address().port()
    }

    pub(super) fn mqtt_port(&self) -> u16 {
        self.server().mqtt_address().expect("MQTT over TCP").port()
    }

    pub(super) fn tls_port(&self) -> u16 {
        self.server().addresses().mqtt_tls.expect("MQTT over TLS").port()
    }

    pub(super) fn admin_token(&self) -> String {
        let file = self.data.path().join("admin-token");
        let token = std::fs::read_to_string(file).expect("the administrator's token");
        token.trim().to_owned()
    }

    pub(super) fn database(&self) -> &TestDatabase {
        &self.database
    }
}

/// Shows the server's log of a failed test when `RUST_LOG` asks for it.
fn log() {
    use tracing_subscriber::EnvFilter;
    if std::env::var_os("RUST_LOG").is_some() {
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_test_writer();
        // Another test was first.
        let _ = log.try_init();
    }
}
