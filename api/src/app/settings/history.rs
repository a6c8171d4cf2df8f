//! The story of each version: its steps, and a verdict in plain words.

use setpoint_model::{
    Serial,
    settings::{Connection, Timeline, verdict},
};
use setpoint_store::settings::{DeliveryMark, SettingsVersion, VersionsOf};

use crate::app::{Actor, App, Error, policy::Action};

/// One version with its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionStory {
    /// The version and its steps.
    pub version: SettingsVersion,
    /// What became of it, or what it waits for.
    pub verdict: String,
}

impl App {
    /// A page of a device's versions, newest first: those below `before`, all if it is `None`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read`, [`Error::NotFound`].
    pub async fn settings_versions(
        &self,
        actor: &Actor,
        serial: &Serial,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<VersionStory>, Error> {
        self.authorize_device(actor, Action::ReadSettings, serial).await?;
        let marks = self.settings.marks.of(serial);
        let of = self
            .store
            .versions_of(serial)
            .await?
            .ok_or(Error::NotFound { what: "device" })?;
        let versions = self.store.settings_versions(of.device_id, before, limit).await?;
        Ok(self.tell(serial, &of, &marks, versions))
    }

    /// One version of a device.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:read`, [`Error::NotFound`] for the device or the version.
    pub async fn settings_version(
        &self,
        actor: &Actor,
        serial: &Serial,
        version: i64,
    ) -> Result<VersionStory, Error> {
        self.authorize_device(actor, Action::ReadSettings, serial).await?;
        let marks = self.settings.marks.of(serial);
        let of = self
            .store
            .versions_of(serial)
            .await?
            .ok_or(Error::NotFound { what: "device" })?;
        let version = self.store.settings_version(of.device_id, version).await?;
        let told = self.tell(serial, &of, &marks, version.into_iter().collect());
        told.into_iter().next().ok_or(Error::NotFound { what: "version" })
    }

    pub(super) fn tell(
        &self,
        serial: &Serial,
        of: &VersionsOf,
        marks: &[DeliveryMark],
        versions: Vec<SettingsVersion>,
    ) -> Vec<VersionStory> {
        let now = self.clock.now();
        let connection = self.connection(serial, of);
        let story = |mut version: SettingsVersion| {
            for mark in marks.iter().filter(|mark| mark.version == version.version) {
                add(&mut version.timeline, mark);
            }
            let acknowledged = version.version == of.current && of.reported == Some(of.current);
            let facts = verdict::Facts {
                version: version.version,
                timeline: version.timeline,
                errors: &version.errors,
                status: acknowledged.then_some(&of.status),
                connection,
            };
            let verdict = verdict::verdict(&facts, now);
            VersionStory { version, verdict }
        };
        versions.into_iter().map(story).collect()
    }

    /// What is known of a device's connection: from the broker, or, if it wasn't heard of since the start, from the
    /// database.
    fn connection(&self, serial: &Serial, of: &VersionsOf) -> Connection {
        match (self.broker.device(serial), of.presence) {
            (Some(device), _) if !device.online => Connection::Offline { since: device.since },
            (Some(device), _) if device.hears_settings => Connection::Listening,
            (Some(_), _) => Connection::Deaf,
            (None, Some(presence)) if presence.online => Connection::Listening,
            (None, Some(presence)) => Connection::Offline {
                since: presence.since,
            },
            (None, None) => Connection::Never,
        }
    }
}

/// Adds steps that are on their way to the database, where the earliest word on each step counts.
fn add(timeline: &mut Timeline, mark: &DeliveryMark) {
    let published = [timeline.published, mark.published, mark.delivered];
    timeline.published = published.into_iter().flatten().min();
    timeline.delivered = [timeline.delivered, mark.delivered].into_iter().flatten().min();
}
