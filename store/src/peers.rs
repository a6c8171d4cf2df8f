//! What servers that share a database tell each other at once, by LISTEN and NOTIFY.
//!
//! Triggers tell of every right that ends, in the transaction that ends it (`migrations/0015_changes.sql`). Documents
//! are told of by whoever publishes them, and only while another server is there.

use chrono::{DateTime, Utc};
use setpoint_model::Serial;
use sqlx::postgres::{PgListener, PgPoolOptions};
use uuid::Uuid;

use crate::{Result, Store};

/// The channel of all of it.
const CHANNEL: &str = "setpoint";

/// Something that another server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A device has another credential; its sessions go on.
    Credential(Serial),
    /// A device's credential holds no more, or it was reported stolen.
    Revoked(Serial),
    /// A device was deleted, or begins anew.
    Gone(Serial),
    /// An API token is gone.
    Token(Uuid),
    /// A sign-in session of a person is over.
    Session(Uuid, Uuid),
    /// A person may do other things than before, or is gone.
    Person(Uuid),
    /// What is a person's is more or less than before.
    Owner(Uuid),
    /// A device has another name or model, or may send other telemetry.
    Device(Serial),
    /// A model is other than before.
    Model(String),
    /// These devices' settings were published.
    Settings(Vec<i64>),
    /// Webhooks are to be told something, by whoever takes it.
    Webhooks,
    /// Alert rules were made, changed or deleted.
    AlertRules,
    /// Something changed about devices that alert rules are for.
    AlertLooks,
    /// These devices were judged by alert rules.
    Judged(Vec<i64>),
    /// An alert of a device fired or was resolved: the device, when, and the facts as JSON.
    Alert(Serial, DateTime<Utc>, String),
    /// Another server is there.
    Hello {
        /// Which.
        server: Uuid,
        /// Whether it has only now heard of somebody: what it published before, it may have told nobody of.
        anew: bool,
    },
    /// The connection was lost and is back: anything may have been missed.
    Missed,
}

/// What other servers do, as it happens.
#[derive(Debug)]
pub struct Notices {
    listener: PgListener,
    server: Uuid,
    presence: Uuid,
}

impl Store {
    /// Listens to what other servers do, on a connection of its own. While it lasts, it shows that the sessions of
    /// `presence` are alive: [`Self::take_over_presence`] leaves them alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notices(&self, presence: Uuid) -> Result<Notices> {
        let options = self.pool.connect_options();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with((*options).clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        let server = self.server;
        let mut notices = Notices {
            listener,
            server,
            presence,
        };
        notices.claim().await?;
        Ok(notices)
    }

    /// Tells other servers that this one is there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn say_hello(&self) -> Result<()> {
        self.tell("hello", "").await
    }

    /// Tells other servers that this one is there, and that they may have missed whatever it published so far.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn say_anew(&self) -> Result<()> {
        self.tell("anew", "").await
    }

    /// Tells other servers that these devices' settings were published here: at most 400 at once, or the message
    /// would be too long (8,000 bytes).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tell_settings(&self, devices: &[i64]) -> Result<()> {
        for step in devices.chunks(400) {
            let ids: Vec<String> = step.iter().map(ToString::to_string).collect();
            self.tell("settings", &ids.join(",")).await?;
        }
        Ok(())
    }

    async fn tell(&self, kind: &str, what: &str) -> Result<()> {
        sqlx::query!(r#"SELECT tell_servers($1, $2) IS NULL AS "done!""#, kind, what)
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }
}

impl Notices {
    /// Waits for the next notice of another server.
    ///
    /// # Errors
    /// When the connection is lost and can't be made again; ask for [`Store::notices`] anew.
    pub async fn next(&mut self) -> Result<Notice> {
        loop {
            let Some(told) = self.listener.try_recv().await? else {
                self.claim().await?;
                return Ok(Notice::Missed);
            };
            if let Some(notice) = read(told.payload(), self.server) {
                return Ok(notice);
            }
        }
    }

