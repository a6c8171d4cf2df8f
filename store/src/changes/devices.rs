//! The devices of a change, page by page.

use chrono::{DateTime, Utc};
use setpoint_model::{Serial, change::Outcome};
use uuid::Uuid;

use crate::{Result, Store, settings::parse};

/// What became of a change on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeDevice {
    /// Its place in the order, from 0.
    pub place: i32,
    /// The device.
    pub serial: Serial,
    /// Where it stands now.
    pub outcome: Outcome,
    /// What the device said, or what is wrong with the patch for it.
    pub message: Option<String>,
    /// The version that the change made.
    pub version: Option<i64>,
    /// When the change last wrote to it.
    pub changed_at: Option<DateTime<Utc>>,
}

/// Which devices of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DevicePage {
    /// Those that stand there.
    pub outcome: Option<Outcome>,
    /// Those behind this place.
    pub after: Option<i32>,
    /// At most so many.
    pub limit: i64,
}

impl Store {
    /// A page of a change's devices, in the order in which they get it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change_devices(&self, id: Uuid, page: DevicePage) -> Result<Vec<ChangeDevice>> {
        let rows = sqlx::query!(
            r#"SELECT d.place, d.serial, coalesce(a.state, d.state) AS "state!",
                      coalesce(a.message, d.message) AS message, d.version, d.changed_at
               FROM change_devices d
               LEFT JOIN change_answers a ON a.change_id = d.change_id AND a.place = d.place
               WHERE d.change_id = $1 AND d.place > coalesce($2::integer, -1)
                 AND ($3::text IS NULL OR coalesce(a.state, d.state) = $3)
               ORDER BY d.place LIMIT $4"#,
            id,
            page.after,
            page.outcome.map(Outcome::as_str),
            page.limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(ChangeDevice {
                    place: row.place,
                    serial: parse(&row.serial)?,
                    outcome: parse(&row.state)?,
                    message: row.message,
                    version: row.version,
                    changed_at: row.changed_at,
                })
            })
            .collect()
    }
}
