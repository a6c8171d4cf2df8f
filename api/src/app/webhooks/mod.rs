//! Webhooks: signed HTTP requests that tell programs outside of what happens to devices.
//!
//! [`describe`] makes and changes them, [`deliveries`] shows what became of their events and has them sent again, and
//! [`deliver`], called by `tasks::webhooks`, sends one. Events come into the outbox by triggers in the database, in the
//! transaction of what they tell (`migrations/0115_webhooks.sql`).

mod deliver;
mod deliveries;
mod describe;
mod metrics;
mod signature;

use std::{
    io,
    sync::{Arc, OnceLock},
};

use prometheus_client::registry::Registry;
use setpoint_model::webhook::{Headers, WebhookName};
use setpoint_store::webhooks::{Counts, Webhook};
use uuid::Uuid;

use super::{
    Actor, App, Error,
    outbound::{Guard, Http, Options, Ways},
    policy::Action,
};
use crate::config;

pub use deliver::{Attempt, OpenWebhook};
pub use metrics::Metrics;
pub use signature::SigningSecret;

const NOT_FOUND: Error = Error::NotFound { what: "webhook" };

/// What webhooks need beside the database. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Shared>);

struct Shared {
    config: config::Webhooks,
    guard: Guard,
    /// Made by the first request: who has no webhook reads no certificate authorities.
    http: OnceLock<Http>,
    metrics: Metrics,
}

/// A webhook with how much waits for it.
#[derive(Debug, Clone)]
pub struct WebhookStanding {
    /// The webhook.
    pub webhook: Webhook,
    /// What waits, and what was given up.
    pub counts: Counts,
}

impl Webhooks {
    /// With these limits.
    pub fn new(config: config::Webhooks, registry: &mut Registry) -> Self {
        let guard = Guard {
            allowed: config.allow_private.clone(),
            plain: config.allow_http,
        };
        Self(Arc::new(Shared {
            config,
            guard,
            http: OnceLock::new(),
            metrics: Metrics::register(registry),
        }))
    }

    /// The limits in force.
    pub fn config(&self) -> &config::Webhooks {
        &self.0.config
    }

    /// The counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The way out.
    fn http(&self) -> io::Result<&Http> {
        if let Some(http) = self.0.http.get() {
            return Ok(http);
        }
        let config = &self.0.config;
        let http = Http::new(&Options {
            timeout: config.timeout,
            connect_timeout: config.connect_timeout,
            max_answer: config.max_answer,
            idle_connections: config.max_requests_per_hook,
            ways: Ways::Either,
            guard: Some(self.0.guard.clone()),
        })?;
        Ok(self.0.http.get_or_init(|| http))
    }
}

impl App {
    /// A page of webhooks by name, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:read`.
    pub async fn webhooks(
        &self,
        actor: &Actor,
        after: &str,
        limit: i64,
    ) -> Result<Vec<WebhookStanding>, Error> {
        self.authorize_all(actor, Action::ReadWebhooks)?;
        let webhooks = self.store.webhooks(after, limit).await?;
        let ids: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.id).collect();
        let counts = self.store.webhook_counts(&ids).await?;
        let standing = webhooks.into_iter().zip(counts);
        Ok(standing
            .map(|(webhook, counts)| WebhookStanding { webhook, counts })
            .collect())
    }

    /// One webhook.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:read`, [`Error::NotFound`].
    pub async fn webhook(&self, actor: &Actor, name: &WebhookName) -> Result<WebhookStanding, Error> {
        self.authorize_all(actor, Action::ReadWebhooks)?;
        let webhook = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
        self.standing(webhook).await
    }

    async fn standing(&self, webhook: Webhook) -> Result<WebhookStanding, Error> {
        let counts = self.store.webhook_counts(&[webhook.id]).await?;
        let counts = counts.first().copied().unwrap_or_default();
        Ok(WebhookStanding { webhook, counts })
    }

    /// The headers of a webhook; `None` if they were sealed with another key.
    fn webhook_headers(&self, webhook: &Webhook) -> Option<Headers> {
        let Some(sealed) = &webhook.headers else {
            return Some(Headers::default());
        };
        let clear = self.people.key.open(&headers_purpose(webhook.id), sealed)?;
        let fields = serde_json::from_slice(&clear).ok()?;
        Headers::parse(&fields, usize::MAX).ok()
    }

    fn webhook_secret(&self, webhook: Uuid, sealed: &[u8]) -> Option<SigningSecret> {
        let clear = self.people.key.open(&secret_purpose(webhook), sealed)?;
        SigningSecret::from_bytes(clear).ok()
    }
}

/// What is sealed for one webhook can't be put into another's row.
fn secret_purpose(webhook: Uuid) -> String {
    format!("webhook:{webhook}")
}

fn headers_purpose(webhook: Uuid) -> String {
    format!("webhook-headers:{webhook}")
}

/// How the audit log names a webhook.
fn object(name: &WebhookName) -> String {
    format!("webhook:{name}")
}
