//! A person's part of a claim: to look at it, approve it or deny it.

use setpoint_model::{
    credential::SecretHash,
    device::{DEFAULT_MODEL, NewDevice},
};
use setpoint_store::{self as store, claims::PendingClaim};
use uuid::Uuid;

use super::{ClaimView, Decision, Guesser, codes::entered};
use crate::app::{
    Actor, App, Error,
    devices::object,
    policy::{Action, Reach},
    throttle::network,
};

/// The code is wrong, used or out of date: one answer for all.
const NO_CODE: Error = Error::NotFound { what: "code" };

impl App {
    /// A person looks at a code, or decides on it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:claim`, or for a token that stands for no person; [`Error::NotFound`] for a
    /// code that doesn't wait; [`Error::TooManyAttempts`]; [`Error::Conflict`] when the device is somebody else's
    /// (`device_registered`), is in use without an owner (`device_in_use`) or stolen (`device_stolen`).
    pub async fn decide_claim(
        &self,
        actor: &Actor,
        code: &str,
        decision: Decision,
    ) -> Result<ClaimView, Error> {
        let reach = self.authorize(actor, Action::ClaimDevice)?;
        let user = actor.user().ok_or(Error::Forbidden {
            scope: Action::ClaimDevice.scope(),
        })?;
        let claim = self.waiting_claim(actor, user, code).await?;
        let entry = self.entry(actor, Action::ClaimDevice.name(), object(&claim.serial));
        match decision {
            Decision::Look => {}
            Decision::Deny => {
                let entry = entry.after(serde_json::json!({"decision": "deny"}));
                if !self.store.deny_claim(claim.id, &entry).await? {
                    return Err(NO_CODE);
                }
            }
            Decision::Approve => {
                let entry = entry.after(serde_json::json!({"decision": "approve", "proven": claim.proven}));
                self.register(actor, user, reach, &claim, &entry).await?;
                self.ownership_changed(user).await;
                tracing::info!(serial = %claim.serial, by = actor.label(), "device registered");
            }
        }
        let device = self.store.device(&claim.serial).await?;
        let model = match device {
            Some(device) => device.description.model,
            None => {
                self.factory_description(&claim.serial, DEFAULT_MODEL)
                    .await?
                    .model
            }
        };
        Ok(ClaimView {
            serial: claim.serial,
            model,
            proven: claim.proven,
            address: claim.address,
        })
    }

    async fn waiting_claim(&self, actor: &Actor, user: Uuid, code: &str) -> Result<PendingClaim, Error> {
        let most = self.claiming.config.max_attempts;
        let mut guessers = vec![(Guesser::Person(user), most)];
        if let Some(address) = actor.address {
            guessers.push((Guesser::Address(network(address)), most.saturating_mul(2)));
        }
        let attempts = &self.claiming.attempts;
        let waits = guessers
            .iter()
            .filter_map(|(guesser, most)| attempts.wait(guesser, *most));
        if let Some(after) = waits.max() {
            return Err(Error::TooManyAttempts { after });
        }
        for (guesser, _) in &guessers {
            attempts.fail(guesser.clone());
        }
        let found = match entered(code) {
            Some(code) => {
                let hash = SecretHash::of(code.as_bytes());
                self.store.pending_claim(&hash, self.clock.now()).await?
            }
            None => None,
        };
        let Some(claim) = found else {
            self.audit
                .refused(self.entry(actor, Action::ClaimDevice.name(), ""));
            return Err(NO_CODE);
        };
        for (guesser, _) in &guessers {
            attempts.succeed(guesser);
        }
        Ok(claim)
    }

    /// Makes the person of an approved claim the owner of its device, which is made if there is none.
    async fn register(
        &self,
        actor: &Actor,
        user: Uuid,
        reach: Reach,
        claim: &PendingClaim,
        entry: &store::audit::NewEntry,
    ) -> Result<(), Error> {
        let serial = &claim.serial;
        let mut locked = self.store.lock_settings(&[serial.as_str()]).await?;
        if let Some(device) = locked.device(serial).map(|settings| settings.device_id) {
            let registration = locked.registration(device).await?;
            let conflict = |code, message: &str| Error::Conflict {
                code,
                message: message.to_owned(),
            };
            if registration.stolen {
                return Err(conflict("device_stolen", "this device was reported stolen"));
            }
            match registration.registrant {
                Some(registrant) if registrant != user => {
                    return Err(conflict(
                        "device_registered",
                        "this device is registered to somebody; they, or staff, must give it up first",
                    ));
                }
                // Otherwise whoever knows a serial could take a running device over.
                None if registration.has_credential && !claim.proven && reach != Reach::All => {
                    return Err(conflict(
                        "device_in_use",
                        "this device is in use; staff must take its token away first",
                    ));
                }
                _ => {}
            }
            if !locked.register(claim.id, device, user, entry.at).await? {
                return Err(NO_CODE);
            }
            locked.audit(entry).await?;
            locked.commit().await?;
            return Ok(());
        }
        drop(locked);
        let new = NewDevice {
            serial: serial.clone(),
            description: self.factory_description(serial, DEFAULT_MODEL).await?,
        };
        let mut device = match self.store.begin_device(&new, entry.at).await {
            Ok(device) => device,
            // Made meanwhile: the person may try again.
            Err(error) if error.constraint() == Some("devices_serial_key") => {
                return Err(Error::Contended(error));
            }
            Err(error) if error.constraint() == Some("devices_model_fkey") => {
                return Err(Error::NotFound { what: "model" });
            }
            Err(error) => return Err(error.into()),
        };
        if !device.register(claim.id, user, entry.at).await? {
            return Err(NO_CODE);
        }
        device.audit(entry).await?;
        let id = device.id;
        let first = self.first_settings(&mut device, entry.at).await?;
        let layered = device.is_layered();
        device.commit(&first, None, &actor.label()).await?;
        if layered {
            self.hints.layers.everything();
        }
        self.hints.settings.device(id.0);
        Ok(())
    }
}
