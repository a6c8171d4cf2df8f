//! Publishes settings: makes the retained documents agree with the database.
//!
//! One task, so that versions of a device go out in their order. A claim that is lost with the process is made good
//! by the next start, which puts every document back.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use setpoint_broker::{Outgoing, QoS, ShuttingDown};
use setpoint_model::{Channel, DeviceId, Topic, event::SettingsStage, settings::Document};
use setpoint_store::settings::DueSettings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Error, Look},
    lifecycle::Pulse,
};

/// Documents claimed at once.
const STEP: usize = 500;
/// Documents read at once at a start.
const PAGE: i64 = 5_000;
/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Store(#[from] setpoint_store::Error),
    #[error(transparent)]
    App(#[from] Error),
    #[error(transparent)]
    ShuttingDown(#[from] ShuttingDown),
}

/// Puts every retained document in its place: before the server says that it is ready. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn restore(app: &App) -> Result<usize, Error> {
    let (mut after, mut restored) = (DeviceId(0), 0);
    loop {
        let page = app.store.settings_page(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.device_id;
        restored += page.len();
        for due in page {
            app.broker
                .restore(outgoing(due)?)
                .await
                .map_err(Error::internal)?;
        }
    }
    tracing::info!(devices = restored, "settings are in place");
    Ok(restored)
}

/// Puts the documents of these devices in their place, from where they reach the devices that are connected here:
/// another server published them.
///
/// # Errors
/// When the database fails.
pub async fn restore_these(app: &App, devices: &[i64]) -> Result<(), Error> {
    for due in app.store.settings_of(devices).await? {
        let restored = app.broker.restore(outgoing(due)?).await;
        restored.map_err(Error::internal)?;
    }
    Ok(())
}

/// Publishes what is due until `stop`: on a hint, and `every` so often whatever the hints. `pulse` beats each round.
pub async fn run(app: App, every: Duration, pulse: Pulse, stop: CancellationToken) {
    // What the server before this one left unpublished.
    let mut look = Look::Everywhere;
    let mut looked_everywhere = Instant::now();
    loop {
        let round = async {
            if let Err(error) = publish(&app, &look).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "settings wait to be published"
                );
                // The devices of this hint are found again by the look everywhere.
                app.hints.settings.everything();
                tokio::time::sleep(PAUSE).await;
            }
            pulse.beat();
            let deadline = looked_everywhere + every;
            if deadline <= Instant::now() {
                return Look::Everywhere;
            }
            tokio::time::timeout_at(deadline, app.hints.settings.next())
                .await
                .unwrap_or(Look::Everywhere)
        };
        match stop.run_until_cancelled(round).await {
            Some(next) => look = next,
            None => return,
        }
        if look == Look::Everywhere {
            looked_everywhere = Instant::now();
        }
    }
}

async fn publish(app: &App, look: &Look) -> Result<(), Interrupted> {
    match look {
        Look::At(devices) => {
            for devices in devices.chunks(STEP) {
                let epoch = app.credentials.epoch();
                let due = app.store.claim_due_settings(devices).await?;
                send(app, due, epoch).await?;
            }
            Ok(())
        }
        Look::Everywhere => loop {
            let epoch = app.credentials.epoch();
            let limit = i64::try_from(STEP).unwrap_or(i64::MAX);
            let due = app.store.claim_any_due_settings(limit).await?;
            if due.is_empty() {
                return Ok(());
            }
            send(app, due, epoch).await?;
        },
    }
}

/// Publishes claimed documents; `epoch` is from before they were claimed.
async fn send(app: &App, due: Vec<DueSettings>, epoch: u64) -> Result<(), Interrupted> {
    let devices: Vec<i64> = due.iter().map(|due| due.device_id.0).collect();
    for due in due {
        let (serial, version) = (due.serial.clone(), due.version);
        let at = app.clock.now();
        app.broker.publish(outgoing(due)?).await?;
        app.settings.marks.published(&serial, version, at);
        app.events
            .settings(&serial, version, SettingsStage::Published, at, json!({}));
        app.settings.metrics.published.inc();
        tracing::debug!(%serial, version, "settings published");
        // Deleted between the claim and now? Then its retained messages may have been cleared too early.
        if !app.credentials.is_current(&serial, epoch) && app.store.device_id(&serial).await?.is_none() {
            app.broker.clear_retained(&serial);
        }
    }
    // After one's own devices, who needn't wait for it. The claim is made, so it is told for as long as it takes.
    while app.peers.any()
        && let Err(error) = app.store.tell_settings(&devices).await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "other servers wait to be told of settings"
        );
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn outgoing(due: DueSettings) -> Result<Outgoing, Error> {
    Ok(Outgoing {
        payload: payload(due.version, &due.document)?,
        topic: Topic::new(due.serial, Channel::Settings),
        qos: QoS::AtLeastOnce,
        retain: true,
        receipt: u64::try_from(due.version).ok(),
    })
}

/// `{"version":42,"settings":{...}}`.
fn payload(version: i64, settings: &Document) -> Result<Bytes, Error> {
    #[derive(Serialize)]
    struct Payload<'a> {
        version: i64,
        settings: &'a Document,
    }
    serde_json::to_vec(&Payload { version, settings })
        .map(Bytes::from)
        .map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_the_version_and_the_whole_document() {
        let settings = Document::from_iter([
            ("privacyMode".to_owned(), true.into()),
            ("reportInterval".to_owned(), 60.into()),
        ]);
        let expected = r#"{"version":42,"settings":{"privacyMode":true,"reportInterval":60}}"#;
        assert_eq!(payload(42, &settings).unwrap(), expected);
    }
}
