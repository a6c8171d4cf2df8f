use super::*;
use crate::testing;

#[test]
fn a_server_older_than_15_is_refused_by_name() {
    supported(150_018, "15.18 (Debian 15.18-0+deb12u1)").unwrap();
    supported(180_000, "18beta1").unwrap();
    let error = supported(140_002, "14.2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "PostgreSQL 14.2 is too old: Setpoint needs 15 or newer"
    );
}

#[test]
fn neither_a_bad_url_nor_a_good_one_shows_its_password() {
    for bad in [
        "mysql://u:secret@h/d",
        "postgres://u:secret@h:notaport/d",
        "h:5432",
        "",
    ] {
        let error = bad.parse::<ConnectOptions>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{bad}");
    }
    let good: ConnectOptions = "postgres://u:secret@db.example:5433/setpoint?sslmode=require"
        .parse()
        .unwrap();
    assert_eq!(good.to_string(), "setpoint at db.example:5433");
    assert!(!format!("{good:?}").contains("secret"));
}

#[tokio::test]
async fn opening_twice_migrates_once() {
    let database = testing::database().await;
    for _ in 0..2 {
        let store = Store::open(&database.connect_options(), &PoolOptions::default())
            .await
            .unwrap();
        store.ping().await.unwrap();
        let name: String = sqlx::query_scalar("SELECT current_setting('application_name')")
            .fetch_one(&store.pool)
            .await
            .unwrap();
        assert_eq!(name, "setpoint");
        store.close().await;
        assert!(store.ping().await.unwrap_err().is_unavailable());
    }
}

async fn migrate_error(database: &testing::TestDatabase) -> MigrateError {
    match Store::open(&database.connect_options(), &PoolOptions::default())
        .await
        .unwrap_err()
    {
        OpenError::Migrate(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let database = testing::database().await;
    database
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', true, '', 0)",
        )
        .await;
    assert!(matches!(
        migrate_error(&database).await,
        MigrateError::Newer(9999)
    ));
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let database = testing::database().await;
    database
        .execute("UPDATE _sqlx_migrations SET checksum = 'other' WHERE version = 1")
        .await;
    assert!(matches!(
        migrate_error(&database).await,
        MigrateError::Modified(1)
    ));
}

#[tokio::test]
async fn no_server_and_no_database_are_told_apart() {
    let database = testing::database().await;
    let options = PoolOptions {
        connect_timeout: Duration::from_millis(200),
        ..PoolOptions::default()
    };
    let nobody = tempfile::tempdir().unwrap();
    let elsewhere = ConnectOptions(database.connect_options().0.socket(nobody.path()));
    let error = Store::open(&elsewhere, &options).await.unwrap_err();
    assert!(!error.is_missing_database());
    assert!(matches!(error, OpenError::Connect { source, .. } if source.is_unavailable()));

    let missing = ConnectOptions(database.connect_options().0.database("not_there"));
    assert!(
        Store::open(&missing, &PoolOptions::default())
            .await
            .unwrap_err()
            .is_missing_database()
    );
}

#[tokio::test]
async fn waiting_for_a_busy_pool_ends_as_unavailable() {
    let database = testing::database().await;
    let options = PoolOptions {
        max_connections: 1,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(2),
        ..PoolOptions::default()
    };
    let store = Store::open(&database.connect_options(), &options).await.unwrap();
    let held = store.pool.acquire().await.unwrap();
    let error = Error::from(store.pool.acquire().await.unwrap_err());
    assert!(error.is_unavailable(), "{error:?}");
    drop(held);
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_statement_past_its_time_is_unavailable_and_a_lost_connection_is_replaced() {
    let database = testing::database().await;
    let options = PoolOptions {
        max_connections: 1,
        statement_timeout: Duration::from_secs(1),
        ..PoolOptions::default()
    };
    let store = Store::open(&database.connect_options(), &options).await.unwrap();
    let slow = sqlx::query("SELECT pg_sleep(60)")
        .execute(&store.pool)
        .await
        .unwrap_err();
    assert!(Error::from(slow).is_unavailable());

    let lost = sqlx::query("SELECT pg_terminate_backend(pg_backend_pid())")
        .execute(&store.pool)
        .await;
    assert!(Error::from(lost.unwrap_err()).is_unavailable());
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_refused_row_names_its_constraint() {
    let database = testing::database().await;
    database
        .execute(
            "CREATE TABLE parent (id int CONSTRAINT parent_id_key PRIMARY KEY);
             CREATE TABLE child (
                 id int CONSTRAINT child_parent_fkey REFERENCES parent,
                 size int CONSTRAINT child_size_check CHECK (size < 10));
             INSERT INTO parent VALUES (1)",
        )
        .await;
    let refuse =
        async |sql: &'static str| Error::from(sqlx::query(sql).execute(database.pool()).await.unwrap_err());
    let twice = refuse("INSERT INTO parent VALUES (1)").await;
    assert!(matches!(&twice, Error::Conflict { constraint } if constraint == "parent_id_key"));
    let orphan = refuse("INSERT INTO child VALUES (2, 1)").await;
    assert!(matches!(&orphan, Error::Reference { constraint } if constraint == "child_parent_fkey"));
    let large = refuse("INSERT INTO child VALUES (1, 11)").await;
    assert!(matches!(&large, Error::Invalid { .. }));
    assert_eq!(large.constraint(), Some("child_size_check"));
    assert!(matches!(
        refuse("SELECT 1/0").await,
        Error::Invalid { constraint: None, .. }
    ));
    assert!(matches!(refuse("SELECT * FROM nowhere").await, Error::Query(_)));
}

#[tokio::test]
async fn an_emptied_database_can_be_filled_anew() {
    let database = testing::database().await;
    let target = database.connect_options();
    let store = Store::open(&target, &PoolOptions::default()).await.unwrap();
    let mut transaction = store.pool.begin().await.unwrap();
    sqlx::raw_sql(crate::EMPTY_SQL)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
              + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)",
    )
    .fetch_one(&store.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    store.close().await;
    let store = Store::open(&target, &PoolOptions::default()).await.unwrap();
    assert!(!store.has_users().await.unwrap());
}

#[tokio::test]
async fn who_else_uses_a_database_is_seen() {
    let database = testing::database().await;
    let target = database.connect_options();
    let options = PoolOptions {
        min_connections: 0,
        ..PoolOptions::default()
    };
    let store = Store::open(&target, &options).await.unwrap();
    store.ping().await.unwrap();
    let within = Duration::from_secs(5);
    assert_eq!(Store::other_users(&target, within).await.unwrap(), 1);
    store.close().await;
    assert_eq!(
        Store::other_users(&target, within).await.unwrap(),
        0,
        "one that is just going is none"
    );
}

#[tokio::test]
async fn what_empties_a_database_leaves_nothing() {
    let database = crate::testing::database().await;
    database
        .execute(&format!("BEGIN; {} COMMIT", crate::EMPTY_SQL))
        .await;
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
         UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(left, Vec::<String>::new());
}
