//! Connecting, migrating and asking whether the database is there.

use std::{fmt, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use crate::{Error, Result};

/// The schema, in the order of `migrations/`.
pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The oldest server that the queries are written for.
const OLDEST_MAJOR: u32 = 15;

/// How long [`Store::ping`] waits.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long [`Store::other_users`] waits for connections that are just going, and between two looks.
const LINGER: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where the database is and how to log in: an opaque value, so that no layer above needs `sqlx`.
#[derive(Clone)]
pub struct ConnectOptions(pub(crate) PgConnectOptions);

/// The URL is not one of a PostgreSQL database. The text repeats nothing of it: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("not a PostgreSQL URL; expected postgres://user:password@host:5432/database?sslmode=verify-full")]
pub struct InvalidUrl;

impl FromStr for ConnectOptions {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(InvalidUrl);
        }
        url.parse().map(Self).map_err(|_| InvalidUrl)
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectOptions")
            .field(&format_args!("{self}"))
            .finish()
    }
}

impl fmt::Display for ConnectOptions {
    /// Where it points, for logs: never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.get_database().unwrap_or_else(|| self.0.get_username());
        match self.0.get_socket() {
            Some(socket) => write!(f, "{database} at {}", socket.display()),
            None => write!(f, "{database} at {}:{}", self.0.get_host(), self.0.get_port()),
        }
    }
}

/// Limits of the connection pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The most connections held at once.
    pub max_connections: u32,
    /// Connections kept open when idle.
    pub min_connections: u32,
    /// How long a caller waits for a connection before it gets [`Error::Unavailable`].
    pub acquire_timeout: Duration,
    /// How long [`Store::open`] keeps trying to reach a server that is starting.
    pub connect_timeout: Duration,
    /// The longest that one statement may run, migrations excepted; zero for no limit.
    pub statement_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_connections: 20,
            min_connections: 2,
            acquire_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No answer, or a refusal, within the connect time-out.
    #[error("cannot connect to the database {target}")]
    Connect {
        /// Where, without credentials.
        target: String,
        /// The last attempt's failure.
        #[source]
        source: Error,
    },
    /// The server is older than Setpoint supports.
    #[error("PostgreSQL {found} is too old: Setpoint needs {OLDEST_MAJOR} or newer")]
    TooOld {
        /// The server's version as it names itself.
        found: String,
    },
    /// The schema could not be brought up to date.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

impl OpenError {
    /// The server answers but has no such database (SQLSTATE 3D000).
    pub(crate) fn is_missing_database(&self) -> bool {
        match self {
            Self::Connect {
                source: Error::Query(sqlx::Error::Database(error)),
                ..
            } => error.code().as_deref() == Some("3D000"),
            _ => false,
        }
    }
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database has a migration that this binary does not know.
    #[error(
        "the database was migrated by a newer Setpoint (migration {0} is unknown here): run that version"
    )]
    Newer(i64),
    /// A migration's text differs from the one that was applied.
    #[error("migration {0} differs from the one this database was made with")]
    Modified(i64),
    /// A migration failed and was rolled back; the database is as it was before it.
    #[error("migration {version} failed")]
    Failed {
        /// The migration's number.
        version: i64,
        /// What Postgres said.
        #[source]
        source: Error,
    },
    /// Reading or writing the list of applied migrations failed.
    #[error("the applied migrations cannot be read")]
    Bookkeeping(#[source] Error),
}

impl From<sqlx::migrate::MigrateError> for MigrateError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError as E;
        match error {
            E::VersionMissing(version) => Self::Newer(version),
            E::VersionMismatch(version) => Self::Modified(version),
            E::ExecuteMigration(source, version) => Self::Failed {
                version,
                source: source.into(),
            },
            E::Execute(source) => Self::Bookkeeping(source.into()),
            other => Self::Bookkeeping(sqlx::Error::Migrate(Box::new(other)).into()),
        }
    }
}

/// All of Setpoint's data. Cheap to clone; every clone shares one connection pool.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    /// This process, as others on the same database hear of it.
    pub(crate) server: Uuid,
}

