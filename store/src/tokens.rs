//! API tokens: SHA-256 hashes with a name, scopes and an end.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use setpoint_model::{Role, Scope, credential::SecretHash};
use uuid::Uuid;

use crate::{
    Result, Store,
    audit::{self, NewEntry},
};

/// An API token as it is stored: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id; version 7, so that ids sort by age.
    pub id: Uuid,
    /// What its maker calls it.
    pub name: String,
    /// What it may do. A scope that this version doesn't know is left out.
    pub scopes: Vec<Scope>,
    /// The person who made it; `None` for one made on the server itself.
    pub created_by: Option<Uuid>,
    /// That person's present role: the token may never do more. `None` as for `created_by`.
    pub maker_role: Option<Role>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it no longer holds; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

struct Row {
    id: Uuid,
    name: String,
    scopes: Vec<String>,
    created_by: Option<Uuid>,
    maker_role: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl From<Row> for ApiToken {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scopes: row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
            created_by: row.created_by,
            // A role that this version doesn't know gives no rights.
            maker_role: row.maker_role.map(|role| role.parse().unwrap_or(Role::Owner)),
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        }
    }
}

impl Store {
    /// Adds a token with the hash of its secret.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn insert_token(&self, token: &ApiToken, hash: &SecretHash, entry: &NewEntry) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let scopes: Vec<String> = token
            .scopes
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect();
        sqlx::query!(
            "insert into api_tokens (id, name, hash, scopes, created_by, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7)",
            token.id,
            token.name,
            hash.as_bytes().as_slice(),
            &scopes,
            token.created_by,
            token.created_at,
            token.expires_at,
        )
        .execute(&mut *transaction)
        .await?;
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The token of this secret, expired or not, unless its maker may not sign in.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn token_by_hash(&self, hash: &SecretHash) -> Result<Option<ApiToken>> {
        let row = sqlx::query_as!(
            Row,
            r#"select t.id, t.name, t.scopes, t.created_by, u.role as "maker_role?", t.created_at, t.expires_at,
                      t.last_used_at
               from api_tokens t left join users u on u.id = t.created_by
               where t.hash = $1 and u.disabled_at is null"#,
            hash.as_bytes().as_slice(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(ApiToken::from))
    }

    /// The token of this id.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn token(&self, id: Uuid) -> Result<Option<ApiToken>> {
        let row = sqlx::query_as!(
            Row,
            r#"select t.id, t.name, t.scopes, t.created_by, u.role as "maker_role?", t.created_at, t.expires_at,
                      t.last_used_at
               from api_tokens t left join users u on u.id = t.created_by where t.id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(ApiToken::from))
    }

    /// Up to `limit` tokens, newest first, those older than `before` and of this maker if they are given.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn tokens(
        &self,
        maker: Option<Uuid>,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ApiToken>> {
        let rows = sqlx::query_as!(
            Row,
            r#"select t.id, t.name, t.scopes, t.created_by, u.role as "maker_role?", t.created_at, t.expires_at,
                      t.last_used_at
               from api_tokens t left join users u on u.id = t.created_by
               where ($1::uuid is null or t.id < $1) and ($3::uuid is null or t.created_by = $3)
               order by t.id desc limit $2"#,
            before,
            limit,
            maker,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(ApiToken::from).collect())
    }

    /// Deletes a token; `false` if there is none of this id.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn delete_token(&self, id: Uuid, entry: &NewEntry) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query!("delete from api_tokens where id = $1", id)
            .execute(&mut *transaction)
            .await?;
        audit::conclude(transaction, done.rows_affected() > 0, entry).await
    }

    /// The ids of a person's tokens.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn token_ids_of(&self, user: Uuid) -> Result<Vec<Uuid>> {
        let ids = sqlx::query_scalar!("select id from api_tokens where created_by = $1", user)
            .fetch_all(&self.pool)
            .await?;
        Ok(ids)
    }

    /// Of these tokens those there still are, with the present role of who made each (`None` for one made on the server
    /// itself).
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn roles_of_tokens(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Option<Role>>> {
        let rows = sqlx::query!(
            r#"select t.id as "id!", u.role as "role?" from api_tokens t left join users u on u.id = t.created_by
               where t.id = any($1) and u.disabled_at is null"#,
            ids,
        )
        .fetch_all(&self.pool)
        .await?;
        let role = |role: String| role.parse().unwrap_or(Role::Owner);
        Ok(rows.into_iter().map(|row| (row.id, row.role.map(role))).collect())
    }

    /// Notes when tokens were last used. A time before the one noted already changes nothing.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn touch_tokens(&self, used: &[(Uuid, DateTime<Utc>)]) -> Result<()> {
        let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = used.iter().copied().unzip();
        sqlx::query!(
            "update api_tokens set last_used_at = greatest(last_used_at, used.at)
             from unnest($1::uuid[], $2::timestamptz[]) as used (id, at)
             where api_tokens.id = used.id",
            &ids,
            &times,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
