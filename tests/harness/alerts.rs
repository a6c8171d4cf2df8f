//! A server whose clock the test moves, and what its alerts say.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use setpoint_model::{Clock as _, clock::ManualClock};

use super::{Device, Harness, Setup, api::Api};

/// A server that looks at what is due all the time, at a time of the test's choice.
#[derive(Debug)]
pub struct Watched {
    /// The server.
    pub server: Harness,
    /// Its clock.
    pub clock: ManualClock,
}

impl Watched {
    /// Starts one at 14:00 on 2026-01-15.
    pub async fn start() -> Self {
        Self::start_as(Harness::setup()).await
    }

    /// Starts one that is set up like this.
    pub async fn start_as(setup: Setup) -> Self {
        let start: DateTime<Utc> = "2026-01-15T14:00:00Z".parse().expect("a time");
        let clock = ManualClock::new(start);
        let server = setup
            .at(&clock)
            .with("settings.reconcile_every", "50ms")
            .start()
            .await;
        Self { server, clock }
    }

    /// REST with the administrator's token.
    pub fn api(&self) -> &Api {
        self.server.api()
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }

    /// The present time, so many seconds away.
    pub fn at(&self, seconds: i64) -> DateTime<Utc> {
        self.clock.now() + TimeDelta::seconds(seconds)
    }

    /// Makes a rule, or replaces it: the rule.
    pub async fn rule(&self, name: &str, rule: Value) -> Value {
        let answer = self.api().put(&format!("/alerts/{name}")).json(&rule).await;
        assert!(answer.status.is_success(), "{name}: {}", answer.text);
        answer.json()
    }

    /// Sends telemetry on a device's behalf.
    pub async fn send(&self, device: &Device, payload: Value) {
        let path = device.path("/telemetry");
        self.api().post(&path).json(&payload).await.expect(200);
    }

    /// Where a device stands towards a rule.
    pub async fn standing(&self, serial: &str, rule: &str) -> Value {
        let list = self
            .api()
            .get(&format!("/devices/{serial}/alerts"))
            .await
            .expect(200);
        let items = list["items"].as_array().expect("items");
        let found = items.iter().find(|item| item["alert"] == rule);
        found.cloned().unwrap_or_else(|| json!({"state": "none"}))
    }

    /// In which state it is.
    pub async fn state(&self, serial: &str, rule: &str) -> String {
        let standing = self.standing(serial, rule).await;
        standing["state"].as_str().expect("a state").to_owned()
    }

    /// The sentence that says so.
    pub async fn message(&self, serial: &str, rule: &str) -> String {
        let standing = self.standing(serial, rule).await;
        standing["message"].as_str().unwrap_or_default().to_owned()
    }
}
