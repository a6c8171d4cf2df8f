//! Live events: what is heard, by whom, and from where on.

use reqwest::Method;
use serde_json::{Value, json};
use setpoint_tests::{
    Device, Harness, Version, eventually,
    harness::{api::Api, events::EventReader},
};

use crate::sessions::person;

async fn listen(api: &Api, query: &str) -> EventReader {
    let mut events = api.get(&format!("/events?{query}")).events().await;
    let greeting = events.next_or_end().await.unwrap();
    assert_eq!(greeting.comment.as_deref(), Some("listening"));
    events
}

async fn resume(api: &Api, query: &str, id: &str) -> EventReader {
    let call = api.get(&format!("/events?{query}"));
    call.header("last-event-id", id).events().await
}

async fn count(server: &Harness, metric: &str) -> f64 {
    let text = server.api().root(Method::GET, "/metrics").await.text;
    let line = text.lines().find(|line| line.starts_with(metric)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_device_is_heard_coming_changing_and_going() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut events = listen(server.api(), "serial=HOME-1").await;
    let mut session = device.listening(Version::V5).await;
    let came = events.next_of("presence").await.data;
    assert_eq!(
        (&came["serial"], &came["online"]),
        (&json!("HOME-1"), &json!(true))
    );
    assert!(came["since"].is_string() && came["session"].is_string() && came["reason"].is_null());

    // The document that was there when it came.
    events.next_of("settings").await;
    let version = device.change(json!({"privacyMode": true})).await;
    let mut stages = Vec::new();
    while stages.len() < 3 {
        let told = events.next_of("settings").await.data;
        assert_eq!(
            (&told["serial"], &told["version"]),
            (&json!("HOME-1"), &json!(version))
        );
        if told["stage"] == "requested" {
            assert_eq!(told["source"], "rest");
            assert_eq!(told["settings"]["privacyMode"], true);
        }
        stages.push(told["stage"].as_str().unwrap().to_owned());
    }
    stages.sort();
    assert_eq!(stages, ["delivered", "published", "requested"]);

    let refusal = json!({"version": version, "settings": {}, "errors": {"privacyMode": {"code": 400, "message": "no"}}});
    session
        .publish(&device.topic("settings/ack"), refusal.to_string())
        .await;
    let refused = events.next_of("settings").await.data;
    assert_eq!(refused["stage"], "refused");
    assert_eq!(refused["errors"]["privacyMode"]["message"], "no");

    session
        .publish(
            &device.topic("telemetry"),
            r#"{"temperature":21.5,"at":"2026-01-01T12:00:00Z"}"#,
        )
        .await;
    let told = events.next_of("telemetry").await.data;
    let items = json!([{"at": "2026-01-01T12:00:00Z", "metric": "temperature", "value": 21.5}]);
    assert_eq!(told, json!({"serial": "HOME-1", "items": items}));

    session
        .publish(
            &device.topic("firmware/status"),
            r#"{"version":"1.4.0","state":"done"}"#,
        )
        .await;
    assert_eq!(events.next().await.event, "firmware");
    session.disconnect().await;
    let went = events.next_of("presence").await.data;
    assert_eq!(
        (&went["online"], &went["reason"]),
        (&json!(false), &json!("client_disconnected"))
    );
}

#[tokio::test]
async fn only_what_was_asked_for_is_heard() {
    let server = Harness::start().await;
    let (one, two) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let mut presence = listen(server.api(), "type=presence").await;
    let mut second = listen(server.api(), "serial=HOME-2,HOME-3&type=settings,telemetry").await;
    one.change(json!({"privacyMode": true})).await;
    let session = one.mqtt_v5().await;
    assert_eq!(presence.next().await.data["serial"], "HOME-1");
    session.disconnect().await;
    assert_eq!(presence.next().await.event, "presence");
    two.mqtt_v5().await.disconnect().await;
    two.change(json!({"privacyMode": true})).await;
    let heard = second.next().await;
    assert_eq!(
        (heard.event.as_str(), &heard.data["serial"]),
        ("settings", &json!("HOME-2"))
    );

    let wrong = server.api().get("/events?type=weather").await.invalid();
    assert_eq!(
        wrong["type"],
        "not a type of event; known: presence, settings, telemetry, commands, firmware, alert"
    );
    assert!(server.api().get("/events?serial=-").await.invalid()["serial"].is_string());
    assert!(server.api().get("/events?kind=presence").await.invalid()["kind"].is_string());
}

#[tokio::test]
async fn a_group_is_heard_as_its_members_come() {
    let server = Harness::start().await;
    let (one, two) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let tag = async |device: &Device, site: &str| {
        let tags = json!({"tags": {"site": site}});
        server.api().patch(&device.path("")).json(&tags).await.expect(200);
    };
    let group = json!({"name": "oslo", "selector": "site=oslo", "priority": 1, "settings": {}});
    server.api().post("/groups").json(&group).await.expect(201);
    tag(&one, "oslo").await;
    let mut events = listen(server.api(), "group=oslo&type=settings").await;
    two.change(json!({"reportInterval": 100})).await;
    one.change(json!({"reportInterval": 100})).await;
    assert_eq!(events.next().await.data["serial"], "HOME-1");
    tag(&two, "oslo").await;
    let mut seconds = 100..;
    eventually!({
        two.change(json!({"reportInterval": seconds.next()})).await;
        one.change(json!({"reportInterval": seconds.next()})).await;
        let mut heard = events.next().await;
        while heard.data["serial"] == "HOME-1" && heard.data["stage"] != "requested" {
            heard = events.next().await;
        }
        heard.data["serial"] == "HOME-2"
    });
    server
        .api()
        .get("/events?group=bergen")
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_token_that_is_deleted_is_heard_no_longer() {
    let server = Harness::start().await;
    let body = json!({"name": "screen", "scopes": ["devices:read"]});
    let made = server.api().post("/tokens").json(&body).await.expect(201);
    let screen = server.api().with_token(made["token"].as_str().unwrap());
    let mut events = listen(&screen, "").await;
    let path = format!("/tokens/{}", made["id"].as_str().unwrap());
    server.api().delete(&path).await.expect(204);
    let ended = events.next().await;
    assert_eq!(
        (ended.event.as_str(), &ended.data),
        ("end", &json!({"reason": "rights_ended"}))
    );
    assert_eq!(events.next_or_end().await, None);
}

#[tokio::test]
async fn who_was_cut_off_goes_on_where_it_was() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let query = "type=settings,telemetry";
    let mut events = listen(server.api(), query).await;
    let begin = events.last_id().to_owned();
    device.change(json!({"reportInterval": 100})).await;
    let first = events.next().await;
    drop(events);
    for seconds in 101..110 {
        device.change(json!({"reportInterval": seconds})).await;
        let body = json!({"number": seconds});
        server
            .api()
            .post("/devices/HOME-1/telemetry")
            .json(&body)
            .await
            .expect(200);
    }
    let heard_after = async |id: &str| {
        let mut events = resume(server.api(), query, id).await;
        let (mut ids, mut samples) = (Vec::new(), Vec::new());
        while samples.len() < 9 {
            let heard = events.next().await;
            assert_ne!(heard.event, "reset");
            ids.push(heard.id);
            if heard.event == "telemetry" {
                samples.push(heard.data["items"][0]["value"].as_f64().unwrap());
            }
        }
        assert_eq!(samples, (101..110).map(f64::from).collect::<Vec<_>>());
        ids
    };
    let all = heard_after(&begin).await;
    let rest = heard_after(&first.id).await;
    assert_eq!(all[0], first.id);
    assert_eq!(all[1..], rest);
}

#[tokio::test]
async fn who_missed_something_is_told_to_read_anew() {
    let server = Harness::setup().with("events.log_entries", "5").start().await;
    let device = server.device("HOME-1").await;
    let events = listen(server.api(), "type=settings").await;
    let begin = events.last_id().to_owned();
    drop(events);
    for seconds in 100..110 {
        device.change(json!({"reportInterval": seconds})).await;
    }
    for (seconds, id) in [(120, begin.as_str()), (121, "1-1"), (122, "nonsense")] {
        let mut events = resume(server.api(), "type=settings", id).await;
        assert_eq!(events.next().await.event, "reset", "{id}");
        device.change(json!({"reportInterval": seconds})).await;
        assert_eq!(events.next().await.data["settings"]["reportInterval"], seconds);
    }
    let mut events = server.api().get("/events?last_event_id=1-1").events().await;
    assert_eq!(events.next().await.event, "reset");
}

#[tokio::test]
async fn an_owner_hears_their_own_devices_and_no_longer_than_they_are() {
    let server = Harness::start().await;
    let (mine, other) = (server.device("HOME-1").await, server.device("HOME-2").await);
    let anna = person(&server, "anna", "owner").await;
    server
        .sql(
            "insert into device_owners (device_id, user_id, since)
             select d.id, u.id, now() from devices d, users u where d.serial = 'HOME-1' and u.username = 'anna'",
        )
        .await;
    let mut all = anna.get("/events?type=settings").events().await;
    let mut one = anna.get("/events?serial=HOME-1&type=settings").events().await;
    anna.get("/events?serial=HOME-2").await.problem(404, "not_found");
    other.change(json!({"privacyMode": true})).await;
    mine.change(json!({"privacyMode": true})).await;
    assert_eq!(all.next().await.data["serial"], "HOME-1");
    assert_eq!(one.next().await.data["serial"], "HOME-1");

    server
        .api()
        .delete("/devices/HOME-1/registration")
        .await
        .expect(204);
    loop {
        let heard = one.next().await;
        if heard.event == "end" {
            assert_eq!(heard.data, json!({"reason": "rights_ended"}));
            break;
        }
    }
    assert_eq!(one.next_or_end().await, None);
}

#[tokio::test]
async fn a_token_hears_what_its_scopes_allow() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let devices = server.api().scoped(&["devices:read"]).await;
    let mut events = listen(&devices, "").await;
    for kind in ["settings", "telemetry"] {
        let problem = devices
            .get(&format!("/events?type={kind}"))
            .await
            .problem(403, "forbidden");
        assert_eq!(problem["detail"], format!("the scope `{kind}:read` is needed"));
    }
    device.change(json!({"privacyMode": true})).await;
    let body = json!({"temperature": 20});
    server
        .api()
        .post("/devices/HOME-1/telemetry")
        .json(&body)
        .await
        .expect(200);
    let _session = device.mqtt_v5().await;
    assert_eq!(events.next().await.event, "presence");
}

