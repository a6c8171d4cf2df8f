//! Many devices in one process.

use std::{pin::pin, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use setpoint_model::{Clock, Serial, serial::InvalidSerial};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    credential::Token,
    device::{Device, DeviceOptions, State, WaitError},
    event::{Event, Observer},
    registrar::Registrar,
    rest::{Rest, RestError},
    summary::Summary,
};

/// Changes that may wait to be looked up; more are not measured.
const LOOKUPS: usize = 16;
/// Registrations under way at once.
const REGISTRATIONS: usize = 16;

/// The names of a fleet: `prefix` and five digits, from 1.
///
/// # Errors
/// When the prefix can't begin a serial.
pub fn serials(prefix: &str, count: usize) -> Result<Vec<Serial>, InvalidSerial> {
    (1..=count)
        .map(|number| format!("{prefix}{number:05}").parse())
        .collect()
}

/// How a fleet comes to life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetOptions {
    /// New connections a second, evenly spread.
    pub connects_per_second: f64,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            connects_per_second: 1000.0,
        }
    }
}

/// Running devices, and what they do in sum.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    devices: Vec<Device>,
    tracker: TaskTracker,
    summary: Arc<Summary>,
    began: Instant,
}

impl Fleet {
    /// A fleet without devices; their tasks run on `tracker`.
    pub fn new(options: FleetOptions, tracker: TaskTracker) -> Self {
        Self {
            options,
            devices: Vec::new(),
            tracker,
            summary: Arc::default(),
            began: Instant::now(),
        }
    }

    /// What the devices do in sum.
    pub fn summary(&self) -> &Arc<Summary> {
        &self.summary
    }

    /// The devices, in the order they were added.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Starts one more device. It dials when its turn has come, so that a big fleet doesn't dial at once.
    pub fn add(&mut self, mut options: DeviceOptions) {
        options.observer = self.summary.observe(options.observer);
        let turn = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let due = self.began + Duration::from_secs_f64(f64::from(turn) / self.options.connects_per_second);
        options.start_after += due.saturating_duration_since(Instant::now());
        self.devices.push(Device::start(options, &self.tracker));
    }

    /// Registers devices, and starts each as soon as it has its token.
    ///
    /// # Errors
    /// The first registration that fails; the devices started until then go on.
    pub async fn register(
        &mut self,
        registrar: &Registrar,
        serials: Vec<Serial>,
        make: impl Fn(Serial, Token) -> DeviceOptions,
    ) -> Result<(), RestError> {
        let mut credentials = pin!(registrar.credentials(serials, REGISTRATIONS));
        while let Some(credential) = credentials.next().await {
            let (serial, token) = credential?;
            self.add(make(serial, token));
        }
        Ok(())
    }

    /// Waits until every device stands as `wanted` says, at most for `limit` in all.
    ///
    /// # Errors
    /// For the first device that doesn't.
    pub async fn wait(&self, limit: Duration, wanted: impl Fn(&State) -> bool) -> Result<(), WaitError> {
        let until = Instant::now() + limit;
        for device in &self.devices {
            device
                .wait(until.saturating_duration_since(Instant::now()), &wanted)
                .await?;
        }
        Ok(())
    }

    /// Says DISCONNECT for all and waits for them, at most for `limit`; true if all ended.
    pub async fn stop(self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        for device in &self.devices {
            device.begin_stop();
        }
        for device in self.devices {
            if timeout_at(until, device.stop()).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// An observer that measures how long changes take from the server's commit to the device: it asks the
/// server when the version was made, for as many changes as it can ask about one after another. True to the
/// clocks: on another machine than the server's it measures their difference too.
pub fn measure_changes(
    rest: Rest,
    clock: Arc<dyn Clock>,
    summary: Arc<Summary>,
    tracker: &TaskTracker,
) -> Observer {
    let (sender, mut arrivals) = mpsc::channel::<(Serial, u64, DateTime<Utc>)>(LOOKUPS);
    let asking = Arc::clone(&summary);
    tracker.spawn(async move {
        while let Some((serial, version, arrived)) = arrivals.recv().await {
            match rest.version_made_at(&serial, version).await {
                Ok(made) => {
                    if let Ok(took) = arrived.signed_duration_since(made).to_std() {
                        asking.change_took(took);
                    }
                }
                Err(error) => tracing::debug!(%serial, version, %error, "cannot look up a version"),
            }
        }
    });
    Arc::new(move |serial: &Serial, event: &Event| {
        if let Event::Settings {
            version,
            after_subscribe: None,
            ..
        } = event
        {
            // A full queue means that enough is being measured.
            let _ = sender.try_send((serial.clone(), *version, clock.now()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_sort_as_they_count() {
        let serials = serials("SIM-", 12).unwrap();
        assert_eq!(serials[0].as_str(), "SIM-00001");
        assert_eq!(serials[11].as_str(), "SIM-00012");
        assert!(serials.is_sorted());
        assert!(super::serials("-", 1).is_err());
    }
}
