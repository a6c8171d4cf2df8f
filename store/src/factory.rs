//! What the factory knows of serials.

use chrono::{DateTime, Utc};
use setpoint_model::{Serial, credential::SecretHash};

use crate::{
    Error, Result, Store,
    audit::{self, NewEntry},
};

/// A serial as it left the factory.
#[derive(Debug, Clone)]
pub struct FactorySerial {
    /// The serial.
    pub serial: Serial,
    /// Its model.
    pub model: String,
    /// The hash of its secret; `None` where the model demands none.
    pub secret: Option<SecretHash>,
}

impl Store {
    /// What the factory knows of a serial.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn factory_serial(&self, serial: &Serial) -> Result<Option<FactorySerial>> {
        let row = sqlx::query!(
            "SELECT model, secret_hash FROM factory_serials WHERE serial = $1",
            serial.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let secret = row.secret_hash.as_deref().map(|bytes| {
            let wrong = || {
                Error::Query(sqlx::Error::Decode(
                    "a factory secret's hash is not 32 bytes".into(),
                ))
            };
            SecretHash::from_stored(bytes).ok_or_else(wrong)
        });
        Ok(Some(FactorySerial {
            serial: serial.clone(),
            model: row.model,
            secret: secret.transpose()?,
        }))
    }

    /// Adds serials, or replaces what was known of them: all or none.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] with `factory_serials_model_fkey` when there is no such model.
    pub async fn upsert_factory_serials(
        &self,
        serials: &[FactorySerial],
        at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<()> {
        let names: Vec<&str> = serials.iter().map(|known| known.serial.as_str()).collect();
        let models: Vec<&str> = serials.iter().map(|known| known.model.as_str()).collect();
        let hashes: Vec<Option<Vec<u8>>> = serials
            .iter()
            .map(|known| known.secret.map(|hash| hash.as_bytes().to_vec()))
            .collect();
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "INSERT INTO factory_serials (serial, model, secret_hash, created_at)
             SELECT serial, model, hash, $4 FROM unnest($1::text[], $2::text[], $3::bytea[]) AS t (serial, model, hash)
             ON CONFLICT (serial) DO UPDATE SET model = excluded.model, secret_hash = excluded.secret_hash",
            &names as &[&str],
            &models as &[&str],
            &hashes as &[Option<Vec<u8>>],
            at,
        )
        .execute(&mut *transaction)
        .await?;
        audit::write(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }
}
