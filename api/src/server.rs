//! The composition root: puts the parts of one server together, and takes them apart in order.

mod error;
mod listen;
mod parts;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prometheus_client::registry::Registry;
use setpoint_broker::{
    Broker, Edge,
    transport::{Acceptor, Certificates, reload},
};
use setpoint_model::{Clock, SystemClock};
use setpoint_store::{
    ConnectOptions, PoolOptions, Store,
    embedded::{self, Embedded, EmbeddedConfig},
};

use crate::{
    app::{
        App,
        first_start::{FirstStart, first_start},
        oidc::Oidc,
        sealing::ServerKey,
    },
    config::{Config, Database},
    http::{self, Context, HttpMetrics, metrics},
    lifecycle::Tasks,
};
pub use error::StartError;
pub(crate) use error::chain;
use listen::Listeners;

/// What the name of every metric begins with.
const PREFIX: &str = "setpoint";
/// How long sessions and requests in hand may take at the end.
const GRACE: Duration = Duration::from_millis(1_500);
/// How long tasks may take to write what they hold.
const FLUSH: Duration = Duration::from_millis(1_500);
/// How long queries under way may take at the end.
const CLOSE: Duration = Duration::from_millis(500);

/// A running server. Stop it with [`Server::stop`]; dropping it ends nothing in order.
pub struct Server {
    addresses: Addresses,
    data_dir: PathBuf,
    first_start: FirstStart,
    app: App,
    edge: Edge,
    certificates: Option<Arc<Certificates>>,
    connections: Tasks,
    tasks: Tasks,
    embedded: Option<Embedded>,
}

/// Where a server listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// MQTT over TCP.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over TLS.
    pub mqtt_tls: Option<SocketAddr>,
    /// The path of MQTT over WebSocket on the HTTP port.
    pub websocket: Option<String>,
    /// Metrics, when they have an address of their own.
    pub metrics: Option<SocketAddr>,
}

/// The database of a configuration: the embedded one, started, or another.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn open_database(config: &Config) -> Result<(Store, Option<Embedded>), StartError> {
    let (target, embedded) = locate_database(&config.database, &config.data_dir).await?;
    let Database {
        max_connections,
        min_connections,
        ..
    } = config.database;
    let options = PoolOptions {
        max_connections,
        min_connections,
        acquire_timeout: config.database.acquire_timeout,
        connect_timeout: config.database.connect_timeout,
        statement_timeout: config.database.statement_timeout,
    };
    match Store::open(&target, &options).await {
        Ok(store) => Ok((store, embedded)),
        Err(error) => {
            if let Some(embedded) = embedded {
                embedded.stop().await;
            }
            Err(error.into())
        }
    }
}

/// Where the database is; the embedded one is started.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn locate_database(
    config: &Database,
    data_dir: &Path,
) -> Result<(ConnectOptions, Option<Embedded>), StartError> {
    if let Some(url) = &config.url {
        return Ok((url.parse()?, None));
    }
    let embedded = embedded::start(EmbeddedConfig {
        bin: config.embedded.bin.clone(),
        // Some for psql and backups beside the pool's.
        max_connections: config.max_connections.saturating_add(20),
        ..EmbeddedConfig::new(data_dir)
    });
    let embedded = embedded.await?;
    Ok((embedded.connect_options(), Some(embedded)))
}

