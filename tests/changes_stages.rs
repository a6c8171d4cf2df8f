//! Bulk changes in stages: canary, waves, thresholds, holding, stopping, taking back, and a server that dies.

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, SystemClock, clock::ManualClock};
use setpoint_tests::{Device, Harness, Options, eventually};

use crate::{
    PROGRAM,
    changes::{assert_counts, begin, change, devices, reached, running, told},
};

async fn versions(devices: &[Device]) -> Vec<i64> {
    let mut versions = Vec::new();
    for device in devices {
        versions.push(device.settings().await["version"].as_i64().unwrap());
    }
    versions
}

#[tokio::test]
async fn the_canary_is_waited_for_before_the_others_get_it() {
    let server = Harness::start().await;
    let devices = devices(&server, 6).await;
    let body = json!({"selector": "site=oslo", "settings": {"privacyMode": true}, "canary": "20%"});
    let id = begin(server.api(), &body).await;
    // 20 % of six devices are two.
    eventually!(change(server.api(), &id).await["counts"]["pending"] == 2);
    let now = change(server.api(), &id).await;
    assert_eq!((&now["state"], &now["canary"]), (&json!("canary"), &json!("20%")));
    assert_counts(&now, &json!({"selected": 6, "waiting": 4, "pending": 2}));

    let _first = running(&devices[0], &[]).await;
    eventually!(change(server.api(), &id).await["counts"]["synced"] == 1);
    assert_eq!(versions(&devices).await, [2, 2, 1, 1, 1, 1]);
    let _second = running(&devices[1], &[]).await;
    let now = reached(server.api(), &id, "settling").await;
    assert_counts(&now, &json!({"selected": 6, "synced": 2, "pending": 4}));
    assert_eq!(versions(&devices).await, [2; 6]);
    let mut others = Vec::new();
    for device in &devices[2..] {
        others.push(running(device, &[]).await);
    }
    let done = reached(server.api(), &id, "completed").await;
    assert_counts(&done, &json!({"selected": 6, "synced": 6}));
}

#[tokio::test]
async fn refusals_stop_it_and_say_why() {
    let server = Harness::start().await;
    let devices = devices(&server, 5).await;
    let mut simulated = Vec::new();
    for device in &devices {
        simulated.push(running(device, &["privacyMode"]).await);
    }
    let body = json!({"selector": "site=oslo", "settings": {"privacyMode": true}, "canary": 2,
        "abort": {"refused_percent": 50}});
    let id = begin(server.api(), &body).await;
    let ended = reached(server.api(), &id, "aborted").await;
    assert_counts(&ended, &json!({"selected": 5, "waiting": 3, "refused": 2}));
    assert_eq!(
        ended["reason"],
        "2 of the 2 devices that have it refused it: more than 50 %"
    );
    assert_eq!(versions(&devices).await, [2, 2, 1, 1, 1]);
    let log = server
        .api()
        .get(&format!("/audit?object=change:{id}&action=change.abort"))
        .await;
    let entry = log.expect(200)["items"][0].clone();
    assert_eq!(entry["before"]["state"], "canary", "{entry}");
    assert_eq!(
        entry["after"],
        json!({"state": "aborted", "reason": ended["reason"]})
    );
    for command in ["pause", "resume", "cancel"] {
        let problem = told(server.api(), &id, command).await.problem(409, "wrong_state");
        assert_eq!(problem["state"], "aborted", "{command}");
    }
    told(server.api(), &id, "undo").await.expect(202);
    let undone = reached(server.api(), &id, "undone").await;
    assert_counts(&undone, &json!({"selected": 5, "waiting": 3, "undone": 2}));
    assert_eq!(devices[0].settings().await["overrides"], json!({}));
}

