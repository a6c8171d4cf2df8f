//! What `tasks::alerts` does: one step at a time, each a transaction of its own.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{DeviceId, alert::Reason};
use setpoint_store::alerts::LockedAlerts;

use super::{judge::announce, telling};
use crate::app::{App, Error};

/// Devices judged in one transaction.
const BATCH: i64 = 200;

/// Devices of a rule that are looked at together: mostly nothing is to be written.
const SWEEP: i64 = 500;

/// Rules read at once.
const PAGE: i64 = 500;

/// What a step came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step {
    /// Whether there may be more to do at once.
    pub more: bool,
    /// Whether others are at work on what there is to do.
    pub busy: bool,
    /// When a state that was judged in this step is due; `None` if none is.
    pub next_due: Option<DateTime<Utc>>,
}

impl App {
    /// Watches for what the rules name, if they are others than before.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn watch_alerts(&self) -> Result<(), Error> {
        let version = self.store.alert_rules_version().await?;
        if self.alerts.watched().version == Some(version) {
            return Ok(());
        }
        let mut rules = Vec::new();
        loop {
            let after = rules
                .last()
                .map_or("", |last: &setpoint_store::alerts::Rule| last.name.as_str());
            let page = self.store.alert_rules(after, None, PAGE).await?;
            let last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            rules.extend(page);
            if last {
                break;
            }
        }
        self.alerts.rewatch(version, rules);
        Ok(())
    }

    /// Judges the devices that wait because of what they sent.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Contended`], [`Error::Internal`]; then they wait on.
    pub(crate) async fn judge_waiting(
        &self,
        devices: HashMap<DeviceId, DateTime<Utc>>,
    ) -> Result<Step, Error> {
        let ids = devices.keys().map(|device| device.0).collect();
        let judged = async {
            let locked = self.store.lock_alerts(ids).await?;
            let busy = locked.busy.clone();
            let there: Vec<DeviceId> = locked.devices.iter().map(|device| device.id).collect();
            let next_due = self.judge_alerts(locked, &devices).await?;
            Ok::<_, Error>((busy, there, next_due))
        };
        match judged.await {
            Ok((busy, there, next_due)) => {
                let watch = self.alerts.watched();
                for device in &busy {
                    let Some(from) = devices.get(device) else { continue };
                    self.alerts.enqueue(*device, *from);
                }
                // Of those that are gone nothing is to be remembered.
                for device in devices.keys().filter(|device| !there.contains(device)) {
                    self.alerts.finish(*device, &watch, None);
                }
                Ok(Step {
                    more: busy.is_empty(),
                    busy: !busy.is_empty(),
                    next_due,
                })
            }
            Err(error) => {
                for (device, from) in devices {
                    self.alerts.enqueue(device, from);
                }
                Err(error)
            }
        }
    }

    /// Does a part of what the database says there is to do.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Contended`], [`Error::Internal`]; it is done again then.
    pub(crate) async fn judge_stored(&self) -> Result<Step, Error> {
        let now = self.clock.now();
        let mut step = Step {
            more: self.end_alerts().await?,
            ..Step::default()
        };
        if let Some(locked) = self.store.claim_alert_looks(BATCH).await? {
            self.step(&mut step, locked).await?;
        }
        if let Some(locked) = self.store.claim_due_alerts(now, BATCH).await? {
            self.step(&mut step, locked).await?;
        }
        let every = TimeDelta::from_std(self.alerts.config().sweep_every).unwrap_or(TimeDelta::MAX);
        let next_sweep = now.checked_add_signed(every).unwrap_or(now);
        if let Some(locked) = self.store.claim_alert_sweep(now, next_sweep, SWEEP).await? {
            self.step(&mut step, locked).await?;
            step.more = true;
        }
        Ok(step)
    }

    async fn step(&self, step: &mut Step, locked: LockedAlerts) -> Result<(), Error> {
        step.more |= !locked.devices.is_empty();
        step.busy |= !locked.busy.is_empty();
        let due = self.judge_alerts(locked, &HashMap::new()).await?;
        step.next_due = step.next_due.into_iter().chain(due).min();
        Ok(())
    }

    /// Tells that alerts of devices that are gone are over; whether there were any.
    async fn end_alerts(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut ended = self.store.claim_ended_alerts(BATCH).await?;
        let alerts = std::mem::take(&mut ended.alerts);
        let mut told = Vec::with_capacity(alerts.len());
        for alert in &alerts {
            let serial = alert.serial.parse().map_err(Error::internal)?;
            // There is no device of this id.
            let nobody = DeviceId(0);
            let reason = Reason::DeviceGone;
            let was = (Some(alert.since), &alert.values);
            told.push(telling::ended(&alert.rule, (nobody, &serial), was, reason, now));
        }
        ended.tell(&told).await?;
        for told in &told {
            announce(&self.alerts, &self.events, told, now);
        }
        Ok(!told.is_empty())
    }

    /// Counts what fires, for Prometheus.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn count_alerts(&self) -> Result<(), Error> {
        let (firing, pending) = self.store.alerts_firing().await?;
        self.alerts.metrics().firing.set(firing);
        self.alerts.metrics().pending.set(pending);
        Ok(())
    }
}
