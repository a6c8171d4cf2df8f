//! Changing one device's settings: every way leads through [`App::change_settings`].

use serde_json::json;
use setpoint_model::{
    DeviceId, Serial,
    event::SettingsStage,
    settings::{Document, Effective, Malformed, Patch, Schema, Source, diff::diff, document, schema},
};
use setpoint_store::settings::{LockedSettings, NewVersion, Settings};

use crate::app::{Actor, App, Error, FieldErrors, Given, Precondition, policy::Action};

/// How often a change that ran into another transaction is tried in all.
pub(in crate::app) const ATTEMPTS: usize = 3;

/// Makes a device's next overrides out of its present settings.
type Edit<'a> = dyn Fn(&Settings, &Schema) -> Result<Document, Error> + Send + Sync + 'a;

impl App {
    /// Applies a merge patch (RFC 7396) to what is set on the device itself.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:write`, [`Error::NotFound`], [`Error::VersionMismatch`], and
    /// [`Error::Malformed`], [`Error::TooLarge`] or [`Error::Invalid`] (by key) for the patch.
    pub async fn patch_settings(
        &self,
        actor: &Actor,
        serial: &Serial,
        patch: &[u8],
        precondition: &Precondition,
        source: Source,
    ) -> Result<Settings, Error> {
        self.authorize_device(actor, Action::WriteSettings, serial)
            .await?;
        let change = async {
            let patch = Patch::parse(patch, self.settings.limits)?;
            let edit = |settings: &Settings, schema: &Schema| patched(settings, schema, &patch);
            self.change_settings(actor, serial, precondition, source, &edit)
                .await
        };
        let result = change.await;
        self.note_rejection(actor, serial, source, result)
    }

    /// Replaces what is set on the device itself as a whole.
    ///
    /// # Errors
    /// As [`Self::patch_settings`].
    pub async fn replace_settings(
        &self,
        actor: &Actor,
        serial: &Serial,
        overrides: &[u8],
        precondition: &Precondition,
    ) -> Result<Settings, Error> {
        self.authorize_device(actor, Action::WriteSettings, serial)
            .await?;
        let change = async {
            let overrides = document::parse(overrides, self.settings.limits)?;
            let edit = |_: &Settings, _: &Schema| Ok(overrides.clone());
            self.change_settings(actor, serial, precondition, Source::Rest, &edit)
                .await
        };
        let result = change.await;
        self.note_rejection(actor, serial, Source::Rest, result)
    }

    /// Brings back what was set on the device itself at an earlier version, as a new version.
    ///
    /// # Errors
    /// As [`Self::patch_settings`]; [`Error::NotFound`] also for a version that the device never had.
    pub async fn revert_settings(
        &self,
        actor: &Actor,
        serial: &Serial,
        version: i64,
        precondition: &Precondition,
    ) -> Result<Settings, Error> {
        self.authorize_device(actor, Action::WriteSettings, serial)
            .await?;
        let device = self
            .store
            .device_id(serial)
            .await?
            .ok_or(Error::NotFound { what: "device" })?;
        let earlier = self.store.settings_version(device, version).await?;
        let earlier = earlier.ok_or(Error::NotFound { what: "version" })?;
        let edit = |settings: &Settings, _: &Schema| {
            // The serial may have got another device since.
            if settings.device_id == device {
                Ok(earlier.overrides.clone())
            } else {
                Err(Error::NotFound { what: "version" })
            }
        };
        let result = self
            .change_settings(actor, serial, precondition, Source::Revert, &edit)
            .await;
        self.note_rejection(actor, serial, Source::Revert, result)
    }

