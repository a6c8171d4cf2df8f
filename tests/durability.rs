//! Nothing that was acknowledged is lost, whatever is killed.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use setpoint_tests::{
    Child, Device, Mqtt, Options, Version, eventually,
    harness::child::kill_process,
    wait::{WAIT, within},
};

use crate::PROGRAM;

/// Messages of one device that may be unacknowledged.
const WINDOW: usize = 20;

/// Sends samples numbered from `first` until the connection breaks: the numbers that were acknowledged, and the
/// first that was not sent.
async fn send_until_broken(
    mut session: Mqtt,
    topic: String,
    first: u64,
    enough: impl Fn(usize),
) -> (HashSet<u64>, u64) {
    let (mut acknowledged, mut open, mut next) = (HashSet::new(), HashMap::new(), first);
    loop {
        while open.len() < WINDOW && session.is_connected() {
            session.send(&topic, 1, json!({"n": next}).to_string()).await;
            let Some(packet) = session.sent_or_ended().await else {
                break;
            };
            open.insert(packet, next);
            next += 1;
        }
        match session.acknowledged().await {
            Some(packet) => {
                let number = open.remove(&packet).expect("an acknowledgement of what was sent");
                acknowledged.insert(number);
                enough(acknowledged.len());
            }
            None => return (acknowledged, next),
        }
    }
}

/// Every value of `n` that is stored.
async fn stored(device: &Device) -> HashSet<u64> {
    let (mut numbers, mut path) = (HashSet::new(), device.path("/telemetry?metric=n&limit=1000"));
    loop {
        let page = device.api.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        numbers.extend(items.iter().map(|item| item["value"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => path = device.path(&format!("/telemetry?metric=n&limit=1000&cursor={next}")),
            None => return numbers,
        }
    }
}

async fn lost(child: &Child, device: &Device, acknowledged: &HashSet<u64>) -> Vec<u64> {
    let stored = stored(&child.again(device)).await;
    let mut lost: Vec<u64> = acknowledged.difference(&stored).copied().collect();
    lost.sort_unstable();
    lost
}

#[tokio::test]
async fn a_killed_server_has_every_acknowledged_sample() {
    let mut child = Options::new(PROGRAM).start().await;
    let devices = [
        child.device("HOME-1").await,
        child.device("HOME-2").await,
        child.device("HOME-3").await,
    ];
    let mut acknowledged: [HashSet<u64>; 3] = Default::default();
    let mut next = [0; 3];
    for round in 0..4 {
        let (told, mut enough) = tokio::sync::watch::channel(0_usize);
        let mut sessions = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            let version = if index == 1 { Version::V5 } else { Version::V3 };
            let session = child.again(device).mqtt(version).connect().await;
            let told = &told;
            let tell = move |count: usize| {
                told.send_if_modified(|most| {
                    *most = count.max(*most);
                    true
                });
            };
            sessions.push(send_until_broken(
                session,
                device.topic("telemetry"),
                next[index],
                tell,
            ));
        }
        let kill = async {
            let some = enough.wait_for(|count| *count >= 100 + 37 * round);
            within("some acknowledgements", some)
                .await
                .expect("devices that send");
            child.kill().await;
        };
        let (outcomes, ()) = tokio::join!(join_all(sessions), kill);
        for (index, (seen, after)) in outcomes.into_iter().enumerate() {
            acknowledged[index].extend(seen);
            next[index] = after;
        }
        child.start_again().await;
        for (device, acknowledged) in devices.iter().zip(&acknowledged) {
            let lost = lost(&child, device, acknowledged).await;
            assert!(
                lost.is_empty(),
                "round {round}: {} of {} lost: {lost:?}",
                lost.len(),
                acknowledged.len()
            );
        }
    }
    assert!(
        acknowledged.iter().map(HashSet::len).sum::<usize>() > 400,
        "too little was sent to prove anything"
    );
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_finishes_its_work() {
    let mut child = Options::new(PROGRAM).start().await;
    let device = child.device("HOME-1").await;
    for (round, version) in [Version::V3, Version::V5].into_iter().enumerate() {
        let (told, mut enough) = tokio::sync::watch::channel(0_usize);
        let session = child.again(&device).mqtt(version).connect().await;
        let tell = |count: usize| {
            told.send_replace(count);
        };
        let first = u64::try_from(round).unwrap() * 1_000_000;
        let sending = send_until_broken(session, device.topic("telemetry"), first, tell);
        let stop = async {
            let some = enough.wait_for(|count| *count >= 50);
            within("some acknowledgements", some)
                .await
                .expect("a device that sends");
            child.stop(Signal::SIGTERM).await
        };
        let ((acknowledged, _), status) = tokio::join!(sending, stop);
        assert!(status.success(), "an orderly end under load: {status}");
        child.start_again().await;
        let lost = lost(&child, &device, &acknowledged).await;
        assert!(
            lost.is_empty(),
            "{version:?}: {} of {} lost",
            lost.len(),
            acknowledged.len()
        );
    }
}

#[tokio::test]
async fn a_killed_postgres_has_every_acknowledged_sample_and_no_device_notices() {
    let child = Options::new(PROGRAM).start().await;
    let device = child.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    let topic = device.topic("telemetry");
    let mut acknowledged = HashSet::new();
    for round in 0..3_u64 {
        for step in 0..40 {
            let number = round * 40 + step;
            if step == 20 {
                kill_process(child.postmaster());
            }
            // The PUBACK waits until Postgres is there again.
            assert_eq!(session.publish(&topic, json!({"n": number}).to_string()).await, 0);
            acknowledged.insert(number);
        }
        eventually!(
            child
                .api
                .get("/devices")
                .attempt()
                .await
                .filter(|answer| answer.status == 200)
        );
        assert_eq!(
            lost(&child, &device, &acknowledged).await,
            Vec::<u64>::new(),
            "round {round}"
        );
    }
    assert!(
        session.is_connected(),
        "the session never ended, {WAIT:?} is its longest wait"
    );
}

#[tokio::test]
async fn a_setting_that_was_answered_is_there_after_a_kill() {
    let mut child = Options::new(PROGRAM).start().await;
    let device = child.device("HOME-1").await;
    let mut last = 1;
    for round in 0..3 {
        let changes = (0..20).map(|step| {
            let patch = json!({"reportInterval": 100 + round * 20 + step});
            child
                .again(&device)
                .api
                .patch("/devices/HOME-1/settings")
                .json(&patch)
                .attempt()
        });
        let changes: Vec<_> = changes.collect();
        let answers = async {
            let mut seen = last;
            for change in changes {
                if let Some(answer) = change.await.filter(|answer| answer.status == 200) {
                    seen = seen.max(answer.json()["version"].as_i64().unwrap());
                }
            }
            seen
        };
        last = answers.await;
        child.kill().await;
        child.start_again().await;
        let settings = child.again(&device).settings().await;
        assert!(
            settings["version"].as_i64().unwrap() >= last,
            "round {round}: {settings}, but {last} was answered"
        );
    }
}
