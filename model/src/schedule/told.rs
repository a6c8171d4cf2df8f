//! Schedules as a device finds them in its settings document, to hold them while it is offline.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::{DOCUMENT_KEY, Schedule};
use crate::settings::Document;

/// The part of a settings document that tells a device of its schedules: under [`DOCUMENT_KEY`] a list of those that
/// are enabled and not over, in the order of [`Schedule::rank`], so that of several that hold the last one wins. Each
/// has its `name`, its plan, `settings` (what `accepted` leaves of them), `priority` and the device's `time_zone`.
/// `None` if there are none.
pub fn told<'a>(
    schedules: impl IntoIterator<Item = &'a Schedule>,
    zone: Tz,
    at: DateTime<Utc>,
    accepted: impl Fn(&Document) -> Document,
) -> Option<Document> {
    let counts =
        |schedule: &&Schedule| schedule.definition.enabled && !schedule.definition.plan.is_over(zone, at);
    let mut counting: Vec<&Schedule> = schedules.into_iter().filter(counts).collect();
    counting.sort_by(|one, other| one.rank().cmp(&other.rank()));
    let item = |schedule: &Schedule| {
        let mut item = Document::new();
        item.insert("name".to_owned(), schedule.name.as_str().into());
        item.extend(schedule.definition.plan.to_document());
        let settings = accepted(&schedule.definition.settings);
        item.insert("settings".to_owned(), Value::Object(settings));
        item.insert("priority".to_owned(), schedule.definition.priority.into());
        item.insert("time_zone".to_owned(), zone.name().into());
        Value::Object(item)
    };
    let items: Vec<Value> = counting.into_iter().map(item).collect();
    if items.is_empty() {
        return None;
    }
    Some(Document::from_iter([(
        DOCUMENT_KEY.to_owned(),
        Value::Array(items),
    )]))
}
