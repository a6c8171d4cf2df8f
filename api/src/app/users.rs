//! People: adding, changing and removing them.

use serde_json::{Value, json};
use setpoint_model::{Clock, Role};
use setpoint_store::{
    Store,
    users::{Changed, User},
};

use super::{Actor, App, Error, audit, passwords, policy::Action, tokens::new_id};

/// The longest e-mail address, in characters.
const MAX_EMAIL: usize = 254;

/// A person to be added.
#[derive(Clone)]
pub struct NewUser {
    /// The name they sign in with; kept in lower case.
    pub username: String,
    /// The password.
    pub password: String,
    /// What they may do.
    pub role: Role,
    /// Their address.
    pub email: Option<String>,
}

/// What to change of a person; a field that is `None` stays.
#[derive(Clone, Default)]
pub struct UserPatch {
    /// Another password.
    pub password: Option<String>,
    /// Another role.
    pub role: Option<Role>,
    /// Another e-mail address, or none.
    pub email: Option<Option<String>>,
    /// Whether they may not sign in.
    pub disabled: Option<bool>,
}

impl App {
    /// Adds a person.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`; [`Error::Invalid`] for a name or password that won't do;
    /// [`Error::Conflict`] when the name is taken.
    pub async fn create_user(&self, actor: &Actor, new: NewUser) -> Result<User, Error> {
        self.authorize_all(actor, Action::ManageUsers)?;
        create_user(&self.store, &*self.clock, actor, new).await
    }

    /// A page of people by name, those behind `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`.
    pub async fn users(&self, actor: &Actor, after: &str, limit: i64) -> Result<Vec<User>, Error> {
        self.authorize_all(actor, Action::ManageUsers)?;
        Ok(self.store.users(after, limit).await?)
    }

    /// One person.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`, [`Error::NotFound`].
    pub async fn user(&self, actor: &Actor, username: &str) -> Result<User, Error> {
        self.authorize_all(actor, Action::ManageUsers)?;
        find(&self.store, username).await
    }

    /// Changes a person. Another password ends their sessions; a lesser role holds for their tokens at once; disabling ends
    /// both.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`, [`Error::NotFound`], [`Error::Invalid`]; [`Error::Conflict`] with
    /// `last_administrator`.
    pub async fn patch_user(&self, actor: &Actor, username: &str, patch: UserPatch) -> Result<User, Error> {
        self.authorize_all(actor, Action::ManageUsers)?;
        let before = find(&self.store, username).await?;
        let after = patch_user(&self.store, &*self.clock, actor, before.clone(), patch).await?;
        if after.role != before.role || after.disabled_at != before.disabled_at {
            let tokens = self.store.token_ids_of(after.id).await?;
            self.person_changed(after.id, &tokens).await;
        } else if after.password_hash != before.password_hash {
            self.session_ended(after.id, None).await;
        }
        Ok(after)
    }

    /// Removes a person with their sessions, tokens and registrations.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `admin`, [`Error::NotFound`]; [`Error::Conflict`] with `last_administrator`.
    pub async fn delete_user(&self, actor: &Actor, username: &str) -> Result<(), Error> {
        self.authorize_all(actor, Action::ManageUsers)?;
        let user = find(&self.store, username).await?;
        let tokens = self.store.token_ids_of(user.id).await?;
        let entry = self
            .entry(actor, "user.delete", object(&user))
            .before(shown(&user));
        outcome(self.store.delete_user(user.id, &entry).await?)?;
        self.person_changed(user.id, &tokens).await;
        tracing::info!(user = user.username, by = actor.label(), "person removed");
        Ok(())
    }
}

