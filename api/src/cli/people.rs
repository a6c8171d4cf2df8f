//! `setpoint user`.

use clap::Subcommand;
use setpoint_model::{Role, SystemClock};

use super::{Failure, close, database, output};
use crate::{
    app::{
        Actor,
        users::{self, NewUser},
    },
    config::Config,
};

/// Adds people and changes their passwords. The password is read from stdin.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    setpoint user add anna --role operator\n  \
    echo \"$PASSWORD\" | setpoint user passwd anna")]
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
}

impl Args {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let password = output::read_secret("Password")?;
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
        };
        close(store, embedded).await;
        output::say(done?);
        Ok(())
    }
}
