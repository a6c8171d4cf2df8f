//! Writes timeline entries in batches.

use std::time::Duration;

use setpoint_broker::{Ack, Outcome};
use setpoint_model::timeline::Entry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::gather::{ENOUGH, gather};
use crate::app::{App, timeline::Noted};

/// Entries in one statement.
const STEP: usize = 5_000;

/// Pause before another attempt while Postgres is away; the bounded queue fills meanwhile, then drops.
const PAUSE: Duration = Duration::from_secs(1);

/// Empties `queue` until `stop`, then writes what is left and ends.
pub async fn run(app: App, mut queue: mpsc::Receiver<Noted>, stop: CancellationToken) {
    let mut noted = Vec::new();
    // A queue that is full drops.
    let enough = ENOUGH.min(queue.max_capacity() / 2);
    loop {
        if stop
            .run_until_cancelled(queue.recv_many(&mut noted, STEP))
            .await
            .is_none()
        {
            queue.close();
        }
        if noted.len() < STEP && !stop.is_cancelled() {
            let held = noted.len();
            gather(&stop, enough, || held + queue.len()).await;
        }
        while noted.len() < STEP {
            match queue.try_recv() {
                Ok(entry) => noted.push(entry),
                Err(_) => break,
            }
        }
        if noted.is_empty() {
            return;
        }
        let (entries, waiting): (Vec<Entry>, Vec<Option<Ack>>) =
            noted.into_iter().map(|noted| (noted.entry, noted.done)).unzip();
        let mut outcome = Outcome::Accepted;
        while let Err(error) = app.store.write_timeline(&entries).await {
            if !error.is_unavailable() {
                tracing::error!(
                    entries = entries.len(),
                    error = &error as &dyn std::error::Error,
                    "timeline entries could not be written"
                );
                outcome = Outcome::Invalid("it could not be stored".to_owned());
                break;
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(PAUSE))
                .await
                .is_none()
            {
                tracing::warn!(
                    entries = entries.len(),
                    "stopped without Postgres; timeline entries are lost, but for those that stay unacknowledged"
                );
                return;
            }
        }
        for done in waiting.into_iter().flatten() {
            done.complete(outcome.clone());
        }
        noted = Vec::new();
    }
}
