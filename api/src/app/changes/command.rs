//! Holding a change, going on with it, stopping it, taking it back.

use serde_json::json;
use setpoint_model::change::Command;
use uuid::Uuid;

use super::{Actor, App, ChangeProgress, Error, NOT_FOUND, object};

impl App {
    /// Does as told with a change, once who works on it is through with the devices in hand; nothing if that is how it
    /// stands already. Returns how it stands then.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `settings:write` for all devices, [`Error::NotFound`], [`Error::WrongState`].
    pub async fn command_change(
        &self,
        actor: &Actor,
        id: Uuid,
        command: Command,
    ) -> Result<ChangeProgress, Error> {
        self.authorize_change(actor)?;
        let mut claimed = self.store.lock_change(id).await?.ok_or(NOT_FOUND)?;
        let before = claimed.change.state;
        let after = before.obey(command).map_err(|wrong| Error::WrongState {
            state: wrong.0.as_str(),
        })?;
        if after == before {
            claimed.locked.release().await?;
            return self.progress(id).await;
        }
        let now = self.clock.now();
        claimed.turn(after, now);
        claimed.change.next_at = Some(now);
        if command == Command::Undo {
            claimed.change.undo_actor = Some(actor.label());
        }
        let entry = self.entry(actor, action(command), object(id));
        let entry = entry.before(json!({"state": before.as_str()}));
        claimed
            .audit(&entry.after(json!({"state": after.as_str()})))
            .await?;
        claimed.save(after.is_active().then_some(now)).await?;
        claimed.commit().await?;
        if !after.is_open() {
            self.changes.ended(after);
        }
        tracing::info!(change = %id, state = after.as_str(), by = actor.label(), "bulk change told to {}", command.as_str());
        self.hints.changes.everything();
        self.progress(id).await
    }
}

fn action(command: Command) -> &'static str {
    match command {
        Command::Pause => "change.pause",
        Command::Resume => "change.resume",
        Command::Cancel => "change.cancel",
        Command::Undo => "change.undo",
    }
}
