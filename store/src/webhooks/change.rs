//! Making, changing and deleting webhooks, each with its entry in the audit log.

use chrono::{DateTime, Utc};
use setpoint_model::{
    Selector,
    webhook::{Devices, WebhookDescription, WebhookName},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Webhook;
use crate::{
    Result, Store,
    audit::{self, NewEntry},
    devices::jsonpath,
};

/// A webhook to be made.
#[derive(Debug)]
pub struct NewWebhook<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: &'a WebhookName,
    /// What it says.
    pub description: &'a WebhookDescription,
    /// Its headers, sealed, if it has any.
    pub headers: Option<&'a [u8]>,
    /// Its secret, sealed.
    pub secret: &'a [u8],
}

/// What came of making one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    Made,
    /// There is one of this name already.
    Exists,
    /// There are as many as there may be.
    TooMany,
}

/// The columns that say of which devices: serial, group, selector, and this as a predicate over tags.
type DeviceColumns = (Option<String>, Option<String>, Option<String>, Option<String>);

fn columns(devices: &Devices) -> DeviceColumns {
    match devices {
        Devices::All => (None, None, None, None),
        Devices::Serial(serial) => (Some(serial.to_string()), None, None, None),
        Devices::Group(group) => (None, Some(group.to_string()), None, None),
        Devices::Selector(selector) => selected(selector),
    }
}

fn selected(selector: &Selector) -> DeviceColumns {
    (None, None, Some(selector.to_string()), Some(jsonpath(selector)))
}

fn names(description: &WebhookDescription) -> (Vec<String>, Vec<String>) {
    let events = description.events.iter().map(ToString::to_string);
    let headers = description.headers.names().map(str::to_owned);
    (events.collect(), headers.collect())
}

impl Store {
    /// Makes a webhook, unless there are as many as `most` already, with its entry in the audit log.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_webhook(
        &self,
        new: &NewWebhook<'_>,
        most: i64,
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<Made> {
        let mut transaction = self.pool.begin().await?;
        // Those who make one at the same time count one after the other; who only reads is not held up.
        sqlx::query!("LOCK TABLE webhooks IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM webhooks"#)
            .fetch_one(&mut *transaction)
            .await?;
        let made = if count >= most {
            Made::TooMany
        } else if insert(&mut transaction, new, at, &entry.actor).await? {
            Made::Made
        } else {
            Made::Exists
        };
        if made == Made::Made {
            audit::write(&mut transaction, entry).await?;
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(made)
    }

    /// Writes what a webhook says from now on, as the version after `before`; `false` if another is current.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_webhook(
        &self,
        before: &Webhook,
        description: &WebhookDescription,
        headers: Option<&[u8]>,
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<bool> {
        let (serial, group, selector, path) = columns(&description.devices);
        let (events, header_names) = names(description);
        let mut transaction = self.pool.begin().await?;
        let written = sqlx::query!(
            "UPDATE webhooks
             SET url = $3, events = $4, serial = $5, group_name = $6, selector = $7, selector_path = $8::text::jsonpath,
                 enabled = $9, disabled_reason = CASE WHEN $9 THEN NULL ELSE disabled_reason END, header_names = $10,
                 headers_sealed = $11, actor = $12, updated_at = $13, version = version + 1
             WHERE id = $1 AND version = $2",
            before.id,
            before.version,
            description.url.as_str(),
            &events,
            serial,
            group,
            selector,
            path,
            description.enabled,
            &header_names,
            headers,
            entry.actor,
            at,
        )
        .execute(&mut *transaction)
        .await?;
        finish(transaction, written.rows_affected() > 0, entry).await
    }

    /// Gives a webhook another secret; the present one also signs until then. `false` if another version is current.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate_webhook_secret(
        &self,
        before: &Webhook,
        secret: &[u8],
        previous_until: DateTime<Utc>,
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let written = sqlx::query!(
            "UPDATE webhooks
             SET secret_sealed = $3, previous_sealed = secret_sealed, previous_until = $4, actor = $5, updated_at = $6,
                 version = version + 1
             WHERE id = $1 AND version = $2",
            before.id,
            before.version,
            secret,
            previous_until,
            entry.actor,
            at,
        )
        .execute(&mut *transaction)
        .await?;
        finish(transaction, written.rows_affected() > 0, entry).await
    }

    /// Deletes a webhook with all that it was to be told; `false` if another version is current.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_webhook(&self, before: &Webhook, entry: &NewEntry) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let deleted = sqlx::query!(
            "DELETE FROM webhooks WHERE id = $1 AND version = $2",
            before.id,
            before.version,
        )
        .execute(&mut *transaction)
        .await?;
        finish(transaction, deleted.rows_affected() > 0, entry).await
    }

    /// Disables a webhook for a reason, unless it goes elsewhere by now, or is disabled already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn disable_webhook(
        &self,
        hook: &Webhook,
        reason: &str,
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let written = sqlx::query!(
            "UPDATE webhooks SET enabled = false, disabled_reason = $3, actor = $4, updated_at = $5, version = version + 1
             WHERE id = $1 AND url = $2 AND enabled",
            hook.id,
            hook.url.as_str(),
            reason,
            entry.actor,
            at,
        )
        .execute(&mut *transaction)
        .await?;
        finish(transaction, written.rows_affected() > 0, entry).await
    }
}

async fn insert(
    connection: &mut PgConnection,
    new: &NewWebhook<'_>,
    at: DateTime<Utc>,
    actor: &str,
) -> Result<bool> {
    let (serial, group, selector, path) = columns(&new.description.devices);
    let (events, header_names) = names(new.description);
    let made = sqlx::query!(
        "INSERT INTO webhooks (id, name, url, events, serial, group_name, selector, selector_path, enabled, header_names,
                               headers_sealed, secret_sealed, actor, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonpath, $9, $10, $11, $12, $13, $14, $14)
         ON CONFLICT (name) DO NOTHING",
        new.id,
        new.name.as_str(),
        new.description.url.as_str(),
        &events,
        serial,
        group,
        selector,
        path,
        new.description.enabled,
        &header_names,
        new.headers,
        new.secret,
        actor,
        at,
    )
    .execute(connection)
    .await?;
    Ok(made.rows_affected() > 0)
}

/// Commits what was written with its entry in the audit log, or lets go of it.
async fn finish(
    mut transaction: sqlx::Transaction<'static, sqlx::Postgres>,
    written: bool,
    entry: &NewEntry,
) -> Result<bool> {
    if written {
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(written)
}
