//! A database of its own for every test, with the schema in place.
//!
//! `TEST_DATABASE_URL` names a server to use. Without it the first test that asks starts a throwaway Postgres
//! for the whole run; it ends with the run, however that ends. Each database is a copy of one template that is
//! migrated once per state of `migrations/`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test without its database can only fail"
)]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{LazyLock, mpsc},
    time::Duration,
};

use nix::unistd::{Uid, getppid};
use setpoint_model::{Clock, SystemClock};
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres, Transaction,
    postgres::PgPoolOptions,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    ConnectOptions, Store,
    database::{self, MIGRATIONS},
    embedded::throwaway,
};

/// How long to wait for the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a test waits at its end for its database to be dropped.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// Key of the advisory lock under which the template is made.
const TEMPLATE_LOCK: i64 = 0x5e79_0147;

/// Databases that a killed test left behind are dropped at this age, in seconds.
const LEFTOVER_AGE: i64 = 600;

/// One test's database. It goes when this value is dropped, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    pool: PgPool,
    options: ConnectOptions,
    name: String,
    server: ConnectOptions,
}

impl TestDatabase {
    /// The store on it.
    #[must_use]
    pub fn store(&self) -> Store {
        Store {
            pool: self.pool.clone(),
            server: uuid::Uuid::new_v4(),
        }
    }

    /// The pool, for a test's own queries.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How another process or pool connects to it.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        self.options.clone()
    }

    /// The same as a URL, for `database.url`.
    #[must_use]
    pub fn url(&self) -> String {
        match self.options.0.get_socket() {
            Some(socket) => {
                format!(
                    "postgres://{}@localhost/{}?host={}",
                    self.options.0.get_username(),
                    self.name,
                    socket.display()
                )
            }
            None => self.options.0.to_url_lossy().to_string(),
        }
    }

    /// Runs one or more statements, to arrange what the store has no call for.
    ///
    /// # Panics
    /// When Postgres refuses one.
    pub async fn execute(&self, sql: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs SQL in a transaction of its own, which stays open until it is released: to hold locks.
    ///
    /// # Panics
    /// When it fails.
    pub async fn hold(&self, sql: &str) -> Held {
        let mut transaction = self.pool.begin().await.expect("a transaction");
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        Held(transaction)
    }
}

/// What an open transaction holds.
#[derive(Debug)]
pub struct Held(Transaction<'static, Postgres>);

impl Held {
    /// Lets go, and takes back what was done.
    ///
    /// # Panics
    /// When the database fails.
    pub async fn release(self) {
        self.0.rollback().await.expect("a rollback");
    }
}

impl Drop for TestDatabase {
    /// Takes about 10 ms. A test process that ends right after would otherwise leave its database to be kept in
    /// memory and written out for the rest of the run.
    fn drop(&mut self) {
        let (done, dropped) = mpsc::sync_channel(1);
        if DROPPER
            .send((self.server.clone(), self.name.clone(), done))
            .is_ok()
        {
            // Whatever stands in its way: the database goes with the cluster, or later as a leftover.
            let _ = dropped.recv_timeout(DROP_TIMEOUT);
        }
    }
}

/// A fresh, migrated, empty database.
///
/// # Panics
/// When there is no server and none can be started, or the migrations fail.
pub async fn database() -> TestDatabase {
    let (server, template) = SERVER.get_or_init(prepare_server).await;
    let name = format!(
        "setpoint_test_{}_{}",
        SystemClock.now().timestamp(),
        Uuid::new_v4().simple()
    );
    let mut connection = connect(server).await;
    run(
        &mut connection,
        &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log"),
    )
    .await;
    let _ = connection.close().await;
    let options = ConnectOptions(server.0.clone().database(&name));
    let pool = PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(30))
        .connect_lazy_with(options.0.clone());
    TestDatabase {
        pool,
        options,
        name,
        server: server.clone(),
    }
}

/// The server's database `postgres`, and the name of the template.
static SERVER: OnceCell<(ConnectOptions, String)> = OnceCell::const_new();

async fn prepare_server() -> (ConnectOptions, String) {
    let server = match std::env::var("TEST_DATABASE_URL") {
        Ok(url) => url
            .parse()
            .unwrap_or_else(|error| panic!("TEST_DATABASE_URL: {error}")),
        Err(_) => {
            let started = tokio::task::spawn_blocking(|| {
                let runner = runner();
                throwaway::start(&directory(runner), runner)
            });
            started
                .await
                .expect("starting Postgres")
                .unwrap_or_else(|error| panic!("{error}"))
        }
    };
    let mut connection = connect(&server).await;
    run(
        &mut connection,
        &format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})"),
    )
    .await;
    let template = ensure_template(&mut connection, &server).await;
    drop_leftovers(&mut connection).await;
    // Frees the lock as well.
    connection.close().await.expect("closing the connection");
    (server, template)
}

