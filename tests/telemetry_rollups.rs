//! Roll-ups: nobody sees them but by how soon an answer comes, so what is shown here is that answers stay right.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock, clock::ManualClock};
use setpoint_tests::{Device, Harness, eventually};

const PATH: &str = "/devices/HOME-1/telemetry";

/// A server three hours ahead of its database's making, whose roll-ups follow at once.
struct Rolling {
    server: Harness,
    clock: ManualClock,
    device: Device,
    /// A whole hour, before which nothing was rolled up when the server began.
    begin: DateTime<Utc>,
}

impl Rolling {
    async fn start() -> Self {
        let hour = SystemClock.now().duration_trunc(TimeDelta::hours(1)).unwrap();
        let begin = hour + TimeDelta::hours(1);
        let clock = ManualClock::new(begin + TimeDelta::hours(3));
        let setup = Harness::setup().at(&clock).with("telemetry.rollup_every", "50ms");
        let server = setup.start().await;
        let device = server.device("HOME-1").await;
        Self {
            server,
            clock,
            device,
            begin,
        }
    }

    /// A time so many seconds after the beginning.
    fn at(&self, second: i64) -> String {
        (self.begin + TimeDelta::seconds(second)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }

    async fn send(&self, samples: &Value) {
        let sent = self.device.api.post(PATH).json(samples).await.expect(200);
        assert_eq!(sent["problems"], json!([]));
    }

    /// `[minutes since the beginning, value]` of each bucket.
    async fn buckets(&self, bucket: &str, aggregate: &str) -> Value {
        let (from, to) = (self.at(-7_200), self.at(4 * 3_600));
        let query = format!("metric=t&from={from}&to={to}&bucket={bucket}&agg={aggregate}");
        let list = self
            .server
            .api()
            .get(&format!("{PATH}?{query}"))
            .await
            .expect(200);
        let items = list["items"].as_array().unwrap().iter().map(|item| {
            let at: DateTime<Utc> = item["at"].as_str().unwrap().parse().unwrap();
            json!([(at - self.begin).num_minutes(), item["value"]])
        });
        Value::Array(items.collect())
    }
}

/// Waits until everything before two minutes ago is rolled up, and no late sample waits.
pub(crate) async fn rolled(server: &Harness) {
    let rounds = async || metric(server, "rollup_rounds_total").await.unwrap_or(0.0);
    // The one under way may have looked before.
    let enough = rounds().await + 2.0;
    eventually!(
        rounds().await >= enough
            && metric(server, "rollup_lag_seconds")
                .await
                .is_some_and(|lag| lag < 180.0)
            && metric(server, "late_waiting").await == Some(0.0)
    );
}

async fn metric(server: &Harness, name: &str) -> Option<f64> {
    let text = server.api().root(Method::GET, "/metrics").await.text;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("setpoint_telemetry_{name} ")))?;
    line.parse().ok()
}

#[tokio::test]
async fn answers_are_the_same_before_and_after() {
    let rolling = Rolling::start().await;
    rolled(&rolling.server).await;
    let samples = [(0, 1), (59, 3), (60, 5), (3_600, 7), (3_700, 9), (3 * 3_600, 11)];
    // They are new to a watermark that has passed them: late, all but the last.
    let samples = samples.map(|(second, value)| json!({"t": value, "at": rolling.at(second)}));
    rolling.send(&json!(samples)).await;
    let answers = async || {
        json!([
            rolling.buckets("1m", "count").await,
            rolling.buckets("1h", "avg").await,
            rolling.buckets("2h", "max").await,
            rolling.buckets("1h", "last").await,
        ])
    };
    let expected = json!([
        [[0, 2], [1, 1], [60, 1], [61, 1], [180, 1]],
        [[0, 3], [60, 8], [180, 11]],
        answers().await[2],
        [[0, 5], [60, 9], [180, 11]],
    ]);
    assert_eq!(answers().await, expected);
    rolled(&rolling.server).await;
    assert_eq!(answers().await, expected);
    assert_eq!(metric(&rolling.server, "late_settled_total").await, Some(2.0));

    // Time goes on, and the last one is swept.
    rolling.clock.advance(TimeDelta::hours(1));
    rolled(&rolling.server).await;
    assert_eq!(answers().await, expected);
    rolling.server.sql("DELETE FROM telemetry").await;
    assert_eq!(answers().await, expected, "by the roll-ups alone");
}

#[tokio::test]
async fn a_late_sample_is_in_the_next_answer() {
    let rolling = Rolling::start().await;
    rolled(&rolling.server).await;
    for (second, sum) in [(30, 1), (40, 2), (10, 3), (-3_000, 4)] {
        rolling.send(&json!([{"t": 1, "at": rolling.at(second)}])).await;
        let buckets = rolling.buckets("1d", "sum").await;
        let buckets = buckets.as_array().unwrap().iter();
        assert_eq!(
            buckets.map(|bucket| bucket[1].as_i64().unwrap()).sum::<i64>(),
            sum
        );
    }
}

#[tokio::test]
async fn two_servers_make_them_once() {
    let rolling = Rolling::start().await;
    let other = rolling.server.beside().await;
    let samples: Vec<Value> = (0..500)
        .map(|number| json!({"t": 1, "at": rolling.at(number * 20)}))
        .collect();
    for (number, piece) in samples.chunks(50).enumerate() {
        if number % 2 == 0 {
            rolling.send(&json!(piece)).await;
        } else {
            other.api().post(PATH).json(&json!(piece)).await.expect(200);
        }
        rolling.clock.advance(TimeDelta::minutes(7));
    }
    rolled(&rolling.server).await;
    rolling.server.sql("DELETE FROM telemetry").await;
    assert_eq!(
        rolling.buckets("1h", "sum").await,
        json!([[0, 180], [60, 180], [120, 140]])
    );
}

#[tokio::test]
async fn a_serial_that_comes_back_has_no_roll_ups() {
    let rolling = Rolling::start().await;
    rolling.send(&json!([{"t": 1, "at": rolling.at(0)}])).await;
    rolled(&rolling.server).await;
    assert_eq!(rolling.buckets("1h", "sum").await, json!([[0, 1]]));
    rolling.server.api().delete("/devices/HOME-1").await;
    rolling.server.device("HOME-1").await;
    assert_eq!(rolling.buckets("1h", "sum").await, json!([]));
}

#[tokio::test]
async fn a_metric_that_is_deleted_has_no_roll_ups() {
    let rolling = Rolling::start().await;
    rolling
        .send(&json!([{"t": 1, "u": 5, "at": rolling.at(0)}]))
        .await;
    rolled(&rolling.server).await;
    let deleted = rolling
        .server
        .api()
        .delete(&format!("{PATH}?metric=t"))
        .await
        .expect(200);
    assert_eq!(deleted["done"], true);
    assert_eq!(rolling.buckets("1h", "sum").await, json!([]));
    rolling.send(&json!([{"t": true, "at": rolling.at(1)}])).await;
    rolled(&rolling.server).await;
    assert_eq!(rolling.buckets("1h", "sum").await, json!([[0, 1]]));
}
