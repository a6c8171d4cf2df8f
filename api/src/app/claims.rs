//! Claiming a device by its code: the OAuth 2.0 device authorization grant (RFC 8628).

use std::{net::IpAddr, time::Duration};

use chrono::TimeDelta;
use setpoint_model::{
    Serial,
    credential::{DEVICE_TOKEN_PREFIX, Secret, SecretHash},
    device::{DEFAULT_MODEL, Description, NewDevice},
    timeline::{Entry, Facts},
};
use setpoint_store::{
    self as store,
    claims::{Begun, ClaimState, NewClaim, PendingClaim},
};
use uuid::Uuid;

use super::{
    Actor, App, Error,
    devices::first_settings,
    owners::object,
    policy::{Action, Reach},
    throttle::{Throttle, network},
    tokens::new_id,
};
use crate::config;

/// Letters of a user code: RFC 8628 section 6.1 proposes these twenty, of which none is taken for another and no
/// word can be made.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a user code: 34.5 bits, with few attempts allowed.
const CODE_LENGTH: usize = 8;
/// What a device code begins with.
const DEVICE_CODE_PREFIX: &str = "spc_";
/// How often another user code is tried when one is taken.
const ATTEMPTS: usize = 5;
/// Seconds added to the interval of a device that polls too fast (RFC 8628 section 3.5).
const SLOWER: i32 = 5;
/// Requests from one address within the window of attempts, for each attempt a person has.
const REQUESTS_PER_ATTEMPT: u32 = 10;

/// What claiming needs beside the database.
#[derive(Debug)]
pub struct Claiming {
    config: config::Claiming,
    attempts: Throttle<Guesser>,
}

/// Who may be guessing codes, or asking for too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Guesser {
    Person(Uuid),
    Address(IpAddr),
    /// A device, or what says so, that asks for codes.
    Asker(IpAddr),
}

impl Claiming {
    /// By these rules.
    pub fn new(config: config::Claiming) -> Self {
        let attempts = Throttle::new(config.attempt_window);
        Self { config, attempts }
    }
}

/// What a device gets to begin with.
#[derive(Debug)]
pub struct Codes {
    /// What it polls with.
    pub device_code: Secret,
    /// What it shows: `BDWP-HQPK`.
    pub user_code: String,
    /// How long both hold.
    pub expires_in: Duration,
    /// How long to wait between polls.
    pub interval: Duration,
}

/// Why a device gets no code or no token: the error codes of RFC 6749 section 5.2 and RFC 8628 section 3.5.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The serial is none, or the device may not be claimed like this.
    #[error("this device may not be claimed, or its secret is wrong")]
    InvalidClient,
    /// Nobody has decided yet.
    #[error("the owner has not entered the code yet")]
    AuthorizationPending,
    /// Nobody has decided yet, and the device asks too often.
    #[error("polled too often")]
    SlowDown,
    /// The owner refused.
    #[error("the owner refused")]
    AccessDenied,
    /// Too late.
    #[error("the code has expired")]
    ExpiredToken,
    /// There is no such code, or it was used.
    #[error("the code is unknown or was used already")]
    InvalidGrant,
    /// Anything else.
    #[error(transparent)]
    App(#[from] Error),
}

impl From<store::Error> for ClaimError {
    fn from(error: store::Error) -> Self {
        Self::App(error.into())
    }
}

/// A device that has its token.
#[derive(Debug)]
pub struct Claimed {
    /// The device's id.
    pub device_id: i64,
    /// Its serial.
    pub serial: Serial,
    /// Its token.
    pub token: Secret,
}

/// What a person is shown before they decide, and after.
#[derive(Debug)]
pub struct ClaimView {
    /// The device.
    pub serial: Serial,
    /// Its model.
    pub model: String,
    /// Whether it showed its factory secret.
    pub proven: bool,
    /// From where it asked.
    pub address: Option<String>,
}

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet: they want to see what it is.
    Look,
    /// It is mine.
    Approve,
    /// It isn't.
    Deny,
}

