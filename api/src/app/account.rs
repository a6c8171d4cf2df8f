//! What a person may see and change of their own account.

use setpoint_store::users::User;

use super::{
    Actor, App, Error, Principal, passwords,
    totp::TotpState,
    users::{UserPatch, patch_user},
};

/// A person's own account, or as much of it as an API token may see.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The person's name; `None` for a token made on the server itself.
    pub username: Option<String>,
    /// Their e-mail address; for a session alone.
    pub email: Option<String>,
    /// Their second factor; for a session alone.
    pub totp: Option<TotpState>,
}

impl App {
    /// The account behind an actor.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn account(&self, actor: &Actor) -> Result<Account, Error> {
        let Some(id) = actor.user() else {
            return Ok(Account::default());
        };
        let Some(user) = self.store.user(id).await? else {
            return Ok(Account::default());
        };
        if !matches!(actor.principal, Principal::User { .. }) {
            return Ok(Account {
                username: Some(user.username),
                ..Account::default()
            });
        }
        let totp = self.totp_state(&user).await?;
        Ok(Account {
            username: Some(user.username),
            email: user.email,
            totp: Some(totp),
        })
    }

    /// Changes one's own e-mail address.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for who has no session, [`Error::Invalid`].
    pub async fn change_email(&self, actor: &Actor, email: Option<String>) -> Result<(), Error> {
        let user = self.own(actor).await?;
        let patch = UserPatch {
            email: Some(email),
            ..UserPatch::default()
        };
        patch_user(&self.store, &*self.clock, actor, user, patch)
            .await
            .map(drop)
    }

    /// Changes one's own password; one's other sessions end.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for who has no session; [`Error::Invalid`] for `current` or `new`;
    /// [`Error::TooManyAttempts`].
    pub async fn change_password(&self, actor: &Actor, current: String, new: String) -> Result<(), Error> {
        let user = self.own(actor).await?;
        let Principal::User { session, .. } = actor.principal else {
            return Err(Error::Unauthenticated);
        };
        let same = current == new;
        self.check_own_password(actor, &user, current, "current").await?;
        if same {
            return Err(Error::invalid("new", "is the one you have"));
        }
        passwords::check("new", &user.username, &new)?;
        let hash = passwords::hash(new).await?;
        let entry = self.entry(actor, "password.change", format!("user:{}", user.username));
        let hashes = (user.password_hash.as_str(), hash.as_str());
        let changed = self
            .store
            .change_password(user.id, session, hashes, &entry)
            .await?;
        let ended = changed.ok_or_else(|| Error::invalid("current", "was changed meanwhile"))?;
        // What this session has open ends as well, and may come back.
        self.session_ended(user.id, None).await;
        tracing::info!(user = user.username, sessions = ended, "password changed");
        Ok(())
    }

    /// The person whose session this is.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a token, a device or the server: an account is its person's own.
    pub(super) async fn own(&self, actor: &Actor) -> Result<User, Error> {
        let Principal::User { id, .. } = actor.principal else {
            return Err(Error::Unauthenticated);
        };
        self.store.user(id).await?.ok_or(Error::Unauthenticated)
    }

    /// Makes sure that it is the person who is at their session; guesses are throttled as at signing in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `field`, which also goes to the audit log; [`Error::TooManyAttempts`].
    pub(super) async fn check_own_password(
        &self,
        actor: &Actor,
        user: &User,
        password: String,
        field: &'static str,
    ) -> Result<(), Error> {
        let attempt = self.people.attempt(&user.username, actor.address)?;
        if !passwords::verify(password, Some(user.password_hash.clone())).await? {
            let entry = self.entry(actor, "password.check", format!("user:{}", user.username));
            self.audit.refused(entry);
            return Err(Error::invalid(field, "is not your password"));
        }
        attempt.taken_back();
        Ok(())
    }
}
