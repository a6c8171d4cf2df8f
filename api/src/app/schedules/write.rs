//! Making, changing and removing schedules. What follows for devices is the settings reconciler's: it is told of each
//! device in the same transaction.

use std::sync::Arc;

use serde_json::Value;
use setpoint_model::{
    schedule::{Definition, ScheduleName},
    settings::{Limits, Patch, Schema, document},
};
use setpoint_store::schedules::{LockedSchedules, StoredSchedule};

use super::{NOT_FOUND, Shown, Whose};
use crate::app::{
    Actor, App, Error, Precondition,
    models::{check_any, of_settings},
    policy::Action,
    settings::ATTEMPTS,
};

/// Bytes that a definition may have beside its settings.
const FRAME: usize = 4 * 1024;

/// What a change makes of a schedule, or of there being none.
type Edit<'a> = dyn Fn(Option<&StoredSchedule>) -> Result<Option<Definition>, Error> + Send + Sync + 'a;

/// A schedule before and after a change.
struct Changed {
    before: Option<StoredSchedule>,
    after: Option<StoredSchedule>,
}

/// By which models settings are judged.
enum Judge {
    /// The device's.
    Device(Arc<Schema>),
    /// Any: a group may have members of several.
    Group(Vec<Arc<Schema>>),
}

impl App {
    /// Makes a schedule of a JSON object with its `name`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:write`; [`Error::NotFound`] for the device or group; [`Error::Conflict`]
    /// with `schedule_exists` or `too_many_schedules`; [`Error::Malformed`], [`Error::TooLarge`], and
    /// [`Error::Invalid`] by field (a setting as `settings.KEY`).
    pub async fn create_schedule(&self, actor: &Actor, whose: &Whose, body: &[u8]) -> Result<Shown, Error> {
        self.authorize_schedules(actor, whose).await?;
        let mut fields = document::parse(body, self.definition_limits())?;
        let name = fields.remove("name");
        let definition = Definition::parse(fields);
        let (name, definition) = match (named(name), definition) {
            (Ok(name), Ok(definition)) => (name, definition),
            (name, definition) => {
                let mut errors = definition.err().unwrap_or_default();
                errors.extend(name.err().map(|message| ("name".to_owned(), message)));
                return Err(Error::Invalid { errors });
            }
        };
        let edit = |before: Option<&StoredSchedule>| match before {
            Some(_) => Err(Error::Conflict {
                code: "schedule_exists",
                message: format!("there is a schedule `{name}` already"),
            }),
            None => Ok(Some(definition.clone())),
        };
        let changed = self
            .change_schedule(actor, whose, &name, &Precondition::None, &edit)
            .await?;
        self.changed(actor, whose, changed).await
    }

    /// Makes a schedule of this name, or gives the one that is there another definition; `true` if it is new.
    ///
    /// # Errors
    /// As [`Self::create_schedule`]; [`Error::VersionMismatch`].
    pub async fn put_schedule(
        &self,
        actor: &Actor,
        whose: &Whose,
        name: &ScheduleName,
        body: &[u8],
        precondition: &Precondition,
    ) -> Result<(Shown, bool), Error> {
        self.authorize_schedules(actor, whose).await?;
        let mut fields = document::parse(body, self.definition_limits())?;
        if fields.remove("name").is_some_and(|given| given != name.as_str()) {
            return Err(Error::invalid("name", "must be the one in the path, or left out"));
        }
        let definition = Definition::parse(fields).map_err(|errors| Error::Invalid { errors })?;
        let edit = |_: Option<&StoredSchedule>| Ok(Some(definition.clone()));
        let changed = self
            .change_schedule(actor, whose, name, precondition, &edit)
            .await?;
        let new = changed.before.is_none();
        Ok((self.changed(actor, whose, changed).await?, new))
    }

    /// Applies a merge patch (RFC 7396) to a schedule.
    ///
    /// # Errors
    /// As [`Self::put_schedule`]; [`Error::NotFound`] also for the schedule.
    pub async fn patch_schedule(
        &self,
        actor: &Actor,
        whose: &Whose,
        name: &ScheduleName,
        patch: &[u8],
        precondition: &Precondition,
    ) -> Result<Shown, Error> {
        self.authorize_schedules(actor, whose).await?;
        let patch = Patch::parse(patch, self.definition_limits())?;
        let edit = |before: Option<&StoredSchedule>| {
            let definition = before.ok_or(NOT_FOUND)?.definition.patched(&patch);
            definition.map(Some).map_err(|errors| Error::Invalid { errors })
        };
        let changed = self
            .change_schedule(actor, whose, name, precondition, &edit)
            .await?;
        self.changed(actor, whose, changed).await
    }

    /// Removes a schedule.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:write`, [`Error::NotFound`], [`Error::VersionMismatch`].
    pub async fn delete_schedule(
        &self,
        actor: &Actor,
        whose: &Whose,
        name: &ScheduleName,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        self.authorize_schedules(actor, whose).await?;
        let edit = |before: Option<&StoredSchedule>| before.map(|_| None).ok_or(NOT_FOUND);
        self.change_schedule(actor, whose, name, precondition, &edit)
            .await?;
        Ok(())
    }

    async fn authorize_schedules(&self, actor: &Actor, whose: &Whose) -> Result<(), Error> {
        match whose {
            Whose::Device(serial) => {
                self.authorize_device(actor, Action::WriteSchedules, serial)
                    .await?;
                Ok(())
            }
            Whose::Group(_) => self.authorize_all(actor, Action::WriteSchedules),
        }
    }

