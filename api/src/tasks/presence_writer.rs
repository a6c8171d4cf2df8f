//! Writes who is connected, many devices in one statement.

use std::time::Duration;

use setpoint_broker::{Outgoing, QoS};
use setpoint_model::{Channel, DeviceId, Serial, Topic, presence::DisconnectReason};
use setpoint_store::{
    Error,
    presence::{PresenceChange, StoredPresence},
};
use tokio_util::sync::CancellationToken;

use super::gather::{ENOUGH, gather};
use crate::app::{self, App};

/// Devices in one statement.
const STEP: usize = 5_000;

/// Devices read at once at a start.
const PAGE: i64 = 5_000;

/// How often a start looks for whether another server that has devices online is alive, and how long it waits between.
const ATTEMPTS: usize = 5;
const BETWEEN: Duration = Duration::from_millis(60);

/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes offline what servers that are no more left online. Returns how many devices.
///
/// # Errors
/// When the database fails.
pub async fn take_over(app: &App) -> Result<u64, Error> {
    let reason = DisconnectReason::ServerStopped;
    let devices = app
        .store
        .take_over_presence(app.presence.server(), reason, app.clock.now())
        .await?;
    if devices > 0 {
        tracing::warn!(
            devices,
            "a server stopped without notice; its devices are offline"
        );
    }
    Ok(devices)
}

/// The same, before the first session: a server that was killed this moment may still look alive.
///
/// # Errors
/// When the database fails.
pub async fn take_over_at_start(app: &App) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        take_over(app).await?;
        if !app.store.others_have_online(app.presence.server()).await? {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(())
}

/// Puts every retained presence in its place: before the first session. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn restore(app: &App) -> Result<usize, app::Error> {
    let (mut after, mut restored) = (DeviceId(0), 0);
    loop {
        let page = app.store.presence_page(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(restored);
        };
        after = last.device_id;
        restored += page.len();
        for StoredPresence { serial, presence, .. } in page {
            let message = Outgoing {
                topic: Topic::new(serial, Channel::Presence),
                payload: serde_json::to_vec(&presence)
                    .map_err(app::Error::internal)?
                    .into(),
                qos: QoS::AtLeastOnce,
                retain: true,
                receipt: None,
            };
            app.broker.restore(message).await.map_err(app::Error::internal)?;
        }
    }
}

/// Writes changes until `stop`, then the last ones, and takes offline whatever is left.
pub async fn run(app: App, stop: CancellationToken) {
    while stop.run_until_cancelled(app.presence.waiting()).await.is_some() {
        gather(&stop, ENOUGH, || app.presence.count()).await;
        if let Err(error) = flush(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "presence waits for Postgres"
            );
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }
    let ended = async {
        flush(&app).await?;
        let reason = DisconnectReason::ServerShutdown;
        app.store
            .end_presence(app.presence.server(), reason, app.clock.now())
            .await
    };
    if let Err(error) = ended.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "stopped without Postgres; the next start finds who was online"
        );
    }
}

/// Writes all that is waiting; what can't be written waits on.
async fn flush(app: &App) -> Result<(), Error> {
    let mut taken = app.presence.take();
    let changes: Vec<PresenceChange> = taken.changes.values().cloned().collect();
    let seen: Vec<_> = taken
        .seen
        .iter()
        .map(|(serial, at)| (serial.clone(), *at))
        .collect();
    let done: Result<(), Error> = async {
        for step in changes.chunks(STEP) {
            app.store.write_presence(app.presence.server(), step).await?;
            step.iter()
                .for_each(|change| forget(&mut taken.changes, &change.serial));
        }
        for step in seen.chunks(STEP) {
            app.store.write_last_seen(app.presence.server(), step).await?;
            step.iter()
                .for_each(|(serial, _)| forget(&mut taken.seen, serial));
        }
        Ok(())
    }
    .await;
    if done.is_err() {
        app.presence.put_back(taken);
    }
    done
}

fn forget<T>(waiting: &mut std::collections::HashMap<Serial, T>, serial: &Serial) {
    waiting.remove(serial);
}
