//! A metric of a device has one type.

use serde_json::{Value, json};
use setpoint_tests::{Api, Device, Harness, Version, eventually};

use crate::two_servers::{at, both};

const TOPIC: &str = "devices/HOME-1/telemetry";
const PATH: &str = "/devices/HOME-1/telemetry";

async fn values(device: &Device, metric: &str) -> Vec<Value> {
    let items = device.telemetry(&format!("metric={metric}")).await;
    items.iter().map(|item| item["value"].clone()).collect()
}

/// What sending one object over HTTP comes to: null, or what is wrong with each key.
async fn send(api: &Api, sample: Value) -> Value {
    let answer = api.post(PATH).json(&sample).await;
    if answer.status == 200 {
        let answer = answer.json();
        assert_eq!(answer["stored"], sample.as_object().unwrap().len(), "{answer}");
        return Value::Null;
    }
    answer.invalid()
}

#[tokio::test]
async fn the_first_sample_decides_and_another_type_is_named() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt_v5().await;
    let first = json!({"t": 1, "open": true, "mode": "eco"});
    assert_eq!(session.publish(TOPIC, first.to_string()).await, 0);

    // The others of the batch are stored.
    let batch =
        json!([{"t": 2, "open": false}, {"t": "3", "open": 1, "mode": 5}, {"t": true, "mode": "off"}]);
    assert_eq!(session.publish(TOPIC, batch.to_string()).await, 0x99);
    assert_eq!(values(&device, "t").await, [json!(1), json!(2)]);
    assert_eq!(values(&device, "open").await, [json!(true), json!(false)]);
    assert_eq!(values(&device, "mode").await, [json!("eco"), json!("off")]);
    let entry = eventually!(device.timeline("telemetry_rejected").await.into_iter().next());
    assert_eq!(
        (
            &entry["data"]["problems"],
            &entry["data"]["count"],
            &entry["data"]["stored"]
        ),
        (
            &json!([
                "item 1: `mode`: is a text on this device, not a number",
                "item 1: `open`: is a boolean on this device, not a number",
                "item 1: `t`: is a number on this device, not a text",
                "item 2: `t`: is a number on this device, not a boolean",
            ]),
            &json!(4),
            &json!(3)
        ),
        "{entry}"
    );
    let refused = "setpoint_telemetry_samples_rejected_total{reason=\"type\"}";
    assert_eq!(server.metric(refused).await, Some(4.0));

    // MQTT 3.1.1 has no other answer; HTTP names each.
    let mut older = device.mqtt(Version::V3).client_id("HOME-1:3").connect().await;
    assert_eq!(older.publish(TOPIC, r#"{"t":"4"}"#).await, 0);
    let mixed = server.api().post(PATH).json(&json!([{"t": "5"}, {"t": 6}])).await;
    assert_eq!(
        mixed.expect(200),
        json!({
            "stored": 1,
            "problems": [{"item": 0, "key": "t", "message": "is a number on this device, not a text"}],
            "more_problems": 0,
            "clock_ahead": 0,
        })
    );
    assert_eq!(
        send(server.api(), json!({"t": "7"})).await,
        json!({"body.t": "is a number on this device, not a text"})
    );
    assert_eq!(values(&device, "t").await, [json!(1), json!(2), json!(6)]);
    assert_eq!(server.metric(refused).await, Some(7.0));
    // Another device is of no concern, and within one batch the first decides as well.
    server.device("HOME-2").await;
    let other = json!([{"t": "x"}, {"t": 1}, {"t": "y"}]);
    let other = server
        .api()
        .post("/devices/HOME-2/telemetry")
        .json(&other)
        .await
        .expect(200);
    assert_eq!(other["stored"], 2);
    assert_eq!(
        other["problems"][0]["message"],
        "is a text on this device, not a number"
    );
    assert_eq!(other["problems"][0]["item"], 1);
}

#[tokio::test]
async fn a_model_may_declare_the_type_and_change_it() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let api = server.api();
    let declare = async |telemetry: Value| {
        let patch = json!({"telemetry": telemetry});
        api.patch("/models/home").json(&patch).await.expect(200);
    };
    declare(json!({"door": {"type": "boolean"}, "temperature": {"type": "number"}})).await;
    assert_eq!(
        send(api, json!({"door": 1})).await,
        json!({"body.door": "is a boolean on this device, not a number"})
    );
    assert!(values(&device, "door").await.is_empty());
    assert_eq!(
        send(api, json!({"door": true, "temperature": 21})).await,
        Value::Null
    );

    declare(json!({"door": {"type": "string"}})).await;
    assert_eq!(
        send(api, json!({"door": true})).await,
        json!({"body.door": "is a text on this device, not a boolean"})
    );
    assert_eq!(send(api, json!({"door": "ajar"})).await, Value::Null);
    assert_eq!(values(&device, "door").await, [json!(true), json!("ajar")]);
    // Nothing declared: what was stored last holds.
    declare(json!({"door": null})).await;
    assert_eq!(
        send(api, json!({"door": true})).await,
        json!({"body.door": "is a text on this device, not a boolean"})
    );
    let wrong = api
        .patch("/models/home")
        .json(&json!({"telemetry": {"door": {"type": "integer"}}}))
        .await;
    assert_eq!(
        wrong.invalid(),
        json!({"telemetry.door": "`type` must be number, boolean or string"})
    );
    // Another model says otherwise.
    let other = json!({"name": "gate", "settings": {}, "telemetry": {"door": {"type": "number"}}});
    api.post("/models").json(&other).await.expect(201);
    api.patch("/devices/HOME-1")
        .json(&json!({"model": "gate"}))
        .await
        .expect(200);
    assert_eq!(send(api, json!({"door": 0.5})).await, Value::Null);
}

