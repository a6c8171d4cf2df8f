//! Listens to what other servers on the same database do, and follows.
//!
//! Each server has its own broker, with every retained document in it, and a device is connected to one of them. So what
//! one server publishes, each other puts in place too, from where it reaches the devices that are connected there.

use std::time::Duration;

use setpoint_store::peers::{Notice, Notices};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::{presence_writer, settings_publisher};
use crate::app::{App, Error};

/// How often others are told that this server is there, and looked after those who are no more.
const HELLO: Duration = Duration::from_secs(15);
/// How soon after a start, by when each other server has heard of it, what was missed meanwhile is made good.
const FIRST: Duration = Duration::from_secs(1);
/// Pause before another attempt while Postgres is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows until `stop`; `notices` are those listened to since before anything was remembered.
pub async fn run(app: App, mut notices: Option<Notices>, stop: CancellationToken) {
    let follow = async {
        loop {
            let listened = match notices.take() {
                Some(notices) => listen(&app, notices, false).await,
                None => match app.store.notices(app.presence.server()).await {
                    Ok(notices) => listen(&app, notices, true).await,
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(error) = listened {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "other servers are not heard"
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let hello = async {
        tokio::time::sleep(FIRST).await;
        let mut rounds = interval(HELLO);
        let mut first = true;
        loop {
            rounds.tick().await;
            if let Err(error) = look_after(&app, first).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "other servers can't be told"
                );
                continue;
            }
            first = false;
        }
    };
    // Boxed: much is done along the way, and little of the time.
    let both = async { tokio::join!(Box::pin(follow), Box::pin(hello)) };
    stop.run_until_cancelled(both).await;
}

/// Listens until the connection can't be had; `missed` says that it was not there all the time.
async fn listen(app: &App, mut notices: Notices, missed: bool) -> Result<(), Error> {
    app.store.say_hello().await?;
    if missed {
        resume(app).await?;
    }
    loop {
        match notices.next().await? {
            Notice::Settings(devices) => settings_publisher::restore_these(app, &devices).await?,
            Notice::Missed => resume(app).await?,
            Notice::Hello(server) => {
                if app.peers.heard(server) {
                    meet(app).await?;
                }
            }
            Notice::Anew(server) => {
                if app.peers.heard(server) {
                    meet(app).await?;
                } else {
                    settings_publisher::restore(app).await?;
                }
            }
            notice => {
                if app.follow(&notice).await.is_err() {
                    resume(app).await?;
                }
            }
        }
    }
}

/// Makes the acquaintance of a server that was not known: from now on it is told of what is published here. What was
/// published before on either side, the other one puts in place.
async fn meet(app: &App) -> Result<(), Error> {
    tracing::info!("another server is on this database");
    app.store.say_anew().await?;
    settings_publisher::restore(app).await?;
    Ok(())
}

/// Makes good whatever was missed.
async fn resume(app: &App) -> Result<(), Error> {
    app.follow_everything().await?;
    if app.peers.any() {
        settings_publisher::restore(app).await?;
    }
    Ok(())
}

/// Tells others of this server, and makes good what one that is gone left undone: devices that it left online, documents
/// that it claimed and told nobody of. At `first` the same for what others did before they had heard of this one.
async fn look_after(app: &App, first: bool) -> Result<(), Error> {
    app.store.say_hello().await?;
    let orphans = presence_writer::take_over(app).await?;
    if (first || orphans > 0) && app.peers.any() {
        settings_publisher::restore(app).await?;
    }
    Ok(())
}
