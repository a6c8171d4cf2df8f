//! Devices that make themselves known by a certificate of a trusted authority.

use std::{net::IpAddr, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use setpoint_model::{
    Serial,
    credential::{DEVICE_TOKEN_PREFIX, Secret},
    device::NewDevice,
    models,
};
use setpoint_store::credentials::Credential;

use super::{
    Actor, App, Error,
    devices::{object, shown},
    throttle::Throttle,
};

/// What the audit log calls it.
const ENROL: &str = "device.enrol";
/// The window of [`Rules::per_minute`].
const MINUTE: Duration = Duration::from_secs(60);

/// Which devices may make themselves known.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The model they get where the factory named none; `None` if nobody may.
    pub model: Option<models::Name>,
    /// How many may do so within a minute.
    pub per_minute: u32,
}

/// What enrolment needs beside the database.
#[derive(Debug)]
pub struct Enrolment {
    rules: Rules,
    /// Enrolments, which are bounded like failures.
    recent: Throttle<()>,
    outcomes: Family<OutcomeLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The model that devices are to get does not exist.
#[derive(Debug, thiserror::Error)]
#[error(
    "a device can't enrol: there is no model `{0}` (mqtt.tls.enrol_model, or what the factory said of its serial)"
)]
struct NoModel(String);

impl Enrolment {
    /// By these rules.
    pub fn new(rules: Rules, registry: &mut Registry) -> Self {
        let outcomes = Family::default();
        registry.register(
            "enrolments",
            "Unknown devices with a certificate by outcome: made, known_before (deleted, or without a credential), \
             too_many, failed",
            outcomes.clone(),
        );
        let recent = Throttle::new(MINUTE);
        Self {
            rules,
            recent,
            outcomes,
        }
    }

    fn count(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

impl App {
    /// Makes a device of a serial that a verified certificate names, if no device ever had it: one that was deleted, or
    /// whose credential was revoked, is not let in again by its certificate. The device belongs to nobody, and its
    /// token is known to nobody. Returns its credential.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if enrolment is off, or the serial is not new; [`Error::TooManyAttempts`] beyond the
    /// bound; [`Error::Unavailable`]; [`Error::Internal`] when its model doesn't exist.
    pub(super) async fn enrol_certified(
        &self,
        serial: &Serial,
        address: IpAddr,
        epoch: u64,
    ) -> Result<Credential, Error> {
        let Some(model) = &self.enrolment.rules.model else {
            return Err(Error::Unauthenticated);
        };
        if !self.store.is_new_serial(serial).await? {
            return Err(self.known_before(serial, address));
        }
        let recent = &self.enrolment.recent;
        if let Some(after) = recent.wait(&(), self.enrolment.rules.per_minute) {
            self.enrolment.count("too_many");
            return Err(Error::TooManyAttempts { after });
        }
        recent.fail(());
        let made = self.make_enrolled(serial, model, address, epoch).await;
        if matches!(made, Err(Error::Internal(_) | Error::Unavailable(_))) {
            self.enrolment.count("failed");
        }
        made
    }

    async fn make_enrolled(
        &self,
        serial: &Serial,
        model: &models::Name,
        address: IpAddr,
        epoch: u64,
    ) -> Result<Credential, Error> {
        let at = self.clock.now();
        let new = NewDevice {
            serial: serial.clone(),
            description: self.factory_description(serial, model.as_str()).await?,
        };
        let mut device = match self.store.begin_device(&new, at).await {
            Ok(device) => device,
            // Made meanwhile, most likely by another connection of the same device.
            Err(error) if error.constraint() == Some("devices_serial_key") => {
                return self.read_credential(serial, epoch).await;
            }
            Err(error) if error.constraint() == Some("devices_model_fkey") => {
                return Err(Error::internal(NoModel(new.description.model)));
            }
            Err(error) => return Err(error.into()),
        };
        if device.is_successor() {
            // Deleted meanwhile.
            device.release().await?;
            return Err(self.known_before(serial, address));
        }
        let id = device.id;
        let actor = Actor::device(serial.clone()).from(Some(address));
        let entry = self.entry(&actor, ENROL, object(serial));
        device.audit(&entry.after(shown(&new.description))).await?;
        let first = self.first_settings(&mut device, at).await?;
        let layered = device.is_layered();
        // A device without a credential can't sign in: it gets one, which its certificate stands for.
        let secret = Secret::generate(DEVICE_TOKEN_PREFIX).map_err(Error::internal)?;
        device
            .commit(&first, Some(&secret.hash()), &actor.label())
            .await?;
        let credential = Credential::first(id, serial.clone(), secret.hash());
        self.enrolment.count("made");
        tracing::info!(%serial, %address, model = new.description.model, "device enrolled by its certificate");
        self.expect_device(&credential, epoch, layered).await;
        Ok(credential)
    }

    fn known_before(&self, serial: &Serial, address: IpAddr) -> Error {
        self.enrolment.count("known_before");
        tracing::info!(%serial, %address, "a certificate alone does not let a former device in again");
        Error::Unauthenticated
    }
}
