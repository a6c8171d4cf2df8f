//! Streams of history: whole, compressed, cheap while nobody reads, and cut rather than ended when something is wrong.

use std::fs;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use setpoint_tests::{Harness, Options, eventually, wait::within};

use crate::PROGRAM;

const PATH: &str = "/devices/HOME-1/telemetry";
const RANGE: &str = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";

/// A device with `count` samples of `t` a second apart, each a text of 192 characters that hardly compress: 100,000 of
/// them are more than sockets hold.
async fn filled(server: &Harness, count: u32) {
    server.device("HOME-1").await;
    server.api().post(PATH).json(&json!({"t": "x"})).await.expect(200);
    let from = "timestamptz '2026-01-01T00:00:00Z'";
    server
        .sql(&format!(
            "insert into telemetry (device_id, metric_id, at, text)
             select d.id, m.id, {from} + n * interval '1 s', lpad(n::text, 32, '0') || (select string_agg(md5((n * 5 + k)::text), '') from generate_series(1, 5) k)
             from devices d, metrics m, generate_series(0, {count} - 1) n where d.serial = 'HOME-1' and m.name = 't'"
        ))
        .await;
}

fn csv() -> String {
    format!("{PATH}?{RANGE}&format=csv")
}

#[tokio::test]
async fn a_stream_is_every_sample_once_and_in_order() {
    let server = Harness::start().await;
    filled(&server, 25_000).await;
    // Others between, so that steps end within a moment, and a gap, which is gone through.
    server
        .sql(
            "insert into metrics (name) values ('u');
             insert into device_metrics select d.id, m.id from devices d, metrics m
             where d.serial = 'HOME-1' and m.name = 'u';
             insert into telemetry (device_id, metric_id, at, number)
             select d.id, m.id, timestamptz '2026-01-01T00:00:00Z' + n * interval '2 s', n
             from devices d, metrics m, generate_series(0, 999) n where d.serial = 'HOME-1' and m.name = 'u';
             insert into telemetry (device_id, metric_id, at, number)
             select d.id, m.id, timestamptz '2026-01-31T00:00:00Z', 1000
             from devices d, metrics m where d.serial = 'HOME-1' and m.name = 'u'",
        )
        .await;
    let text = server.api().get(&csv()).await.text;
    let (mut t, mut u, mut last) = (0, 0, String::new());
    for line in text.lines().skip(1) {
        let mut fields = line.split(',');
        let (at, metric, value) = (
            fields.next().unwrap(),
            fields.next().unwrap(),
            fields.next().unwrap(),
        );
        let count = if metric == "t" { &mut t } else { &mut u };
        assert_eq!(
            value.get(..32).unwrap_or(value).parse::<u32>().unwrap(),
            *count,
            "{line}"
        );
        *count += 1;
        assert!(*last <= *at, "{last} before {at}");
        at.clone_into(&mut last);
    }
    assert_eq!((t, u), (25_000, 1_001));

    let buckets = format!("{PATH}?{RANGE}&metric=u&bucket=10s&agg=count&format=ndjson");
    let buckets = server.api().get(&buckets).await.text;
    let counts = buckets
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let sum: u64 = counts.map(|item| item["value"].as_u64().unwrap()).sum();
    assert_eq!(sum, 1_001, "buckets are whole");
    assert_eq!(buckets.lines().count(), 201);
    eventually!(server.metric("setpoint_telemetry_exports_open").await == Some(0.0));
}

#[tokio::test]
async fn streams_are_compressed_for_who_takes_it() {
    let server = Harness::start().await;
    filled(&server, 20_000).await;
    for format in ["csv", "ndjson", "json"] {
        let path = format!("{PATH}?{RANGE}&format={format}");
        let plain = server.api().get(&path).await.text;
        let mut answer = server
            .api()
            .get(&path)
            .header("accept-encoding", "gzip")
            .unread()
            .await;
        assert_eq!(answer.headers()["content-encoding"], "gzip", "{format}");
        let mut bytes = Vec::new();
        while let Some(chunk) = within("a chunk", answer.chunk()).await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(bytes[..2], [0x1f, 0x8b], "{format}");
        assert!(
            bytes.len() < plain.len() * 3 / 4,
            "{format}: {} of {}",
            bytes.len(),
            plain.len()
        );
        // ISIZE of RFC 1952: the length of what was compressed, which is all of it.
        let length = u32::from_le_bytes(bytes[bytes.len() - 4..].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), plain.len(), "{format}");
    }
}

