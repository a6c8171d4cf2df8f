//! What is counted of changes and noted in a device's timeline, beside the versions they make.

use setpoint_model::{
    Serial,
    settings::Source,
    timeline::{Entry, Facts},
};

use crate::app::{Actor, App, Error, Precondition};

impl App {
    /// Counts a change that was refused for what it says, and notes it in the device's timeline. What came over MQTT has
    /// an entry of its own.
    pub(super) fn note_rejection<T>(
        &self,
        actor: &Actor,
        serial: &Serial,
        source: Source,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(
            error @ (Error::Malformed { .. }
            | Error::TooLarge { .. }
            | Error::Invalid { .. }
            | Error::VersionMismatch { .. }),
        ) = &result
            && source != Source::Mqtt
        {
            self.settings.metrics.rejected(error.code());
            let facts = Facts::SettingsRejected {
                actor: actor.label(),
                source: source.as_str().to_owned(),
                reason: error.sentence(),
            };
            self.timeline.record(Entry {
                serial: serial.clone(),
                at: self.clock.now(),
                facts,
            });
        }
        result
    }

    /// Applies a merge patch that came over MQTT (`settings/set`). That it was accepted, or what is wrong with it, also
    /// goes to the device's timeline. Returns the version now in force.
    ///
    /// # Errors
    /// As [`Self::patch_settings`].
    pub async fn set_from_mqtt(&self, actor: &Actor, serial: &Serial, patch: &[u8]) -> Result<i64, Error> {
        let result = self
            .patch_settings(actor, serial, patch, &Precondition::None, Source::Mqtt)
            .await;
        let actor = actor.label();
        let facts = match &result {
            Ok(settings) => Some(Facts::SettingsSetAccepted {
                actor,
                version: settings.version,
            }),
            Err(error @ (Error::Malformed { .. } | Error::TooLarge { .. } | Error::Invalid { .. })) => {
                Some(Facts::SettingsSetRejected {
                    actor,
                    reason: error.sentence(),
                })
            }
            Err(_) => None,
        };
        self.settings
            .metrics
            .set(result.as_ref().map_or_else(Error::code, |_| "accepted"));
        if let Some(facts) = facts {
            self.timeline.record(Entry {
                serial: serial.clone(),
                at: self.clock.now(),
                facts,
            });
        }
        result.map(|settings| settings.version)
    }
}
