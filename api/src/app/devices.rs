//! Devices: making, finding, changing and deleting them.

use setpoint_model::{
    Serial,
    credential::{DEVICE_TOKEN_PREFIX, Secret},
    device::{Description, NewDevice},
    settings::{Document, KeyErrors, Limits, Patch, Source, Status, diff::diff, document},
};
use setpoint_store::{
    self as store,
    credentials::Credential,
    devices::{Device, DeviceFilter, DeviceSort, FirstSettings, Position, UnsettledDevice},
    settings::LockedSettings,
};

use super::{
    Actor, App, Error,
    policy::{Action, Reach},
    settings::Changed,
};

/// How large a device's description may be as JSON.
const LIMITS: Limits = Limits {
    bytes: 32 * 1024,
    depth: 8,
};

/// No such device.
pub(super) const NOT_FOUND: Error = Error::NotFound { what: "device" };

impl App {
    /// Makes a device of a JSON object, with its first settings and a token that is told this once.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`; [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`]
    /// (by field); [`Error::Conflict`] with `device_exists`.
    pub async fn create_device(&self, actor: &Actor, fields: &[u8]) -> Result<(Device, Secret), Error> {
        self.authorize_all(actor, Action::CreateDevice)?;
        let fields = document::parse(fields, LIMITS)?;
        let new = NewDevice::parse(fields).map_err(|errors| Error::Invalid { errors })?;
        let secret = Secret::generate(DEVICE_TOKEN_PREFIX).map_err(Error::internal)?;
        let epoch = self.credentials.epoch();
        let at = self.clock.now();
        let mut device = self
            .store
            .begin_device(&new, at)
            .await
            .map_err(|error| refused(error, &new.serial))?;
        let (id, settings_version) = (device.id, device.first_version);
        let first = self.first_settings(&mut device, at).await?;
        let entry = self.entry(actor, Action::CreateDevice.name(), object(&new.serial));
        device.audit(&entry.after(shown(&new.description))).await?;
        let layered = device.is_layered();
        device
            .commit(&first, Some(&secret.hash()), &actor.label())
            .await?;
        tracing::info!(serial = %new.serial, by = actor.label(), "device made");
        let credential = Credential::first(id, new.serial.clone(), secret.hash());
        self.expect_device(&credential, epoch, layered).await;
        let device = Device {
            id,
            serial: new.serial,
            description: new.description,
            created_at: at,
            updated_at: at,
            online: false,
            last_seen: None,
            disconnect_reason: None,
            settings_version,
            credential_created_at: Some(at),
            stolen_at: None,
        };
        Ok((device, secret))
    }

    /// Makes ready for a new device that is about to connect, and perhaps thousands with it: it is known, and its settings
    /// are published unless that takes long. `epoch` is from before its credential was made; `layered` says whether there
    /// are groups or schedules that may be for it.
    pub(super) async fn expect_device(&self, credential: &Credential, epoch: u64, layered: bool) {
        self.credentials.remember(credential, epoch);
        if layered {
            self.hints.layers.everything();
        }
        let given = self.hints.settings.device(credential.device_id.0);
        given.looked_at(self.settings.publish_wait).await;
    }

    /// A page of devices that the actor may see: those behind `after` in the order of `sort`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`.
    pub async fn devices(
        &self,
        actor: &Actor,
        filter: &DeviceFilter,
        sort: DeviceSort,
        after: Option<&Position>,
        limit: i64,
    ) -> Result<Vec<Device>, Error> {
        let devices = match (self.authorize(actor, Action::ReadDevice)?, actor.user()) {
            (Reach::All, _) => self.store.devices(filter, sort, after, limit).await?,
            (_, Some(user)) => {
                let filter = DeviceFilter {
                    owner: Some(user),
                    ..filter.clone()
                };
                self.store.devices(&filter, sort, after, limit).await?
            }
            (_, None) => Vec::new(),
        };
        Ok(devices)
    }

    /// One device.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`, [`Error::NotFound`].
    pub async fn device(&self, actor: &Actor, serial: &Serial) -> Result<Device, Error> {
        self.authorize_device(actor, Action::ReadDevice, serial).await?;
        self.store.device(serial).await?.ok_or(NOT_FOUND)
    }

