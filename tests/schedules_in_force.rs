//! Schedules at work, on a server whose clock the test moves: windows, changes of the clock, overlaps, zones.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, clock::ManualClock};
use setpoint_tests::{Device, Harness, Version, eventually};

/// A server that looks at what is due all the time, at a time of the test's choice.
struct Timed {
    server: Harness,
    clock: ManualClock,
    device: Device,
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

impl Timed {
    async fn start(now: &str, zone: &str) -> Self {
        let clock = ManualClock::new(at(now));
        let setup = Harness::setup()
            .at(&clock)
            .with("settings.reconcile_every", "50ms");
        let server = setup.start().await;
        let device = server.device("HOME-1").await;
        let this = Self {
            server,
            clock,
            device,
        };
        this.describe(json!({"time_zone": zone})).await;
        this
    }

    async fn describe(&self, patch: Value) {
        self.server
            .api()
            .patch("/devices/HOME-1")
            .json(&patch)
            .await
            .expect(200);
    }

    async fn put(&self, name: &str, body: Value) {
        let path = self.device.path(&format!("/schedules/{name}"));
        let status = self.server.api().put(&path).json(&body).await.status;
        assert!(status.is_success(), "{name}: {status}");
    }

    fn go_to(&self, time: &str) {
        self.clock.advance(at(time) - self.clock.now());
    }

    /// Waits until the setting has the value and comes from there.
    async fn holds(&self, key: &str, value: Value, origin: &str) {
        eventually!(
            {
                let settings = self.device.settings().await;
                settings["settings"][key] == value && settings["origins"][key] == origin
            },
            "{key} is {value} from {origin} at {}: {}",
            self.clock.now(),
            self.device.settings().await
        );
    }

    /// The state of the device's schedule.
    async fn state(&self, name: &str) -> Value {
        let path = self.device.path(&format!("/schedules/{name}"));
        self.server.api().get(&path).await.expect(200)["state"].clone()
    }