async fn ensure_template(connection: &mut PgConnection, server: &ConnectOptions) -> String {
    let mut hash = Sha256::new();
    for migration in MIGRATIONS.iter() {
        hash.update(migration.version.to_be_bytes());
        hash.update(&migration.checksum);
    }
    let mut template = "setpoint_template_".to_owned();
    for byte in hash.finalize().iter().take(8) {
        let _ = write!(template, "{byte:02x}");
    }
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)");
    if exists
        .bind(&template)
        .fetch_one(&mut *connection)
        .await
        .expect("asking for the template")
    {
        return template;
    }
    // Under its final name only when complete.
    let unfinished = format!("{template}_new");
    run(
        connection,
        &format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)"),
    )
    .await;
    run(
        connection,
        &format!("CREATE DATABASE {unfinished} STRATEGY wal_log"),
    )
    .await;
    let mut migrating = connect(&ConnectOptions(server.0.clone().database(&unfinished))).await;
    MIGRATIONS
        .run(&mut migrating)
        .await
        .unwrap_or_else(|error| panic!("migrations: {error}"));
    migrating.close().await.expect("closing the connection");
    run(
        connection,
        &format!("ALTER DATABASE {unfinished} RENAME TO {template}"),
    )
    .await;
    template
}

async fn drop_leftovers(connection: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT datname FROM pg_database d
         WHERE datname LIKE 'setpoint\\_test\\_%' AND split_part(datname, '_', 3)::bigint < $1
         AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)",
    )
    .bind(SystemClock.now().timestamp() - LEFTOVER_AGE)
    .fetch_all(&mut *connection)
    .await
    .expect("asking for leftover databases");
    for name in names {
        run(
            connection,
            &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        )
        .await;
    }
}

async fn connect(options: &ConnectOptions) -> PgConnection {
    database::connect(options, CONNECT_TIMEOUT)
        .await
        .unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// Runs a statement whose names are our own.
async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The process whose end ends the test run: cargo or nextest when one of them started us, else ourselves.
fn runner() -> u32 {
    let parent = getppid();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm"));
    let by_cargo = name.map_or(!cfg!(target_os = "linux"), |name| name.starts_with("cargo"));
    if by_cargo {
        u32::try_from(parent.as_raw()).unwrap_or_default()
    } else {
        std::process::id()
    }
}

/// A name that every process of the run finds. Where one of them has made it already, it stays, even if memory
/// has become short since.
fn directory(runner: u32) -> PathBuf {
    let name = format!("setpoint-test-{}-{runner}", Uid::effective());
    let made = Path::new("/dev/shm").join(&name);
    if made.exists() {
        made
    } else {
        throwaway::base_directory().join(name)
    }
}

/// A database to drop, and whom to tell.
type Request = (ConnectOptions, String, mpsc::SyncSender<()>);

/// Drops databases on a thread and runtime of its own: the test's runtime may be ending.
static DROPPER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Request>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for (server, name, done) in receiver {
            runtime.block_on(async {
                // A server that is gone has taken the database with it.
                if let Ok(mut connection) = database::connect(&server, DROP_TIMEOUT).await {
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    let _ = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
                }
            });
            // It may have stopped waiting.
            let _ = done.try_send(());
        }
    });
    sender
});

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn databases_are_migrated_and_apart() {
        let (one, other) = (database().await, database().await);
        one.execute("CREATE TABLE mine (id int)").await;
        let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
        let count = async |database: &TestDatabase| -> i64 {
            sqlx::query_scalar(tables)
                .fetch_one(database.pool())
                .await
                .unwrap()
        };
        assert_eq!(count(&one).await, count(&other).await + 1);
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
            .fetch_one(other.pool())
            .await
            .unwrap();
        assert_eq!(usize::try_from(applied).unwrap(), MIGRATIONS.iter().count());
    }

    #[tokio::test]
    async fn the_url_leads_to_the_same_database() {
        let database = database().await;
        let options: ConnectOptions = database.url().parse().unwrap();
        let store = Store::open(&options, &crate::PoolOptions::default())
            .await
            .unwrap();
        let name: String = sqlx::query_scalar("SELECT current_database()")
            .fetch_one(&store.pool)
            .await
            .unwrap();
        assert_eq!(name, database.name);
        store.close().await;
    }
}
