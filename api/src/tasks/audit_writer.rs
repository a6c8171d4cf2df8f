//! Writes refusals to the audit log, in batches.

use setpoint_store::audit::NewEntry;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Entries written at once.
const BATCH: usize = 256;

/// Runs until `stop`, then writes what is left.
pub async fn run(app: App, mut queue: Receiver<NewEntry>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let more = stop.run_until_cancelled(queue.recv_many(&mut batch, BATCH)).await;
        if more.is_none() {
            queue.close();
            queue.recv_many(&mut batch, BATCH).await;
        }
        if !batch.is_empty()
            && let Err(error) = app.store.insert_audit(&batch).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                entries = batch.len(),
                "refusals were not written to the audit log"
            );
        }
        batch.clear();
        if more.is_none_or(|taken| taken == 0) {
            return;
        }
    }
}
