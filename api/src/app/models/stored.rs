//! Values that are stored when a schema changes: judged page by page, and replaced where that is asked for.

use chrono::{DateTime, Utc};
use setpoint_model::{
    models::{Definition, Migration},
    settings::Schema,
};
use setpoint_store::models::LockedModels;

use super::misfits::Misfits;
use crate::app::Error;

/// Devices whose values are judged at once; also groups, and schedules.
const PAGE: i64 = 200;

/// How the stored values of a model are judged.
pub(super) struct Stored<'a> {
    pub(super) model: &'a str,
    /// The settings whose rules changed.
    pub(super) changed: &'a [String],
    pub(super) migration: &'a Migration<'a>,
    pub(super) actor: &'a str,
    pub(super) at: DateTime<Utc>,
}

impl Stored<'_> {
    /// Judges what is set on the model's devices, and writes what replaces it; how many devices that were.
    pub(super) async fn migrate_devices(
        &self,
        locked: &mut LockedModels,
        misfits: &mut Misfits,
    ) -> Result<i64, Error> {
        let (mut migrated, mut after) = (0, String::new());
        while !self.changed.is_empty() {
            let page = locked
                .overrides_of(self.model, self.changed, &after, PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = last.serial.as_str().to_owned();
            let mut replaced = Vec::new();
            for device in page {
                match self.migration.apply(&device.overrides) {
                    Ok(None) => {}
                    Ok(Some(overrides)) => replaced.push((device.device_id, overrides)),
                    Err(errors) => misfits.device(self.model, device.serial, errors),
                }
            }
            // Nothing will last if something doesn't fit.
            if misfits.is_empty() && !replaced.is_empty() {
                migrated += i64::try_from(replaced.len()).unwrap_or(i64::MAX);
                locked.write_overrides(&replaced, self.at).await?;
            }
        }
        Ok(migrated)
    }

    /// Judges what groups and schedules set on devices of this model, and writes what replaces it.
    pub(super) async fn migrate_layers(
        &self,
        locked: &mut LockedModels,
        before: &Definition,
        misfits: &mut Misfits,
    ) -> Result<(), Error> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let before = Schema::compile(&before.settings).map_err(Error::internal)?;
        self.migrate_groups(locked, &before, misfits).await?;
        self.migrate_schedules(locked, &before, misfits).await
    }

    async fn migrate_groups(
        &self,
        locked: &mut LockedModels,
        before: &Schema,
        misfits: &mut Misfits,
    ) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let page = locked.groups_of(self.model, self.changed, &after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for group in page {
                match self.migration.apply_to_shared(before, &group.settings) {
                    Ok(None) => {}
                    Ok(Some(settings)) if misfits.is_empty() => {
                        locked
                            .write_group(&group.name, &settings, self.actor, self.at)
                            .await?;
                    }
                    Ok(Some(_)) => {}
                    Err(errors) => misfits.group(self.model, group.name, errors),
                }
            }
        }
    }

    async fn migrate_schedules(
        &self,
        locked: &mut LockedModels,
        before: &Schema,
        misfits: &mut Misfits,
    ) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let page = locked.schedules_of(self.model, self.changed, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for schedule in page {
                match self.migration.apply_to_shared(before, &schedule.settings) {
                    Ok(None) => {}
                    Ok(Some(settings)) if misfits.is_empty() => {
                        locked
                            .write_schedule(&schedule, &settings, self.actor, self.at)
                            .await?;
                    }
                    Ok(Some(_)) => {}
                    Err(errors) => misfits.schedule(self.model, schedule, errors),
                }
            }
        }
    }
}
