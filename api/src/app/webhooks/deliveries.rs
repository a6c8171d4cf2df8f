//! What became of a webhook's events, and sending them again.

use serde_json::{Value, json};
use setpoint_model::webhook::WebhookName;
use setpoint_store::{
    audit::NewEntry,
    webhooks::{Delivery, DeliveryState, Replay},
};
use uuid::Uuid;

use super::{NOT_FOUND, object};
use crate::app::{Actor, App, Error, policy::Action, tokens::new_id};

const NO_DELIVERY: Error = Error::NotFound { what: "delivery" };

impl App {
    /// A page of what was, or is to be, delivered, newest first: what stands before `before`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:read`, [`Error::NotFound`].
    pub async fn webhook_deliveries(
        &self,
        actor: &Actor,
        name: &WebhookName,
        state: Option<DeliveryState>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Delivery>, Error> {
        self.authorize_all(actor, Action::ReadWebhooks)?;
        let webhook = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
        let deliveries = self.store.webhook_deliveries(webhook.id, state, before, limit);
        Ok(deliveries.await?)
    }

    /// One delivery.
    ///
    /// # Errors
    /// As [`Self::webhook_deliveries`].
    pub async fn webhook_delivery(
        &self,
        actor: &Actor,
        name: &WebhookName,
        id: Uuid,
    ) -> Result<Delivery, Error> {
        self.authorize_all(actor, Action::ReadWebhooks)?;
        let webhook = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
        self.store
            .webhook_delivery(webhook.id, id)
            .await?
            .ok_or(NO_DELIVERY)
    }

    /// Sends a ping, once, even to a webhook that is disabled. The delivery tells what came of it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:write`, [`Error::NotFound`].
    pub async fn ping_webhook(&self, actor: &Actor, name: &WebhookName) -> Result<Delivery, Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        let webhook = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
        let at = self.clock.now();
        let (id, data) = (new_id(at), json!({"webhook": name, "by": actor.label()}));
        self.store.ping_webhook(webhook.id, id, &data, at).await?;
        self.hints.webhooks.everything();
        self.store
            .webhook_delivery(webhook.id, id)
            .await?
            .ok_or(NO_DELIVERY)
    }

    /// Has something that was delivered or given up sent again, as the same message.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:write`, [`Error::NotFound`]; [`Error::WrongState`] while it is pending.
    pub async fn replay_delivery(
        &self,
        actor: &Actor,
        name: &WebhookName,
        id: Uuid,
    ) -> Result<Delivery, Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        let webhook = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
        let replayed = self.store.replay_delivery(webhook.id, id).await?;
        let delivery = self.store.webhook_delivery(webhook.id, id).await?;
        let delivery = delivery.ok_or(NO_DELIVERY)?;
        if !replayed {
            return Err(Error::WrongState {
                state: DeliveryState::Pending.as_str(),
            });
        }
        self.hints.webhooks.everything();
        let entry = self.replayed(actor, name, json!({"replay": id}));
        self.store.insert_audit(&[entry]).await?;
        Ok(delivery)
    }

    /// Has all of it sent again: what was given up, unless it is said otherwise. Pings aside. Returns how many.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `webhooks:write`, [`Error::NotFound`].
    pub async fn replay_deliveries(
        &self,
        actor: &Actor,
        name: &WebhookName,
        replay: Replay,
    ) -> Result<i64, Error> {
        self.authorize_all(actor, Action::WriteWebhooks)?;
        let webhook = self.store.webhook(name).await?.ok_or(NOT_FOUND)?;
        let replayed = self.store.replay_deliveries(webhook.id, replay).await?;
        self.hints.webhooks.everything();
        let what = json!({"replayed": replayed, "state": replay.state.map(DeliveryState::as_str),
                          "from": replay.from, "to": replay.to});
        let entry = self.replayed(actor, name, what);
        self.store.insert_audit(&[entry]).await?;
        Ok(replayed)
    }

    fn replayed(&self, actor: &Actor, name: &WebhookName, what: Value) -> NewEntry {
        let entry = self.entry(actor, Action::WriteWebhooks.name(), object(name));
        entry.after(what)
    }
}