impl Store {
    /// Connects, checks the server's version, migrates, and opens the pool. A server that refuses connections
    /// because it is starting is tried again until the connect time-out.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(target: &ConnectOptions, options: &PoolOptions) -> Result<Self, OpenError> {
        let options = options.clone();
        let mut connection = connect(target, options.connect_timeout).await?;
        check_version(&mut connection, target).await?;
        MIGRATIONS
            .run(&mut connection)
            .await
            .map_err(MigrateError::from)?;
        grant_reader(&mut connection).await;
        // The work is done; a failure to say goodbye changes nothing.
        let _ = connection.close().await;
        let server = Uuid::new_v4();
        Ok(Self {
            pool: pool(target, &options, server),
            server,
        })
    }

    /// Whether a start could use this server: it answers and is new enough. Migrates nothing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn probe(target: &ConnectOptions, within: Duration) -> Result<(), OpenError> {
        let mut connection = connect(target, within).await?;
        check_version(&mut connection, target).await?;
        // The answer is known; a failure to say goodbye changes nothing.
        let _ = connection.close().await;
        Ok(())
    }

    /// How many connections other Setpoint processes hold to this database. Those that go within two seconds don't
    /// count: Postgres knows a connection that was closed a moment ago, perhaps by this very process, for a little longer.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn other_users(target: &ConnectOptions, within: Duration) -> Result<i64, OpenError> {
        let mut connection = connect(target, within).await?;
        let begun = Instant::now();
        let counted = loop {
            let counted = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()",
            )
            .bind(APPLICATION)
            .fetch_one(&mut connection)
            .await;
            if counted.as_ref().is_ok_and(|users| *users > 0) && begun.elapsed() < LINGER {
                sleep(LOOK_AGAIN).await;
            } else {
                break counted;
            }
        };
        // The answer is known; a failure to say goodbye changes nothing.
        let _ = connection.close().await;
        counted.map_err(|error| OpenError::Connect {
            target: target.to_string(),
            source: error.into(),
        })
    }

    /// Whether the database answers, within two seconds: what readiness stands on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        match timeout(PING_TIMEOUT, sqlx::query("SELECT 1").execute(&self.pool)).await {
            Ok(answer) => answer.map(drop).map_err(Error::from),
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Connections open now, and how many of them are idle: for metrics.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Lets queries under way finish, then closes every connection. Later calls get [`Error::Unavailable`].
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Gives the role of readers such as Grafana its rights, which no backup holds. A database server where that may not be
/// done serves all else.
async fn grant_reader(connection: &mut PgConnection) {
    match sqlx::query_scalar::<_, bool>("SELECT grant_reader()")
        .fetch_one(connection)
        .await
    {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!("the role setpoint_reader is not there, and may not be made by this user")
        }
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the role setpoint_reader has no rights"
        ),
    }
}

/// The pool: lazy, so that it also comes back by itself after the server was away.
fn pool(target: &ConnectOptions, options: &PoolOptions, server: Uuid) -> PgPool {
    let mut connect = named(target).statement_cache_capacity(STATEMENT_CACHE);
    // What triggers tell other servers says who made the change (`notify`).
    connect = connect.options([("setpoint.server", server)]);
    if !options.statement_timeout.is_zero() {
        connect = connect.options([("statement_timeout", options.statement_timeout.as_millis())]);
    }
    PgPoolOptions::new()
        .test_before_acquire(false)
        .before_acquire(|connection, used| {
            Box::pin(async move {
                // A round trip before each query would double its time. One that was used a moment ago is as good
                // as one that was tested; one that died meanwhile is replaced unnoticed.
                if used.idle_for > UNTESTED_IDLE {
                    connection.ping().await.map(|()| true)
                } else {
                    Ok(true)
                }
            })
        })
        .max_connections(options.max_connections)
        .min_connections(options.min_connections)
        .acquire_timeout(options.acquire_timeout)
        .connect_lazy_with(connect)
}

/// Prepared statements kept per connection: more than the crate has queries, so none is ever prepared twice.
const STATEMENT_CACHE: usize = 512;

/// A connection that was idle for less is handed out untested.
const UNTESTED_IDLE: Duration = Duration::from_secs(1);

/// Our name among the users of a database.
const APPLICATION: &str = "setpoint";

/// The options with our name, which shows in `pg_stat_activity`.
fn named(target: &ConnectOptions) -> PgConnectOptions {
    target.0.clone().application_name(APPLICATION)
}

/// One connection, tried again while the server is starting or not yet listening.
pub(crate) async fn connect(target: &ConnectOptions, within: Duration) -> Result<PgConnection, OpenError> {
    let began = Instant::now();
    let deadline = began + within;
    let options = named(target);
    loop {
        let error = match timeout_at(deadline, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => Error::from(error),
            Err(_) => Error::Unavailable(sqlx::Error::PoolTimedOut),
        };
        // A pause in proportion to the wait so far costs a start little, and a long wait few attempts.
        let pause = (began.elapsed() / 8).clamp(Duration::from_millis(2), Duration::from_millis(500));
        if !error.is_unavailable() || Instant::now() + pause >= deadline {
            return Err(OpenError::Connect {
                target: target.to_string(),
                source: error,
            });
        }
        sleep(pause).await;
    }
}

async fn check_version(connection: &mut PgConnection, target: &ConnectOptions) -> Result<(), OpenError> {
    let (number, name): (i32, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| OpenError::Connect {
        target: target.to_string(),
        source: error.into(),
    })?;
    supported(number, &name)
}

/// Refuses a server older than [`OLDEST_MAJOR`]. `number` is `server_version_num`: 150008 for 15.8.
fn supported(number: i32, name: &str) -> Result<(), OpenError> {
    let major = u32::try_from(number / 10_000).unwrap_or(0);
    if major >= OLDEST_MAJOR {
        Ok(())
    } else {
        Err(OpenError::TooOld {
            found: name.to_owned(),
        })
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
