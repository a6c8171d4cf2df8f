//! Settings over REST: patch, put, versions, preconditions.

use serde_json::{Value, json};
use setpoint_tests::Harness;

const DEFAULTS: &str = r#"{"privacyMode":false,"reportInterval":60,"temperatureUnit":"celsius","label":""}"#;

fn defaults() -> Value {
    serde_json::from_str(DEFAULTS).unwrap()
}

#[tokio::test]
async fn a_new_device_has_its_models_defaults() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let answer = server.api().get("/devices/HOME-1/settings").await;
    let settings = answer.expect(200);
    assert_eq!(settings["version"], 1);
    assert_eq!(answer.header("etag"), "\"1\"");
    assert_eq!(settings["settings"], defaults());
    assert_eq!(settings["overrides"], json!({}));
    assert_eq!(settings["reported"], Value::Null);
    assert_eq!(settings["reported_version"], Value::Null);
    for key in ["privacyMode", "reportInterval", "temperatureUnit", "label"] {
        assert_eq!(settings["origins"][key], "model", "{settings}");
        let status = &settings["status"][key];
        assert_eq!(status["state"], "pending", "{settings}");
        assert!(status["since"].as_str().unwrap().ends_with('Z'), "{settings}");
        assert_eq!(status["message"], Value::Null, "{settings}");
    }
    assert_eq!(device.settings().await, settings, "reading changes nothing");
}

#[tokio::test]
async fn a_patch_merges_and_null_drops() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let patch = |body: Value| {
        let api = server.api().clone();
        async move { api.patch("/devices/HOME-1/settings").json(&body).await }
    };
    let answer = patch(json!({"privacyMode": true, "reportInterval": 30})).await;
    let settings = answer.expect(200);
    assert_eq!(settings["version"], 2);
    assert_eq!(answer.header("etag"), "\"2\"");
    assert_eq!(
        settings["overrides"],
        json!({"privacyMode": true, "reportInterval": 30})
    );
    assert_eq!(settings["settings"]["label"], "", "what isn't named stays");
    assert_eq!(settings["origins"]["privacyMode"], "device");
    assert_eq!(settings["origins"]["label"], "model");

    let settings = patch(json!({"reportInterval": null, "label": "hall"}))
        .await
        .expect(200);
    assert_eq!(settings["version"], 3);
    assert_eq!(
        settings["overrides"],
        json!({"privacyMode": true, "label": "hall"})
    );
    assert_eq!(
        settings["settings"]["reportInterval"], 60,
        "the inherited value returned"
    );
    assert_eq!(settings["origins"]["reportInterval"], "model");
    assert_eq!(device.settings().await, settings);
}

#[tokio::test]
async fn a_put_replaces_all_overrides() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    device.change(json!({"privacyMode": true, "label": "hall"})).await;
    let put = server
        .api()
        .put("/devices/HOME-1/settings")
        .json(&json!({"reportInterval": 10}))
        .await;
    let settings = put.expect(200);
    assert_eq!(settings["version"], 3);
    assert_eq!(settings["overrides"], json!({"reportInterval": 10}));
    assert_eq!(settings["settings"]["privacyMode"], false);
    let settings = server
        .api()
        .put("/devices/HOME-1/settings")
        .json(&json!({}))
        .await
        .expect(200);
    assert_eq!(settings["settings"], defaults());
    assert_eq!(settings["overrides"], json!({}));
}

#[tokio::test]
async fn what_changes_nothing_keeps_the_version() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let version = device.change(json!({"reportInterval": 30})).await;
    for patch in [
        json!({}),
        json!({"reportInterval": 30}),
        json!({"reportInterval": 30.0}),
        json!({"label": null}),
    ] {
        assert_eq!(device.change(patch.clone()).await, version, "{patch}");
    }
    let put = server
        .api()
        .put("/devices/HOME-1/settings")
        .json(&json!({"reportInterval": 30}))
        .await;
    assert_eq!(put.expect(200)["version"], version);
    let history = server
        .api()
        .get("/devices/HOME-1/settings/versions")
        .await
        .expect(200);
    assert_eq!(history["items"].as_array().unwrap().len(), 2, "{history}");
}