    /// When what will hold: from, to, schedule.
    async fn preview(&self, query: &str) -> Vec<(String, String, String)> {
        let path = self.device.path(&format!("/schedules/preview?{query}"));
        let body = self.server.api().get(&path).await.expect(200);
        let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
        let items = body["items"].as_array().unwrap().iter();
        items
            .map(|item| (text(item, "from"), text(item, "to"), text(item, "schedule")))
            .collect()
    }
}

const EVERY: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn daily(from: &str, to: &str, settings: Value) -> Value {
    json!({"days": EVERY, "from": from, "to": to, "settings": settings})
}

fn on() -> Value {
    json!({"privacyMode": true})
}

#[tokio::test]
async fn a_window_over_midnight_begins_and_ends_by_itself() {
    // A Thursday, 22:59 in Oslo.
    let timed = Timed::start("2026-01-15T21:59:00Z", "Europe/Oslo").await;
    let mut session = timed.device.listening(Version::V5).await;
    let friday = json!({"days": ["thu"], "from": "23:00", "to": "06:30", "settings": on()});
    timed.put("night", friday).await;
    timed.device.change(json!({"reportInterval": 30})).await;
    session.next(&timed.device.topic("settings")).await;
    assert_eq!(timed.state("night").await, "waiting");

    timed.go_to("2026-01-15T22:00:00Z");
    let document = session.next(&timed.device.topic("settings")).await;
    let document: Value = serde_json::from_slice(&document.payload).unwrap();
    assert_eq!(
        (&document["version"], &document["settings"]["privacyMode"]),
        (&json!(3), &json!(true))
    );
    timed.holds("privacyMode", json!(true), "schedule:night").await;
    assert_eq!(timed.state("night").await, "active");
    let version = timed.device.version(3).await;
    assert_eq!(version["source"], "schedule");
    assert_eq!(
        version["diff"],
        json!({"privacyMode": {"from": false, "to": true}})
    );

    // What is set on the device itself meanwhile lies below, and is there when the window ends.
    let changed = timed
        .device
        .change(json!({"privacyMode": false, "label": "x"}))
        .await;
    assert_eq!(changed, 4);
    timed.holds("privacyMode", json!(true), "schedule:night").await;
    timed.go_to("2026-01-16T05:30:00Z");
    timed.holds("privacyMode", json!(false), "device").await;
    let version = timed.device.version(5).await;
    assert_eq!(
        (&version["source"], &version["actor"]),
        (&json!("schedule"), &json!("schedule"))
    );
    // Friday's evening is none of its days.
    timed.go_to("2026-01-16T23:00:00Z");
    timed.device.change(json!({"label": "y"})).await;
    assert_eq!(timed.device.settings().await["version"], 6);
    timed.go_to("2026-01-22T22:00:00Z");
    timed.holds("privacyMode", json!(true), "schedule:night").await;
}

#[tokio::test]
async fn clocks_that_are_changed_move_what_they_must() {
    let timed = Timed::start("2026-03-28T20:00:00Z", "Europe/Oslo").await;
    timed.put("gap", daily("02:30", "05:00", on())).await;
    let preview = timed.preview("days=2").await;
    // In the missing hour: at its end, 03:00 by the clock.
    let gap = [
        ("2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z", "gap"),
        ("2026-03-30T00:30:00Z", "2026-03-30T03:00:00Z", "gap"),
    ];
    assert_eq!(
        preview,
        gap.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
    timed.go_to("2026-03-29T00:59:59Z");
    timed.holds("privacyMode", json!(false), "model").await;
    timed.go_to("2026-03-29T01:00:00Z");
    timed.holds("privacyMode", json!(true), "schedule:gap").await;

    // In the doubled hour: from its first pass to its last.
    timed.put("gap", daily("02:10", "02:50", on())).await;
    timed.holds("privacyMode", json!(false), "model").await;
    timed.go_to("2026-10-25T00:09:00Z");
    timed.device.change(json!({"label": "x"})).await;
    for (time, value, origin) in [
        ("2026-10-25T00:10:00Z", true, "schedule:gap"),
        ("2026-10-25T00:55:00Z", true, "schedule:gap"),
        ("2026-10-25T01:49:59Z", true, "schedule:gap"),
        ("2026-10-25T01:50:00Z", false, "model"),
    ] {
        timed.go_to(time);
        timed.holds("privacyMode", json!(value), origin).await;
    }
    let preview = timed.preview("from=2026-10-24T12:00:00Z&days=1").await;
    let once = (
        "2026-10-25T00:10:00Z".to_owned(),
        "2026-10-25T01:50:00Z".to_owned(),
        "gap".to_owned(),
    );
    assert_eq!(preview, [once]);
}

#[tokio::test]
async fn of_several_the_highest_priority_wins_and_then_the_later_name() {
    let timed = Timed::start("2026-01-15T12:00:00Z", "UTC").await;
    let set = |interval: i64| json!({"reportInterval": interval});
    let with = |mut body: Value, priority: i64| {
        body["priority"] = priority.into();
        body
    };
    timed.put("a", daily("10:00", "14:00", set(20))).await;
    timed.holds("reportInterval", json!(20), "schedule:a").await;
    timed
        .put(
            "b",
            daily(
                "11:00",
                "13:00",
                json!({"reportInterval": 30, "privacyMode": true}),
            ),
        )
        .await;
    timed.holds("reportInterval", json!(30), "schedule:b").await;
    timed.put("a", with(daily("10:00", "14:00", set(20)), 1)).await;
    timed.holds("reportInterval", json!(20), "schedule:a").await;
    timed.holds("privacyMode", json!(true), "schedule:b").await;
    let path = timed
        .device
        .path("/schedules/preview?days=1&from=2026-01-16T00:00:00Z");
    let body = timed.server.api().get(&path).await.expect(200);
    let item = |from: &str, to: &str, settings: Value, origins: Value| {
        json!({
            "from": format!("2026-01-16T{from}:00Z"), "to": format!("2026-01-16T{to}:00Z"), "settings": settings,
            "schedule": "a", "group": null, "origins": origins
        })
    };
    let alone = json!({"reportInterval": "schedule:a"});
    let both = json!({"reportInterval": "schedule:a", "privacyMode": "schedule:b"});
    assert_eq!(
        body,
        json!({"items": [
            item("10:00", "11:00", set(20), alone.clone()),
            item("11:00", "13:00", json!({"reportInterval": 20, "privacyMode": true}), both),
            item("13:00", "14:00", set(20), alone),
        ], "next": null})
    );
    // Page by page it is the same.
    let first = timed
        .server
        .api()
        .get(&format!("{path}&limit=2"))
        .await
        .expect(200);
    let next = format!("{path}&limit=2&cursor={}", first["next"].as_str().unwrap());
    let second = timed.server.api().get(&next).await.expect(200);
    assert_eq!(
        (&second["items"][0], &second["next"]),
        (&body["items"][2], &Value::Null)
    );
    // Disabled, removed: what lies below returns.
    timed
        .server
        .api()
        .patch(&timed.device.path("/schedules/a"))
        .json(&json!({"enabled": false}))
        .await
        .expect(200);
    timed.holds("reportInterval", json!(30), "schedule:b").await;
    timed
        .server
        .api()
        .delete(&timed.device.path("/schedules/b"))
        .await
        .expect(204);
    timed.holds("reportInterval", json!(60), "model").await;
    timed.holds("privacyMode", json!(false), "model").await;
}

#[tokio::test]
async fn another_time_zone_is_another_time() {
    let timed = Timed::start("2026-07-01T12:00:00Z", "UTC").await;
    timed.put("evening", daily("17:00", "18:00", on())).await;
    timed.put("fixed", json!({
        "starts_at": "2026-07-01T11:00:00Z", "ends_at": "2026-07-01T13:00:00Z", "settings": {"label": "fixed"}
    })).await;
    timed.put("local", json!({
        "starts_at": "2026-07-01T17:15", "ends_at": "2026-07-01T17:45:00", "settings": {"reportInterval": 10}
    })).await;
    timed.holds("label", json!("fixed"), "schedule:fixed").await;
    timed.holds("privacyMode", json!(false), "model").await;
    // 17:30 in Kolkata.
    timed.describe(json!({"time_zone": "Asia/Kolkata"})).await;
    timed.holds("privacyMode", json!(true), "schedule:evening").await;
    timed.holds("reportInterval", json!(10), "schedule:local").await;
    timed.holds("label", json!("fixed"), "schedule:fixed").await;
    timed.go_to("2026-07-01T12:15:00Z");
    timed.holds("reportInterval", json!(60), "model").await;
    assert_eq!(timed.state("local").await, "over");
    timed.go_to("2026-07-01T12:30:00Z");
    timed.holds("privacyMode", json!(false), "model").await;
    // Over is over, also where the clock shows that time again.
    timed.describe(json!({"time_zone": "UTC"})).await;
    assert_eq!(timed.state("fixed").await, "active");
    timed.go_to("2026-07-01T13:00:00Z");
    timed.holds("label", json!(""), "model").await;
    assert_eq!(timed.state("fixed").await, "over");
}

#[tokio::test]
async fn what_a_preview_is_asked_must_make_sense() {
    let timed = Timed::start("2026-01-15T12:00:00Z", "UTC").await;
    timed.put("noon", daily("11:00", "13:00", on())).await;
    let default = timed.preview("").await;
    assert_eq!(default.len(), 15, "14 days, begun and ended at noon");
    assert_eq!(default[0].0, "2026-01-15T12:00:00Z");
    assert_eq!(default[14].1, "2026-01-29T12:00:00Z");
    for (query, field) in [
        ("days=0", "days"),
        ("days=367", "days"),
        ("days=x", "days"),
        ("from=yesterday", "from"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=1", "cursor"),
        ("cursor=0.99999999999999999", "days"),
        ("time_zone=UTC", "time_zone"),
        ("time_zone=Mars", "time_zone"),
        ("colour=red", "colour"),
    ] {
        let path = timed.device.path(&format!("/schedules/preview?{query}"));
        let errors = timed.server.api().get(&path).await.invalid();
        assert_eq!(
            errors.as_object().unwrap().keys().collect::<Vec<_>>(),
            [field],
            "{query}"
        );
    }
}