#[tokio::test]
async fn a_metric_is_deleted_with_its_type() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let api = server.api();
    let old = json!([{"t": "20", "at": "2025-12-31T12:00:00Z"}, {"t": "21"}, {"t": "22", "u": 1}]);
    assert_eq!(api.post(PATH).json(&old).await.expect(200)["stored"], 4);
    // Buckets are gone as well, whatever they are made of.
    let buckets = "metric=t&bucket=1d&agg=count&from=2025-12-30T00:00:00Z&to=2026-01-02T00:00:00Z";
    assert_eq!(device.telemetry(buckets).await[0]["value"], 1);
    let removed = api.delete(&format!("{PATH}?metric=t")).await.expect(200);
    assert_eq!(removed, json!({"deleted": 3, "done": true}));
    assert!(device.telemetry(buckets).await.is_empty());
    assert!(
        device
            .telemetry("from=2025-01-01T00:00:00Z&metric=t")
            .await
            .is_empty()
    );
    let latest = api.get(&format!("{PATH}/latest")).await.expect(200);
    assert_eq!(
        latest["items"].as_array().unwrap().len(),
        1,
        "the other metric stays: {latest}"
    );
    assert_eq!(send(api, json!({"t": 23})).await, Value::Null);
    assert_eq!(values(&device, "t").await, [json!(23)]);

    let entries = api.get("/audit?action=telemetry.delete").await.expect(200);
    let entry = &entries["items"][0];
    assert_eq!(entry["object"], "device:HOME-1");
    assert_eq!(entry["after"], json!({"metric": "t"}));

    api.delete(&format!("{PATH}?metric=unheard"))
        .await
        .problem(404, "not_found");
    api.delete("/devices/NOBODY/telemetry?metric=t")
        .await
        .problem(404, "not_found");
    for query in ["", "?metric=", "?metric=a,b"] {
        let errors = api.delete(&format!("{PATH}{query}")).await.invalid();
        assert_eq!(
            errors,
            json!({"metric": "the name of one metric is needed"}),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_removal_that_is_not_through_says_so_and_goes_on() {
    let server = Harness::setup()
        .with("telemetry.delete_within", "0s")
        .start()
        .await;
    let device = server.device("HOME-1").await;
    server
        .sql(
            "INSERT INTO metrics (name) VALUES ('t');
             INSERT INTO device_metrics (device_id, metric_id, type) SELECT d.id, m.id, 'number' FROM devices d, metrics m;
             INSERT INTO telemetry (device_id, metric_id, at, number)
             SELECT d.id, m.id, '2025-01-01'::timestamptz + n * interval '1 s', n
             FROM devices d, metrics m, generate_series(1, 15000) n",
        )
        .await;
    let path = device.path("/telemetry?metric=t");
    let removed = server.api().delete(&path).await.expect(200);
    assert_eq!(removed, json!({"deleted": 10_000, "done": false}));
    eventually!(
        send(server.api(), json!({"t": "x"})).await == Value::Null,
        "the rest goes by itself"
    );
    assert_eq!(values(&device, "t").await, [json!("x")]);
    let entries = server
        .api()
        .get("/audit?action=telemetry.delete")
        .await
        .expect(200);
    assert_eq!(entries["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn several_servers_agree_on_the_type() {
    let (first, second) = both().await;
    let device = first.device("HOME-1").await;
    // Both know the device before the metric is there.
    for server in [&first, &second] {
        assert_eq!(send(server.api(), json!({"known": 1})).await, Value::Null);
    }
    let mut session = at(&second, &device).connect().await;
    assert_eq!(send(first.api(), json!({"t": 1})).await, Value::Null);
    assert_eq!(
        session.publish(TOPIC, r#"{"t":"2"}"#).await,
        0x99,
        "the first one decided"
    );
    assert_eq!(session.publish(TOPIC, r#"{"t":3}"#).await, 0);
    // What an operator does at one holds at the other.
    let path = format!("{PATH}?metric=t");
    assert_eq!(first.api().delete(&path).await.expect(200)["deleted"], 2);
    eventually!(session.publish(TOPIC, r#"{"t":"4"}"#).await == 0);
    let patch = json!({"telemetry": {"t": {"type": "boolean"}}});
    first.api().patch("/models/home").json(&patch).await.expect(200);
    eventually!(session.publish(TOPIC, r#"{"t":true}"#).await == 0);
    assert_eq!(session.publish(TOPIC, r#"{"t":"5"}"#).await, 0x99);
}