/// As [`App::create_user`], for commands on the server's own terminal.
///
/// # Errors
/// As there.
pub async fn create_user(
    store: &Store,
    clock: &dyn Clock,
    actor: &Actor,
    new: NewUser,
) -> Result<User, Error> {
    let username = username(&new.username)
        .ok_or_else(|| Error::invalid("username", "1 to 64 letters, digits or . _ - @ +"))?;
    let email = new.email.map(email).transpose()?;
    passwords::check("password", &username, &new.password)?;
    let password_hash = passwords::hash(new.password).await?;
    let now = clock.now();
    let user = User {
        id: new_id(now),
        username,
        email,
        role: new.role,
        password_hash,
        created_at: now,
        updated_at: now,
        disabled_at: None,
        totp: false,
    };
    let entry = audit::entry(actor, "user.create", object(&user), now).after(shown(&user));
    if store.insert_user(&user, &entry).await? {
        tracing::info!(user = user.username, role = %user.role, by = actor.label(), "person added");
        Ok(user)
    } else {
        let message = format!("there is somebody called {} already", user.username);
        Err(Error::Conflict {
            code: "user_exists",
            message,
        })
    }
}

/// Gives a person another password and ends their sessions, for commands on the server's own terminal.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`].
pub async fn set_password(
    store: &Store,
    clock: &dyn Clock,
    actor: &Actor,
    username: &str,
    password: String,
) -> Result<(), Error> {
    let user = find(store, username).await?;
    let patch = UserPatch {
        password: Some(password),
        ..UserPatch::default()
    };
    patch_user(store, clock, actor, user, patch).await.map(drop)
}

pub(super) async fn patch_user(
    store: &Store,
    clock: &dyn Clock,
    actor: &Actor,
    before: User,
    patch: UserPatch,
) -> Result<User, Error> {
    let mut after = User {
        updated_at: clock.now(),
        ..before.clone()
    };
    if let Some(role) = patch.role {
        after.role = role;
    }
    if let Some(address) = patch.email {
        after.email = address.map(email).transpose()?;
    }
    if let Some(disabled) = patch.disabled {
        after.disabled_at = disabled.then(|| before.disabled_at.unwrap_or(after.updated_at));
    }
    let password_changed = patch.password.is_some();
    if let Some(password) = patch.password {
        passwords::check("password", &after.username, &password)?;
        after.password_hash = passwords::hash(password).await?;
    }
    let mut told = shown(&after);
    if let (true, Value::Object(fields)) = (password_changed, &mut told) {
        fields.insert("password".to_owned(), "changed".into());
    }
    let entry = audit::entry(actor, "user.update", object(&after), after.updated_at)
        .before(shown(&before))
        .after(told);
    outcome(store.update_user(&after, &entry).await?)?;
    tracing::info!(user = after.username, role = %after.role, password_changed, by = actor.label(), "person changed");
    Ok(after)
}

pub(super) async fn find(store: &Store, username: &str) -> Result<User, Error> {
    const NOT_FOUND: Error = Error::NotFound { what: "user" };
    if username.contains('\0') {
        return Err(NOT_FOUND);
    }
    store
        .user_by_name(&username.trim().to_lowercase())
        .await?
        .ok_or(NOT_FOUND)
}

fn outcome(changed: Changed) -> Result<(), Error> {
    match changed {
        Changed::Done => Ok(()),
        Changed::NotFound => Err(Error::NotFound { what: "user" }),
        Changed::LastAdministrator => Err(Error::Conflict {
            code: "last_administrator",
            message: "the server would be without an administrator".to_owned(),
        }),
    }
}

/// A name as it is kept, in lower case; `None` if it won't do.
pub(super) fn username(text: &str) -> Option<String> {
    let username = text.trim().to_lowercase();
    let well = |c: char| c.is_alphanumeric() || "._-@+".contains(c);
    let fits = !username.is_empty() && username.chars().count() <= 64 && username.chars().all(well);
    fits.then_some(username)
}

pub(super) fn email(text: String) -> Result<String, Error> {
    let fits =
        text.chars().count() <= MAX_EMAIL && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    let shaped = text
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if fits && shaped {
        Ok(text)
    } else {
        Err(Error::invalid("email", "must be an e-mail address"))
    }
}

pub(super) fn object(user: &User) -> String {
    format!("user:{}", user.username)
}

/// What the audit log keeps of a person.
pub(super) fn shown(user: &User) -> Value {
    json!({
        "username": user.username, "role": user.role, "email": user.email, "disabled": user.disabled_at.is_some(),
    })
}
