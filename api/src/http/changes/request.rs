//! What is asked of a bulk change.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use setpoint_model::{
    Selector, Serial,
    change::Canary,
    settings::{Document, Limits, document},
};

use crate::{
    app::{
        Error, FieldErrors,
        changes::{ChangeRequest, Selection, Thresholds},
    },
    http::{Json, Payload, Problem},
};

/// The highest pace, in devices a minute.
const MAX_RATE: u32 = 1_000_000;
/// The longest time that devices may have for their answers.
const MAX_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// A bulk change to begin: exactly one of `selector`, `group` and `serials` says for which devices.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewChange {
    /// Devices by their tags.
    #[schema(example = "site=oslo and floor in (1,2)")]
    selector: Option<String>,
    /// Devices of this group.
    group: Option<String>,
    /// These devices, in the order in which they get the change.
    serials: Option<Vec<String>>,
    /// A merge patch (RFC 7396) of what is set on each device itself: `null` drops a key.
    #[schema(value_type = Object, example = json!({"reportInterval": 120}))]
    settings: Document,
    /// Tell what would happen, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// How many devices get it first: a count, or a percentage such as `"5%"`.
    #[schema(value_type = Option<String>, example = "5%")]
    canary: Option<Value>,
    /// How many devices a minute get it after those, 1 to 1000000; as fast as possible without.
    #[schema(example = 600)]
    rate_per_minute: Option<u32>,
    /// When it stops itself.
    abort: Option<NewAbort>,
}

/// When a bulk change stops itself.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAbort {
    /// When more than this share of the devices that have it refused it, 0 to 100; 10 by default.
    #[schema(example = 5.0)]
    refused_percent: Option<f64>,
    /// When more than this share of them did not answer in time, 0 to 100; 100, which never is more, by default.
    #[schema(example = 20.0)]
    pending_percent: Option<f64>,
    /// How long a device has for its answer, up to 7 days; `bulk_changes.answer_within` by default.
    #[schema(example = "2m")]
    after: Option<String>,
}

impl NewChange {
    /// Reads a body; whether it is a dry run.
    ///
    /// # Errors
    /// 400, 413 or 422.
    pub(super) fn read(body: &Payload, limits: Limits) -> Result<(ChangeRequest, bool), Problem> {
        let Payload(bytes) = body;
        // The patch stands one level down; what a list of serials may take is the body's own limit.
        let strict = Limits {
            bytes: bytes.len(),
            depth: limits.depth.saturating_add(1),
        };
        document::parse(bytes, strict).map_err(Error::from)?;
        let new = Json::<Self>::read(bytes)?;
        let dry_run = new.dry_run;
        Ok((new.parse()?, dry_run))
    }

    fn parse(self) -> Result<ChangeRequest, Error> {
        let mut errors = FieldErrors::new();
        let selection = take(&mut errors, selection(self.selector, self.group, self.serials));
        let canary = take(&mut errors, self.canary.map(canary).transpose());
        let rate = take(&mut errors, self.rate_per_minute.map(rate).transpose());
        let abort = take(&mut errors, self.abort.unwrap_or_default().parse());
        match (selection, canary, rate, abort) {
            (Some(selection), Some(canary), Some(rate_per_minute), Some(abort)) => Ok(ChangeRequest {
                selection,
                patch: self.settings,
                canary,
                rate_per_minute,
                abort,
            }),
            _ => Err(Error::Invalid { errors }),
        }
    }
}

impl NewAbort {
    fn parse(self) -> Result<Thresholds, Wrong> {
        let after = self.after.as_deref().map(after).transpose()?;
        Ok(Thresholds {
            refused_percent: percent("abort.refused_percent", self.refused_percent)?,
            pending_percent: percent("abort.pending_percent", self.pending_percent)?,
            after,
        })
    }
}

/// A field, and what is wrong with it.
type Wrong = (&'static str, String);

fn take<T>(errors: &mut FieldErrors, read: Result<T, Wrong>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err((field, message)) => {
            errors.insert(field.to_owned(), message);
            None
        }
    }
}

fn selection(
    selector: Option<String>,
    group: Option<String>,
    serials: Option<Vec<String>>,
) -> Result<Selection, Wrong> {
    match (selector, group, serials) {
        (Some(selector), None, None) => match selector.parse::<Selector>() {
            Ok(selector) => Ok(Selection::Selector(selector)),
            Err(error) => Err(("selector", error.to_string())),
        },
        // Postgres can't look for such a name.
        (None, Some(group), None) if group.contains('\0') => {
            Err(("group", "there is no such group".to_owned()))
        }
        (None, Some(group), None) => Ok(Selection::Group(group)),
        (None, None, Some(serials)) => {
            let parsed = serials.iter().map(|serial| {
                let wrong = |error| ("serials", format!("{serial:?}: {error}"));
                serial.parse::<Serial>().map_err(wrong)
            });
            Ok(Selection::Serials(parsed.collect::<Result<_, _>>()?))
        }
        _ => Err((
            "selector",
            "exactly one of selector, group and serials is needed".to_owned(),
        )),
    }
}

fn canary(value: Value) -> Result<Canary, Wrong> {
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse()
        .map_err(|error: setpoint_model::change::plan::NotACanary| ("canary", error.to_string()))
}

fn rate(rate: u32) -> Result<u32, Wrong> {
    if (1..=MAX_RATE).contains(&rate) {
        Ok(rate)
    } else {
        Err(("rate_per_minute", format!("1 to {MAX_RATE}")))
    }
}

fn percent(field: &'static str, percent: Option<f64>) -> Result<Option<f64>, Wrong> {
    match percent {
        Some(value) if !(0.0..=100.0).contains(&value) => Err((field, "0 to 100".to_owned())),
        percent => Ok(percent),
    }
}

fn after(text: &str) -> Result<Duration, Wrong> {
    match humantime::parse_duration(text) {
        Ok(after) if after <= MAX_AFTER => Ok(after),
        _ => Err((
            "abort.after",
            "a duration of at most 7 days is needed, such as \"2m\" or \"30s\"".to_owned(),
        )),
    }
}
