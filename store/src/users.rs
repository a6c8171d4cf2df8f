//! People who sign in.

use chrono::{DateTime, Utc};
use setpoint_model::Role;
use uuid::Uuid;

use crate::{
    Error, Result, Store,
    audit::{self, NewEntry},
    settings::parse,
};

/// A person, with the hash of their password.
#[derive(Clone)]
pub struct User {
    /// Their id.
    pub id: Uuid,
    /// The name they sign in with, in lower case.
    pub username: String,
    /// Their address.
    pub email: Option<String>,
    /// What they may do.
    pub role: Role,
    /// The password's argon2id hash, in PHC form.
    pub password_hash: String,
    /// When they were added.
    pub created_at: DateTime<Utc>,
    /// When they were last changed.
    pub updated_at: DateTime<Utc>,
    /// Since when they may not sign in; `None` if they may.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Whether they have a second factor. Read alone: `store::totp` writes it.
    pub totp: bool,
}

impl User {
    /// Whether they can sign in with a password at all.
    pub fn has_password(&self) -> bool {
        self.password_hash.starts_with('$')
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

struct Row {
    id: Uuid,
    username: String,
    email: Option<String>,
    role: String,
    password_hash: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
    totp: bool,
}

impl TryFrom<Row> for User {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            username: row.username,
            email: row.email,
            role: parse(&row.role)?,
            password_hash: row.password_hash,
            created_at: row.created_at,
            updated_at: row.updated_at,
            disabled_at: row.disabled_at,
            totp: row.totp,
        })
    }
}

/// What became of a change or a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is made.
    Done,
    /// There is nobody of this id.
    NotFound,
    /// It would leave the server without an administrator.
    LastAdministrator,
}

impl Store {
    /// Adds a person; `false` if the name is taken, which changes nothing.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn insert_user(&self, user: &User, entry: &NewEntry) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let made = insert(&mut transaction, user).await?;
        audit::conclude(transaction, made, entry).await
    }

    /// The person of this name, in lower case.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>> {
        let row = sqlx::query_as!(
            Row,
            r#"select id, username, email, role, password_hash, created_at, updated_at, disabled_at,
                      exists (select from totp where user_id = users.id and confirmed_at is not null) as "totp!"
               from users where username = $1"#,
            username,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(User::try_from).transpose()
    }

    /// The person of this id.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn user(&self, id: Uuid) -> Result<Option<User>> {
        let row = sqlx::query_as!(
            Row,
            r#"select id, username, email, role, password_hash, created_at, updated_at, disabled_at,
                      exists (select from totp where user_id = users.id and confirmed_at is not null) as "totp!"
               from users where id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(User::try_from).transpose()
    }

    /// A page of people by name: those behind `after`, all if it is empty.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn users(&self, after: &str, limit: i64) -> Result<Vec<User>> {
        let rows = sqlx::query_as!(
            Row,
            r#"select id, username, email, role, password_hash, created_at, updated_at, disabled_at,
                      exists (select from totp where user_id = users.id and confirmed_at is not null) as "totp!"
               from users where username > $1 order by username limit $2"#,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(User::try_from).collect()
    }

    /// Whether anybody is there yet.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn has_users(&self) -> Result<bool> {
        let there = sqlx::query_scalar!(r#"select exists (select from users) as "there!""#)
            .fetch_one(&self.pool)
            .await?;
        Ok(there)
    }

    /// Writes a person's e-mail, role, password hash and whether they may sign in. Another password, or that they may not,
    /// ends their sessions.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn update_user(&self, user: &User, entry: &NewEntry) -> Result<Changed> {
        let mut transaction = self.pool.begin().await?;
        let stays = user.role == Role::Admin && user.disabled_at.is_none();
        if !stays && is_last(&mut transaction, user.id).await? {
            transaction.rollback().await?;
            return Ok(Changed::LastAdministrator);
        }
        sqlx::query!(
            "delete from sessions s using users u
             where s.user_id = u.id and u.id = $1 and (u.password_hash <> $2 or $3)",
            user.id,
            user.password_hash,
            user.disabled_at.is_some(),
        )
        .execute(&mut *transaction)
        .await?;
        let done = sqlx::query!(
            "update users set email = $2, role = $3, password_hash = $4, updated_at = $5, disabled_at = $6
             where id = $1",
            user.id,
            user.email,
            user.role.as_str(),
            user.password_hash,
            user.updated_at,
            user.disabled_at,
        )
        .execute(&mut *transaction)
        .await?;
        let done = audit::conclude(transaction, done.rows_affected() > 0, entry).await?;
        Ok(if done { Changed::Done } else { Changed::NotFound })
    }

    /// Deletes a person with their sessions, tokens and registrations.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn delete_user(&self, id: Uuid, entry: &NewEntry) -> Result<Changed> {
        let mut transaction = self.pool.begin().await?;
        if is_last(&mut transaction, id).await? {
            transaction.rollback().await?;
            return Ok(Changed::LastAdministrator);
        }
        let done = sqlx::query!("delete from users where id = $1", id)
            .execute(&mut *transaction)
            .await?;
        let done = audit::conclude(transaction, done.rows_affected() > 0, entry).await?;
        Ok(if done { Changed::Done } else { Changed::NotFound })
    }
}

/// Adds a person; `false` if the name is taken.
pub(crate) async fn insert(transaction: &mut sqlx::PgConnection, user: &User) -> Result<bool> {
    let done = sqlx::query!(
        "insert into users (id, username, email, role, password_hash, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $6)
         on conflict (username) do nothing",
        user.id,
        user.username,
        user.email,
        user.role.as_str(),
        user.password_hash,
        user.created_at,
    )
    .execute(transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether this is the only administrator. Two who would take each other's role wait for one another.
async fn is_last(transaction: &mut sqlx::PgConnection, id: Uuid) -> Result<bool> {
    sqlx::query!("select pg_advisory_xact_lock(hashtext('administrators'))")
        .execute(&mut *transaction)
        .await?;
    let last = sqlx::query_scalar!(
        r#"select exists (select from users where id = $1 and role = 'admin' and disabled_at is null)
               and not exists (select from users where id <> $1 and role = 'admin' and disabled_at is null)
               as "last!""#,
        id,
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(last)
}