impl App {
    /// Begins a claim for a device (RFC 8628 section 3.1).
    ///
    /// # Errors
    /// [`ClaimError::InvalidClient`]; [`Error::TooManyAttempts`] for an address that asks too often.
    pub async fn begin_claim(
        &self,
        serial: &Serial,
        secret: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Codes, ClaimError> {
        let rules = &self.claiming;
        if let Some(address) = address {
            let asker = Guesser::Asker(network(address));
            let most = rules.config.max_attempts.saturating_mul(REQUESTS_PER_ATTEMPT);
            if let Some(after) = rules.attempts.wait(&asker, most) {
                return Err(Error::TooManyAttempts { after }.into());
            }
            rules.attempts.fail(asker);
        }
        let proven = self.may_be_claimed(serial, secret, address).await?;
        let now = self.clock.now();
        let lifetime = TimeDelta::from_std(rules.config.code_lifetime).map_err(Error::internal)?;
        let device_code = Secret::generate(DEVICE_CODE_PREFIX).map_err(Error::internal)?;
        let poll_interval = i32::try_from(rules.config.poll_interval.as_secs()).map_err(Error::internal)?;
        for _ in 0..ATTEMPTS {
            let code = user_code().map_err(Error::internal)?;
            let claim = NewClaim {
                id: new_id(now),
                device_code: device_code.hash(),
                user_code: SecretHash::of(code.as_bytes()),
                serial: serial.clone(),
                proven,
                address: address.map(|address| address.to_string()),
                at: now,
                expires_at: now + lifetime,
                poll_interval,
            };
            match self.store.insert_claim(&claim, rules.config.max_waiting).await? {
                Begun::Done => {
                    tracing::info!(%serial, proven, ?address, "a device asks to be claimed");
                    return Ok(Codes {
                        device_code,
                        user_code: shown(&code),
                        expires_in: rules.config.code_lifetime,
                        interval: rules.config.poll_interval,
                    });
                }
                Begun::CodeTaken => {}
                Begun::Full => break,
            }
        }
        tracing::warn!("too many claims are waiting");
        let after = rules.config.poll_interval;
        Err(Error::TooManyAttempts { after }.into())
    }

    /// Whether a device may be claimed at all; whether it proved itself by its factory secret.
    async fn may_be_claimed(
        &self,
        serial: &Serial,
        secret: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<bool, ClaimError> {
        let device = self.store.device(serial).await?;
        if device.as_ref().is_some_and(|device| device.stolen_at.is_some()) {
            let facts = Facts::StolenSeen {
                address: address.map_or_else(String::new, |address| address.to_string()),
                transport: "http".to_owned(),
            };
            self.timeline.record(Entry {
                serial: serial.clone(),
                at: self.clock.now(),
                facts,
            });
            return Err(ClaimError::InvalidClient);
        }
        let factory = self.store.factory_serial(serial).await?;
        if device.is_none() && factory.is_none() && !self.claiming.config.create {
            return Err(ClaimError::InvalidClient);
        }
        let known = factory.as_ref().and_then(|factory| factory.secret);
        let model = device
            .map(|device| device.description.model)
            .or_else(|| factory.map(|factory| factory.model))
            .unwrap_or_else(|| DEFAULT_MODEL.to_owned());
        let demanded = match self.store.model(&model).await? {
            Some(model) => model.claim_secret || known.is_some(),
            None => true,
        };
        let presented = SecretHash::of(secret.unwrap_or_default().as_bytes());
        let proven = known.is_some_and(|known| known.matches(&presented));
        if demanded && !proven {
            tracing::info!(%serial, ?address, "a device without its factory secret may not be claimed");
            return Err(ClaimError::InvalidClient);
        }
        Ok(proven)
    }

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
                tracing::info!(serial = %claim.serial, by = actor.label(), "device registered");
            }
        }
        let device = self.store.device(&claim.serial).await?;
        let model = match device {
            Some(device) => device.description.model,
            None => self.factory_model(&claim.serial).await?,
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
            description: Description {
                model: self.factory_model(serial).await?,
                ..Description::default()
            },
        };
        let schema = self.schema(&new.description.model).await?;
        let schema = schema.ok_or(Error::NotFound { what: "model" })?;
        let mut device = match self.store.begin_device(&new, entry.at).await {
            Ok(device) => device,
            // Made meanwhile: the person may try again.
            Err(error) if error.constraint() == Some("devices_serial_key") => {
                return Err(Error::Contended(error));
            }
            Err(error) => return Err(error.into()),
        };
        if !device.register(claim.id, user, entry.at).await? {
            return Err(NO_CODE);
        }
        device.audit(entry).await?;
        let id = device.id;
        let first = first_settings(&schema, device.first_version, entry.at);
        device.commit(&first, None, &actor.label()).await?;
        self.hints.settings.device(id.0);
        Ok(())
    }

    async fn factory_model(&self, serial: &Serial) -> Result<String, Error> {
        let factory = self.store.factory_serial(serial).await?;
        Ok(factory.map_or_else(|| DEFAULT_MODEL.to_owned(), |factory| factory.model))
    }

    /// A device polls for its token (RFC 8628 section 3.4).
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn redeem_claim(
        &self,
        device_code: &str,
        address: Option<IpAddr>,
    ) -> Result<Claimed, ClaimError> {
        let hash = SecretHash::of(device_code.as_bytes());
        let claim = self
            .store
            .poll_claim(&hash)
            .await?
            .ok_or(ClaimError::InvalidGrant)?;
        let now = self.clock.now();
        if claim.expires_at <= now {
            return Err(ClaimError::ExpiredToken);
        }
        match claim.state {
            ClaimState::Denied => Err(ClaimError::AccessDenied),
            ClaimState::Pending => {
                // A device that waits exactly as long as it was told may seem a little early.
                let due = TimeDelta::milliseconds(i64::from(claim.poll_interval).saturating_mul(900));
                let early = claim.last_polled_at.is_some_and(|last| now - last < due);
                let interval = claim.poll_interval.saturating_add(if early { SLOWER } else { 0 });
                claim.wait(interval, now).await?;
                Err(if early {
                    ClaimError::SlowDown
                } else {
                    ClaimError::AuthorizationPending
                })
            }
            ClaimState::Approved => {
                let serial = claim.serial.clone();
                let token = Secret::generate(DEVICE_TOKEN_PREFIX).map_err(Error::internal)?;
                let actor = Actor::device(serial.clone()).from(address);
                let entry = self.entry(&actor, "device.enrol", object(&serial));
                let device = claim.redeem(&token.hash(), &entry).await?;
                let device = device.ok_or(ClaimError::InvalidGrant)?;
                self.end_credential(&serial).await;
                tracing::info!(%serial, "device claimed");
                Ok(Claimed {
                    device_id: device.0,
                    serial,
                    token,
                })
            }
        }
    }

    /// Removes claims and sessions that are over.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remove_what_is_over(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        // A device that still polls for an expired code is told so for a while.
        let claims = self.store.remove_old_claims(now - TimeDelta::hours(1)).await?;
        let (idle_since, begun_since) = self.people.horizons(now);
        Ok(claims + self.store.remove_old_sessions(idle_since, begun_since).await?)
    }
}

