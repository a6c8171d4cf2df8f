//! Listens to what other servers on the same database do, and follows.
//!
//! Each server has its own broker, with every retained document in it, and a device is connected to one of them. So what
//! one server publishes, each other puts in place too, from where it reaches the devices that are connected there.

use std::time::Duration;

use setpoint_store::peers::{Notice, Notices};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{presence_writer, settings_publisher};
use crate::app::{App, Error};

/// How often others are told that this server is there, and looked after those who are no more.
const HELLO: Duration = Duration::from_secs(15);
/// How soon after a start others are looked after for the first time.
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
        loop {
            rounds.tick().await;
            if let Err(error) = look_after(&app).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "other servers can't be told"
                );
            }
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
            Notice::Hello { server, anew } => greet(app, server, anew).await?,
            notice => {
                if app.follow(&notice).await.is_err() {
                    resume(app).await?;
                }
            }
        }
    }
}

/// Takes note of another server. When it was not known it is told of this one, and from now on of what is published here;
/// what it published before it knew of anybody is put in place.
async fn greet(app: &App, server: Uuid, anew: bool) -> Result<(), Error> {
    let news = app.peers.heard(server);
    if news {
        tracing::info!("another server is on this database");
        app.store.say_anew().await?;
    }
    if news || anew {
        settings_publisher::restore(app).await?;
    }
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
/// that it claimed and told nobody of.
async fn look_after(app: &App) -> Result<(), Error> {
    app.store.say_hello().await?;
    let orphans = presence_writer::take_over(app).await?;
    if orphans > 0 && app.peers.any() {
        settings_publisher::restore(app).await?;
    }
    Ok(())
}
