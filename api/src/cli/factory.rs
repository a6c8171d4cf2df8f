//! `setpoint factory`.

use std::{fs::File, path::PathBuf};

use clap::Subcommand;
use setpoint_model::{SystemClock, device::DEFAULT_MODEL};
use setpoint_store::{
    Store,
    factory::{Import, ImportState},
};

use super::{Failure, close, database, output};
use crate::{
    app::{Actor, factory},
    config::Config,
};

/// Tells what the factory knows of serials.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    setpoint factory import serials.csv --dry-run\n  \
    setpoint factory import serials.csv --model home\n\n\
    The file's first line names its columns: serial, and if wanted secret, model, name and tags\n\
    (\"site=oslo; floor=2\"). It takes effect as a whole or, if a line is wrong, not at all.")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Imports a CSV file of serials and secrets.
    Import {
        /// The file.
        file: PathBuf,
        /// Says what would happen, and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// The model of lines that name none.
        #[arg(long, default_value = DEFAULT_MODEL)]
        model: String,
    },
}

impl Args {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let What::Import { file, dry_run, model } = self.what;
        let opened =
            File::open(&file).map_err(|error| Failure::App(format!("{}: {error}", file.display())))?;
        let reading = factory::Reading {
            dry_run,
            model,
            max_bytes: u64::MAX,
        };
        let (store, embedded) = database(&config).await?;
        let outcome = import(&store, opened, reading).await;
        close(store, embedded).await;
        told(&outcome?)
    }
}

async fn import(store: &Store, file: File, reading: factory::Reading) -> Result<Import, Failure> {
    let actor = Actor::system("terminal");
    let progress = |lines| output::progress(format_args!("{lines} lines"));
    let received = factory::receive(store, &SystemClock, &actor, file, reading, progress).await;
    output::progress_ends();
    let id = received?;
    loop {
        // The server's task may be at it; another's import may come first.
        let settled = factory::settle(store, &SystemClock).await?;
        let import = store.import(id).await.map_err(crate::app::Error::from)?;
        let import = import.ok_or_else(|| Failure::App("the import is gone".to_owned()))?;
        if matches!(import.state, ImportState::Done | ImportState::Refused) {
            return Ok(import);
        }
        if settled.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

fn told(import: &Import) -> Result<(), Failure> {
    for error in &import.errors {
        output::say(format_args!(
            "line {}: {}: {}",
            error.line, error.field, error.message
        ));
    }
    if import.state == ImportState::Refused {
        let lines = import.lines;
        let errors = import.error_count;
        return Err(Failure::App(format!(
            "{errors} errors in {lines} lines; nothing was changed"
        )));
    }
    let (added, replaced) = (import.added, import.replaced);
    output::say(if import.dry_run {
        format!("{added} serials would be added, {replaced} replaced")
    } else {
        format!("{added} serials added, {replaced} replaced")
    });
    Ok(())
}
