//! What other servers on the same database do: this one follows at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use setpoint_model::presence::DisconnectReason;
use setpoint_store::peers::Notice;
use tokio::time::Instant;
use uuid::Uuid;

use super::{App, Error};

/// How long another server is believed to be there after it said so.
const BELIEVED: Duration = Duration::from_secs(60);

/// Which other servers are there, and when each last said so.
#[derive(Debug, Default)]
pub struct Peers(Mutex<HashMap<Uuid, Instant>>);

impl Peers {
    /// Another server said that it is there; whether that is news.
    pub fn heard(&self, server: Uuid) -> bool {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, at| at.elapsed() < BELIEVED);
        peers.insert(server, Instant::now()).is_none()
    }

    /// Whether another one was heard of lately.
    pub fn any(&self) -> bool {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.values().any(|at| at.elapsed() < BELIEVED)
    }
}

impl App {
    /// Follows what another server did.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; then everything is to be looked at.
    pub(crate) async fn follow(&self, notice: &Notice) -> Result<(), Error> {
        match notice {
            Notice::Credential(serial) => self.credentials.revoke(serial),
            Notice::Revoked(serial) => self.end_credential(serial).await,
            Notice::Gone(serial) => {
                self.end_credential(serial).await;
                self.broker.clear_retained(serial);
            }
            Notice::Token(token) => self.token_ended(*token).await,
            Notice::Session(user, session) => self.session_ended(*user, Some(*session)).await,
            Notice::Person(user) => {
                let tokens = self.store.token_ids_of(*user).await?;
                self.person_changed(*user, &tokens).await;
            }
            Notice::Owner(user) => self.ownership_changed(*user).await,
            Notice::Device(serial) => {
                self.ingest.refresh(serial);
                self.hints.home_assistant.everything();
            }
            Notice::Model(model) => {
                self.ingest.refresh_model(model);
                self.hints.home_assistant.everything();
            }
            Notice::Webhooks => self.hints.webhooks.everything(),
            Notice::AlertRules => self.alerts.changed(),
            Notice::AlertLooks => self.alerts.look(),
            Notice::Judged(devices) => self.judged_elsewhere(devices),
            Notice::Alert(serial, at, facts) => self.alert_elsewhere(serial, *at, facts),
            Notice::Settings(_) | Notice::Hello { .. } | Notice::Missed => {}
        }
        Ok(())
    }

    /// Ends what is open here and doesn't hold any more, whatever was missed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn follow_everything(&self) -> Result<(), Error> {
        self.tokens.forget_all();
        self.ingest.refresh_all();
        self.alerts.forget_all();
        self.hints.home_assistant.everything();
        self.recheck_rights().await?;
        let over = self.recheck_credentials().await?;
        for serial in &over {
            self.ingest.forget(serial);
            self.broker
                .end_device(serial, DisconnectReason::CredentialRevoked)
                .await;
        }
        if !over.is_empty() {
            tracing::info!(devices = over.len(), "devices whose credential ended elsewhere");
        }
        Ok(())
    }
}
