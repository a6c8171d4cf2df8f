//! Device sign-in, without a query per reconnect; and how a credential ends at once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use setpoint_model::{
    DeviceId, Serial,
    credential::{DEVICE_TOKEN_PREFIX, Secret, SecretHash},
    presence::DisconnectReason,
};
use setpoint_store::credentials::Credential;

use super::{Actor, App, Error, devices::object, policy::Action};

/// The most credentials remembered: about 150 bytes each.
const MAX_REMEMBERED: usize = 200_000;
/// The revocations remembered by name. A sign-in that is older than all of them is looked at as revoked, so that
/// forgetting one can only cost a reconnect.
const MAX_REVOCATIONS: usize = 4_096;
/// The longest that a former token may go on.
const MAX_GRACE: Duration = Duration::from_secs(30 * 86_400);
/// Credentials read at once at a start.
const PAGE: i64 = 5_000;

/// The credentials of devices seen lately. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    devices: HashMap<Serial, Held>,
    /// Counts revocations: the present moment, as far as sign-ins are concerned.
    epoch: u64,
    /// The last revocations, each with the epoch it began.
    revoked: VecDeque<(u64, Serial)>,
}

/// What is remembered of a device.
#[derive(Debug, Clone, Copy)]
struct Held {
    device_id: DeviceId,
    hash: SecretHash,
    previous: Option<(SecretHash, DateTime<Utc>)>,
    stolen: bool,
}

impl Held {
    /// Whether this is the device's token, or the one before within its grace.
    fn takes(&self, presented: &SecretHash, now: DateTime<Utc>) -> bool {
        let former = self.previous.filter(|(_, until)| *until > now);
        // Both are looked at in any case.
        self.hash.matches(presented) | former.is_some_and(|(hash, _)| hash.matches(presented))
    }
}

impl Held {
    /// Whether a session of what was remembered may go on under what holds now.
    fn goes_on_as(&self, now: &Self) -> bool {
        let former = now.previous.is_some_and(|(hash, _)| hash.matches(&self.hash));
        self.device_id == now.device_id && !now.stolen && (now.hash.matches(&self.hash) || former)
    }
}

impl From<&Credential> for Held {
    fn from(credential: &Credential) -> Self {
        Self {
            device_id: credential.device_id,
            hash: credential.hash,
            previous: credential.previous,
            stolen: credential.stolen,
        }
    }
}

/// A device that has shown its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedIn {
    /// The device.
    pub device_id: DeviceId,
    /// When, as [`Credentials::is_current`] counts.
    pub epoch: u64,
}

impl Credentials {
    /// The present moment: to be asked before the credential is looked at.
    pub fn epoch(&self) -> u64 {
        self.with(|known| known.epoch)
    }

    /// Whether nothing was revoked of this device since `epoch`.
    pub fn is_current(&self, serial: &Serial, epoch: u64) -> bool {
        self.with(|known| known.is_current(serial, epoch))
    }

    /// Ends what was known of a device: to be called when the change is committed, before its sessions are ended.
    pub fn revoke(&self, serial: &Serial) {
        self.with(|known| {
            known.revoke(serial);
        });
    }

    /// The same, when the device has a new credential at once, of a change begun at `epoch`. It is remembered unless
    /// another change came in between.
    fn replace(&self, credential: &Credential, epoch: u64) {
        self.with(|known| {
            let last = known.is_current(&credential.serial, epoch);
            known.revoke(&credential.serial);
            if last {
                known.remember(credential);
            }
        });
    }

    /// Takes out everything that is known; each device is read anew when it comes.
    fn take(&self) -> HashMap<Serial, Held> {
        self.with(|known| std::mem::take(&mut known.devices))
    }

    fn get(&self, serial: &Serial) -> (Option<Held>, u64) {
        self.with(|known| (known.devices.get(serial).copied(), known.epoch))
    }