#[tokio::test]
async fn who_does_not_read_is_dropped_and_the_others_hear_on() {
    let server = Harness::setup()
        .with("events.log_entries", "8")
        // Its connection is not ended for what this one is to be: too slow.
        .with("http.write_timeout", "10m")
        .with("telemetry.max_metrics", "256")
        .start()
        .await;
    server.device("HOME-1").await;
    let mut idle = listen(server.api(), "type=telemetry").await;
    let mut reader = listen(server.api(), "type=telemetry").await;
    let name = "n".repeat(60);
    let item: serde_json::Map<String, Value> = (0..250)
        .map(|n| (format!("{name}{n}"), json!("x".repeat(200))))
        .collect();
    // More than sockets hold back, in pieces that the log soon forgets.
    for _ in 0..150 {
        let body = json!([item, item]);
        let stored = server.api().post("/devices/HOME-1/telemetry").json(&body).await;
        stored.expect(200);
        assert_eq!(reader.next().await.event, "telemetry");
    }
    let ended = loop {
        let heard = idle.next().await;
        if heard.event != "telemetry" {
            break heard;
        }
    };
    assert_eq!(
        (ended.event.as_str(), &ended.data),
        ("end", &json!({"reason": "too_slow"}))
    );
    assert!((count(&server, "setpoint_event_streams_dropped_total").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_quiet_stream_gives_signs_of_life_and_ends_with_the_server() {
    let mut server = Harness::setup().with("events.heartbeat", "1s").start().await;
    let device = server.device("HOME-1").await;
    let mut events = listen(server.api(), "type=presence").await;
    let begin = events.last_id().to_owned();
    device.change(json!({"privacyMode": true})).await;
    let alive = eventually!(events.next_or_end().await.filter(|heard| heard.id != begin));
    assert_eq!(
        alive.comment.as_deref(),
        Some("alive"),
        "the place moves on past what is not told"
    );
    server.restart().await;
    while events.next_or_end().await.is_some() {}
}

#[tokio::test]
async fn streams_are_bounded_in_number() {
    let server = Harness::setup().with("events.max_streams", "1").start().await;
    let first = listen(server.api(), "").await;
    let problem = server.api().get("/events").await.problem(503, "busy");
    assert_eq!(
        problem["detail"],
        "too many streams of live events; try again later"
    );
    drop(first);
    eventually!(server.api().get("/events").await.status == 200);
    assert!(count(&server, "setpoint_event_streams_refused_total").await >= 1.0);
}
