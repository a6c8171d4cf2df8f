//! Telemetry over HTTP.

use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually};

const PATH: &str = "/devices/HOME-1/telemetry";

#[tokio::test]
async fn a_device_sends_with_its_own_token() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let api = server.api().anonymous();
    let sent = api
        .post(PATH)
        .basic("HOME-1", &device.token)
        .json(&json!({"t": 1}))
        .await;
    assert!(sent.status.is_success(), "{sent:?}");
    assert_eq!(
        device.telemetry("metric=t").await.len(),
        1,
        "answered after the commit"
    );
    let batch = json!([{"t": 2, "at": "2026-01-01T12:00:00Z"}, {"t": 3, "at": "2026-01-01T12:00:01Z"}]);
    let sent = api.post(PATH).basic("HOME-1", &device.token).json(&batch).await;
    assert_eq!(sent.json()["stored"], 2, "{sent:?}");
    eventually!(
        device.get().await["last_seen"].is_string(),
        "a device that speaks HTTP alone was seen"
    );
}

#[tokio::test]
async fn an_api_token_with_the_scope_may_send_for_it() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let writer = server.api().scoped(&["telemetry:write"]).await;
    assert!(writer.post(PATH).json(&json!({"t": 1})).await.status.is_success());
    assert_eq!(device.telemetry("metric=t").await.len(), 1);
    let reader = server.api().scoped(&["telemetry:read"]).await;
    reader
        .post(PATH)
        .json(&json!({"t": 1}))
        .await
        .problem(403, "forbidden");
    writer.get(PATH).await.problem(403, "forbidden");
}

