//! Writes timeline entries in batches.

use std::time::Duration;

use setpoint_model::timeline::Entry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::gather::{ENOUGH, gather};
use crate::app::App;

/// Entries in one statement.
const STEP: usize = 5_000;

/// Pause before another attempt while Postgres is away; the bounded queue fills meanwhile, then drops.
const PAUSE: Duration = Duration::from_secs(1);

/// Empties `queue` until `stop`, then writes what is left and ends.
pub async fn run(app: App, mut queue: mpsc::Receiver<Entry>, stop: CancellationToken) {
    let mut entries = Vec::new();
    // A queue that is full drops.
    let enough = ENOUGH.min(queue.max_capacity() / 2);
    loop {
        if stop
            .run_until_cancelled(queue.recv_many(&mut entries, STEP))
            .await
            .is_none()
        {
            queue.close();
        }
        if entries.len() < STEP && !stop.is_cancelled() {
            gather(&stop, enough, || entries.len() + queue.len()).await;
        }
        while entries.len() < STEP {
            match queue.try_recv() {
                Ok(entry) => entries.push(entry),
                Err(_) => break,
            }
        }
        if entries.is_empty() {
            return;
        }
        while let Err(error) = app.store.write_timeline(&entries).await {
            if !error.is_unavailable() {
                tracing::error!(
                    entries = entries.len(),
                    error = &error as &dyn std::error::Error,
                    "timeline entries could not be written"
                );
                break;
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(PAUSE))
                .await
                .is_none()
            {
                tracing::warn!(
                    entries = entries.len(),
                    "stopped without Postgres; timeline entries are lost"
                );
                return;
            }
        }
        entries = Vec::new();
    }
}
