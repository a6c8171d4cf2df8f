//! Claiming a device by its code: the OAuth 2.0 device authorization grant (RFC 8628).

mod codes;
mod decide;

use std::{net::IpAddr, time::Duration};

use chrono::TimeDelta;
use setpoint_model::{
    Serial,
    credential::{DEVICE_TOKEN_PREFIX, Secret, SecretHash},
    device::DEFAULT_MODEL,
};
use setpoint_store::{
    self as store,
    claims::{Begun, ClaimState, NewClaim},
};
use uuid::Uuid;

use self::codes::{shown, user_code};
use super::{
    Actor, App, Error,
    devices::object,
    throttle::{Throttle, network},
    tokens::new_id,
};
use crate::config;

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
            let from = address.map_or_else(String::new, |address| address.to_string());
            self.stolen_seen(serial.clone(), from, "http");
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
            Some(model) => model.definition.claim_secret || known.is_some(),
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
