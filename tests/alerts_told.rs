//! Alerts outside: webhooks hear of each, once; and many devices at a time.

use serde_json::{Value, json};
use setpoint_tests::{
    eventually,
    harness::{alerts::Watched, receiver::Receiver},
};

use crate::webhooks::{hook, setup};

#[tokio::test]
async fn webhooks_hear_of_alerts_also_of_one_that_ends_with_its_device() {
    // A delivery is taken for this long at least. What is taken by a clock that is just then moved on would otherwise be
    // due at once, and be delivered again.
    let watched = Watched::start_as(setup().with("webhooks.timeout", "5m")).await;
    let device = watched.server.device("HOME-1").await;
    let mut receiver = Receiver::start().await;
    hook(
        &watched.server,
        "ops",
        &receiver.url(),
        json!({"events": ["alert"]}),
    )
    .await;
    watched
        .rule(
            "hot",
            json!({"title": "Hot", "condition": "temperature > 30", "severity": "critical"}),
        )
        .await;
    watched.send(&device, json!({"temperature": 31})).await;
    let told = receiver.next().await;
    assert_eq!(
        (&told.body["type"], &told.body["serial"], &told.body["data"]),
        (
            &json!("alert"),
            &json!("HOME-1"),
            &json!({
                "alert": "hot", "title": "Hot", "severity": "critical", "condition": "temperature > 30", "state": "firing",
                "since": "2026-01-15T14:00:00Z", "values": {"temperature": 31},
                "message": "temperature is 31, above 30 since 14:00"
            })
        )
    );
    watched.pass(60);
    watched.send(&device, json!({"temperature": 20})).await;
    let told = receiver.next().await;
    assert_eq!(
        (&told.body["data"]["state"], &told.body["data"]["reason"]),
        (&json!("resolved"), &json!("cleared"))
    );
    watched.pass(60);
    watched.send(&device, json!({"temperature": 35})).await;
    assert_eq!(receiver.next().await.body["data"]["state"], "firing");
    watched.api().delete("/devices/HOME-1").await.expect(204);
    let told = receiver.next().await;
    let data = &told.body["data"];
    assert_eq!(
        (&data["state"], &data["reason"], &data["values"]),
        (
            &json!("resolved"),
            &json!("device_gone"),
            &json!({"temperature": 35})
        )
    );
    assert_eq!(data["since"], "2026-01-15T14:02:00.000000Z");
    eventually!(watched.api().get("/webhooks/ops").await.expect(200)["pending"] == 0);
    assert!(receiver.next_so_far().is_none());
}

#[tokio::test]
async fn many_devices_under_one_rule() {
    const DEVICES: i64 = 700;
    let watched = Watched::start().await;
    let first = watched.server.device("HOME-1").await;
    watched.send(&first, json!({"temperature": 20})).await;
    // More than are looked at together; every second one is too hot.
    watched
        .server
        .sql(&format!(
            "with made as (
                 insert into devices (serial, model, created_at)
                 select 'MANY-' || lpad(n::text, 4, '0'), 'home', '2026-01-15T14:00:00Z' from generate_series(1, {DEVICES}) n
                 returning id, serial),
             has as (insert into device_metrics (device_id, metric_id)
                     select made.id, m.id from made, metrics m where m.name = 'temperature')
             insert into telemetry (device_id, metric_id, at, number)
             select made.id, m.id, '2026-01-15T14:00:00Z', 30 + right(made.serial, 4)::int % 2
             from made, metrics m where m.name = 'temperature'"
        ))
        .await;
    watched
        .rule("hot", json!({"condition": "temperature > 30 for 5m"}))
        .await;
    watched
        .rule("quiet", json!({"condition": "no telemetry for 10m"}))
        .await;
    let counts = async |rule: &str| {
        let rule = watched.api().get(&format!("/alerts/{rule}")).await.expect(200);
        rule["counts"].clone()
    };
    let all = |pending: i64, firing: i64| json!({"pending": pending, "firing": firing, "resolved": 0});
    eventually!(
        counts("hot").await == all(DEVICES / 2, 0),
        "{}",
        counts("hot").await
    );
    watched.pass(300);
    eventually!(
        counts("hot").await == all(0, DEVICES / 2),
        "{}",
        counts("hot").await
    );
    watched.pass(300);
    eventually!(
        counts("quiet").await == all(0, DEVICES + 1),
        "{}",
        counts("quiet").await
    );
    // A page after the other, each device once.
    let (mut cursor, mut seen): (Value, Vec<String>) = (json!(""), Vec::new());
    while let Some(after) = cursor.as_str() {
        let after = if after.is_empty() {
            String::new()
        } else {
            format!("&cursor={after}")
        };
        let path = format!("/alerts/hot/devices?state=firing&limit=100{after}");
        let page = watched.api().get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|item| item["serial"].as_str().unwrap().to_owned()));
        cursor = page["next"].clone();
    }
    assert_eq!(seen.len() as i64, DEVICES / 2);
    assert!(seen.is_sorted_by(|a, b| a < b));
    watched.api().delete("/alerts/hot").await.expect(204);
    watched
        .rule("hot", json!({"condition": "temperature > 99"}))
        .await;
    let timeline = "/devices/MANY-0001/timeline?kind=alert_resolved";
    eventually!(
        watched.api().get(timeline).await.expect(200)["items"]
            .as_array()
            .unwrap()
            .len()
            == 1
    );
}