#[tokio::test]
async fn silence_stops_it() {
    let clock = ManualClock::new(SystemClock.now());
    let setup = Harness::setup()
        .at(&clock)
        .with("settings.reconcile_every", "50ms");
    let server = setup.start().await;
    let devices = devices(&server, 4).await;
    let _answers = running(&devices[0], &[]).await;
    let body = json!({"selector": "site=oslo", "settings": {"privacyMode": true}, "canary": 3,
        "abort": {"pending_percent": 50, "after": "3s"}});
    let id = begin(server.api(), &body).await;
    eventually!({
        let counts = change(server.api(), &id).await["counts"].clone();
        counts["synced"] == 1 && counts["pending"] == 2
    });
    clock.advance(TimeDelta::seconds(3));
    let ended = reached(server.api(), &id, "aborted").await;
    assert_counts(
        &ended,
        &json!({"selected": 4, "waiting": 1, "pending": 2, "synced": 1}),
    );
    assert_eq!(
        ended["reason"],
        "2 of the 3 devices that have it did not answer within 3 s: more than 50 %"
    );
    // Counts go on following what devices say.
    let _late = running(&devices[1], &[]).await;
    eventually!(change(server.api(), &id).await["counts"]["synced"] == 2);
}

#[tokio::test]
async fn without_a_threshold_on_silence_it_goes_on_after_the_wait() {
    let server = Harness::start().await;
    let devices = devices(&server, 3).await;
    let body = json!({"selector": "site=oslo", "settings": {"privacyMode": true}, "canary": 1,
        "abort": {"after": "200ms"}});
    let id = begin(server.api(), &body).await;
    let done = reached(server.api(), &id, "completed").await;
    assert_counts(&done, &json!({"selected": 3, "pending": 3}));
    assert_eq!(versions(&devices).await, [2; 3]);
}

#[tokio::test]
async fn a_change_is_held_goes_on_and_is_stopped() {
    let server = Harness::start().await;
    let devices = devices(&server, 4).await;
    let api = server.api();
    // The second device would have its turn in a minute.
    let body = json!({"selector": "site=oslo", "settings": {"label": "hall"}, "rate_per_minute": 1});
    let id = begin(api, &body).await;
    eventually!(change(api, &id).await["counts"]["pending"] == 1);
    for _ in 0..2 {
        let paused = told(api, &id, "pause").await.expect(200);
        assert_eq!(
            (&paused["state"], &paused["stage"]),
            (&json!("paused"), &json!("waves"))
        );
        assert_counts(&paused, &json!({"selected": 4, "waiting": 3, "pending": 1}));
    }
    let resumed = told(api, &id, "resume").await.expect(200);
    assert_eq!(
        (&resumed["state"], &resumed["stage"]),
        (&json!("waves"), &Value::Null)
    );
    let problem = told(api, &id, "undo").await.problem(409, "wrong_state");
    assert_eq!(problem["state"], "waves");
    // Its pace begins anew.
    eventually!(change(api, &id).await["counts"]["pending"] == 2);
    for _ in 0..2 {
        let cancelled = told(api, &id, "cancel").await.expect(200);
        assert_eq!(cancelled["state"], "cancelled");
        assert!(cancelled["finished_at"].is_string(), "{cancelled}");
        assert_counts(&cancelled, &json!({"selected": 4, "waiting": 2, "pending": 2}));
    }
    for command in ["pause", "resume"] {
        let problem = told(api, &id, command).await.problem(409, "wrong_state");
        assert_eq!(problem["state"], "cancelled");
    }
    assert_eq!(versions(&devices).await, [2, 2, 1, 1]);
    let log = api.get(&format!("/audit?object=change:{id}")).await.expect(200);
    let told: Vec<String> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|entry| {
            format!(
                "{} {}",
                entry["action"].as_str().unwrap(),
                entry["after"]["state"].as_str().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "change.begin -",
            "change.pause paused",
            "change.resume waves",
            "change.cancel cancelled"
        ]
    );
}