#[tokio::test]
async fn every_wrong_key_is_named_with_its_rule() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let before = device.settings().await;
    for (patch, errors) in [
        (
            json!({"reportInterval": 5}),
            json!({"reportInterval": "must be from 10 to 3600"}),
        ),
        (
            json!({"reportInterval": 3601}),
            json!({"reportInterval": "must be from 10 to 3600"}),
        ),
        (
            json!({"reportInterval": 10.5}),
            json!({"reportInterval": "must be a whole number"}),
        ),
        (
            json!({"reportInterval": "60"}),
            json!({"reportInterval": "must be a whole number"}),
        ),
        (
            json!({"privacyMode": "yes"}),
            json!({"privacyMode": "must be true or false"}),
        ),
        (
            json!({"temperatureUnit": "kelvin"}),
            json!({"temperatureUnit": "must be one of \"celsius\", \"fahrenheit\""}),
        ),
        (
            json!({"label": "x".repeat(41)}),
            json!({"label": "at most 40 characters"}),
        ),
        (json!({"colour": "red"}), json!({"colour": "unknown setting"})),
        (
            json!({"privacyMode": 1, "reportInterval": 9, "label": "fine", "colour": 1}),
            json!({
                "privacyMode": "must be true or false",
                "reportInterval": "must be from 10 to 3600",
                "colour": "unknown setting"
            }),
        ),
    ] {
        let refused = server.api().patch("/devices/HOME-1/settings").json(&patch).await;
        assert_eq!(refused.invalid(), errors, "{patch}");
        let refused = server.api().put("/devices/HOME-1/settings").json(&patch).await;
        assert_eq!(refused.invalid(), errors, "PUT {patch}");
    }
    assert_eq!(
        device.settings().await,
        before,
        "a refused change changes nothing, not even its good keys"
    );
}

#[tokio::test]
async fn what_is_no_patch_is_400() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for body in [
        "",
        "{",
        "null",
        "[]",
        "5",
        "\"x\"",
        r#"{"label":"a","label":"b"}"#,
        r#"{"label":"\u0000"}"#,
    ] {
        let refused = server.api().patch("/devices/HOME-1/settings").body(body).await;
        refused.problem(400, "malformed");
        let refused = server.api().put("/devices/HOME-1/settings").body(body).await;
        refused.problem(400, "malformed");
    }
    let deep = format!("{}{}", r#"{"label":"#.repeat(9), "1") + &"}".repeat(9);
    server
        .api()
        .patch("/devices/HOME-1/settings")
        .body(deep)
        .await
        .problem(400, "malformed");
    let large = format!(r#"{{"label":"{}"}}"#, "x".repeat(33 * 1024));
    server
        .api()
        .patch("/devices/HOME-1/settings")
        .body(large)
        .await
        .problem(413, "too_large");
    assert_eq!(device.settings().await["version"], 1);
}

#[tokio::test]
async fn if_match_guards_against_lost_updates() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let version = device.change(json!({"label": "one"})).await;
    let (current, stale) = (format!("\"{version}\""), format!("\"{}\"", version - 1));
    for method in [reqwest::Method::PATCH, reqwest::Method::PUT] {
        let call = server
            .api()
            .call(method.clone(), "/devices/HOME-1/settings")
            .json(&json!({"label": "two"}));
        let refused = call.header("if-match", &stale).await;
        let problem = refused.problem(412, "version_mismatch");
        assert_eq!(problem["current_version"], version, "{method}");
        assert_eq!(refused.header("etag"), current, "{method}");
    }
    assert_eq!(device.settings().await["settings"]["label"], "one");
    let patch = server
        .api()
        .patch("/devices/HOME-1/settings")
        .json(&json!({"label": "two"}));
    let accepted = patch.header("if-match", &current).await;
    assert_eq!(accepted.expect(200)["version"], version + 1);
    let patch = server
        .api()
        .patch("/devices/HOME-1/settings")
        .json(&json!({"label": "three"}));
    assert_eq!(
        patch.header("if-match", "*").await.expect(200)["version"],
        version + 2,
        "any version"
    );
    let patch = server
        .api()
        .patch("/devices/HOME-1/settings")
        .json(&json!({"label": "four"}));
    patch.header("if-match", "seven").await.problem(400, "malformed");
}

#[tokio::test]
async fn of_many_writers_with_one_etag_one_wins() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let writers = (0..10).map(|number| {
        let patch = server
            .api()
            .patch("/devices/HOME-1/settings")
            .json(&json!({"reportInterval": 10 + number}));
        async { patch.header("if-match", "\"1\"").await.status.as_u16() }
    });
    let mut answers = futures_util::future::join_all(writers).await;
    answers.sort_unstable();
    assert_eq!(
        answers.iter().filter(|status| **status == 200).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|status| **status == 412).count(),
        9,
        "{answers:?}"
    );
    assert_eq!(device.settings().await["version"], 2);
}

#[tokio::test]
async fn versions_rise_one_by_one_under_many_writers() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let writers = (0..20).map(|number| device.change(json!({"reportInterval": 100 + number})));
    let mut versions = futures_util::future::join_all(writers).await;
    versions.sort_unstable();
    assert_eq!(
        versions,
        (2..=21).collect::<Vec<_>>(),
        "each change has its own version"
    );
}
