//! Settles devices' acknowledgements: what comes in during one commit is the next batch.

use std::time::Duration;

use setpoint_broker::Outcome;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Error, settings::Acknowledgement};

/// Acknowledgements in one transaction.
const STEP: usize = 256;

/// Pause before another attempt while Postgres is away; devices wait meanwhile, unacknowledged.
const PAUSE: Duration = Duration::from_millis(500);

/// Settles until `stop`, then what has come in by then. What can't be settled for want of Postgres is dropped
/// unanswered, and the devices send it again.
pub async fn run(app: App, mut queue: mpsc::Receiver<Acknowledgement>, stop: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        if stop
            .run_until_cancelled(queue.recv_many(&mut batch, STEP))
            .await
            .is_none()
        {
            queue.close();
            while batch.len() < STEP {
                match queue.try_recv() {
                    Ok(acknowledgement) => batch.push(acknowledgement),
                    Err(_) => break,
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        while let Err(error) = app.settle(&mut batch).await {
            if !error.is_temporary() {
                settle_one_by_one(&app, &mut batch, &error).await;
                break;
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "acknowledgements wait for Postgres"
            );
            if stop
                .run_until_cancelled(tokio::time::sleep(PAUSE))
                .await
                .is_none()
            {
                return;
            }
        }
    }
}

/// Finds the acknowledgement that a batch failed for, so that it holds up no other.
async fn settle_one_by_one(app: &App, batch: &mut Vec<Acknowledgement>, error: &Error) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        batch = batch.len(),
        "a batch of acknowledgements failed; settling each by itself"
    );
    for acknowledgement in std::mem::take(batch) {
        let mut one = vec![acknowledgement];
        if let Err(error) = app.settle(&mut one).await {
            for Acknowledgement { serial, done, .. } in one {
                tracing::error!(%serial, error = &error as &dyn std::error::Error, "an acknowledgement failed");
                done.complete(Outcome::Invalid("internal error".to_owned()));
            }
        }
    }
}
