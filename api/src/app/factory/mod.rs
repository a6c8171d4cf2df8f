//! What the factory knows of serials, told in files.
//!
//! A file is read line by line into a staging table, and takes effect as a whole or not at all: a task checks it
//! against the models and switches it in one transaction. So a file of any length needs little memory, and a crash
//! at any moment leaves an import that is finished later, or nothing.

mod lines;

use std::{io::Read, sync::Arc};

use chrono::TimeDelta;
use setpoint_model::{
    Clock, Serial,
    device::{DEFAULT_MODEL, Description},
};
use setpoint_store::{
    Store,
    factory::{Import, LineError, NewImport},
};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::{Actor, App, Error, audit, policy::Action, tokens::new_id};
use crate::config;
use lines::{Batch, Unreadable};

/// The most errors of an import that are told; all are counted.
pub const MAX_ERRORS: usize = 100;
/// Batches between who reads the file and who stages it.
const BATCHES: usize = 2;
/// How long the outcome of an import can be asked for, in days.
const KEPT: i64 = 30;
/// After how many hours an import whose lines stopped coming is forgotten.
const ABANDONED: i64 = 1;

/// What imports need beside the database.
#[derive(Debug)]
pub struct Factory {
    config: config::Factory,
    places: Arc<Semaphore>,
}

impl Factory {
    /// With these limits.
    pub fn new(config: config::Factory) -> Self {
        let places = Arc::new(Semaphore::new(config.max_imports));
        Self { config, places }
    }
}

/// How a file is to be read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Whether to look only.
    pub dry_run: bool,
    /// The model of lines that name none.
    pub model: String,
    /// The largest file, in bytes.
    pub max_bytes: u64,
}

impl App {
    /// Takes a CSV file of serials in. Once all its lines are there this answers, and a task checks them and lets them
    /// take effect together.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`; [`Error::Invalid`] (by column) for a header that won't do;
    /// [`Error::Malformed`] when the file breaks off; [`Error::TooLarge`]; [`Error::TooManyAttempts`] while as many
    /// imports as may are coming in.
    pub async fn import_serials(
        &self,
        actor: &Actor,
        file: impl Read + Send + 'static,
        dry_run: bool,
        model: Option<String>,
    ) -> Result<Import, Error> {
        self.authorize_all(actor, Action::ImportSerials)?;
        let limits = &self.factory.config;
        let place = Arc::clone(&self.factory.places).try_acquire_owned();
        let _place = place.map_err(|_| Error::TooManyAttempts {
            after: limits.retry_after,
        })?;
        let reading = Reading {
            dry_run,
            model: model.unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
            max_bytes: limits.max_import,
        };
        let id = receive(&self.store, &*self.clock, actor, file, reading, |_| {}).await?;
        self.hints.factory.everything();
        self.store.import(id).await?.ok_or(NOT_FOUND)
    }

    /// An import as it stands.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:write`, [`Error::NotFound`].
    pub async fn serial_import(&self, actor: &Actor, id: Uuid) -> Result<Import, Error> {
        self.authorize_all(actor, Action::ImportSerials)?;
        self.store.import(id).await?.ok_or(NOT_FOUND)
    }

    /// Brings every import whose lines are all there to its end; how many there were.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Contended`]; they wait on.
    pub async fn settle_imports(&self) -> Result<usize, Error> {
        let mut settled = 0;
        while settle(&self.store, &*self.clock).await?.is_some() {
            settled += 1;
        }
        Ok(settled)
    }

    /// What the factory says of a serial's device; of one that it doesn't know, nothing but `model`.
    pub(super) async fn factory_description(
        &self,
        serial: &Serial,
        model: &str,
    ) -> Result<Description, Error> {
        let factory = self.store.factory_serial(serial).await?;
        Ok(match factory {
            Some(factory) => Description {
                name: factory.name,
                model: factory.model,
                tags: factory.tags,
                ..Description::default()
            },
            None => Description {
                model: model.to_owned(),
                ..Description::default()
            },
        })
    }

    /// Forgets imports that ended long ago, and those that nothing came of.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn forget_imports(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let (ended, begun) = (now - TimeDelta::days(KEPT), now - TimeDelta::hours(ABANDONED));
        Ok(self.store.remove_old_imports(ended, begun).await?)
    }
}

const NOT_FOUND: Error = Error::NotFound { what: "import" };

/// Reads a file into the staging table, telling `progress` how many lines are there; the id of the import, which waits
/// to be settled. Nothing is left of one that fails.
///
/// # Errors
/// As [`App::import_serials`], who may it aside.
pub async fn receive(
    store: &Store,
    clock: &dyn Clock,
    actor: &Actor,
    file: impl Read + Send + 'static,
    reading: Reading,
    mut progress: impl FnMut(i64) + Send,
) -> Result<Uuid, Error> {
    let now = clock.now();
    let new = NewImport {
        id: new_id(now),
        dry_run: reading.dry_run,
        entry: audit::entry(actor, Action::ImportSerials.name(), "", now),
    };
    store.begin_import(&new).await?;
    let (batches, received) = mpsc::channel(BATCHES);
    // CSV is read as it comes, which blocks; who sends it slowly holds up this thread alone.
    let reader = tokio::task::spawn_blocking(move || lines::read(file, &reading, &batches));
    let staged = stage(store, new.id, received, &mut progress).await;
    // Without a receiver the reader comes to its end.
    let read = reader.await.map_err(Error::internal)?;
    let outcome = match (staged, read) {
        (Err(error), _) => Err(error),
        (Ok(()), Err(unreadable)) => Err(unreadable.into()),
        (Ok(()), Ok(())) => Ok(store.import_received(new.id).await?),
    };
    if outcome.is_err() {
        // It is forgotten in time, should this fail too.
        let _ = store.drop_import(new.id).await;
    }
    outcome.map(|()| new.id)
}

/// Settles one import; its id, or `None` if none waits.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Contended`]; it waits on.
pub async fn settle(store: &Store, clock: &dyn Clock) -> Result<Option<Uuid>, Error> {
    let most = i64::try_from(MAX_ERRORS).unwrap_or(i64::MAX);
    let action = Action::ImportSerials.name();
    let settled = store.settle_import(most, action, clock.now()).await?;
    if let Some(id) = settled {
        tracing::info!(import = %id, "import of serials settled");
    }
    Ok(settled)
}

/// Writes batches as they come.
async fn stage(
    store: &Store,
    id: Uuid,
    mut batches: mpsc::Receiver<Batch>,
    progress: &mut (impl FnMut(i64) + Send),
) -> Result<(), Error> {
    let (mut lines, mut told) = (0, 0);
    while let Some(batch) = batches.recv().await {
        let room = MAX_ERRORS.saturating_sub(told);
        let errors: &[LineError] = batch
            .errors
            .get(..room.min(batch.errors.len()))
            .unwrap_or_default();
        told += errors.len();
        if !store
            .stage_import(id, &batch.lines, batch.counted, batch.error_count, errors)
            .await?
        {
            return Err(NOT_FOUND);
        }
        lines += batch.counted;
        progress(lines);
    }
    Ok(())
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Column { column, message } => Self::invalid(column, message),
            Unreadable::TooLarge { limit } => Self::TooLarge {
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            },
            Unreadable::Broken(error) => Self::Malformed {
                message: format!("the file breaks off: {error}"),
            },
        }
    }
}
