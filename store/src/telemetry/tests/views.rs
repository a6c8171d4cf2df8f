//! What readers such as Grafana see, and what they don't.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value as Json, json};
use setpoint_model::telemetry::Value;

use super::{
    super::Rows,
    at, device, metrics, number,
    rollups::{at_midnight, sweep},
};
use crate::testing::{TestDatabase, database};

const VIEWS: [&str; 4] = ["devices_latest", "telemetry_1h", "telemetry_1m", "telemetry_raw"];

/// Rows that the reader gets, as JSON objects.
async fn read(database: &TestDatabase, sql: &str) -> Vec<Json> {
    let mut reader = database.pool().begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL ROLE setpoint_reader")
        .execute(&mut *reader)
        .await
        .unwrap();
    let sql = format!("SELECT to_jsonb(t) FROM ({sql}) AS t");
    let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()))
        .fetch_all(&mut *reader)
        .await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    reader.rollback().await.unwrap();
    rows
}

/// A device with samples on both sides of the watermark, which is at two hours and ten minutes of today.
async fn filled() -> TestDatabase {
    let database = database().await;
    at_midnight(&database).await;
    let store = database.store();
    let device = device(&database, "A").await;
    let ids = metrics(&store, device, &["door", "mode", "t"]).await;
    let mut batch = Rows::default();
    for (minute, value) in [(0, 1.0), (1, 3.0), (119, 5.0), (125, 7.0), (135, 9.0), (136, 2.0)] {
        batch.push(device, ids[2], at(minute), &number(value));
    }
    batch.push(device, ids[0], at(3), &Value::Flag(true));
    batch.push(device, ids[1], at(130), &Value::Text("eco".into()));
    store.append_telemetry(&batch).await.unwrap();
    sweep(&store, 130).await;
    database
}

fn minute(row: &Json) -> i64 {
    let at: DateTime<Utc> = row["at"].as_str().unwrap().parse().unwrap();
    (at - super::at(0)).num_minutes()
}

#[tokio::test]
async fn views_reach_from_the_roll_ups_to_this_moment() {
    let database = filled().await;
    let hours = read(
        &database,
        "SELECT * FROM telemetry_1h WHERE serial = 'A' AND metric = 't' ORDER BY at",
    )
    .await;
    let told: Vec<Json> = hours
        .iter()
        .map(|row| {
            json!([
                minute(row),
                row["count"],
                row["mean"],
                row["min"],
                row["max"],
                row["sum"],
                row["last"]
            ])
        })
        .collect();
    assert_eq!(
        json!(told),
        json!([
            [0, 2, 2, 1, 3, 4, 3],
            [60, 1, 5, 5, 5, 5, 5],
            [120, 3, 6, 2, 9, 18, 2],
        ])
    );
    let minutes = read(
        &database,
        "SELECT * FROM telemetry_1m WHERE at >= '2001-01-01' ORDER BY at, metric",
    )
    .await;
    let told: Vec<Json> = minutes
        .iter()
        .map(|row| {
            json!([
                minute(row),
                row["metric"],
                row["mean"],
                row["last"],
                row["last_text"]
            ])
        })
        .collect();
    assert_eq!(
        json!(told),
        json!([
            [0, "t", 1, 1, null],
            [1, "t", 3, 3, null],
            [3, "door", 1, 1, null],
            [119, "t", 5, 5, null],
            [125, "t", 7, 7, null],
            [130, "mode", null, null, "eco"],
            [135, "t", 9, 9, null],
            [136, "t", 2, 2, null],
        ])
    );
    let raw = read(
        &database,
        "SELECT * FROM telemetry_raw WHERE metric <> 't' ORDER BY at",
    )
    .await;
    assert_eq!(raw[0]["value"], 1);
    assert_eq!((&raw[0]["flag"], &raw[1]["text"]), (&json!(true), &json!("eco")));
}

#[tokio::test]
async fn the_newest_of_every_device_is_one_row() {
    let database = filled().await;
    device(&database, "B").await;
    let devices = read(&database, "SELECT * FROM devices_latest ORDER BY serial").await;
    assert_eq!(devices.len(), 2);
    let first = &devices[0];
    assert_eq!(first["latest"], json!({"door": true, "mode": "eco", "t": 2}));
    let newest: DateTime<Utc> = first["latest_at"]["t"].as_str().unwrap().parse().unwrap();
    assert_eq!(newest, at(136));
    let columns: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(
        columns,
        [
            "last_seen",
            "latest",
            "latest_at",
            "model",
            "name",
            "online",
            "serial",
            "tags"
        ]
    );
    assert_eq!(
        (&devices[1]["latest"], &devices[1]["online"]),
        (&json!({}), &json!(false))
    );
}

#[tokio::test]
async fn a_reader_reads_the_views_and_nothing_else() {
    let database = database().await;
    let readable: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
           AND (has_table_privilege('setpoint_reader', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
                OR has_any_column_privilege('setpoint_reader', oid, 'SELECT, INSERT, UPDATE'))
         ORDER BY 1",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(readable, VIEWS);
    let writable: bool = sqlx::query_scalar(
        "SELECT bool_or(has_table_privilege('setpoint_reader', view, 'INSERT, UPDATE, DELETE, TRUNCATE'))
                OR has_schema_privilege('setpoint_reader', 'public', 'CREATE')
         FROM unnest($1::text[]) AS view",
    )
    .bind(VIEWS)
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert!(!writable);
    // What runs with the owner's rights takes no arguments and tells a time.
    let trusted: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regprocedure::text FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY 1",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(trusted, ["telemetry_hours_rolled()", "telemetry_rolled()"]);
    for table in [
        "users",
        "device_credentials",
        "api_tokens",
        "telemetry",
        "telemetry_minutes",
    ] {
        let mut reader = database.pool().begin().await.unwrap();
        let sql = format!("SET LOCAL ROLE setpoint_reader; SELECT * FROM {table}");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut *reader)
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{table}: {refused}");
        reader.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn rights_are_given_again_after_a_restore() {
    let database = database().await;
    database
        .execute("REVOKE ALL ON telemetry_1m, devices_latest FROM setpoint_reader")
        .await;
    let store = crate::Store::open(&database.connect_options(), &crate::PoolOptions::default())
        .await
        .unwrap();
    store.close().await;
    assert_eq!(
        read(&database, "SELECT * FROM telemetry_1m").await,
        Vec::<Json>::new()
    );
}

/// A statement of the dashboard as Grafana sends it.
fn expanded(sql: &str) -> String {
    let (from, to) = (at(0) - TimeDelta::days(1), at(0) + TimeDelta::days(1));
    sql.replace(
        "$__timeFilter(at)",
        &format!("at BETWEEN '{}' AND '{}'", from.to_rfc3339(), to.to_rfc3339()),
    )
    .replace("${serial:sqlstring}", "'A','B'")
    .replace("${metric:sqlstring}", "'t','mode'")
}

#[tokio::test]
async fn every_statement_of_the_dashboard_runs() {
    let database = filled().await;
    let dashboard: Json =
        serde_json::from_str(include_str!("../../../../docs/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let panels = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let panels = panels.map(|target| target["rawSql"].as_str().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let statements: Vec<&str> = panels
        .chain(variables.map(|variable| variable["query"].as_str().unwrap()))
        .collect();
    assert!(statements.len() >= 8);
    for sql in statements {
        let expanded = expanded(sql);
        assert!(
            !expanded.contains('$'),
            "a macro that this test doesn't know: {sql}"
        );
        assert!(!read(&database, &expanded).await.is_empty(), "{sql}");
    }
}
