//! What new overrides come to on each of a batch of locked devices.

use setpoint_model::{
    DeviceId,
    settings::{Diff, Document, Effective, Schema, Source, diff::diff},
};
use setpoint_store::{
    changes::NewOverrides,
    settings::{LockedSettings, NewVersion, Settings},
};

use crate::app::{
    App, Error,
    settings::{Layers, checked},
};

/// A device, and what the change comes to on it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) settings: Settings,
    pub(super) judgement: Judgement,
}

/// What new overrides come to on one device.
#[derive(Debug)]
pub(super) enum Judgement {
    /// They break a rule of its model; it is left alone.
    Invalid(Error),
    /// They are what is set already.
    Nothing,
    /// It runs the same with them.
    Overrides(NewOverrides),
    /// Its document changes.
    Version(NewVersion),
}

/// Who makes new versions, and by which way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) actor: &'a str,
    pub(super) source: Source,
}

impl App {
    /// Judges every locked device by the overrides that `edit` makes for it. An error of `edit` about the patch is the
    /// device's own affair.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn judge_devices(
        &self,
        locked: &mut LockedSettings,
        author: Author<'_>,
        edit: impl Fn(&Settings, &Schema) -> Result<Document, Error>,
    ) -> Result<Vec<Judged>, Error> {
        let devices = locked.devices().to_vec();
        let layered = devices.iter().filter(|settings| settings.layered);
        let layered: Vec<DeviceId> = layered.map(|settings| settings.device_id).collect();
        let layers = self.layers(locked, &layered).await?;
        let mut judged = Vec::with_capacity(devices.len());
        for settings in devices {
            let schema = self
                .schema_of(locked, &settings.model, settings.model_version)
                .await?;
            let overrides = edit(&settings, &schema).and_then(|overrides| checked(&schema, overrides));
            let judgement = match overrides {
                Ok(overrides) => self.judge_overrides(&settings, overrides, &schema, &layers, author)?,
                Err(error) if error.is_temporary() => return Err(error),
                Err(error) => Judgement::Invalid(error),
            };
            judged.push(Judged { settings, judgement });
        }
        Ok(judged)
    }

    fn judge_overrides(
        &self,
        before: &Settings,
        overrides: Document,
        schema: &Schema,
        layers: &Layers,
        author: Author<'_>,
    ) -> Result<Judgement, Error> {
        let Effective { document, origins } = layers.effective(before.device_id, schema, &overrides);
        let limit = self.settings.limits.bytes;
        if serde_json::to_vec(&document).map_err(Error::internal)?.len() > limit {
            return Ok(Judgement::Invalid(Error::TooLarge { limit }));
        }
        let device_id = before.device_id;
        let diff: Diff = diff(&before.document, &document);
        if diff.is_empty() {
            if overrides == before.overrides && origins == before.origins {
                return Ok(Judgement::Nothing);
            }
            return Ok(Judgement::Overrides(NewOverrides {
                device_id,
                overrides,
                origins,
            }));
        }
        let at = self.clock.now();
        let version = before.version.saturating_add(1);
        Ok(Judgement::Version(NewVersion {
            device_id,
            version,
            status: before.status.changed(&diff, version, at),
            expected_by: self.expected_by(before, at),
            overrides,
            document,
            origins,
            diff,
            actor: author.actor.to_owned(),
            source: author.source,
            at,
        }))
    }
}
