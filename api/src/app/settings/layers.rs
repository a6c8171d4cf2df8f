//! The layers under devices: read for a change of one device, and for many when one of the layers changed.
//!
//! [`App::layers`] is the one place that knows what lies between the model and the device's own settings, and above them.

use std::{borrow::Cow, collections::BTreeMap, iter};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{
    DeviceId, Serial,
    schedule::{self, Schedule},
    settings::{Document, Effective, Layer, Origin, Schema, diff::diff, layers::effective},
    timeline::{Entry, Facts},
};
use setpoint_store::{
    groups::{GroupLayer, Settled},
    schedules::Applying,
    settings::{Due, LockedSettings, NewVersion, Settings},
};

use crate::app::{App, Error};

/// Devices looked at in one step when a group changed.
const PAGE: i64 = 250;

/// Devices computed again in one transaction: few, so that a single change never waits long for one of them.
const BATCH: i64 = 100;

/// Everything that has a part in the documents of some devices beside their models and what was set on themselves.
#[derive(Debug, Default)]
pub(in crate::app) struct Layers {
    groups: Vec<GroupLayer>,
    schedules: Applying,
    /// The time for which the schedules are looked at.
    at: DateTime<Utc>,
}

impl Layers {
    /// A device's document: `schema` is its model's, `overrides` what is set on itself.
    ///
    /// A group may have members of several models; of its settings those take part that this one knows and accepts.
    pub(in crate::app) fn effective(
        &self,
        device: DeviceId,
        schema: &Schema,
        overrides: &Document,
    ) -> Effective {
        let joined = self
            .groups
            .iter()
            .filter(|group| group.members.binary_search(&device).is_ok());
        let groups = joined.map(|group| Layer {
            origin: Origin::Group(group.name.clone()),
            values: Cow::Owned(schema.accepted(&group.settings)),
        });
        effective(
            iter::once(Layer::model(schema))
                .chain(groups)
                .chain(iter::once(Layer::device(overrides)))
                .chain(self.timed(device, schema)),
        )
    }

    /// The layers of the schedules that hold now, and the schedules themselves where the device is to know them.
    fn timed(&self, device: DeviceId, schema: &Schema) -> Vec<Layer<'static>> {
        let Some(clock) = self.schedules.clocks.get(&device) else {
            return Vec::new();
        };
        let active = schedule::active(self.schedules.to(device), clock.zone, self.at).into_iter();
        let layer = |schedule: &Schedule| Layer {
            origin: Origin::Schedule(schedule.name.to_string()),
            values: Cow::Owned(schema.accepted(&schedule.definition.settings)),
        };
        let mut layers: Vec<Layer<'static>> = active.map(layer).collect();
        if clock.in_document {
            let accepted = |settings: &Document| schema.accepted(settings);
            let told = schedule::told(self.schedules.to(device), clock.zone, self.at, accepted);
            layers.extend(told.map(|values| Layer {
                origin: Origin::Model,
                values: Cow::Owned(values),
            }));
        }
        layers
    }

    /// When a device's document next changes by itself; `None` for never.
    pub(in crate::app) fn next_change(&self, device: DeviceId) -> Option<DateTime<Utc>> {
        let clock = self.schedules.clocks.get(&device)?;
        schedule::next_boundary(self.schedules.to(device), clock.zone, self.at)
    }
}

impl App {
    /// Reads the layers of devices that are locked, in the transaction that locks them, so that whatever changes a layer
    /// afterwards finds the version that comes of these. Costs no query for devices that have none.
    pub(in crate::app) async fn layers(
        &self,
        locked: &mut LockedSettings,
        devices: &[DeviceId],
    ) -> Result<Layers, Error> {
        if devices.is_empty() {
            return Ok(Layers::default());
        }
        Ok(Layers {
            groups: locked.group_layers(devices).await?,
            schedules: locked.schedules(devices).await?,
            at: self.clock.now(),
        })
    }

    /// Until when an answer to a version of these settings is expected that is made `at`.
    pub(in crate::app) fn expected_by(
        &self,
        settings: &Settings,
        at: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let within = match settings.expected_within {
            Some(seconds) => TimeDelta::seconds(seconds.into()),
            None => TimeDelta::from_std(self.settings.expected_within).ok()?,
        };
        at.checked_add_signed(within)
    }

