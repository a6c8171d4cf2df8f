//! Who sends what: devices by serial, metrics by name, and which device has which metric.

use setpoint_model::{DeviceId, Serial};

use crate::{Result, Store};

/// A device, as ingest needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryDevice {
    /// Its id.
    pub id: DeviceId,
    /// The ids of the metrics that it has sent so far.
    pub metrics: Vec<i32>,
}

impl Store {
    /// The device of this serial, and the metrics it has sent so far.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_device(&self, serial: &Serial) -> Result<Option<TelemetryDevice>> {
        let device = sqlx::query!(
            r#"SELECT d.id, ARRAY(SELECT metric_id FROM device_metrics WHERE device_id = d.id) AS "metrics!"
               FROM devices d WHERE d.serial = $1"#,
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(device.map(|row| TelemetryDevice {
            id: DeviceId(row.id),
            metrics: row.metrics,
        }))
    }

    /// The ids of metric names, in no particular order; names not yet known are added.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn metric_ids(&self, names: &[String]) -> Result<Vec<(String, i32)>> {
        // Looked up first: an INSERT that conflicts would use up an id each time.
        let mut known = self.known_metric_ids(names).await?;
        let missing: Vec<String> = names
            .iter()
            .filter(|name| !known.iter().any(|(have, _)| have == *name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            // In order, so that two at once can't wait for each other.
            sqlx::query!(
                "INSERT INTO metrics (name) SELECT DISTINCT name FROM unnest($1::text[]) AS name ORDER BY name
                 ON CONFLICT DO NOTHING",
                &missing,
            )
            .execute(&self.pool)
            .await?;
            known.extend(self.known_metric_ids(&missing).await?);
        }
        Ok(known)
    }

    async fn known_metric_ids(&self, names: &[String]) -> Result<Vec<(String, i32)>> {
        let rows = sqlx::query!("SELECT name, id FROM metrics WHERE name = ANY($1)", names)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| (row.name, row.id)).collect())
    }

    /// How many metric names there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn metric_count(&self) -> Result<i64> {
        Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM metrics"#)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Records that a device sends these metrics.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] when the device is gone.
    pub async fn add_device_metrics(&self, device_id: DeviceId, metric_ids: &[i32]) -> Result<()> {
        sqlx::query!(
            "INSERT INTO device_metrics (device_id, metric_id) SELECT $1, unnest($2::integer[]) ON CONFLICT DO NOTHING",
            device_id.0,
            metric_ids,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