    /// Shows that this server's sessions are alive, for as long as the connection lasts.
    async fn claim(&mut self) -> Result<()> {
        sqlx::query!(
            r#"SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS "held!""#,
            self.presence.to_string(),
        )
        .fetch_one(&mut self.listener)
        .await?;
        Ok(())
    }
}

/// `server kind what`; `None` for what this server said itself, and for what a newer one says that this one doesn't know.
fn read(payload: &str, own: Uuid) -> Option<Notice> {
    let mut words = payload.splitn(3, ' ');
    let (server, kind, what) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    if server.parse() == Ok(own) {
        return None;
    }
    Some(match kind {
        "forget" => Notice::Credential(what.parse().ok()?),
        "end" => Notice::Revoked(what.parse().ok()?),
        "gone" => Notice::Gone(what.parse().ok()?),
        "token" => Notice::Token(what.parse().ok()?),
        "session" => {
            let (user, session) = what.split_once(' ')?;
            Notice::Session(user.parse().ok()?, session.parse().ok()?)
        }
        "person" => Notice::Person(what.parse().ok()?),
        "owner" => Notice::Owner(what.parse().ok()?),
        "device" => Notice::Device(what.parse().ok()?),
        "model" => Notice::Model(what.to_owned()),
        "settings" => Notice::Settings(what.split(',').filter_map(|id| id.parse().ok()).collect()),
        "webhooks" => Notice::Webhooks,
        "alerts" => Notice::AlertRules,
        "looks" => Notice::AlertLooks,
        "judged" => Notice::Judged(what.split(',').filter_map(|id| id.parse().ok()).collect()),
        "alert" => {
            let mut words = what.splitn(3, ' ');
            let (serial, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Notice::Alert(serial, at, words.next()?.to_owned())
        }
        "hello" | "anew" => Notice::Hello {
            server: server.parse().ok()?,
            anew: kind == "anew",
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_back_and_ones_own_is_passed_over() {
        let own = Uuid::from_u128(1);
        let (user, session) = (Uuid::from_u128(2), Uuid::from_u128(3));
        let a: Serial = "A".parse().unwrap();
        for (payload, notice) in [
            ("- end A".to_owned(), Some(Notice::Revoked(a.clone()))),
            ("- forget A".to_owned(), Some(Notice::Credential(a.clone()))),
            ("- gone A".to_owned(), Some(Notice::Gone(a.clone()))),
            ("- device A".to_owned(), Some(Notice::Device(a))),
            ("- model home".to_owned(), Some(Notice::Model("home".to_owned()))),
            (
                format!("{user} session {user} {session}"),
                Some(Notice::Session(user, session)),
            ),
            ("- settings 1,2".to_owned(), Some(Notice::Settings(vec![1, 2]))),
            ("- alerts ".to_owned(), Some(Notice::AlertRules)),
            ("- looks".to_owned(), Some(Notice::AlertLooks)),
            ("- judged 1,2".to_owned(), Some(Notice::Judged(vec![1, 2]))),
            (
                "- alert A 2026-01-01T00:00:00+00:00 {\"a\": 1}".to_owned(),
                Some(Notice::Alert(
                    "A".parse().unwrap(),
                    "2026-01-01T00:00:00Z".parse().unwrap(),
                    "{\"a\": 1}".to_owned(),
                )),
            ),
            ("- alert A".to_owned(), None),
            (
                format!("{user} hello "),
                Some(Notice::Hello {
                    server: user,
                    anew: false,
                }),
            ),
            (
                format!("{user} hello"),
                Some(Notice::Hello {
                    server: user,
                    anew: false,
                }),
            ),
            (
                format!("{user} anew "),
                Some(Notice::Hello {
                    server: user,
                    anew: true,
                }),
            ),
            ("- hello".to_owned(), None),
            ("- webhooks".to_owned(), Some(Notice::Webhooks)),
            (format!("{own} end A"), None),
            ("- other A".to_owned(), None),
            ("- end -".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(read(&payload, own), notice, "{payload:?}");
        }
    }
}