    async fn change_schedule(
        &self,
        actor: &Actor,
        whose: &Whose,
        name: &ScheduleName,
        precondition: &Precondition,
        edit: &Edit<'_>,
    ) -> Result<Changed, Error> {
        let mut attempt = 1;
        loop {
            match self
                .change_schedule_once(actor, whose, name, precondition, edit)
                .await
            {
                Err(error) if error.is_contended() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Lock, check, judge, write, tell the reconciler, commit, hint.
    async fn change_schedule_once(
        &self,
        actor: &Actor,
        whose: &Whose,
        name: &ScheduleName,
        precondition: &Precondition,
        edit: &Edit<'_>,
    ) -> Result<Changed, Error> {
        let (mut locked, judge) = self.lock_schedules(whose).await?;
        let before = locked.get(name).await?;
        match (&before, precondition) {
            (Some(before), precondition) => precondition.check(before.version)?,
            (None, Precondition::None) => {}
            (None, Precondition::Version(_)) => return Err(NOT_FOUND),
        }
        let after = match edit(before.as_ref())? {
            Some(after) => Some(judged(&judge, before.as_ref(), after)?),
            None => None,
        };
        if before.as_ref().map(|before| &before.definition) == after.as_ref() {
            let after = before.clone();
            return Ok(Changed { before, after });
        }
        let at = self.clock.now();
        let after = match &after {
            Some(definition) => {
                self.check_room(whose, &mut locked, name, definition).await?;
                Some(locked.put(name, definition, at).await?)
            }
            None => {
                locked.remove(name).await?;
                None
            }
        };
        let object = format!("{}/schedules/{name}", whose.object());
        let mut entry = self.entry(actor, Action::WriteSchedules.name(), object);
        entry.before = before.as_ref().map(audited);
        entry.after = after.as_ref().map(audited);
        locked.audit(&entry).await?;
        locked.mark_due(at, &actor.label()).await?;
        locked.commit().await?;
        self.hints.layers.everything();
        tracing::info!(holder = whose.object(), schedule = %name, by = actor.label(), "schedule changed");
        Ok(Changed { before, after })
    }

    async fn lock_schedules(&self, whose: &Whose) -> Result<(LockedSchedules, Judge), Error> {
        match whose {
            Whose::Device(serial) => {
                let mut locked = self.store.lock_settings(&[serial.as_str()]).await?;
                let device = locked.device(serial).cloned();
                let device = device.ok_or(Error::NotFound { what: "device" })?;
                let schema = self
                    .schema_of(&mut locked, &device.model, device.model_version)
                    .await?;
                Ok((locked.into_schedules(device.device_id), Judge::Device(schema)))
            }
            Whose::Group(name) => {
                // Before the lock: whoever holds one waits for no other connection.
                let judge = Judge::Group(self.every_schema().await?);
                let locked = self.store.lock_group_schedules(name.as_str()).await?;
                Ok((locked.ok_or(Error::NotFound { what: "group" })?, judge))
            }
        }
    }

    /// Whether the holder may have one more schedule, or a larger one.
    async fn check_room(
        &self,
        whose: &Whose,
        locked: &mut LockedSchedules,
        name: &ScheduleName,
        definition: &Definition,
    ) -> Result<(), Error> {
        let most = match whose {
            Whose::Device(_) => self.schedule_limits.max_per_device,
            Whose::Group(_) => self.schedule_limits.max_per_group,
        };
        let others = locked.others(name).await?;
        if others.count >= i64::from(most) {
            return Err(Error::Conflict {
                code: "too_many_schedules",
                message: format!("there are {most} schedules already, which is the most"),
            });
        }
        // Together, because all of them may stand in one document.
        let limit = self.settings.limits.bytes;
        let settings = serde_json::to_vec(&definition.settings).map_err(Error::internal)?;
        if usize::try_from(others.bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(settings.len())
            > limit
        {
            return Err(Error::TooLarge { limit });
        }
        Ok(())
    }

    /// A definition has settings of the size of a document, one level down.
    fn definition_limits(&self) -> Limits {
        let Limits { bytes, depth } = self.settings.limits;
        Limits {
            bytes: bytes.saturating_add(FRAME),
            depth: depth.saturating_add(1),
        }
    }

    /// The schedule that a change left.
    async fn changed(&self, actor: &Actor, whose: &Whose, changed: Changed) -> Result<Shown, Error> {
        let found = self.found(actor, Action::WriteSchedules, whose).await?;
        Ok(self.shown(&found, changed.after.ok_or(NOT_FOUND)?))
    }
}

/// The definition with its settings as the models want them. Those that stay as they were are let be: a model may
/// have changed since, and then the schedule can still be disabled.
fn judged(
    judge: &Judge,
    before: Option<&StoredSchedule>,
    definition: Definition,
) -> Result<Definition, Error> {
    if before.is_some_and(|before| before.definition.settings == definition.settings) {
        return Ok(definition);
    }
    let checked = match judge {
        Judge::Device(schema) => schema.check(definition.settings),
        Judge::Group(schemas) => check_any(schemas, definition.settings),
    };
    let settings = checked.map_err(|errors| Error::Invalid {
        errors: of_settings(errors),
    })?;
    Ok(Definition {
        settings,
        ..definition
    })
}

fn named(name: Option<Value>) -> Result<ScheduleName, String> {
    match name {
        None | Some(Value::Null) => Err("is needed".to_owned()),
        Some(Value::String(name)) => name.parse::<ScheduleName>().map_err(|error| error.to_string()),
        Some(_) => Err("must be a text".to_owned()),
    }
}

/// What the audit log keeps of a schedule.
fn audited(schedule: &StoredSchedule) -> Value {
    Value::Object(schedule.definition.to_document())
}
