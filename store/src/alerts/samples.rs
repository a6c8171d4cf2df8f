//! The samples that rules are judged by, read back.

use chrono::{DateTime, Utc};
use setpoint_model::{DeviceId, telemetry};

use super::LockedAlerts;
use crate::Result;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The device.
    pub device_id: DeviceId,
    /// The metric's name.
    pub metric: String,
    /// When it was taken.
    pub at: DateTime<Utc>,
    /// Its value.
    pub value: telemetry::Value<'static>,
}

/// A metric of a device whose samples are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The device.
    pub device_id: DeviceId,
    /// The metric's name.
    pub metric: String,
    /// Not older than this.
    pub from: DateTime<Utc>,
}

struct Row {
    device_id: i64,
    metric: String,
    at: DateTime<Utc>,
    number: Option<f64>,
    flag: Option<bool>,
    text: Option<String>,
}

impl Row {
    fn sample(self) -> Option<Sample> {
        let value = match (self.number, self.flag, self.text) {
            (Some(number), _, _) => telemetry::Value::Number(number),
            (None, Some(flag), _) => telemetry::Value::Flag(flag),
            (None, None, Some(text)) => telemetry::Value::Text(text.into()),
            (None, None, None) => return None,
        };
        Some(Sample {
            device_id: DeviceId(self.device_id),
            metric: self.metric,
            at: self.at,
            value,
        })
    }
}

fn columns(wanted: &[Newest]) -> (Vec<i64>, Vec<&str>, Vec<DateTime<Utc>>) {
    (
        wanted.iter().map(|wanted| wanted.device_id.0).collect(),
        wanted.iter().map(|wanted| wanted.metric.as_str()).collect(),
        wanted.iter().map(|wanted| wanted.from).collect(),
    )
}

impl LockedAlerts {
    /// The newest `limit` samples of each metric, in no order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn samples(&mut self, wanted: &[Newest], limit: i64) -> Result<Vec<Sample>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (devices, metrics, from) = columns(wanted);
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT w.device_id AS "device_id!", w.metric AS "metric!", t.at AS "at!", t.number, t.flag, t.text
               FROM unnest($1::bigint[], $2::text[], $3::timestamptz[]) AS w (device_id, metric, since)
               JOIN metrics m ON m.name = w.metric
               CROSS JOIN LATERAL (
                   SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                   WHERE t.device_id = w.device_id AND t.metric_id = m.id AND t.at >= w.since
                   ORDER BY t.at DESC LIMIT $4) t"#,
            &devices,
            &metrics as &[&str],
            &from,
            limit,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(rows.into_iter().filter_map(Row::sample).collect())
    }

    /// The last sample of each metric from before its `from`, but not from before `floor`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn samples_before(&mut self, wanted: &[Newest], floor: DateTime<Utc>) -> Result<Vec<Sample>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (devices, metrics, from) = columns(wanted);
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT w.device_id AS "device_id!", w.metric AS "metric!", t.at AS "at!", t.number, t.flag, t.text
               FROM unnest($1::bigint[], $2::text[], $3::timestamptz[]) AS w (device_id, metric, until)
               JOIN metrics m ON m.name = w.metric
               CROSS JOIN LATERAL (
                   SELECT t.at, t.number, t.flag, t.text FROM telemetry t
                   WHERE t.device_id = w.device_id AND t.metric_id = m.id AND t.at < w.until AND t.at >= $4
                   ORDER BY t.at DESC LIMIT 1) t"#,
            &devices,
            &metrics as &[&str],
            &from,
            floor,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(rows.into_iter().filter_map(Row::sample).collect())
    }

    /// When each device took its newest sample of any metric, those from before `floor` passed over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_heard(
        &mut self,
        devices: &[DeviceId],
        floor: DateTime<Utc>,
    ) -> Result<Vec<(DeviceId, DateTime<Utc>)>> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let devices: Vec<i64> = devices.iter().map(|device| device.0).collect();
        let rows = sqlx::query!(
            r#"SELECT m.device_id, max(t.at) AS "at!"
               FROM device_metrics m
               CROSS JOIN LATERAL (
                   SELECT t.at FROM telemetry t
                   WHERE t.device_id = m.device_id AND t.metric_id = m.metric_id AND t.at >= $2
                   ORDER BY t.at DESC LIMIT 1) t
               WHERE m.device_id = ANY($1) GROUP BY m.device_id"#,
            &devices,
            floor,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (DeviceId(row.device_id), row.at))
            .collect())
    }
}
