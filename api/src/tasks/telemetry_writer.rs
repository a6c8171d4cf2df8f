//! Commits telemetry in batches, and tells each sender when its samples are safe.
//!
//! Measured (`cargo bench -p setpoint-store`): COPY straight into the table is twice as fast as UNNEST or a staged
//! merge, but one duplicate refuses the whole batch. Duplicates come in spells, when devices repeat what was not
//! acknowledged before a cut, so the writer copies, and after a duplicate merges for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::Days;
use setpoint_model::{Clock, telemetry::Reason};
use setpoint_store::{Error, Store, telemetry::Rows};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::partitions;
use crate::{
    app::{
        App,
        telemetry::{Batch, Metrics},
    },
    config,
};

/// After a duplicate, this many commits go by the staging table.
const MERGES_AFTER_DUPLICATE: u32 = 32;

/// A commit is not cut smaller than this many rows: its own cost would show.
const SMALLEST_SHARE: usize = 500;

/// Pauses between attempts while Postgres is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Empties `queue` until `stop`, then commits what is left and ends.
pub async fn run(app: App, queue: mpsc::Receiver<Batch>, config: config::Telemetry, stop: CancellationToken) {
    let writer = Writer {
        store: app.store.clone(),
        clock: Arc::clone(&app.clock),
        metrics: app.ingest.metrics().clone(),
        merges: AtomicU32::new(0),
        stop,
    };
    drop(app);
    writer.run(queue, &config).await;
}

/// The batches of the next commit: whatever has come, and what comes until `not_before`, as long as it is less than
/// `enough` rows. `None` when the queue is closed and empty.
async fn collect(
    queue: &mut mpsc::Receiver<Batch>,
    enough: usize,
    not_before: Instant,
    stop: &CancellationToken,
) -> Option<Vec<Batch>> {
    let first = tokio::select! {
        biased;
        () = stop.cancelled(), if !queue.is_closed() => {
            // Senders learn that it is over; what they have sent is still there.
            queue.close();
            queue.recv().await?
        }
        first = queue.recv() => first?,
    };
    let mut count = first.rows.len();
    let mut batches = vec![first];
    while count < enough {
        let Ok(Some(batch)) = timeout_at(not_before, queue.recv()).await else {
            break;
        };
        count += batch.rows.len();
        batches.push(batch);
    }
    Some(batches)
}

struct Writer {
    store: Store,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// How many of the next commits go by the staging table.
    merges: AtomicU32,
    stop: CancellationToken,
}

/// Why rows were not committed.
enum Failure {
    /// The database refuses them.
    Refused(Error),
    /// The server stops while the database is away: they stay unacknowledged.
    Stopping,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Batch>, config: &config::Telemetry) {
        let writer = Arc::new(self);
        let free = Arc::new(Semaphore::new(config.writers));
        let commits = TaskTracker::new();
        // A lone sample is committed at once; under load there is a commit per `batch_wait`, unless one is full.
        let mut not_before = Instant::now();
        loop {
            // First a free writer, then the batches: what comes meanwhile is committed together.
            let Ok(turn) = Arc::clone(&free).acquire_owned().await else {
                break;
            };
            let enough = writer.share(config);
            let Some(batches) = collect(&mut queue, enough, not_before, &writer.stop).await else {
                break;
            };
            not_before = Instant::now() + config.batch_wait;
            let writer = Arc::clone(&writer);
            commits.spawn(async move {
                writer.commit(batches).await;
                drop(turn);
            });
        }
        commits.close();
        commits.wait().await;
    }

    /// How many rows one commit takes of those that are outstanding. With all of them, devices that wait for their
    /// acknowledgements and Postgres would take turns; in shares, both are always busy.
    fn share(&self, config: &config::Telemetry) -> usize {
        let outstanding = usize::try_from(self.metrics.queued.get()).unwrap_or(0);
        (outstanding / config.writers).clamp(SMALLEST_SHARE.min(config.batch_rows), config.batch_rows)
    }

    /// Commits the batches together and completes their receipts.
    async fn commit(&self, batches: Vec<Batch>) {
        let begun = Instant::now();
        let rows = Rows::gather(batches.iter().map(|batch| &batch.rows));
        let count = rows.len();
        let result = self.write(&rows).await;
        drop(rows);
        match result {
            Ok(()) => {
                self.metrics.stored.inc_by(count as u64);
                self.metrics
                    .batch_rows
                    .observe(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
                self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                batches.into_iter().for_each(|batch| batch.stored());
            }
            Err(Failure::Refused(_)) => self.commit_one_by_one(batches).await,
            Err(Failure::Stopping) => {
                tracing::warn!(
                    samples = count,
                    "stopped without Postgres; these samples stay unacknowledged"
                );
            }
        }
    }

    /// Finds the batch that the database refuses; the others are committed.
    async fn commit_one_by_one(&self, batches: Vec<Batch>) {
        for batch in batches {
            let count = batch.rows.len() as u64;
            match self.write(&batch.rows).await {
                Ok(()) => {
                    self.metrics.stored.inc_by(count);
                    batch.stored();
                }
                Err(Failure::Refused(error)) => {
                    tracing::error!(
                        samples = count,
                        error = &error as &dyn std::error::Error,
                        "the database refuses samples for good"
                    );
                    self.metrics.rejected(Reason::Database, batch.rows.len());
                    batch.refused();
                }
                Err(Failure::Stopping) => return,
            }
        }
    }

    /// Writes the rows, for ever if need be.
    async fn write(&self, rows: &Rows) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        let mut partitions_made = false;
        loop {
            match self.attempt(rows).await {
                Ok(()) => return Ok(()),
                // Either no partition covers a time, which can be helped, or a value breaks a rule.
                Err(error @ Error::Invalid { .. }) if partitions_made => return Err(Failure::Refused(error)),
                Err(Error::Invalid { .. }) => partitions_made = self.make_partitions().await,
                Err(Error::Contended(_)) => {}
                Err(error) => {
                    tracing::warn!(
                        samples = rows.len(),
                        error = &error as &dyn std::error::Error,
                        "telemetry waits for Postgres"
                    );
                }
            }
            self.metrics.retried.inc();
            if self
                .stop
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                // One last attempt without waiting, then the devices keep what they have.
                return self.attempt(rows).await.map_err(|_| Failure::Stopping);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, rows: &Rows) -> Result<(), Error> {
        let merging = self
            .merges
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if merging.is_err() {
            match self.store.append_telemetry(rows).await {
                Ok(_) => return Ok(()),
                Err(Error::Conflict { .. }) => self.merges.store(MERGES_AFTER_DUPLICATE, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        self.metrics.merged.inc();
        self.store.merge_telemetry(rows).await.map(drop)
    }

    async fn make_partitions(&self) -> bool {
        let today = self.clock.now().date_naive();
        let until = today + Days::new(partitions::DAYS_AHEAD);
        match self.store.make_telemetry_partitions(today, until).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no telemetry partition could be made"
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
