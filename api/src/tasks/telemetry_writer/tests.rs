use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::registry::Registry;
use setpoint_broker::{Ack, Outcome};
use setpoint_model::{DeviceId, Serial, SystemClock, clock::ManualClock};
use setpoint_store::{
    telemetry::History,
    testing::{TestDatabase, database},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::app::{Alerts, Events, Ingest, Timeline};

const NOW: TimeDelta = TimeDelta::zero();

/// The way from a payload to the database, without a broker.
struct Fixture {
    database: TestDatabase,
    ingest: Ingest,
    clock: ManualClock,
    stop: CancellationToken,
    writer: JoinHandle<()>,
    serial: Serial,
    device_id: DeviceId,
}

fn telemetry_config() -> config::Telemetry {
    config::Telemetry {
        delete_within: Duration::from_secs(10),
        max_batch: 1_000,
        max_metrics: 64,
        max_text: 256,
        max_metrics_per_device: 3,
        batch_rows: 5_000,
        batch_wait: Duration::from_millis(5),
        writers: 2,
        max_queue: 64_000,
        max_clock_skew: Duration::from_secs(300),
        max_points: 1_000,
        max_group_devices: 100,
        group_timeout: Duration::from_secs(10),
        max_exports: 10,
        retention: Duration::from_secs(365 * 86_400),
        rollup_lag: Duration::from_secs(120),
        rollup_every: Duration::from_secs(5),
        rollup_retention_1m: None,
        rollup_retention_1h: None,
    }
}

fn timeline_config() -> config::Timeline {
    config::Timeline {
        retention: Duration::from_secs(86_400),
        max_per_device: 100,
        max_queue: 100,
        max_per_minute: 100,
        max_refusals_per_minute: 100,
        last_seen_every: Duration::from_secs(60),
    }
}

fn events_config() -> config::Events {
    config::Events {
        max_streams: 1,
        log_entries: 1,
        log_bytes: 1_000,
        heartbeat: Duration::from_secs(15),
    }
}

fn alerts_config() -> config::Alerts {
    config::Alerts {
        max_rules: 1,
        keep_resolved: Duration::from_secs(60),
        sweep_every: Duration::from_secs(60),
        max_watched: 1,
        max_waiting: 1,
        max_samples: 1,
    }
}

async fn fixture() -> Fixture {
    let database = database().await;
    database
        .execute("INSERT INTO devices (serial, model) VALUES ('A', 'home')")
        .await;
    let store = database.store();
    let serial: Serial = "A".parse().unwrap();
    let device_id = store.device_id(&serial).await.unwrap().unwrap();
    let clock = ManualClock::new(SystemClock.now());
    let mut registry = Registry::default();
    let (timeline, _) = Timeline::new(&timeline_config(), &mut registry);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let (ingest, queue) = Ingest::new(
        store.clone(),
        Arc::clone(&shared),
        timeline,
        Events::new(0, &events_config(), &mut Registry::default()),
        Alerts::new(alerts_config(), &mut Registry::default()),
        &telemetry_config(),
        &mut registry,
    );
    let stop = CancellationToken::new();
    let writer = Writer {
        store,
        clock: shared,
        metrics: ingest.metrics().clone(),
        merges: AtomicU32::new(0),
        stop: stop.clone(),
    };
    let tasks = TaskTracker::new();
    let writer = tasks.spawn(async move { writer.run(queue, &telemetry_config()).await });
    Fixture {
        database,
        ingest,
        clock,
        stop,
        writer,
        serial,
        device_id,
    }
}

impl Fixture {
    fn at(&self, offset: TimeDelta) -> DateTime<Utc> {
        self.clock.now() + offset
    }

    /// Sends a payload the long way; the receiver tells what the session hears, `None` for nothing.
    async fn send(&self, payload: &str) -> oneshot::Receiver<Option<Outcome>> {
        let (ack, outcome) = ack();
        self.ingest
            .from_mqtt(&self.serial, payload.as_bytes(), self.at(NOW), ack)
            .await;
        outcome
    }

    /// Sends a payload the short way, if that takes it.
    fn send_at_once(&self, payload: &str) -> Option<oneshot::Receiver<Option<Outcome>>> {
        let (ack, outcome) = ack();
        let left = self
            .ingest
            .take_at_once(&self.serial, payload.as_bytes(), self.at(NOW), ack);
        left.is_none().then_some(outcome)
    }

    /// How many samples of the device are stored.
    async fn count(&self) -> usize {
        let wanted = History {
            device_id: self.device_id,
            metrics: None,
            from: self.at(-TimeDelta::days(10)),
            to: self.at(TimeDelta::days(10)),
            after: None,
            limit: 1_000,
        };
        self.database.store().telemetry(&wanted).await.unwrap().len()
    }
}

fn ack() -> (Ack, oneshot::Receiver<Option<Outcome>>) {
    let (sender, outcome) = oneshot::channel();
    (Ack::new(move |outcome| drop(sender.send(outcome))), outcome)
}

fn invalid(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Invalid(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn duplicates_are_accepted_and_stored_once_beside_new_samples() {
    let fixture = fixture().await;
    let at = fixture.at(-TimeDelta::minutes(1)).to_rfc3339();
    let first = fixture.send(&format!(r#"{{"t":1,"at":"{at}"}}"#)).await;
    assert_eq!(first.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(fixture.ingest.metrics().merged.get(), 0);
    let again = fixture.send(&format!(r#"{{"t":1,"at":"{at}"}}"#)).await;
    let fresh = fixture.send(r#"[{"t":2},{"t":3}]"#).await;
    assert_eq!(again.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(fresh.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(fixture.count().await, 3);
    assert!(fixture.ingest.metrics().merged.get() >= 1);
}

#[tokio::test]
async fn what_is_known_is_taken_at_once_and_all_else_is_left_to_the_long_way() {
    let fixture = fixture().await;
    assert!(
        fixture.send_at_once(r#"{"t":1}"#).is_none(),
        "a device not heard of yet"
    );
    let first = fixture.send(r#"{"t":1}"#).await;
    assert_eq!(first.await.unwrap(), Some(Outcome::Accepted));
    let taken = fixture.send_at_once(r#"[{"t":2},{"t":3}]"#).unwrap();
    assert_eq!(taken.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(fixture.count().await, 3);
    let future = fixture.at(TimeDelta::hours(1)).to_rfc3339();
    let old = fixture.at(-TimeDelta::hours(25)).to_rfc3339();
    for left in [
        r#"{"t":1,"new":1}"#.to_owned(),
        r#"{"t":"warm"}"#.to_owned(),
        r#"{"t":1,"t":2}"#.to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        format!(r#"{{"t":1,"at":"{future}"}}"#),
        format!(r#"{{"t":1,"at":"{old}"}}"#),
    ] {
        assert!(fixture.send_at_once(&left).is_none(), "{left}");
    }
    fixture.ingest.refresh(&fixture.serial);
    assert!(
        fixture.send_at_once(r#"{"t":4}"#).is_none(),
        "to be looked up again"
    );
    fixture.send(r#"{"t":4}"#).await.await.unwrap();
    assert!(fixture.send_at_once(r#"{"t":5}"#).is_some());
    fixture.ingest.forget(&fixture.serial);
    assert!(fixture.send_at_once(r#"{"t":6}"#).is_none(), "gone");
}

#[tokio::test]
async fn what_the_database_refuses_costs_nobody_else_anything() {
    let fixture = fixture().await;
    fixture
        .database
        .execute("ALTER TABLE telemetry ADD CONSTRAINT odd CHECK (number <> 666)")
        .await;
    let one = fixture.send(r#"{"t":1}"#).await;
    let two = fixture.send(r#"{"t":666}"#).await;
    let three = fixture.send(r#"{"t":3}"#).await;
    assert_eq!(one.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(invalid(two.await.unwrap()), "the samples could not be stored");
    assert_eq!(three.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(fixture.count().await, 2);
    assert_eq!(fixture.ingest.metrics().queued.get(), 0, "all room is free again");
}

#[tokio::test]
async fn a_missing_partition_is_made_when_it_is_needed() {
    let fixture = fixture().await;
    fixture.clock.advance(TimeDelta::days(3));
    let sent = fixture.send(r#"{"t":1}"#).await;
    assert_eq!(sent.await.unwrap(), Some(Outcome::Accepted));
    assert_eq!(fixture.count().await, 1);
}

#[tokio::test]
async fn a_device_has_only_so_many_metrics_and_the_refused_are_named() {
    let fixture = fixture().await;
    let first = fixture.send(r#"{"a":1,"b":2}"#).await;
    assert_eq!(first.await.unwrap(), Some(Outcome::Accepted));
    let second = fixture.send(r#"[{"a":1,"c":3,"d":4},{"d":5}]"#).await;
    assert_eq!(
        invalid(second.await.unwrap()),
        "item 0: `d`: a device has at most 3 metrics"
    );
    assert_eq!(fixture.count().await, 4);
}

#[tokio::test]
async fn samples_of_a_device_that_is_gone_are_accepted_and_dropped() {
    let fixture = fixture().await;
    fixture.send(r#"{"a":1}"#).await.await.unwrap();
    fixture.database.execute("DELETE FROM devices").await;
    // The entry is still remembered: a new metric finds that the device is gone.
    assert_eq!(
        fixture.send(r#"{"b":1}"#).await.await.unwrap(),
        Some(Outcome::Accepted)
    );
    fixture.ingest.forget(&fixture.serial);
    assert_eq!(
        fixture.send(r#"{"a":2}"#).await.await.unwrap(),
        Some(Outcome::Accepted)
    );
    assert_eq!(fixture.ingest.metrics().orphaned.get(), 1);
    let mut stored = 0;
    let store = fixture.database.store();
    for partition in store.telemetry_partitions().await.unwrap() {
        stored += store
            .delete_telemetry_rows(&partition.name, &[fixture.device_id], None, 10)
            .await
            .unwrap();
    }
    assert_eq!(stored, 1, "only what came before");
}

#[tokio::test]
async fn a_stop_commits_what_is_queued_and_leaves_the_rest_unacknowledged() {
    let fixture = fixture().await;
    let mut sent = Vec::new();
    for number in 0..100 {
        sent.push(fixture.send(&format!(r#"{{"t":{number}}}"#)).await);
    }
    fixture.stop.cancel();
    let mut accepted = 0;
    for outcome in sent {
        accepted += usize::from(outcome.await.unwrap() == Some(Outcome::Accepted));
    }
    assert_eq!(accepted, 100);
    assert_eq!(fixture.count().await, accepted);
    let Fixture { writer, .. } = fixture;
    writer.await.unwrap();
}

#[tokio::test]
async fn after_a_stop_a_sample_stays_with_its_device() {
    let mut fixture = fixture().await;
    // Known before, so that no lookup is in the way.
    fixture.send(r#"{"t":1}"#).await.await.unwrap();
    fixture.stop.cancel();
    (&mut fixture.writer).await.unwrap();
    assert!(fixture.send_at_once(r#"{"t":2}"#).is_none());
    assert_eq!(fixture.send(r#"{"t":2}"#).await.await.unwrap(), None);
    assert_eq!(fixture.count().await, 1);
}
