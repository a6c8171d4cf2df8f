//! What the factory knows of serials.

mod imports;

use serde_json::Value;
use setpoint_model::{Serial, credential::SecretHash, device::Tags};
use sqlx::types::Json;

use crate::{Error, Result, Store};

pub use imports::{Import, ImportLine, ImportState, LineError, NewImport};

/// A serial as it left the factory.
#[derive(Debug, Clone)]
pub struct FactorySerial {
    /// The serial.
    pub serial: Serial,
    /// Its model.
    pub model: String,
    /// The hash of its secret; `None` where the model demands none.
    pub secret: Option<SecretHash>,
    /// What its device is called to begin with.
    pub name: String,
    /// The tags its device has to begin with.
    pub tags: Tags,
}

impl Store {
    /// What the factory knows of a serial.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn factory_serial(&self, serial: &Serial) -> Result<Option<FactorySerial>> {
        let row = sqlx::query!(
            r#"SELECT model, secret_hash, name, tags AS "tags: Json<Value>" FROM factory_serials WHERE serial = $1"#,
            serial.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let secret = row.secret_hash.as_deref().map(|bytes| {
            SecretHash::from_stored(bytes).ok_or_else(|| wrong("a secret's hash is not 32 bytes"))
        });
        Ok(Some(FactorySerial {
            serial: serial.clone(),
            model: row.model,
            secret: secret.transpose()?,
            name: row.name,
            tags: Tags::parse(row.tags.0).map_err(|reason| wrong(&reason))?,
        }))
    }
}

fn wrong(reason: &str) -> Error {
    Error::Query(sqlx::Error::Decode(format!("factory_serials: {reason}").into()))
}
