//! People whom an OpenID Connect provider signs in, by issuer and subject.

use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
    users::{self, User},
};

impl Store {
    /// The person whom this issuer calls `subject`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_by_identity(&self, issuer: &str, subject: &str) -> Result<Option<User>> {
        let id: Option<Uuid> = sqlx::query_scalar!(
            "SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2",
            issuer,
            subject,
        )
        .fetch_optional(&self.pool)
        .await?;
        match id {
            Some(id) => self.user(id).await,
            None => Ok(None),
        }
    }

    /// Adds a person whom this issuer calls `subject`; `false` if the name is taken, which changes nothing.
    ///
    /// # Errors
    /// When the database fails; a conflict with `identities_pkey` when the identity is somebody's by now.
    pub async fn insert_identity(
        &self,
        user: &User,
        issuer: &str,
        subject: &str,
        entry: &NewEntry,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        if !users::insert(&mut transaction, user).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        sqlx::query!(
            "INSERT INTO identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)",
            issuer,
            subject,
            user.id,
            user.created_at,
        )
        .execute(&mut *transaction)
        .await?;
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
