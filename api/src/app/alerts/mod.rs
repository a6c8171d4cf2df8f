//! Alerts: rules over what devices send and how they are, and where each device stands.
//!
//! Samples are compared in memory once they are committed ([`book`]); only a device one of whose states may change is
//! judged in the database ([`judge`]), where all that time does is written down with the moment at which it is due.
//! `tasks::alerts` does both. What is judged is what the database holds, so it is of no matter which server does it, how
//! late, or how often: a crash between any two steps loses nothing.

mod backlog;
mod book;
mod judge;
mod metrics;
mod pair;
mod rules;
mod telling;
mod watch;
mod work;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use setpoint_model::{
    DeviceId, Serial,
    alert::{AlertName, Standing, State},
    event::EventType,
};
use setpoint_store::alerts::{Counts, DeviceStanding, Rule, StatePage};

use super::{Actor, App, Error, events::Event, policy::Action};

pub use book::Alerts;
pub use metrics::Metrics;
pub use watch::Seen;
pub use work::Step;

const NOT_FOUND: Error = Error::NotFound { what: "alert" };

/// A rule, and for how many devices it is in which state.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedRule {
    /// The rule.
    pub rule: Rule,
    /// Its devices.
    pub counts: Counts,
}

/// Where a device stands towards a rule, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownStanding {
    /// The device.
    pub serial: String,
    /// In which state it is.
    pub state: State,
    /// Since when; `None` if nothing ever was wrong.
    pub since: Option<DateTime<Utc>>,
    /// When time alone changes that.
    pub due_at: Option<DateTime<Utc>>,
    /// The values that were looked at, by metric.
    pub values: Map<String, Value>,
    /// A plain sentence.
    pub message: String,
}

impl App {
    /// A page of rules by name: those behind `after` with `search` in their name or title.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `alerts:read` for all devices.
    pub async fn alerts(
        &self,
        actor: &Actor,
        after: &str,
        search: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ListedRule>, Error> {
        self.authorize_all(actor, Action::ReadAlerts)?;
        let rules = self.store.alert_rules(after, search, limit).await?;
        let ids: Vec<i64> = rules.iter().map(|rule| rule.id).collect();
        let counts = self.store.alert_counts(&ids).await?;
        let listed = rules.into_iter().map(|rule| ListedRule {
            counts: counts.get(&rule.id).copied().unwrap_or_default(),
            rule,
        });
        Ok(listed.collect())
    }

    /// One rule.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `alerts:read` for all devices, [`Error::NotFound`].
    pub async fn alert(&self, actor: &Actor, name: &AlertName) -> Result<ListedRule, Error> {
        self.authorize_all(actor, Action::ReadAlerts)?;
        let rule = self.store.alert_rule(name.as_str()).await?.ok_or(NOT_FOUND)?;
        self.listed_alert(rule).await
    }

    async fn listed_alert(&self, rule: Rule) -> Result<ListedRule, Error> {
        let counts = self.store.alert_counts(&[rule.id]).await?;
        Ok(ListedRule {
            counts: counts.get(&rule.id).copied().unwrap_or_default(),
            rule,
        })
    }

    /// A page of a rule's devices by serial: those in one of `states` (all if it is empty) behind `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `alerts:read` for all devices, [`Error::NotFound`].
    pub async fn alert_devices(
        &self,
        actor: &Actor,
        name: &AlertName,
        page: StatePage<'_>,
    ) -> Result<Vec<ShownStanding>, Error> {
        self.authorize_all(actor, Action::ReadAlerts)?;
        let rule = self.store.alert_rule(name.as_str()).await?.ok_or(NOT_FOUND)?;
        let standings = self.store.alert_devices(&rule, page).await?;
        let now = self.clock.now();
        Ok(standings
            .into_iter()
            .map(|standing| shown(&rule, standing, now))
            .collect())
    }

    /// The enabled rules that are for a device, by name, and where it stands towards each.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `alerts:read`, [`Error::NotFound`] for an unknown device.
    pub async fn device_alerts(
        &self,
        actor: &Actor,
        serial: &Serial,
    ) -> Result<Vec<(Rule, ShownStanding)>, Error> {
        self.authorize_device(actor, Action::ReadAlerts, serial).await?;
        let device = self.store.device_id(serial).await?;
        let device = device.ok_or(Error::NotFound { what: "device" })?;
        let now = self.clock.now();
        let alerts = self.store.device_alerts(device).await?.into_iter();
        Ok(alerts
            .map(|(rule, standing)| {
                let standing = DeviceStanding {
                    serial: serial.to_string(),
                    ..standing
                };
                let shown = shown(&rule, standing, now);
                (rule, shown)
            })
            .collect())
    }

    /// Another server told of an alert: those who listen here hear of it too.
    pub(crate) fn alert_elsewhere(&self, serial: &Serial, at: DateTime<Utc>, data: &str) {
        self.events.tell(Event {
            kind: EventType::Alert,
            serial: serial.clone(),
            at,
            data: data.into(),
        });
    }

    /// Another server judged these devices.
    pub(crate) fn judged_elsewhere(&self, devices: &[i64]) {
        let devices: Vec<DeviceId> = devices.iter().copied().map(DeviceId).collect();
        self.alerts.forget(&devices);
    }
}

fn shown(rule: &Rule, found: DeviceStanding, now: DateTime<Utc>) -> ShownStanding {
    let standing = found.standing.unwrap_or_else(|| Standing::ok(rule.begun_at));
    ShownStanding {
        serial: found.serial,
        state: standing.state,
        since: found.standing.map(|standing| standing.since),
        due_at: standing.due(pair::timing(rule)),
        message: telling::standing(rule, &standing, &found.values, now),
        values: found.values,
    }
}
