//! `setpoint token`.

use std::time::Duration;

use chrono::TimeDelta;
use clap::Subcommand;
use setpoint_model::{Clock, Scope, SystemClock};

use super::{Failure, close, database, output};
use crate::{
    app::{Actor, tokens},
    config::Config,
};

/// Makes API tokens; REST lists and deletes them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    setpoint token add ci --scope devices:read --scope settings:write --expires 90days\n  \
    setpoint token add prometheus --scope metrics:read")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes a token and prints it, this once.
    Add {
        /// What it is called.
        name: String,
        /// What it may do; may be given several times.
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// How long it holds, such as 90days; for ever without it.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
}

impl Args {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let What::Add {
            name,
            scopes,
            expires,
        } = self.what;
        let expires_at = match expires {
            Some(after) => {
                let end = TimeDelta::from_std(after).ok();
                let end = end.and_then(|after| SystemClock.now().checked_add_signed(after));
                Some(end.ok_or_else(|| Failure::App("--expires: too long".to_owned()))?)
            }
            None => None,
        };
        let new = tokens::NewToken {
            name,
            scopes,
            expires_at,
        };
        let (store, embedded) = database(&config).await?;
        let made = tokens::create_token(&store, &SystemClock, &Actor::system("terminal"), new).await;
        close(store, embedded).await;
        let (_, secret) = made?;
        output::say(secret.reveal());
        Ok(())
    }
}
