//! Whose a device is: sharing it, taking it back, reporting it stolen.

use serde_json::json;
use setpoint_model::{
    Serial,
    device::{Description, NewDevice},
    timeline::{Entry, Facts},
};
use setpoint_store::{self as store, owners::Owner};

use super::{
    Actor, App, Error,
    devices::{NOT_FOUND, object},
    policy::{Action, Reach},
    users::find,
};

impl App {
    /// The owners of a device, whom it is registered to first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:read`, [`Error::NotFound`].
    pub async fn owners(&self, actor: &Actor, serial: &Serial) -> Result<Vec<Owner>, Error> {
        self.authorize_device(actor, Action::ReadDevice, serial).await?;
        self.store.device_id(serial).await?.ok_or(NOT_FOUND)?;
        Ok(self.store.owners(serial).await?)
    }

    /// Lets another person see and set a device; nothing changes if they may already.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:claim`, or for one it is only shared with; [`Error::NotFound`] for the
    /// device or the person.
    pub async fn share_device(&self, actor: &Actor, serial: &Serial, username: &str) -> Result<(), Error> {
        let reach = self.authorize_device(actor, Action::ShareDevice, serial).await?;
        self.require_registrant(actor, serial, reach).await?;
        let device = self.store.device_id(serial).await?.ok_or(NOT_FOUND)?;
        let user = find(&self.store, username).await?;
        let entry = self.entry(actor, Action::ShareDevice.name(), object(serial));
        let entry = entry.after(json!({"owner": user.username}));
        let shared = self
            .store
            .share_device(device, user.id, actor.user(), &entry)
            .await;
        self.ownership_changed(user.id).await;
        match shared {
            Ok(_) => Ok(()),
            Err(store::Error::Reference { .. }) => Err(NOT_FOUND),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a share: by who gave it, by staff, or by the person themselves.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:claim`, or for another's share; [`Error::NotFound`] when there is none.
    pub async fn unshare_device(&self, actor: &Actor, serial: &Serial, username: &str) -> Result<(), Error> {
        let reach = self.authorize_device(actor, Action::ShareDevice, serial).await?;
        let user = find(&self.store, username).await?;
        if actor.user() != Some(user.id) {
            self.require_registrant(actor, serial, reach).await?;
        }
        let device = self.store.device_id(serial).await?.ok_or(NOT_FOUND)?;
        let entry = self.entry(actor, "device.unshare", object(serial));
        let entry = entry.before(json!({"owner": user.username}));
        if self.store.unshare_device(device, user.id, &entry).await? {
            self.ownership_changed(user.id).await;
            Ok(())
        } else {
            Err(Error::NotFound { what: "share" })
        }
    }

    /// Takes a device back: its sessions end, its token is dead, its retained messages are cleared, and its serial
    /// begins anew with nothing of the past to be seen. For one it is shared with, only their share ends.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `devices:claim`, [`Error::NotFound`].
    pub async fn unregister(&self, actor: &Actor, serial: &Serial) -> Result<(), Error> {
        let reach = self.authorize_device(actor, Action::Unregister, serial).await?;
        if reach == Reach::Own
            && let Some(me) = self.own_share(actor, serial).await?
        {
            return self.unshare_device(actor, serial, &me).await;
        }
        let mut locked = self.store.lock_settings(&[serial.as_str()]).await?;
        let former = locked.device(serial).cloned().ok_or(NOT_FOUND)?;
        let id = former.device_id;
        let registration = locked.registration(id).await?;
        let owners = locked.owner_ids(id).await?;
        // The sessions first, so that their last words are older than the generation that begins. Should the rest fail,
        // the device comes back with its token, and nothing has changed.
        self.end_credential(serial).await;
        let at = self.clock.now();
        let next = NewDevice {
            serial: serial.clone(),
            description: Description {
                model: former.model,
                ..Description::default()
            },
        };
        let mut next = locked.begin_generation(id, &next, at).await?;
        if registration.stolen {
            next.set_stolen(Some(at)).await?;
        }
        let entry = self.entry(actor, Action::Unregister.name(), object(serial));
        next.audit(&entry.before(json!({"registrant": registration.registrant})))
            .await?;
        let first = self.first_settings(&mut next, at).await?;
        let layered = next.is_layered();
        // The next owner reads its history, and need not know who had it before.
        let by = Actor::system("unregister").label();
        next.commit(&first, None, &by).await?;
        if layered {
            self.hints.layers.everything();
        }

        // Once more, should it have come back meanwhile.
        self.end_credential(serial).await;
        self.broker.clear_retained(serial);
        for owner in owners {
            self.ownership_changed(owner).await;
        }
        if let Some(id) = self.store.republish_settings(serial).await? {
            self.hints.settings.device(id.0);
        }
        tracing::info!(%serial, by = actor.label(), "device unregistered");
        Ok(())
    }

    /// Notes in the timeline that something showed the credential of a device that was reported stolen.
    pub fn stolen_seen(&self, serial: Serial, address: String, transport: &str) {
        let transport = transport.to_owned();
        self.timeline.record(Entry {
            serial,
            at: self.clock.now(),
            facts: Facts::StolenSeen { address, transport },
        });
    }

    /// The actor's own name, if the device is only shared with them.
    async fn own_share(&self, actor: &Actor, serial: &Serial) -> Result<Option<String>, Error> {
        let owners = self.store.owners(serial).await?;
        let mine = owners
            .into_iter()
            .find(|owner| owner.shared && Some(owner.user_id) == actor.user());
        Ok(mine.map(|owner| owner.username))
    }

    async fn require_registrant(&self, actor: &Actor, serial: &Serial, reach: Reach) -> Result<(), Error> {
        if reach == Reach::Own && self.own_share(actor, serial).await?.is_some() {
            return Err(Error::Forbidden {
                scope: Action::ShareDevice.scope(),
            });
        }
        Ok(())
    }
}