#[tokio::test]
async fn nobody_else_sends_for_it() {
    let server = Harness::start().await;
    let (device, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let api = server.api().anonymous();
    for (username, password) in [
        ("HOME-1", "spd_wrong"),
        ("HOME-1", other.token.as_str()),
        ("NOBODY", device.token.as_str()),
        ("token", server.api().token()),
    ] {
        let refused = api
            .post(PATH)
            .basic(username, password)
            .json(&json!({"t": 1}))
            .await;
        refused.problem(401, "unauthenticated");
    }
    let refused = api
        .post(PATH)
        .basic("HOME-2", &other.token)
        .json(&json!({"t": 1}))
        .await;
    assert!(matches!(refused.status.as_u16(), 403 | 404), "{refused:?}");
    api.post(PATH)
        .json(&json!({"t": 1}))
        .await
        .problem(401, "unauthenticated");
    assert!(device.telemetry("metric=t").await.is_empty());

    server.api().post("/devices/HOME-1/credential").await;
    let refused = api
        .post(PATH)
        .basic("HOME-1", &device.token)
        .json(&json!({"t": 1}))
        .await;
    refused.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_devices_token_opens_nothing_else() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let api = server.api().anonymous();
    for path in [
        "/devices",
        "/tokens",
        "/devices/HOME-1/timeline",
        "/devices/HOME-1/settings/versions",
    ] {
        let refused = api.get(path).basic("HOME-1", &device.token).await;
        refused.problem(401, "unauthenticated");
        api.with_token(&device.token)
            .get(path)
            .await
            .problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn bad_samples_are_named_and_the_good_stored() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let api = server.api();
    let mixed = api.post(PATH).json(&json!([{"t": 1}, {"t": null}])).await;
    assert!(mixed.status.is_success(), "{mixed:?}");
    let body = mixed.json();
    assert_eq!(body["stored"], 1, "{body}");
    assert!(body.to_string().contains("null is not a value"), "{body}");
    assert_eq!(device.telemetry("metric=t").await.len(), 1);

    let bad = api.post(PATH).json(&json!([{"t": null}, {"u": [1]}])).await;
    let errors = bad.invalid();
    assert_eq!(errors.as_object().unwrap().len(), 2, "{errors}");
    for body in ["5", "null", "{}"] {
        api.post(PATH).body(body).await.problem(422, "validation_failed");
    }
    for body in ["", "{", "t=1"] {
        let refused = api.post(PATH).body(body).await;
        assert!(matches!(refused.status.as_u16(), 400 | 422), "{refused:?}");
    }
    let large = format!(r#"{{"t":"{}"}}"#, "x".repeat(1_100_000));
    api.post(PATH).body(large).await.problem(413, "too_large");
    assert_eq!(device.telemetry("metric=t").await.len(), 1);
}

#[tokio::test]
async fn there_must_be_such_a_device() {
    let server = Harness::start().await;
    let refused = server
        .api()
        .post("/devices/NOBODY/telemetry")
        .json(&json!({"t": 1}))
        .await;
    assert_eq!(refused.problem(404, "not_found")["errors"], Value::Null);
}

#[tokio::test]
async fn a_serial_made_again_is_another_device() {
    let server = Harness::start().await;
    let old = server.device("HOME-1").await;
    let api = server.api().anonymous();
    let sent = api
        .post(PATH)
        .basic("HOME-1", &old.token)
        .json(&json!({"t": 1}))
        .await;
    assert!(sent.status.is_success(), "{sent:?}");
    assert!(server.api().delete("/devices/HOME-1").await.status.is_success());
    let refused = api
        .post(PATH)
        .basic("HOME-1", &old.token)
        .json(&json!({"t": 2}))
        .await;
    refused.problem(401, "unauthenticated");

    let new = server.device("HOME-1").await;
    assert!(
        new.telemetry("metric=t").await.is_empty(),
        "nothing of the former device is seen"
    );
    let sent = api
        .post(PATH)
        .basic("HOME-1", &new.token)
        .json(&json!({"t": 3}))
        .await;
    assert_eq!(sent.json()["stored"], 1, "{sent:?}");
    let items = new.telemetry("metric=t").await;
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!(items[0]["value"], 3);
}

#[tokio::test]
async fn a_body_may_be_gzipped_and_is_limited_as_what_it_unpacks_to() {
    // `{"t":1}`, and the same behind 5,000 spaces.
    let small = "1f8b0800000000000203ab562a51b232ac05005db41bfe07000000";
    let large = "1f8b0800000000000203edc1310d00300800302b04077bd1c547e61d157c6d2300000000806b939df5fe0266829d028f130000";
    let bytes = |hex: &str| -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
            .collect();
        digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
    };
    let server = Harness::setup().with("http.max_body", "2 KiB").start().await;
    let device = server.device("HOME-1").await;
    let send = |coding: &'static str, body: Vec<u8>| {
        let call = server.api().anonymous().post(PATH).basic("HOME-1", &device.token);
        call.header("content-encoding", coding).body(body)
    };
    assert_eq!(send("gzip", bytes(small)).await.expect(200)["stored"], 1);
    assert_eq!(
        send("identity", br#"{"t":2}"#.to_vec()).await.expect(200)["stored"],
        1
    );
    send("gzip", bytes(large)).await.problem(413, "too_large");
    send("gzip", br#"{"t":3}"#.to_vec())
        .await
        .problem(400, "malformed");
    send("gzip", bytes(small)[..20].to_vec())
        .await
        .problem(400, "malformed");
    let refused = send("br", br#"{"t":4}"#.to_vec()).await;
    refused.problem(415, "unsupported_media_type");
    assert_eq!(refused.header("accept-encoding"), "gzip");
    assert_eq!(device.telemetry("metric=t").await.len(), 2);
}

#[tokio::test]
async fn who_may_not_is_told_that_a_devices_token_would_do() {
    let server = Harness::start().await;
    server.device("HOME-1").await;
    let api = server.api().anonymous();
    // Many programs send user name and password only when they are asked (RFC 9110, section 11.6.1).
    for call in [api.post(PATH), api.post(PATH).basic("HOME-1", "spd_wrong")] {
        let refused = call.json(&json!({"t": 1})).await;
        refused.problem(401, "unauthenticated");
        assert_eq!(
            refused.header("www-authenticate"),
            "Bearer, Basic realm=\"device\", charset=\"UTF-8\""
        );
    }
    let refused = api
        .with_token("spt_wrong")
        .post(PATH)
        .json(&json!({"t": 1}))
        .await;
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
}
