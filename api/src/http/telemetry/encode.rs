//! Points as lines of CSV and NDJSON.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use setpoint_model::{Serial, telemetry::Value};

use super::format::Format;
use crate::app::{Error, telemetry::Point};

/// One value of one metric.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = TelemetryItem)]
pub(super) struct Item {
    /// When it was taken, or the beginning of its bucket.
    pub(super) at: DateTime<Utc>,
    /// The device, where there may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "HOME-1")]
    pub(super) serial: Option<Serial>,
    /// The metric.
    #[schema(value_type = String, example = "temperature")]
    pub(super) metric: std::sync::Arc<str>,
    /// A number, a boolean or a text; null in a bucket that `fill` left without a value.
    #[schema(value_type = serde_json::Value, example = 21.5)]
    pub(super) value: Option<Value<'static>>,
}

impl From<Point> for Item {
    fn from(point: Point) -> Self {
        Self {
            at: point.at,
            serial: point.device.map(|(_, serial)| serial),
            metric: point.metric,
            value: point.value,
        }
    }
}

/// What a stream begins with.
pub(super) fn head(format: Format, serials: bool) -> &'static str {
    match (format, serials) {
        (Format::Csv, false) => "at,metric,value\r\n",
        (Format::Csv, true) => "at,serial,metric,value\r\n",
        _ => "",
    }
}

/// Points as lines; `serials` if each names its device.
///
/// # Errors
/// [`Error::Internal`], which can't happen in memory.
pub(super) fn lines(format: Format, serials: bool, points: Vec<Point>) -> Result<Vec<u8>, Error> {
    match format {
        Format::Csv => records(serials, &points),
        Format::Json | Format::Ndjson => {
            let mut lines = Vec::new();
            for point in points {
                serde_json::to_writer(&mut lines, &Item::from(point)).map_err(Error::internal)?;
                lines.push(b'\n');
            }
            Ok(lines)
        }
    }
}

fn records(serials: bool, points: &[Point]) -> Result<Vec<u8>, Error> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for point in points {
        let at = point.at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let serial = point.device.as_ref().map(|(_, serial)| serial.as_str());
        let value = field(point.value.as_ref())?;
        let metric: &str = &point.metric;
        let written = if serials {
            writer.write_record([at.as_str(), serial.unwrap_or_default(), metric, &value])
        } else {
            writer.write_record([at.as_str(), metric, &value])
        };
        written.map_err(Error::internal)?;
    }
    writer
        .into_inner()
        .map_err(|error| Error::internal(error.into_error()))
}

fn field<'a>(value: Option<&'a Value<'static>>) -> Result<Cow<'a, str>, Error> {
    match value {
        None => Ok(Cow::Borrowed("")),
        Some(Value::Text(text)) if is_formula(text) => Ok(Cow::Owned(format!("'{text}"))),
        Some(Value::Text(text)) => Ok(Cow::Borrowed(text)),
        Some(other) => serde_json::to_string(other)
            .map(Cow::Owned)
            .map_err(Error::internal),
    }
}

/// What makes a formula of a text in some spreadsheet: OWASP's list, with the wide forms that Japanese ones take as well.
const FORMULA: [char; 11] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// Whether a spreadsheet would work a text out rather than show it. Devices choose their texts, and an operator opens them.
fn is_formula(text: &str) -> bool {
    text.starts_with(FORMULA) && text.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use setpoint_model::DeviceId;

    fn point(value: Option<Value<'static>>) -> Point {
        Point {
            at: "2026-03-01T12:00:00.5Z".parse().unwrap(),
            device: Some((DeviceId(1), "HOME-1".parse().unwrap())),
            metric: "m".into(),
            metric_id: 1,
            value,
        }
    }

    fn csv(value: Option<Value<'static>>) -> String {
        String::from_utf8(lines(Format::Csv, false, vec![point(value)]).unwrap()).unwrap()
    }

    #[test]
    fn records_are_quoted_where_they_must_be() {
        let text = |text: &'static str| Some(Value::Text(text.into()));
        for (value, shown) in [
            (Some(Value::Number(40.0)), "40"),
            (Some(Value::Number(-0.5)), "-0.5"),
            (Some(Value::Flag(true)), "true"),
            (None, ""),
            (text("eco"), "eco"),
            (text("a,b"), "\"a,b\""),
            (text("say \"hi\"\n"), "\"say \"\"hi\"\"\n\""),
            (text("=1+1"), "'=1+1"),
            (text("@SUM(A1)"), "'@SUM(A1)"),
            (text("\u{ff1d}1+1"), "'\u{ff1d}1+1"),
            (text("-5"), "-5"),
            (text("-5+cmd"), "'-5+cmd"),
        ] {
            assert_eq!(csv(value), format!("2026-03-01T12:00:00.500Z,m,{shown}\r\n"));
        }
        let both = lines(Format::Csv, true, vec![point(None)]).unwrap();
        assert_eq!(
            String::from_utf8(both).unwrap(),
            "2026-03-01T12:00:00.500Z,HOME-1,m,\r\n"
        );
    }

    #[test]
    fn lines_of_json_are_exact() {
        let line = lines(
            Format::Ndjson,
            true,
            vec![point(Some(Value::Text("=1\n".into())))],
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"at\":\"2026-03-01T12:00:00.500Z\",\"serial\":\"HOME-1\",\"metric\":\"m\",\"value\":\"=1\\n\"}\n"
        );
    }
}
