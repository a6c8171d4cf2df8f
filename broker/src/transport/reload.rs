//! A listener's certificates in force, and how they are replaced while it runs.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    certificate::Summary,
    tls::{Files, LoadError, Loaded},
};

/// How often [`Certificates::watch`] looks at the files, unless told otherwise.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// The certificates of one TLS listener.
///
/// New handshakes use what [`Self::reload`] loaded last; connections that live are not touched by it.
#[derive(Debug)]
pub struct Certificates {
    files: Files,
    current: watch::Sender<Loaded>,
    /// The files' state before the last attempt to load them, so that a broken one is tried and logged once.
    tried: Mutex<Stamps>,
}

impl Certificates {
    /// Loads the files for the first time. Blocks on file access.
    ///
    /// # Errors
    ///
    /// [`LoadError`], whose text is fit for the person who starts the server.
    pub fn load(files: Files) -> Result<Arc<Self>, LoadError> {
        let tried = Mutex::new(Stamps::read(&files));
        let loaded = files.load()?;
        log(&loaded.summary);
        Ok(Arc::new(Self {
            files,
            current: watch::Sender::new(loaded),
            tried,
        }))
    }

    /// Loads the files again, for SIGHUP. Blocks on file access.
    ///
    /// Logs what came of it: one line, at error level if the files are not usable.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; the certificates in force stay so.
    pub fn reload(&self) -> Result<(), LoadError> {
        // Before the files are read: a change in between is then seen by the next look.
        let stamps = Stamps::read(&self.files);
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        match self.files.load() {
            Ok(loaded) => {
                log(&loaded.summary);
                self.current.send_replace(loaded);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "TLS certificates not reloaded; the old ones stay in force");
                Err(error)
            }
        }
    }

    /// Reloads whenever a file has changed, until `stop`. Looks every `interval` (commonly [`INTERVAL`]).
    ///
    /// It polls because that also sees what file notification misses: a symbolic link that moves, as Kubernetes
    /// and certbot do it, and network file systems. A change must have rested for one interval before it is
    /// loaded, as certificate and key are never replaced in one step.
    pub async fn watch(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        let mut changed = None;
        while stop
            .run_until_cancelled(tokio::time::sleep(interval))
            .await
            .is_some()
        {
            let this = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || this.look(changed.take()));
            // A panic or shutdown in there: nothing known, so look again.
            changed = look.await.unwrap_or_default();
        }
    }

    /// One look at the files: reloads them if they changed and rest, otherwise tells how they changed.
    pub(super) fn look(&self, before: Option<Stamps>) -> Option<Stamps> {
        let now = Stamps::read(&self.files);
        if now == *self.tried.lock().unwrap_or_else(PoisonError::into_inner) {
            return None;
        }
        if before.as_ref() != Some(&now) {
            return Some(now);
        }
        // Logged there; the next change is the next chance.
        let _ = self.reload();
        None
    }

    /// What the server presents to new clients.
    pub fn summary(&self) -> Summary {
        self.current.borrow().summary.clone()
    }

    /// Tells of each successful reload.
    pub fn reloads(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.current.subscribe();
        async move {
            // An error means that the certificates are gone, hence no reload will come.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The configuration for a handshake that begins now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().config)
    }
}

fn log(summary: &Summary) {
    let Summary {
        subject,
        serial_number,
        not_after,
        valid_now,
    } = summary;
    if *valid_now {
        tracing::info!(%subject, %serial_number, %not_after, "TLS certificate loaded");
    } else {
        tracing::warn!(%subject, %serial_number, %not_after, "TLS certificate is expired or not yet valid");
    }
}

/// What changes when a file is replaced or rewritten; `None` for a file that isn't there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// The file behind a path: inode, length, time of last change. The inode tells a replacement apart that came within
/// one tick of the file system's clock.
type Stamp = (u64, u64, Option<SystemTime>);

impl Stamps {
    fn read(files: &Files) -> Self {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
        };
        Self(files.paths().map(stamp).collect())
    }
}
