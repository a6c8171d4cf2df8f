//! What a change would do, without doing it.

use std::collections::BTreeMap;

use serde_json::Value;
use setpoint_model::{
    Serial,
    settings::{Diff, document::same},
};

use super::{Actor, App, ChangeRequest, Error, judge::Judgement};

/// The most values told per key, and the most devices told.
const MAX_TOLD: usize = 20;

/// What a change would do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DryRun {
    /// Devices that are meant.
    pub selected: u32,
    /// Those of them for which the patch breaks a rule.
    pub invalid: u32,
    /// Those of them that run what the patch asks for already.
    pub unchanged: u32,
    /// Those of them that would get a new version.
    pub changing: u32,
    /// Key to what would happen to it.
    pub effects: BTreeMap<String, Effect>,
    /// The first few invalid devices, with what is wrong.
    pub invalid_devices: Vec<(Serial, String)>,
}

/// What would happen to one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effect {
    /// On how many devices it would change.
    pub devices: u32,
    /// From which value (`None`: it isn't there) on how many of them, for the first few values.
    pub from: Vec<(Option<Value>, u32)>,
    /// How many of them have yet another value.
    pub others: u32,
}

impl DryRun {
    pub(super) fn add(&mut self, serial: &Serial, judgement: &Judgement) {
        self.selected = self.selected.saturating_add(1);
        match judgement {
            Judgement::Invalid(error) => {
                self.invalid = self.invalid.saturating_add(1);
                if self.invalid_devices.len() < MAX_TOLD {
                    self.invalid_devices.push((serial.clone(), error.sentence()));
                }
            }
            Judgement::Nothing | Judgement::Overrides(_) => self.unchanged = self.unchanged.saturating_add(1),
            Judgement::Version(version) => {
                self.changing = self.changing.saturating_add(1);
                self.affect(&version.diff);
            }
        }
    }

    fn affect(&mut self, diff: &Diff) {
        for (key, change) in diff {
            let effect = self.effects.entry(key.clone()).or_default();
            effect.devices = effect.devices.saturating_add(1);
            let from = change.from.as_ref();
            let mut told = effect.from.iter_mut();
            let known = told.find_map(|(value, devices)| equal(value.as_ref(), from).then_some(devices));
            if let Some(devices) = known {
                *devices = devices.saturating_add(1);
            } else if effect.from.len() < MAX_TOLD {
                effect.from.push((from.cloned(), 1));
            } else {
                effect.others = effect.others.saturating_add(1);
            }
        }
    }
}

fn equal(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl App {
    /// Tells what a change would do.
    ///
    /// # Errors
    /// As [`App::begin_change`].
    pub async fn try_change(&self, actor: &Actor, request: &ChangeRequest) -> Result<DryRun, Error> {
        self.authorize_change(actor)?;
        let _permit = self.changes.selection().await?;
        let mut dry_run = DryRun::default();
        let mut devices = self.judge_selection(actor, request).await?;
        while let Some(batch) = devices.next(self).await? {
            for judged in &batch {
                dry_run.add(&judged.settings.serial, &judged.judgement);
            }
        }
        Ok(dry_run)
    }
}