    /// Applies a merge patch (RFC 7396) to a device's description. Another model brings its own defaults, and is
    /// refused if it doesn't take what was set on the device itself. `{"stolen":true}` ends its sessions and keeps it out.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`, [`Error::NotFound`]; [`Error::Malformed`], [`Error::TooLarge`] and
    /// [`Error::Invalid`] (by field).
    pub async fn patch_device(&self, actor: &Actor, serial: &Serial, patch: &[u8]) -> Result<Device, Error> {
        self.authorize_device(actor, Action::DescribeDevice, serial)
            .await?;
        let mut patch = document::parse(patch, LIMITS)?;
        let stolen = reported(patch.remove("stolen"))?;
        let patch = Patch::from(patch);
        if patch.keys().any(|key| matches!(key, "model" | "tags")) {
            self.authorize_all(actor, Action::ClassifyDevice)?;
        }
        let mut locked = self.store.lock_settings(&[serial.as_str()]).await?;
        let id = locked.device(serial).ok_or(NOT_FOUND)?.device_id;
        let before = locked.description(id).await?.ok_or(NOT_FOUND)?;
        let after = before
            .patched(&patch)
            .map_err(|errors| Error::Invalid { errors })?;
        // Before anything is computed: who the groups mean follows from the new tags.
        if after != before {
            self.write_description(&mut locked, id, &after).await?;
        }
        if after.tags != before.tags {
            locked.join_groups(id, &after.tags).await?;
        }
        let changed = self
            .reclassify(&mut locked, actor, serial, &before, &after)
            .await?;
        let timed = self.retime(&mut locked, actor, serial, &before, &after).await?;
        let was_stolen = locked.registration(id).await?.stolen;
        let stolen = stolen.filter(|stolen| *stolen != was_stolen);
        if let Some(stolen) = stolen {
            locked.set_stolen(id, stolen.then(|| self.clock.now())).await?;
        }
        if after != before || stolen.is_some() {
            let entry = self
                .entry(actor, Action::DescribeDevice.name(), object(serial))
                .before(shown_with(&before, was_stolen))
                .after(shown_with(&after, stolen.unwrap_or(was_stolen)));
            locked.audit(&entry).await?;
        }
        locked.commit().await?;
        if timed {
            self.hints.layers.everything();
        }
        if let Some((changed, source)) = &changed {
            self.settings_changed(changed, *source).await;
        }
        if after.model != before.model {
            self.ingest.refresh(serial);
        }
        if let Some(stolen) = stolen {
            self.end_credential(serial).await;
            tracing::info!(%serial, stolen, by = actor.label(), "device reported");
        }
        self.store.device(serial).await?.ok_or(NOT_FOUND)
    }

    /// Computes a device's document anew if another model, or groups by other tags, have a part in it.
    async fn reclassify(
        &self,
        locked: &mut LockedSettings,
        actor: &Actor,
        serial: &Serial,
        before: &Description,
        after: &Description,
    ) -> Result<Option<(Changed, Source)>, Error> {
        let settings = locked.device(serial).cloned().ok_or(NOT_FOUND)?;
        let (schema, overrides, source) = if after.model != before.model {
            let model = locked.model(&after.model).await?.ok_or_else(unknown_model)?;
            let schema = self.schema_of(locked, &model.name, model.version).await?;
            let overrides = schema
                .check(settings.overrides.clone())
                .map_err(|errors| misfit(&errors))?;
            (schema, overrides, Source::Model)
        } else if after.tags != before.tags && settings.layered {
            let schema = self
                .schema_of(locked, &settings.model, settings.model_version)
                .await?;
            (schema, settings.overrides.clone(), Source::Group)
        } else {
            return Ok(None);
        };
        let changed = self
            .write_change(locked, settings, overrides, &schema, actor, source)
            .await?;
        Ok(Some((changed, source)))
    }

    /// Has a device looked at again where other schedules may apply from now on, or at other times; whether it is.
    async fn retime(
        &self,
        locked: &mut LockedSettings,
        actor: &Actor,
        serial: &Serial,
        before: &Description,
        after: &Description,
    ) -> Result<bool, Error> {
        let timed =
            after.tags != before.tags || after.model != before.model || after.time_zone != before.time_zone;
        let device = locked.device(serial).filter(|settings| timed && settings.layered);
        let Some(id) = device.map(|settings| settings.device_id) else {
            return Ok(false);
        };
        locked
            .mark_due(&[id], self.clock.now(), &actor.label(), Source::Schedule)
            .await?;
        Ok(true)
    }

