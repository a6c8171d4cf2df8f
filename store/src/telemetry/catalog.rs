//! Who sends what: devices by serial, metrics by name, and which device has which metric.

use std::collections::BTreeMap;

use setpoint_model::{DeviceId, Serial, telemetry::Kind};
use sqlx::types::Json;

use crate::{Result, Store};

/// A device, as ingest needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryDevice {
    /// Its id.
    pub id: DeviceId,
    /// Its model's name.
    pub model: String,
    /// The ids of the metrics that it has sent so far, with their type: `None` where the next sample decides.
    pub metrics: Vec<(i32, Option<Kind>)>,
    /// Metric name to the type that the model declares.
    pub declared: BTreeMap<String, Kind>,
}

/// A metric that a device sends, to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMetric {
    /// The metric.
    pub id: i32,
    /// The type of its first sample, or the one that the model declares.
    pub kind: Kind,
    /// Whether the model declares it: then it holds whatever was recorded before.
    pub declared: bool,
}

impl Store {
    /// The device of this serial, and the metrics it has sent so far. Where the model declares another type than was
    /// recorded, that of the next sample will be.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn telemetry_device(&self, serial: &Serial) -> Result<Option<TelemetryDevice>> {
        let device = sqlx::query!(
            r#"SELECT d.id, d.model, sent.ids AS "ids!", sent.types AS "types!: Vec<Option<String>>",
                      coalesce((SELECT jsonb_object_agg(t.key, t.value -> 'type') FROM jsonb_each(m.telemetry) t
                                WHERE t.value ? 'type'), '{}') AS "declared!: Json<BTreeMap<String, String>>"
               FROM devices d JOIN models m ON m.name = d.model
               CROSS JOIN LATERAL (
                   SELECT coalesce(array_agg(s.metric_id ORDER BY s.metric_id), '{}') AS ids,
                          coalesce(array_agg(
                              CASE WHEN s.type = coalesce(m.telemetry -> n.name ->> 'type', s.type) THEN s.type END
                              ORDER BY s.metric_id), '{}') AS types
                   FROM device_metrics s JOIN metrics n ON n.id = s.metric_id WHERE s.device_id = d.id) sent
               WHERE d.serial = $1"#,
            serial.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = device else { return Ok(None) };
        let types = row
            .types
            .iter()
            .map(|kind| kind.as_deref().map(parse).transpose());
        let metrics = row.ids.into_iter().zip(types);
        let declared = row.declared.0.into_iter();
        Ok(Some(TelemetryDevice {
            id: DeviceId(row.id),
            model: row.model,
            metrics: metrics.map(|(id, kind)| Ok((id, kind?))).collect::<Result<_>>()?,
            declared: declared
                .map(|(name, kind)| Ok((name, parse(&kind)?)))
                .collect::<Result<_>>()?,
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

    /// Records that a device sends these metrics, and tells of which type they are: whoever records a metric first
    /// decides, unless the model does.
    ///
    /// # Errors
    /// [`crate::Error::Reference`] when the device is gone.
    pub async fn add_device_metrics(
        &self,
        device_id: DeviceId,
        metrics: &[DeviceMetric],
    ) -> Result<Vec<(i32, Kind)>> {
        let ids: Vec<i32> = metrics.iter().map(|metric| metric.id).collect();
        let kinds: Vec<&str> = metrics.iter().map(|metric| metric.kind.as_str()).collect();
        let declared = metrics.iter().filter(|metric| metric.declared);
        let declared: Vec<i32> = declared.map(|metric| metric.id).collect();
        // In order, so that two at once can't wait for each other.
        let rows = sqlx::query!(
            r#"INSERT INTO device_metrics AS m (device_id, metric_id, type)
               SELECT $1, n.id, n.type FROM unnest($2::integer[], $3::text[]) AS n (id, type) ORDER BY n.id
               ON CONFLICT (device_id, metric_id) DO UPDATE
               SET type = CASE WHEN m.metric_id = ANY($4) THEN excluded.type ELSE coalesce(m.type, excluded.type) END
               RETURNING metric_id, type AS "type!""#,
            device_id.0,
            &ids,
            &kinds as &[&str],
            &declared,
        )
        .fetch_all(&self.pool)
        .await?;
        let recorded = rows
            .into_iter()
            .map(|row| Ok((row.metric_id, parse(&row.r#type)?)));
        recorded.collect()
    }
}

fn parse(kind: &str) -> Result<Kind> {
    crate::settings::parse(kind)
}
