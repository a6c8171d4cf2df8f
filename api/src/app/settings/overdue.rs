//! Versions that have been pending for longer than the device's model is expected to take.

use serde_json::json;
use setpoint_model::{event::SettingsStage, timeline::Facts};

use crate::app::{App, Error};

/// Versions told of in one transaction.
const BATCH: i64 = 100;

impl App {
    /// Tells of a batch of versions that were not answered in time, each once: in the device's timeline with the sentence
    /// that says what it waits for, as a live event, and in a metric. `false` once there are no more.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`]; then nothing was told.
    pub async fn tell_overdue(&self) -> Result<bool, Error> {
        let at = self.clock.now();
        let mut overdue = self.store.claim_overdue(at, BATCH).await?;
        let versions = std::mem::take(&mut overdue.versions);
        if versions.is_empty() {
            return Ok(false);
        }
        let mut told = Vec::with_capacity(versions.len());
        for (serial, of, version) in versions {
            let marks = self.settings.marks.of(&serial);
            for story in self.tell(&serial, &of, &marks, vec![version]) {
                told.push((serial.clone(), of.device_id, story.version.version, story.verdict));
            }
        }
        let facts = |(_, device, version, verdict): &(_, _, i64, String)| {
            let (version, verdict) = (*version, verdict.clone());
            (*device, Facts::SettingsPending { version, verdict })
        };
        let entries: Vec<_> = told.iter().map(facts).collect();
        overdue.tell(&entries, at).await?;
        for (serial, _, version, verdict) in told {
            self.settings.metrics.overdue.inc();
            tracing::debug!(%serial, version, verdict, "settings are pending for too long");
            let facts = json!({"verdict": verdict});
            self.events
                .settings(&serial, version, SettingsStage::Pending, at, facts);
        }
        Ok(true)
    }
}
