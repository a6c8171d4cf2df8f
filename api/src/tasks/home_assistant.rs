//! Tells Home Assistant of devices: makes the retained discovery documents agree with the database.
//!
//! Every server has all of them in its own broker and makes them from what the database says of devices and models, so
//! there is nothing to claim. A device that goes, or whose model asks for it no more, has its document cleared by an empty
//! one, from which Home Assistant knows that it is gone.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use setpoint_broker::{Outgoing, QoS, ShuttingDown};
use setpoint_model::{
    Channel, DeviceId, Serial, Topic,
    models::home_assistant::{self, Shown},
};
use setpoint_store::{home_assistant::ShownDevice, models::Model};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Devices read at once.
const PAGE: i64 = 1_000;
/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Store(#[from] setpoint_store::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    ShuttingDown(#[from] ShuttingDown),
}

/// What a document was made from.
#[derive(Debug, PartialEq, Eq)]
struct Basis {
    device: DeviceId,
    name: String,
    model: String,
    version: i32,
}

/// What is in place: by serial what it was made from, and the round that last found it right.
type Told = HashMap<Serial, (Basis, u64)>;

/// Tells until `stop`: on a hint, and `every` so often.
pub async fn run(app: App, every: Duration, stop: CancellationToken) {
    let mut told = Told::new();
    let rounds = async {
        for round in 1.. {
            if let Err(error) = tell(&app, &mut told, round).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "Home Assistant waits to be told of devices"
                );
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            // Whichever comes first; a round looks at everything.
            let _ = tokio::time::timeout(every, app.hints.home_assistant.next()).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
}

async fn tell(app: &App, told: &mut Told, round: u64) -> Result<(), Interrupted> {
    for model in app.store.home_assistant_models().await? {
        let mut after = String::new();
        loop {
            let page = app.store.shown_devices(&model.name, &after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.serial.as_str().to_owned();
            for device in page {
                tell_of(app, told, round, &model, device).await?;
            }
        }
    }
    let gone = told.iter().filter(|(_, (_, seen))| *seen != round);
    let gone: Vec<Serial> = gone.map(|(serial, _)| serial.clone()).collect();
    for serial in gone {
        publish(app, &serial, Bytes::new()).await?;
        told.remove(&serial);
        tracing::debug!(%serial, "Home Assistant forgets a device");
    }
    Ok(())
}

async fn tell_of(
    app: &App,
    told: &mut Told,
    round: u64,
    model: &Model,
    device: ShownDevice,
) -> Result<(), Interrupted> {
    let ShownDevice { id, serial, name } = device;
    let basis = Basis {
        device: id,
        name,
        model: model.name.clone(),
        version: model.version,
    };
    if let Some((before, seen)) = told.get_mut(&serial)
        && *before == basis
    {
        *seen = round;
        return Ok(());
    }
    let shown = Shown {
        serial: &serial,
        name: &basis.name,
        model: &basis.model,
    };
    let document = home_assistant::document(shown, &model.definition);
    publish(app, &serial, serde_json::to_vec(&document)?.into()).await?;
    told.insert(serial, (basis, round));
    Ok(())
}

/// Puts a document in place; an empty one clears it.
async fn publish(app: &App, serial: &Serial, payload: Bytes) -> Result<(), ShuttingDown> {
    let message = Outgoing {
        topic: Topic::new(serial.clone(), Channel::Discovery),
        payload,
        qos: QoS::AtLeastOnce,
        retain: true,
        receipt: None,
    };
    app.broker.publish(message).await
}