    async fn change_settings(
        &self,
        actor: &Actor,
        serial: &Serial,
        precondition: &Precondition,
        source: Source,
        edit: &Edit<'_>,
    ) -> Result<Settings, Error> {
        let mut attempt = 1;
        loop {
            match self
                .change_settings_once(actor, serial, precondition, source, edit)
                .await
            {
                Err(error) if error.is_contended() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Lock, check, judge, write, commit, hint: five round trips to Postgres, `BEGIN` and `COMMIT` included.
    async fn change_settings_once(
        &self,
        actor: &Actor,
        serial: &Serial,
        precondition: &Precondition,
        source: Source,
        edit: &Edit<'_>,
    ) -> Result<Settings, Error> {
        let mut locked = self.store.lock_settings(&[serial.as_str()]).await?;
        let before = locked
            .device(serial)
            .cloned()
            .ok_or(Error::NotFound { what: "device" })?;
        precondition.check(before.version)?;
        let (old_version, old_document) = (before.version, before.document.clone());
        let schema = self
            .schema_of(&mut locked, &before.model, before.model_version)
            .await?;
        let overrides = checked(&schema, edit(&before, &schema)?)?;
        let after = self
            .write_change(&mut locked, before, overrides, &schema, actor, source)
            .await?;
        if after.settings.version != old_version {
            let entry = self.entry(actor, Action::WriteSettings.name(), format!("device:{serial}"));
            let entry = entry.before(json!({"version": old_version}));
            let changed = diff(&old_document, &after.settings.document);
            let after =
                json!({"version": after.settings.version, "source": source.as_str(), "diff": changed});
            locked.audit(&entry.after(after)).await?;
        }
        // A commit waits for the disk even if all it has to keep are the locks it held.
        if after.written == Written::Nothing {
            locked.release().await?;
        } else {
            locked.commit().await?;
        }
        self.settings_changed(&after, source).await;
        Ok(after.settings)
    }

    /// Writes the new overrides of a locked device: a new version if its document changes by them.
    pub(in crate::app) async fn write_change(
        &self,
        locked: &mut LockedSettings,
        before: Settings,
        overrides: Document,
        schema: &Schema,
        actor: &Actor,
        source: Source,
    ) -> Result<Changed, Error> {
        let at = self.clock.now();
        let layered = before.layered.then_some(before.device_id);
        let layers = self.layers(locked, layered.as_slice()).await?;
        let Effective { document, origins } = layers.effective(before.device_id, schema, &overrides);
        let limit = self.settings.limits.bytes;
        if serde_json::to_vec(&document).map_err(Error::internal)?.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        let diff = diff(&before.document, &document);
        if diff.is_empty() {
            let mut written = Written::Nothing;
            if overrides != before.overrides || origins != before.origins {
                locked
                    .write_overrides(before.device_id, &overrides, &origins, at)
                    .await?;
                written = Written::Overrides;
            }
            return Ok(Changed {
                settings: Settings {
                    overrides,
                    origins,
                    ..before
                },
                written,
            });
        }
        let version = before.version.saturating_add(1);
        let change = NewVersion {
            device_id: before.device_id,
            version,
            status: before.status.changed(&diff, version, at),
            expected_by: self.expected_by(&before, at),
            overrides,
            document,
            origins,
            diff,
            actor: actor.label(),
            source,
            at,
        };
        locked.write_versions(std::slice::from_ref(&change)).await?;
        let NewVersion {
            version,
            overrides,
            document,
            origins,
            status,
            ..
        } = change;
        let settings = Settings {
            version,
            overrides,
            document,
            origins,
            status,
            ..before
        };
        Ok(Changed {
            settings,
            written: Written::Version,
        })
    }

    /// What follows a committed change. Returns once it is published, or after `settings.publish_wait`: a device
    /// that comes back after the answer to the change shall find it.
    pub(in crate::app) async fn settings_changed(&self, changed: &Changed, source: Source) {
        if changed.written == Written::Version {
            let Settings {
                device_id,
                serial,
                version,
                document,
                ..
            } = &changed.settings;
            let given = self.version_made(*device_id, serial, *version, document, source);
            given.looked_at(self.settings.publish_wait).await;
        }
    }

    /// Counts a version that was committed, tells whoever listens, and has it published.
    pub(in crate::app) fn version_made(
        &self,
        device: DeviceId,
        serial: &Serial,
        version: i64,
        document: &Document,
        source: Source,
    ) -> Given {
        self.settings.metrics.changed(source);
        tracing::debug!(%serial, version, source = source.as_str(), "settings changed");
        let facts = json!({"source": source.as_str(), "settings": document});
        let (stage, at) = (SettingsStage::Requested, self.clock.now());
        self.events.settings(serial, version, stage, at, facts);
        self.hints.settings.device(device.0)
    }
}

/// A device's settings after a change.
#[derive(Debug)]
pub(in crate::app) struct Changed {
    pub(in crate::app) settings: Settings,
    pub(in crate::app) written: Written,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Written {
    /// Everything was so already.
    Nothing,
    /// Something is set on the device itself that it inherited before, or the other way round: it runs the same.
    Overrides,
    /// There is a new version to publish.
    Version,
}

/// The overrides after a patch. A key that is dropped must be known, or be set: a typing error is not let pass.
pub(in crate::app) fn patched(
    settings: &Settings,
    schema: &Schema,
    patch: &Patch,
) -> Result<Document, Error> {
    let unknown = |key: &&str| !schema.contains(key) && !settings.overrides.contains_key(*key);
    let unknown: FieldErrors = patch
        .keys()
        .filter(unknown)
        .map(|key| (key.to_owned(), schema::UNKNOWN.to_owned()))
        .collect();
    let merged = patch.apply(&settings.overrides);
    if unknown.is_empty() {
        return Ok(merged);
    }
    let others = schema.check(merged).err().unwrap_or_default();
    Err(Error::Invalid {
        errors: others.into_iter().chain(unknown).collect(),
    })
}

pub(in crate::app) fn checked(schema: &Schema, overrides: Document) -> Result<Document, Error> {
    schema
        .check(overrides)
        .map_err(|errors| Error::Invalid { errors })
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::TooLarge { limit } => Self::TooLarge { limit },
            other => Self::Malformed {
                message: format!("the body is {other}"),
            },
        }
    }
}