    /// Remembers a credential that was read at `epoch`, unless it was revoked since.
    pub(super) fn remember(&self, credential: &Credential, epoch: u64) {
        self.with(|known| {
            if known.is_current(&credential.serial, epoch) {
                known.remember(credential);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn revoke(&mut self, serial: &Serial) {
        self.epoch += 1;
        self.revoked.push_back((self.epoch, serial.clone()));
        if self.revoked.len() > MAX_REVOCATIONS {
            self.revoked.pop_front();
        }
        self.devices.remove(serial);
    }

    fn remember(&mut self, credential: &Credential) {
        if self.devices.len() >= MAX_REMEMBERED && !self.devices.contains_key(&credential.serial) {
            // Any other will do: who comes back is read again.
            let Some(other) = self.devices.keys().next().cloned() else {
                return;
            };
            self.devices.remove(&other);
        }
        self.devices.insert(credential.serial.clone(), credential.into());
    }

    fn is_current(&self, serial: &Serial, epoch: u64) -> bool {
        if epoch == self.epoch {
            return true;
        }
        let forgotten = self
            .revoked
            .front()
            .is_some_and(|(oldest, _)| epoch.saturating_add(1) < *oldest);
        !forgotten
            && !self
                .revoked
                .iter()
                .rev()
                .take_while(|(at, _)| *at > epoch)
                .any(|(_, s)| s == serial)
    }
}

impl App {
    /// Which device presents this token.
    ///
    /// While the database is away, devices that signed in before still can.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a wrong token, a revoked one or an unknown serial; [`Error::Stolen`] for a device
    /// that was reported stolen; [`Error::Unavailable`].
    pub async fn sign_in_device(&self, serial: &Serial, presented: &[u8]) -> Result<SignedIn, Error> {
        let presented = SecretHash::of(presented);
        let (known, epoch) = self.credentials.get(serial);
        let now = self.clock.now();
        let held = match known {
            Some(held) if held.takes(&presented, now) => held,
            // Boxed: those who are remembered need no room for a query.
            _ => Held::from(&Box::pin(self.read_credential(serial, epoch)).await?),
        };
        if !held.takes(&presented, now) {
            return Err(Error::Unauthenticated);
        }
        signed_in(held, epoch)
    }

    /// Which device has this serial, for a client certificate that names it. A device without a credential can't
    /// sign in by certificate either. One that nobody ever heard of is made, if that is allowed.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for an unknown or revoked device; [`Error::Stolen`]; [`Error::TooManyAttempts`] when too
    /// many make themselves known at once; [`Error::Unavailable`].
    pub async fn sign_in_certified(&self, serial: &Serial, address: IpAddr) -> Result<SignedIn, Error> {
        let (known, epoch) = self.credentials.get(serial);
        let held = match known {
            Some(held) => held,
            None => match self.read_credential(serial, epoch).await {
                Err(Error::Unauthenticated) => {
                    Held::from(&self.enrol_certified(serial, address, epoch).await?)
                }
                read => Held::from(&read?),
            },
        };
        signed_in(held, epoch)
    }

    pub(super) async fn read_credential(&self, serial: &Serial, epoch: u64) -> Result<Credential, Error> {
        let credential = self
            .store
            .credential(serial)
            .await?
            .ok_or(Error::Unauthenticated)?;
        self.credentials.remember(&credential, epoch);
        Ok(credential)
    }

    /// Reads all credentials into memory, so that a fleet that comes back after a restart is no storm of queries.
    /// Returns how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; then they are read one by one as devices come.
    pub async fn load_credentials(&self) -> Result<usize, Error> {
        let (mut after, mut loaded) = (DeviceId(0), 0);
        while loaded < MAX_REMEMBERED {
            let epoch = self.credentials.epoch();
            let page = self.store.credentials_page(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.device_id;
            loaded += page.len();
            for credential in &page {
                self.credentials.remember(credential, epoch);
            }
        }
        Ok(loaded)
    }

    /// Compares what is remembered, and who is connected, with what holds: the devices whose credential is another or
    /// gone, which are forgotten. For what was missed of other servers' doings.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; then nothing is remembered, and each device is read when it comes.
    pub(crate) async fn recheck_credentials(&self) -> Result<Vec<Serial>, Error> {
        let mut unseen: HashSet<Serial> = self
            .broker
            .sessions()
            .iter()
            .filter_map(|session| session.info.identity.serial().cloned())
            .collect();
        let known = self.credentials.take();
        let mut over = Vec::new();
        let mut after = DeviceId(0);
        loop {
            let epoch = self.credentials.epoch();
            let page = self.store.credentials_page(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.device_id;
            for credential in &page {
                unseen.remove(&credential.serial);
                let now = Held::from(credential);
                match known.get(&credential.serial) {
                    Some(before) if before.goes_on_as(&now) => {}
                    Some(_) => over.push(credential.serial.clone()),
                    None if now.stolen => over.push(credential.serial.clone()),
                    None => {}
                }
                self.credentials.remember(credential, epoch);
            }
        }
        over.extend(unseen);
        for serial in &over {
            self.credentials.revoke(serial);
        }
        Ok(over)
    }

    /// Gives a device a new token. The old one ends with the sessions it opened: at once, or after `grace`. Returns the
    /// token and when it was made.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`, [`Error::NotFound`]; [`Error::Invalid`] for too long a grace.
    pub async fn rotate_credential(
        &self,
        actor: &Actor,
        serial: &Serial,
        grace: Duration,
    ) -> Result<(Secret, DateTime<Utc>), Error> {
        self.authorize_device(actor, Action::RotateCredential, serial)
            .await?;
        if grace > MAX_GRACE {
            return Err(Error::invalid("grace", "at most 30 days"));
        }
        let epoch = self.credentials.epoch();
        let secret = Secret::generate(DEVICE_TOKEN_PREFIX).map_err(Error::internal)?;
        let entry = self.entry(actor, Action::RotateCredential.name(), object(serial));
        let entry = entry.after(serde_json::json!({"grace_seconds": grace.as_secs()}));
        let at = entry.at;
        let grace_until = match grace {
            Duration::ZERO => None,
            grace => Some(at + TimeDelta::from_std(grace).map_err(Error::internal)?),
        };
        let replaced = self
            .store
            .replace_credential(serial, &secret.hash(), grace_until, &entry)
            .await?;
        let replaced = replaced.ok_or(Error::NotFound { what: "device" })?;
        if grace_until.is_some() {
            // The sessions of the old token go on until its grace is over.
            self.credentials.revoke(serial);
        } else {
            let credential = Credential {
                device_id: replaced.device_id,
                serial: serial.clone(),
                hash: secret.hash(),
                previous: None,
                stolen: replaced.stolen,
            };
            self.credentials.replace(&credential, epoch);
            self.end_sessions(serial).await;
        }
        tracing::info!(%serial, by = actor.label(), ?grace, "device credential replaced");
        Ok((secret, at))
    }

    /// Ends the tokens whose grace is over, with the sessions they opened; a session of the new token comes back at
    /// once. Returns how many there were.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; they still can't sign in any more.
    pub async fn end_grace(&self) -> Result<usize, Error> {
        let serials = self.store.end_grace(self.clock.now()).await?;
        for serial in &serials {
            self.end_credential(serial).await;
        }
        Ok(serials.len())
    }

    /// Takes a device's token away and ends the sessions it opened at once.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`, [`Error::NotFound`] for an unknown device.
    pub async fn revoke_credential(&self, actor: &Actor, serial: &Serial) -> Result<(), Error> {
        self.authorize_device(actor, Action::RevokeCredential, serial)
            .await?;
        let entry = self.entry(actor, Action::RevokeCredential.name(), object(serial));
        let revoked = self.store.revoke_credential(serial, &entry).await?;
        revoked.ok_or(Error::NotFound { what: "device" })?;
        self.end_credential(serial).await;
        tracing::info!(%serial, by = actor.label(), "device credential revoked");
        Ok(())
    }

    /// Ends what the old credential opened; the change stands in the database already.
    pub(super) async fn end_credential(&self, serial: &Serial) {
        self.credentials.revoke(serial);
        self.end_sessions(serial).await;
    }

    async fn end_sessions(&self, serial: &Serial) {
        self.ingest.forget(serial);
        self.broker
            .end_device(serial, DisconnectReason::CredentialRevoked)
            .await;
    }
}

fn signed_in(held: Held, epoch: u64) -> Result<SignedIn, Error> {
    if held.stolen {
        return Err(Error::Stolen);
    }
    Ok(SignedIn {
        device_id: held.device_id,
        epoch,
    })
}

#[cfg(test)]
mod tests;