    /// Goes one step on with what changed under many devices: corrects who belongs to a group, and computes the documents
    /// of those again that are due. A version rises only where its document changed. `false` if there was nothing to do.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Contended`], [`Error::Internal`]; the step is made again then.
    pub async fn settle_layers(&self) -> Result<bool, Error> {
        let groups = self.store.settle_groups(PAGE, self.clock.now()).await?;
        let computed = self.compute_due().await?;
        Ok(groups != Settled::All || computed > 0)
    }

    /// Computes a batch of the documents that are due; how many it was.
    async fn compute_due(&self) -> Result<usize, Error> {
        let at = self.clock.now();
        let (mut locked, due) = self.store.claim_settings_due(at, BATCH).await?;
        if due.is_empty() {
            locked.release().await?;
            return Ok(0);
        }
        let devices = locked.devices().to_vec();
        let layered: Vec<DeviceId> = devices
            .iter()
            .filter(|settings| settings.layered)
            .map(|settings| settings.device_id)
            .collect();
        let layers = self.layers(&mut locked, &layered).await?;
        let mut outcome = Computed::default();
        for (settings, due) in devices.into_iter().zip(due) {
            let schema = self
                .schema_of(&mut locked, &settings.model, settings.model_version)
                .await?;
            let effective = layers.effective(settings.device_id, &schema, &settings.overrides);
            let next = layers.next_change(settings.device_id);
            outcome.through.push((settings.device_id, next));
            self.compare(settings, due, effective, at, &mut outcome)?;
        }
        if !outcome.versions.is_empty() {
            locked.write_versions(&outcome.versions).await?;
        }
        if !outcome.origins.is_empty() {
            let origins: Vec<_> = outcome
                .origins
                .iter()
                .map(|(id, origins)| (*id, origins))
                .collect();
            locked.write_origins(&origins, at).await?;
        }
        locked.finish_due(&outcome.through).await?;
        locked.commit().await?;
        for (serial, made) in outcome.serials.iter().zip(&outcome.versions) {
            self.version_made(made.device_id, serial, made.version, &made.document, made.source);
        }
        outcome
            .withheld
            .into_iter()
            .for_each(|entry| self.timeline.record(entry));
        tracing::debug!(
            devices = outcome.through.len(),
            changed = outcome.versions.len(),
            "layers settled"
        );
        Ok(outcome.through.len())
    }

    /// Notes what a device's document, as its layers make it now, asks to be written.
    fn compare(
        &self,
        before: Settings,
        due: Due,
        effective: Effective,
        at: DateTime<Utc>,
        outcome: &mut Computed,
    ) -> Result<(), Error> {
        let Effective { document, origins } = effective;
        let diff = diff(&before.document, &document);
        if diff.is_empty() {
            if origins != before.origins {
                outcome.origins.push((before.device_id, origins));
            }
            return Ok(());
        }
        let limit = self.settings.limits.bytes;
        if serde_json::to_vec(&document).map_err(Error::internal)?.len() > limit {
            self.settings.metrics.withheld.inc();
            tracing::warn!(serial = %before.serial, limit, "a layer makes the settings too large; they stay as they are");
            outcome.withheld.push(Entry {
                serial: before.serial,
                at,
                facts: Facts::SettingsWithheld {
                    actor: due.actor,
                    source: due.source.as_str().to_owned(),
                    reason: format!("the document would be larger than {limit} bytes"),
                },
            });
            return Ok(());
        }
        let version = before.version.saturating_add(1);
        outcome.serials.push(before.serial.clone());
        outcome.versions.push(NewVersion {
            device_id: before.device_id,
            version,
            status: before.status.changed(&diff, version, at),
            expected_by: self.expected_by(&before, at),
            overrides: before.overrides,
            document,
            origins,
            diff,
            actor: due.actor,
            source: due.source,
            at,
        });
        Ok(())
    }
}

/// What a batch is to write.
#[derive(Default)]
struct Computed {
    versions: Vec<NewVersion>,
    /// The serial of each version's device.
    serials: Vec<Serial>,
    origins: Vec<(DeviceId, BTreeMap<String, String>)>,
    through: Vec<(DeviceId, Option<DateTime<Utc>>)>,
    withheld: Vec<Entry>,
}