    /// Deletes a device with everything that is known of it: its sessions end, its token is dead, its retained
    /// messages are cleared. A new device of the same serial goes on with the next settings version.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`, [`Error::NotFound`].
    pub async fn delete_device(&self, actor: &Actor, serial: &Serial) -> Result<(), Error> {
        self.authorize_device(actor, Action::DeleteDevice, serial).await?;
        let mut locked = self.store.lock_settings(&[serial.as_str()]).await?;
        let id = locked.device(serial).ok_or(NOT_FOUND)?.device_id;
        let description = locked.description(id).await?.ok_or(NOT_FOUND)?;
        let owners = locked.owner_ids(id).await?;
        let entry = self.entry(actor, Action::DeleteDevice.name(), object(serial));
        locked.audit(&entry.before(shown(&description))).await?;
        locked.delete_device(id, self.clock.now()).await?;
        locked.commit().await?;
        // In this order: the end of a session leaves a presence behind, which goes with the rest.
        self.end_credential(serial).await;
        self.broker.clear_retained(serial);
        for owner in owners {
            self.ownership_changed(owner).await;
        }
        tracing::info!(%serial, by = actor.label(), "device deleted");
        // Made again meanwhile? Then the clearing may have met its first document.
        if let Some(id) = self.store.republish_settings(serial).await? {
            self.hints.settings.device(id.0);
        }
        Ok(())
    }

    /// The first settings of a device that is being made: what its model and the groups it belongs to say.
    pub(super) async fn first_settings(
        &self,
        device: &mut UnsettledDevice,
        at: chrono::DateTime<chrono::Utc>,
    ) -> Result<FirstSettings, Error> {
        let (id, version) = (device.id, device.first_version);
        let layered = device.is_layered().then_some(id);
        let (model, model_version) = (device.model.clone(), device.model_version);
        let schema = self.schema_of(device.locked(), &model, model_version).await?;
        let layers = self.layers(device.locked(), layered.as_slice()).await?;
        if let Some(next) = layers.next_change(id) {
            let by = Source::Schedule.as_str();
            device
                .locked()
                .mark_due(&[id], next, by, Source::Schedule)
                .await?;
        }
        let effective = layers.effective(id, &schema, &Document::new());
        let diff = diff(&Document::new(), &effective.document);
        Ok(FirstSettings {
            status: Status::default().changed(&diff, version, at),
            document: effective.document,
            origins: effective.origins,
            diff,
        })
    }

    async fn write_description(
        &self,
        locked: &mut store::settings::LockedSettings,
        id: setpoint_model::DeviceId,
        description: &Description,
    ) -> Result<(), Error> {
        let written = locked.write_description(id, description, self.clock.now()).await;
        written.map_err(|error| match error.constraint() {
            Some("devices_model_fkey") => unknown_model(),
            _ => error.into(),
        })
    }
}

/// What a patch says of a theft: `null` takes a report back, as `false` does.
fn reported(stolen: Option<serde_json::Value>) -> Result<Option<bool>, Error> {
    match stolen {
        None => Ok(None),
        Some(serde_json::Value::Bool(stolen)) => Ok(Some(stolen)),
        Some(serde_json::Value::Null) => Ok(Some(false)),
        Some(_) => Err(Error::invalid("stolen", "must be true or false")),
    }
}

/// A description as the audit log shows it, with whether the device is stolen.
fn shown_with(description: &Description, stolen: bool) -> serde_json::Value {
    let mut shown = shown(description);
    if let serde_json::Value::Object(fields) = &mut shown {
        fields.insert("stolen".to_owned(), stolen.into());
    }
    shown
}

/// A device as the audit log calls it.
pub(super) fn object(serial: &Serial) -> String {
    format!("device:{serial}")
}

/// What the audit log keeps of a description.
pub(super) fn shown(description: &Description) -> serde_json::Value {
    serde_json::json!({
        "name": description.name, "model": description.model, "tags": description.tags,
        "time_zone": description.time_zone.name(), "location": description.location,
    })
}

fn refused(error: store::Error, serial: &Serial) -> Error {
    match error.constraint() {
        Some("devices_serial_key") => {
            let message = format!("there is a device with the serial {serial} already");
            Error::Conflict {
                code: "device_exists",
                message,
            }
        }
        Some("devices_model_fkey") => unknown_model(),
        _ => error.into(),
    }
}

fn unknown_model() -> Error {
    Error::invalid("model", "there is no such model")
}

fn misfit(errors: &KeyErrors) -> Error {
    let reasons: Vec<String> = errors
        .iter()
        .map(|(key, message)| format!("{key}: {message}"))
        .collect();
    Error::invalid(
        "model",
        format!("does not take the device's own settings: {}", reasons.join("; ")),
    )
}
