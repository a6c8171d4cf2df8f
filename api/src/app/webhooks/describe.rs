//! Making, changing and deleting webhooks, and their secrets.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use setpoint_model::{
    settings::{Document, Limits, Patch, document},
    webhook::{Destination, Devices, Endpoint, Headers, WebhookDescription, WebhookName},
};
use setpoint_store::webhooks::{Made, NewWebhook, Webhook};
use uuid::Uuid;

use super::{NOT_FOUND, SigningSecret, WebhookStanding, headers_purpose, object, secret_purpose};
use crate::app::{Actor, App, Error, FieldErrors, Precondition, policy::Action, tokens::new_id};

/// How large a description may be as JSON beside its URL, and how deep.
const AROUND_URL: usize = 64 * 1024;
const DEPTH: usize = 3;

/// How often a change that ran into another one is tried in all.
const ATTEMPTS: usize = 3;

impl App {
    /// Makes a webhook of a JSON object that also names it, and its secret, which is told this once: the one given, or one
    /// made up.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:write`; [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`] (by
    /// field); [`Error::Conflict`] with `webhook_exists` or `too_many_webhooks`.
    pub async fn create_webhook(
        &self,
        actor: &Actor,
        fields: &[u8],
    ) -> Result<(WebhookStanding, SigningSecret), Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        let mut fields = document::parse(fields, self.webhook_limits())?;
        let name = match fields.remove("name") {
            None => Err("is needed".to_owned()),
            Some(Value::String(text)) => text.parse::<WebhookName>().map_err(|error| error.to_string()),
            Some(_) => Err("must be a text".to_owned()),
        };
        let secret = secret(&mut fields);
        let description = WebhookDescription::parse(fields, self.webhooks.config().limits());
        let (name, secret, description) = match (name, secret, description) {
            (Ok(name), Ok(secret), Ok(description)) => (name, secret, description),
            (name, secret, description) => {
                let mut errors = description.err().unwrap_or_default();
                errors.extend(name.err().map(|message| ("name".to_owned(), message)));
                errors.extend(secret.err().map(|message| ("secret".to_owned(), message)));
                return Err(Error::Invalid { errors });
            }
        };
        self.judge_webhook(&description, None).await?;
        let secret = secret.map_or_else(SigningSecret::generate, Ok)?;
        let at = self.clock.now();
        let id = new_id(at);
        let (sealed, headers) = (
            self.people.key.seal(&secret_purpose(id), secret.as_bytes())?,
            self.sealed_headers(id, &description.headers)?,
        );
        let new = NewWebhook {
            id,
            name: &name,
            description: &description,
            headers: headers.as_deref(),
            secret: &sealed,
        };
        let most = self.webhooks.config().max_hooks;
        let entry = self.entry(actor, Action::WriteWebhooks.name(), object(&name));
        let entry = entry.after(shown(&description));
        match self.store.create_webhook(&new, most.into(), at, &entry).await? {
            Made::Made => {}
            Made::Exists => {
                return Err(Error::Conflict {
                    code: "webhook_exists",
                    message: format!("there is a webhook with the name {name} already"),
                });
            }
            Made::TooMany => {
                return Err(Error::Conflict {
                    code: "too_many_webhooks",
                    message: format!("there are {most} webhooks already: webhooks.max_hooks"),
                });
            }
        }
        tracing::info!(webhook = %name, to = description.url.origin(), by = actor.label(), "webhook made");
        let webhook = self.store.webhook(&name).await?.ok_or(NOT_FOUND)?;
        Ok((self.standing(webhook).await?, secret))
    }

    /// Applies a merge patch (RFC 7396) to what a webhook says.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:write`; [`Error::NotFound`], [`Error::VersionMismatch`];
    /// [`Error::Malformed`], [`Error::TooLarge`] and [`Error::Invalid`] (by field); [`Error::Conflict`] with
    /// `webhook_changed` or `other_server_key`.
    pub async fn patch_webhook(
        &self,
        actor: &Actor,
        name: &WebhookName,
        patch: &[u8],
        precondition: &Precondition,
    ) -> Result<WebhookStanding, Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        let patch = Patch::parse(patch, self.webhook_limits())?;
        for _ in 0..ATTEMPTS {
            let before = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
            precondition.check(before.version)?;
            let described = self.described(&before)?;
            let patched = described.patched(&patch, self.webhooks.config().limits());
            let patched = patched.map_err(|errors| Error::Invalid { errors })?;
            self.judge_webhook(&patched, Some(&described)).await?;
            if patched == described {
                return self.standing(before).await;
            }
            let headers = self.sealed_headers(before.id, &patched.headers)?;
            let entry = self.entry(actor, Action::WriteWebhooks.name(), object(name));
            let entry = entry.before(shown(&described)).after(shown(&patched));
            let at = self.clock.now();
            if self
                .store
                .write_webhook(&before, &patched, headers.as_deref(), at, &entry)
                .await?
            {
                tracing::info!(webhook = %name, to = patched.url.origin(), by = actor.label(), "webhook changed");
                // Something may have waited for it to be enabled.
                self.hints.webhooks.everything();
                let after = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
                return self.standing(after).await;
            }
        }
        Err(crowded())
    }

    /// Gives a webhook another secret, which is told this once: the one given, or one made up. For `grace`, or the
    /// configured time, requests are signed with both. Returns the webhook too.
    ///
    /// # Errors
    /// As [`Self::patch_webhook`].
    pub async fn rotate_webhook_secret(
        &self,
        actor: &Actor,
        name: &WebhookName,
        fields: &[u8],
        precondition: &Precondition,
    ) -> Result<(WebhookStanding, SigningSecret), Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        let mut fields = document::parse(
            if fields.is_empty() { b"{}" } else { fields },
            self.webhook_limits(),
        )?;
        let (secret, grace) = (secret(&mut fields), grace(&mut fields));
        let mut errors: FieldErrors = fields
            .keys()
            .map(|field| (field.clone(), "unknown field".to_owned()))
            .collect();
        let (secret, grace) = match (secret, grace) {
            (Ok(secret), Ok(grace)) if errors.is_empty() => (secret, grace),
            (secret, grace) => {
                errors.extend(secret.err().map(|message| ("secret".to_owned(), message)));
                errors.extend(grace.err().map(|message| ("grace".to_owned(), message)));
                return Err(Error::Invalid { errors });
            }
        };
        let secret = secret.map_or_else(SigningSecret::generate, Ok)?;
        let grace = grace.unwrap_or(self.webhooks.config().secret_grace);
        for _ in 0..ATTEMPTS {
            let before = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
            precondition.check(before.version)?;
            let sealed = self
                .people
                .key
                .seal(&secret_purpose(before.id), secret.as_bytes())?;
            let at = self.clock.now();
            let until = TimeDelta::from_std(grace)
                .ok()
                .and_then(|grace| at.checked_add_signed(grace));
            let until = until.ok_or_else(|| Error::invalid("grace", "too long"))?;
            let entry = self.entry(actor, Action::WriteWebhooks.name(), object(name));
            let entry = entry.after(json!({"secret": "rotated", "previous_until": until}));
            if self
                .store
                .rotate_webhook_secret(&before, &sealed, until, at, &entry)
                .await?
            {
                tracing::info!(webhook = %name, by = actor.label(), "webhook's secret rotated");
                let after = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
                return Ok((self.standing(after).await?, secret));
            }
        }
        Err(crowded())
    }

    /// Deletes a webhook with all that waits for it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:write`, [`Error::NotFound`], [`Error::VersionMismatch`].
    pub async fn delete_webhook(
        &self,
        actor: &Actor,
        name: &WebhookName,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        for _ in 0..ATTEMPTS {
            let before = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
            precondition.check(before.version)?;
            let entry = self.entry(actor, Action::WriteWebhooks.name(), object(name));
            let entry = entry.before(json!({
                "url": before.url.as_str(), "events": before.events, "enabled": before.enabled
            }));
            if self.store.delete_webhook(&before, &entry).await? {
                tracing::info!(webhook = %name, by = actor.label(), "webhook deleted");
                return Ok(());
            }
        }
        Err(crowded())
    }

    /// Whether the webhook may go where it says, and whether what it names is there, if that is new.
    async fn judge_webhook(
        &self,
        description: &WebhookDescription,
        before: Option<&WebhookDescription>,
    ) -> Result<(), Error> {
        let is_new = before.is_none_or(|before| before.devices != description.devices);
        let mut errors = FieldErrors::new();
        errors.extend(
            self.wrong_url(&description.url)
                .map(|message| ("url".to_owned(), message)),
        );
        match &description.devices {
            Devices::Serial(serial) if is_new && self.store.device_id(serial).await?.is_none() => {
                errors.insert("serial".to_owned(), "there is no such device".to_owned());
            }
            Devices::Group(group)
                if is_new
                    && self
                        .store
                        .group(group.as_str(), self.clock.now())
                        .await?
                        .is_none() =>
            {
                errors.insert("group".to_owned(), "there is no such group".to_owned());
            }
            _ => {}
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid { errors })
        }
    }

    /// What is wrong with a URL that can be told before anything is looked up; where a name leads is judged at each
    /// connection.
    fn wrong_url(&self, url: &Endpoint) -> Option<String> {
        let guard = &self.webhooks.0.guard;
        match url.destination() {
            Destination::Address(address) => {
                let checked = guard.check(address, url.is_plain());
                checked.err().map(|error| error.to_string())
            }
            Destination::Name(_) if url.is_plain() && !guard.plain && guard.allowed.is_nothing() => {
                Some("must begin with https://: webhooks.allow_http".to_owned())
            }
            Destination::Name(_) => None,
        }
    }

    /// What a stored webhook says, its headers' values included.
    fn described(&self, webhook: &Webhook) -> Result<WebhookDescription, Error> {
        let headers = self.webhook_headers(webhook).ok_or_else(|| Error::Conflict {
            code: "other_server_key",
            message: "its headers were sealed with another server key: restore that, or make it anew"
                .to_owned(),
        })?;
        Ok(WebhookDescription {
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            devices: webhook.devices.clone(),
            enabled: webhook.enabled,
            headers,
        })
    }

    fn sealed_headers(&self, id: Uuid, headers: &Headers) -> Result<Option<Vec<u8>>, Error> {
        if headers.names().next().is_none() {
            return Ok(None);
        }
        let clear = headers.to_value().to_string();
        self.people
            .key
            .seal(&headers_purpose(id), clear.as_bytes())
            .map(Some)
    }

    fn webhook_limits(&self) -> Limits {
        Limits {
            bytes: self.webhooks.config().max_url.saturating_add(AROUND_URL),
            depth: DEPTH,
        }
    }
}

/// The secret among the fields of a request, if there is one.
fn secret(fields: &mut Document) -> Result<Option<SigningSecret>, String> {
    match fields.remove("secret") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => SigningSecret::parse(&text)
            .map(Some)
            .map_err(|error| error.to_string()),
        Some(_) => Err("must be a text".to_owned()),
    }
}

fn grace(fields: &mut Document) -> Result<Option<Duration>, String> {
    match fields.remove("grace") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => humantime::parse_duration(&text)
            .map(Some)
            .map_err(|_| "must be a duration such as 24h".to_owned()),
        Some(_) => Err("must be a text".to_owned()),
    }
}

/// For the audit log: a query may hold a secret.
fn shown(description: &WebhookDescription) -> Value {
    let mut fields = description.shown();
    let url = description.url.as_str();
    if let Some((before, _)) = url.split_once('?') {
        fields.insert("url".to_owned(), format!("{before}?...").into());
    }
    Value::Object(fields)
}

/// Others kept changing the same webhook.
fn crowded() -> Error {
    Error::Conflict {
        code: "webhook_changed",
        message: "the webhook was changed meanwhile; try again".to_owned(),
    }
}
