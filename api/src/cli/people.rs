//! `setpoint user`.

use clap::Subcommand;
use setpoint_model::{Clock, Role, SystemClock};

use super::{Failure, close, database, output};
use crate::{
    app::{
        Actor,
        totp::reset_totp,
        users::{self, NewUser},
    },
    config::Config,
};

/// Adds people, changes their passwords and ends their second factor. A password is read from stdin.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    setpoint user add anna --role operator\n  \
    echo \"$PASSWORD\" | setpoint user passwd anna\n  \
    setpoint user reset-totp anna")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Adds a person.
    Add {
        /// The name they sign in with.
        username: String,
        /// What they may do: admin, operator, viewer or owner.
        #[arg(long, default_value = "viewer")]
        role: Role,
        /// Their e-mail address.
        #[arg(long)]
        email: Option<String>,
    },
    /// Gives a person another password.
    Passwd {
        /// Their name.
        username: String,
    },
    /// Ends the second factor of a person who lost it.
    ResetTotp {
        /// Their name.
        username: String,
    },
}

impl Args {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let password = match &self.what {
            What::Add { .. } | What::Passwd { .. } => output::read_secret("Password")?,
            What::ResetTotp { .. } => String::new(),
        };
        let (store, embedded) = database(&config).await?;
        let actor = Actor::system("terminal");
        let done = match self.what {
            What::Add {
                username,
                role,
                email,
            } => {
                let new = NewUser {
                    username,
                    password,
                    role,
                    email,
                };
                let made = users::create_user(&store, &SystemClock, &actor, new).await;
                made.map(|user| format!("added {} ({})", user.username, user.role))
            }
            What::Passwd { username } => {
                let done = users::set_password(&store, &SystemClock, &actor, &username, password).await;
                done.map(|()| format!("changed the password of {username}"))
            }
            What::ResetTotp { username } => {
                let done = reset_totp(&store, SystemClock.now(), &actor, &username).await;
                done.map(|()| format!("{username} signs in without a second factor now"))
            }
        };
        close(store, embedded).await;
        output::say(done?);
        Ok(())
    }
}