/// The code is wrong, used or out of date: one answer for all.
const NO_CODE: Error = Error::NotFound { what: "code" };

/// A new user code, each letter as likely as any other.
fn user_code() -> Result<String, getrandom::Error> {
    let mut code = String::with_capacity(CODE_LENGTH);
    while code.len() < CODE_LENGTH {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes)?;
        // 240 is the largest multiple of 20 that a byte holds.
        let letters = bytes
            .iter()
            .filter(|byte| **byte < 240)
            .filter_map(|byte| ALPHABET.get(usize::from(byte % 20)));
        for letter in letters {
            if code.len() < CODE_LENGTH {
                code.push(char::from(*letter));
            }
        }
    }
    Ok(code)
}

/// A code as it is shown: in two halves.
fn shown(code: &str) -> String {
    match code.split_at_checked(CODE_LENGTH / 2) {
        Some((first, second)) => format!("{first}-{second}"),
        None => code.to_owned(),
    }
}

/// A code as it was entered, without what people add (RFC 8628 section 6.1); `None` for what can't be one.
fn entered(text: &str) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let code: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let well = code.len() == CODE_LENGTH && code.bytes().all(|b| ALPHABET.contains(&b));
    well.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_of_the_alphabet_and_differ() {
        let codes: std::collections::BTreeSet<String> = (0..1_000).map(|_| user_code().unwrap()).collect();
        assert!(codes.len() >= 999, "34.5 bits of entropy: {}", codes.len());
        for code in &codes {
            assert_eq!(entered(code).as_deref(), Some(code.as_str()));
            assert_eq!(entered(&shown(code)).as_ref(), Some(code));
        }
        let letters: std::collections::BTreeSet<char> = codes.iter().flat_map(|code| code.chars()).collect();
        assert_eq!(letters.len(), ALPHABET.len(), "every letter comes up");
    }

    #[test]
    fn a_code_is_taken_as_people_write_it() {
        assert_eq!(shown("BDWPHQPK"), "BDWP-HQPK");
        for text in ["BDWP-HQPK", "bdwphqpk", " bdwp hqpk ", "B-D-W-P-H-Q-P-K"] {
            assert_eq!(entered(text).as_deref(), Some("BDWPHQPK"), "{text}");
        }
        for text in [
            "",
            "BDWP",
            "BDWP-HQPKX",
            "ADWP-HQPK",
            "BDWP-HQP1",
            &"-".repeat(100),
        ] {
            assert_eq!(entered(text), None, "{text}");
        }
    }
}