impl Server {
    /// Starts a server by the machine's clock. It serves when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_at(config, Arc::new(SystemClock)).await
    }

    /// Starts a server by another clock.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn start_at(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let data_dir = data_dir(&config.data_dir)?;
        // First, as it is what fails most often, and clients that come meanwhile wait rather than are refused.
        let listeners = Listeners::bind(&config)?;
        let certificates = certificates(&config)?;
        let sign_in = sign_in(&config, &data_dir)?;
        let (store, embedded) = open_database(&config).await?;
        // Boxed: the configuration is large.
        let composed = Box::pin(Self::compose(
            config,
            clock,
            data_dir,
            listeners,
            certificates,
            sign_in,
            store.clone(),
        ));
        match composed.await {
            Ok(server) => Ok(Self { embedded, ..server }),
            Err(error) => {
                store.close().await;
                if let Some(embedded) = embedded {
                    embedded.stop().await;
                }
                Err(error)
            }
        }
    }

    async fn compose(
        config: Config,
        clock: Arc<dyn Clock>,
        data_dir: PathBuf,
        listeners: Listeners,
        certificates: Option<Arc<Certificates>>,
        sign_in: (ServerKey, Oidc),
        store: Store,
    ) -> Result<Self, StartError> {
        let first_start = first_start(&store, &*clock, &data_dir, config.admin.password.as_deref()).await?;
        let addresses = listeners.addresses(&config);
        let mut registry = Registry::default();
        let tasks = Tasks::new(registry.sub_registry_with_prefix(PREFIX));
        let connections = tasks.group();
        let http_metrics = HttpMetrics::new(registry.sub_registry_with_prefix(PREFIX));
        let limits = setpoint_broker::Config {
            discovery: config.home_assistant.prefix.clone(),
            ..config.mqtt.broker()
        };
        let broker = Broker::new(limits, Arc::clone(&clock), &mut registry)?;
        let (app, queues) = parts::app(&config, store, broker.handle(), clock, sign_in, &mut registry);
        let edge = broker.start(app.backend());
        let notices = parts::prepare(&app).await?;
        let registry = Arc::new(registry);
        let context = Context {
            app: app.clone(),
            tasks: tasks.clone(),
            stopping: connections.stopping(),
            registry: Arc::clone(&registry),
            public: Arc::new(http::Public {
                http: config.http.public_url.clone(),
                mqtt: config.claiming.mqtt_url.clone(),
                mqtt_tls_port: addresses.mqtt_tls.map(|address| address.port()),
                mqtt_port: addresses.mqtt.map(|address| address.port()),
            }),
        };
        let websocket = match &config.mqtt.websocket {
            Some(path) => http::websocket::routes(path, edge.clone(), config.mqtt.limits.max_packet_size),
            None => axum::Router::new(),
        };
        let router = http::router(context, &config.http, http_metrics, websocket)?;

        parts::spawn(&app, queues, notices, &config, &tasks);
        if let Some(certificates) = certificates.clone() {
            tasks.background(
                "certificates",
                certificates.watch(reload::INTERVAL, tasks.stopping()),
            );
        }

        if let Some(listener) = listeners.mqtt {
            edge.serve(
                listener,
                Acceptor::plain().with_proxy_protocol(config.mqtt.proxy_protocol),
            );
        }
        if let (Some(listener), Some(certificates)) = (listeners.mqtt_tls, &certificates) {
            let acceptor = Acceptor::tls(Arc::clone(certificates));
            edge.serve(listener, acceptor.with_proxy_protocol(config.mqtt.proxy_protocol));
        }
        if let Some(listener) = listeners.metrics {
            let router = metrics::separate(registry);
            connections.essential(
                "metrics",
                http::serve(listener, router, config.http.clone(), connections.clone()),
            );
        }
        connections.essential(
            "http",
            http::serve(listeners.http, router, config.http, connections.clone()),
        );
        Ok(Self {
            addresses,
            data_dir,
            first_start,
            app,
            edge,
            certificates,
            connections,
            tasks,
            embedded: None,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where HTTP is.
    pub fn http_address(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Where MQTT over TCP is.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.addresses.mqtt
    }

    /// The data directory, as an absolute path.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The administrator, and the password if this start made one up.
    pub fn first_start(&self) -> &FirstStart {
        &self.first_start
    }

    /// The administrator's API token.
    pub fn admin_token(&self) -> &str {
        &self.first_start.token
    }

    /// The use cases.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Reads the TLS certificates again; what comes of it is in the log.
    pub async fn reload_certificates(&self) {
        if let Some(certificates) = self.certificates.clone() {
            // The files are read away from the threads that serve; the outcome is logged there.
            let _ = tokio::task::spawn_blocking(move || certificates.reload()).await;
        }
    }

    /// Resolves with the name of an essential task that failed: the server is no use any more.
    pub async fn failed(&self) -> &'static str {
        self.tasks.failed().await
    }

    /// Stops in order: nothing new is taken, sessions are told and requests in hand finished, what tasks hold is
    /// written, and the embedded Postgres ends. Within 5 seconds; `false` if something had to be cut off.
    pub async fn stop(self) -> bool {
        let Self {
            app,
            edge,
            connections,
            tasks,
            embedded,
            ..
        } = self;
        let ((), finished) = tokio::join!(edge.shutdown(GRACE), connections.stop(GRACE));
        let written = tasks.stop(FLUSH).await;
        let closed = tokio::time::timeout(CLOSE, app.store.close()).await.is_ok();
        if let Some(embedded) = embedded {
            embedded.stop().await;
        }
        if !(finished && written && closed) {
            tracing::warn!(finished, written, closed, "the server stopped with work in hand");
        }
        finished && written && closed
    }
}

/// Makes the data directory. Its subdirectories have their own permissions; the embedded Postgres, which may run
/// as another user, has to pass through.
fn data_dir(path: &Path) -> Result<PathBuf, StartError> {
    let make = || {
        std::fs::create_dir_all(path)?;
        std::fs::canonicalize(path)
    };
    make().map_err(|source| StartError::DataDir {
        path: path.to_owned(),
        source,
    })
}

/// What signing in needs: the server's key, and the way to the provider.
fn sign_in(config: &Config, data_dir: &Path) -> Result<(ServerKey, Oidc), StartError> {
    let key = ServerKey::load(&config.sign_in.key_file(data_dir))?;
    let oidc = Oidc::new(&config.sign_in.oidc).map_err(StartError::Authorities)?;
    Ok((key, oidc))
}

fn certificates(config: &Config) -> Result<Option<Arc<Certificates>>, StartError> {
    let Some(files) = config.mqtt.tls.files() else {
        return Ok(None);
    };
    Ok(Some(Certificates::load(files)?))
}

/// Whether the certificates of the configuration, if any, can be used.
pub(crate) fn check_certificates(config: &Config) -> Option<Result<String, StartError>> {
    let loaded = certificates(config).transpose()?;
    Some(loaded.map(|certificates| certificates.summary().subject))
}

/// Whether an address can be listened on.
pub(crate) fn check_address(key: &'static str, address: SocketAddr) -> Result<(), StartError> {
    listen::bind(key, address).map(drop)
}