#[tokio::test]
async fn clients_that_do_not_read_cost_nothing_else() {
    let server = Harness::setup()
        .with("database.max_connections", "4")
        .with("database.acquire_timeout", "10s")
        .with("http.write_timeout", "10m")
        .start()
        .await;
    filled(&server, 100_000).await;
    let streams = join_all((0..8).map(|_| server.api().get(&csv()).unread())).await;
    for stream in &streams {
        assert_eq!(stream.status(), 200);
    }
    // The server has sent what the sockets take, and waits: of what it would send, most is still in the database.
    for n in 0..20 {
        server.api().get("/devices/HOME-1").await.expect(200);
        server.api().post(PATH).json(&json!({"n": n})).await.expect(200);
    }
    assert_eq!(server.metric("setpoint_telemetry_exports_open").await, Some(8.0));
    let sent = server
        .metric("setpoint_telemetry_exported_points_total")
        .await
        .unwrap();
    assert!(sent < 8.0 * 80_000.0, "{sent}");
    drop(streams);
    eventually!(
        server.metric("setpoint_telemetry_exports_open").await == Some(0.0),
        "who went away is not served"
    );
}

#[tokio::test]
async fn a_client_that_never_reads_is_let_go() {
    let server = Harness::setup().with("http.write_timeout", "1s").start().await;
    filled(&server, 100_000).await;
    let stream = server.api().get(&csv()).unread().await;
    eventually!(server.metric("setpoint_telemetry_exports_open").await == Some(0.0));
    drop(stream);
}

#[tokio::test]
async fn there_are_only_so_many_at_once() {
    let server = Harness::setup().with("telemetry.max_exports", "1").start().await;
    filled(&server, 100_000).await;
    let first = server.api().get(&csv()).unread().await;
    let refused = server.api().get(&csv()).await.problem(503, "busy");
    assert_eq!(refused["detail"], "too many streams of history; try again later");
    assert_eq!(
        server.metric("setpoint_telemetry_exports_refused_total").await,
        Some(1.0)
    );
    server.api().get(PATH).await.expect(200);
    drop(first);
    eventually!(server.api().get(&format!("{}&limit=1", csv())).await.status == 200);
}

/// Reads on until the end: whether that is a proper one.
async fn ends_well(mut answer: reqwest::Response) -> bool {
    loop {
        match within("a chunk or the end", answer.chunk()).await {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

#[tokio::test]
async fn what_breaks_off_does_not_look_whole() {
    let server = Harness::setup().gated().start().await;
    filled(&server, 100_000).await;
    for encoding in ["identity", "gzip"] {
        // Half of them: however much sockets hold, the rest never comes.
        server.gate().close_after(10_000_000);
        let answer = server
            .api()
            .get(&csv())
            .header("accept-encoding", encoding)
            .unread()
            .await;
        assert!(!ends_well(answer).await, "{encoding}: the database is away");
        server.gate().open();
        eventually!(server.api().get("/readyz").await.status == 200);
    }
    assert_eq!(
        server.metric("setpoint_telemetry_exports_broken_total").await,
        Some(2.0)
    );
}

#[tokio::test]
async fn the_rest_of_a_deleted_device_is_no_end() {
    let server = Harness::start().await;
    filled(&server, 100_000).await;
    let answer = server.api().get(&csv()).unread().await;
    server.api().delete("/devices/HOME-1").await.expect(204);
    assert!(!ends_well(answer).await);
}

#[tokio::test]
async fn a_right_that_ends_ends_the_stream() {
    let server = Harness::start().await;
    filled(&server, 100_000).await;
    let body = json!({"name": "reader", "scopes": ["telemetry:read"]});
    let made = server.api().post("/tokens").json(&body).await.expect(201);
    let reader = server.api().with_token(made["token"].as_str().unwrap());
    let answer = reader.get(&csv()).unread().await;
    assert_eq!(answer.status(), 200);
    let token = made["id"].as_str().unwrap();
    server.api().delete(&format!("/tokens/{token}")).await.expect(204);
    assert!(!ends_well(answer).await);
}

/// What a process has of memory at most since it was last asked, in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    // The next peak begins from here (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn a_long_stream_takes_no_more_memory_than_a_short_one() {
    let mut server = Options::new(PROGRAM).start().await;
    let device = server.device("HOME-1").await;
    for batch in 0..200 {
        let at = |n: i64| chrono::DateTime::from_timestamp(1_767_225_600 + batch * 1_000 + n, 0).unwrap();
        let samples: Vec<Value> = (0..1_000).map(|n| json!({"t": n, "at": at(n)})).collect();
        let sent = device.api.post(PATH).json(&Value::from(samples)).await;
        assert_eq!(sent.json()["stored"], 1_000);
    }
    // A fresh process: what the first one took for the samples that came would hide what a stream takes.
    server.stop(Signal::SIGTERM).await;
    server.start_again().await;
    let device = server.again(&device);
    let read = async |limit: u32| {
        let text = device.api.get(&format!("{}&limit={limit}", csv())).await.text;
        text.lines().count() - 1
    };
    assert_eq!(read(20_000).await, 20_000);
    let short = {
        peak(server.pid());
        read(20_000).await;
        peak(server.pid())
    };
    assert_eq!(read(1_000_000).await, 200_000);
    let long = peak(server.pid());
    assert!(
        long < short + 8 * 1024,
        "{long} KiB, and {short} for a tenth of it"
    );
}