#[tokio::test]
async fn taking_back_leaves_what_was_changed_since() {
    let server = Harness::start().await;
    let devices = devices(&server, 4).await;
    let api = server.api();
    devices[0]
        .change(json!({"reportInterval": 30, "label": "kitchen"}))
        .await;
    let mut simulated = Vec::new();
    for device in &devices {
        simulated.push(running(device, &[]).await);
    }
    let patch = json!({"reportInterval": 120, "privacyMode": true});
    let id = begin(api, &json!({"selector": "site=oslo", "settings": patch})).await;
    reached(api, &id, "completed").await;
    // One is deleted; on one a key is changed, on another one that the change is not about.
    api.delete(&devices[3].path("")).await.expect(204);
    devices[1].change(json!({"reportInterval": 300})).await;
    devices[2].change(json!({"label": "attic"})).await;
    for _ in 0..2 {
        told(api, &id, "undo").await.expect(202);
    }
    let undone = reached(api, &id, "undone").await;
    assert_counts(
        &undone,
        &json!({"selected": 4, "undone": 2, "kept": 1, "gone": 1}),
    );
    let list = api
        .get(&format!("/changes/{id}/devices?state=kept"))
        .await
        .expect(200);
    assert_eq!(list["items"][0]["serial"], "D-2");
    assert_eq!(list["items"][0]["message"], "changed since: reportInterval");
    for (device, overrides) in [
        (&devices[0], json!({"reportInterval": 30, "label": "kitchen"})),
        (&devices[1], json!({"reportInterval": 300})),
        (&devices[2], json!({"label": "attic"})),
    ] {
        let settings = device.settings().await;
        assert_eq!(settings["overrides"], overrides, "{}", device.serial);
        let last = device.version(settings["version"].as_i64().unwrap()).await;
        assert_eq!(last["source"], "undo", "{last}");
        eventually!(device.key_state("privacyMode").await == "synced");
    }
    told(api, &id, "undo").await.expect(202);
    for command in ["pause", "resume", "cancel"] {
        let problem = told(api, &id, command).await.problem(409, "wrong_state");
        assert_eq!(problem["state"], "undone", "{command}");
    }
}

#[tokio::test]
async fn a_later_change_of_the_same_keys_is_told_apart() {
    let server = Harness::start().await;
    let devices = devices(&server, 2).await;
    let api = server.api();
    let id = begin(
        api,
        &json!({"selector": "site=oslo", "settings": {"label": "hall"}}),
    )
    .await;
    reached(api, &id, "settling").await;
    devices[0].change(json!({"label": "attic"})).await;
    let now = change(api, &id).await;
    assert_counts(&now, &json!({"selected": 2, "pending": 1, "superseded": 1}));
    // Another key of a later version says nothing about this one.
    devices[1].change(json!({"privacyMode": true})).await;
    let _answers = running(&devices[1], &[]).await;
    let done = reached(api, &id, "completed").await;
    assert_counts(&done, &json!({"selected": 2, "synced": 1, "superseded": 1}));
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_applies_it_once() {
    let mut child = Options::new(PROGRAM).start().await;
    let api = child.api.clone();
    let make = |number: usize| {
        let device = json!({"serial": format!("D-{number:03}"), "tags": {"site": "oslo"}});
        let call = api.post("/devices").json(&device);
        async move {
            call.await.expect(201);
        }
    };
    stream::iter(0..300).map(make).buffer_unordered(8).count().await;
    let body = json!({"selector": "site=oslo", "settings": {"label": "hall"}, "rate_per_minute": 6000,
        "abort": {"after": "500ms"}});
    let id = begin(&child.api, &body).await;
    for most in [260, 130] {
        eventually!(
            change(&child.api, &id).await["counts"]["waiting"]
                .as_i64()
                .unwrap()
                <= most
        );
        child.kill().await;
        child.start_again().await;
    }
    let done = reached(&child.api, &id, "completed").await;
    assert_counts(&done, &json!({"selected": 300, "pending": 300}));
    let list = child.api.get("/devices?limit=1000").await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 300);
    for item in items {
        assert_eq!(item["settings_version"], 2, "{item}");
    }
}
