//! The query of a list of devices: filters, order and cursor.

use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_model::Selector;
use setpoint_store::devices::{Device, DeviceFilter, DeviceSort, Position, SortKey};

use crate::{
    app::{Error, FieldErrors},
    http::{Problem, page},
};

/// The longest value of a filter, in characters.
const MAX_FILTER: usize = 200;
/// The most tags in one filter.
const MAX_TAGS: usize = 16;

/// What `GET /devices` may be asked for; further, `tag.NAME=VALUE`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "the shape for the documentation; `Asked` reads the query"
)]
pub(super) struct ListQuery {
    /// Exactly this serial.
    #[param(example = "HOME-1")]
    serial: Option<String>,
    /// Exactly this name.
    name: Option<String>,
    /// This model.
    model: Option<String>,
    /// This time zone.
    time_zone: Option<String>,
    /// Connected, or not.
    online: Option<bool>,
    /// Devices with this tag; any tag's name may stand behind `tag.`.
    #[serde(rename = "tag.NAME")]
    #[param(example = "oslo")]
    tag: Option<String>,
    /// Devices that this selector means by their tags.
    #[param(example = "site=oslo and floor in (1,2)")]
    selector: Option<String>,
    /// Members of this group.
    #[param(example = "oslo")]
    group: Option<String>,
    /// A part of the serial or the name, in any case.
    q: Option<String>,
    /// `serial` (the default), `name`, `model`, `created_at`, `updated_at` or `last_seen`; `-` in front turns it round.
    #[param(example = "-created_at")]
    sort: Option<String>,
    /// How many items at most: 1 to 1000, 100 by default.
    limit: Option<i64>,
    /// Where to go on: the `next` of the page before, with the same filters and order.
    cursor: Option<String>,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) filter: DeviceFilter,
    pub(super) sort: DeviceSort,
    pub(super) after: Option<Position>,
    pub(super) limit: i64,
}

/// The columns one may sort by.
const SORT_KEYS: [(&str, SortKey); 6] = [
    ("serial", SortKey::Serial),
    ("name", SortKey::Name),
    ("model", SortKey::Model),
    ("created_at", SortKey::CreatedAt),
    ("updated_at", SortKey::UpdatedAt),
    ("last_seen", SortKey::LastSeen),
];

impl Asked {
    /// Reads the query's parameters.
    ///
    /// # Errors
    /// 422 with a message for each that is unknown, given twice or not valid.
    pub(super) fn parse(parameters: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut errors = FieldErrors::new();
        let mut read = Parameters::default();
        let mut seen = HashSet::new();
        for (name, value) in parameters {
            let outcome = if seen.contains(&name) {
                Err("is given twice".to_owned())
            } else {
                read.set(&name, value)
            };
            if let Err(message) = outcome {
                errors.insert(name.clone(), message);
            }
            seen.insert(name);
        }
        let Parameters {
            filter,
            sort,
            limit,
            cursor,
        } = read;
        let after = cursor.as_deref().map(|cursor| position(sort, cursor));
        if after == Some(None) {
            errors.insert(
                "cursor".to_owned(),
                "is not a cursor of this list and order".to_owned(),
            );
        }
        if !errors.is_empty() {
            return Err(Error::Invalid { errors }.into());
        }
        Ok(Self {
            filter,
            sort,
            after: after.flatten(),
            limit: page::limit(limit)?,
        })
    }
}

/// The parameters as they are read one by one.
struct Parameters {
    filter: DeviceFilter,
    sort: DeviceSort,
    limit: Option<i64>,
    cursor: Option<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        let sort = DeviceSort {
            key: SortKey::Serial,
            descending: false,
        };
        Self {
            filter: DeviceFilter::default(),
            sort,
            limit: None,
            cursor: None,
        }
    }
}

impl Parameters {
    /// Sets one; the error is a sentence without its name.
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        if value.contains('\0') {
            return Err("may not contain the character U+0000".to_owned());
        }
        if value.chars().count() > MAX_FILTER && !matches!(name, "cursor" | "selector") {
            return Err(format!("at most {MAX_FILTER} characters"));
        }
        let filter = &mut self.filter;
        match name {
            "serial" => filter.serial = Some(value),
            "name" => filter.name = Some(value),
            "model" => filter.model = Some(value),
            "time_zone" => filter.time_zone = Some(value),
            "q" => filter.search = Some(value).filter(|value| !value.is_empty()),
            "online" => filter.online = Some(flag(&value)?),
            "selector" => {
                let selector = value.parse::<Selector>().map_err(|error| error.to_string())?;
                filter.selector = Some(selector);
            }
            "group" => filter.group = Some(value),
            "sort" => self.sort = parse_sort(&value)?,
            "limit" => self.limit = Some(number(&value)?),
            "cursor" => self.cursor = Some(value),
            _ => match name.strip_prefix("tag.").filter(|tag| !tag.is_empty()) {
                Some(_) if filter.tags.len() >= MAX_TAGS => return Err(format!("at most {MAX_TAGS} tags")),
                Some(tag) => filter.tags.push((tag.to_owned(), meanings(value))),
                None => return Err("is not known here".to_owned()),
            },
        }
        Ok(())
    }
}

fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "must be true or false".to_owned())
}

fn number(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| "must be a whole number".to_owned())
}

fn parse_sort(value: &str) -> Result<DeviceSort, String> {
    let (name, descending) = match value.strip_prefix('-') {
        Some(name) => (name, true),
        None => (value, false),
    };
    let known = SORT_KEYS.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, key)| DeviceSort {
            key: *key,
            descending,
        })
        .ok_or_else(|| {
            let names: Vec<&str> = SORT_KEYS.iter().map(|(name, _)| *name).collect();
            format!("must be one of {}, each also with `-` in front", names.join(", "))
        })
}

/// What a tag's value may mean: `2` is the text or the number, `true` the text or the boolean.
fn meanings(value: String) -> Vec<Value> {
    let other = serde_json::from_str::<Value>(&value)
        .ok()
        .filter(|value| value.is_number() || value.is_boolean());
    std::iter::once(Value::String(value)).chain(other).collect()
}

/// A cursor's contents: the order it belongs to, the last device's place in it, and its serial.
#[derive(Serialize, Deserialize)]
struct Cursor(String, Option<Place>, String);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Time(DateTime<Utc>),
    Text(String),
}

/// The cursor behind `last`.
pub(super) fn cursor(sort: DeviceSort, last: &Device) -> String {
    let (place, serial) = match sort.key.position(last) {
        Position::Text(text, serial) => (Some(Place::Text(text)), serial),
        Position::Time(time, serial) => (time.map(Place::Time), serial),
    };
    let cursor = serde_json::to_vec(&Cursor(name(sort), place, serial)).unwrap_or_default();
    BASE64_URL_SAFE_NO_PAD.encode(cursor)
}

fn position(sort: DeviceSort, cursor: &str) -> Option<Position> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let Cursor(order, place, serial) = serde_json::from_slice(&bytes).ok()?;
    let timed = matches!(
        sort.key,
        SortKey::CreatedAt | SortKey::UpdatedAt | SortKey::LastSeen
    );
    if order != name(sort) || serial.contains('\0') {
        return None;
    }
    match place {
        Some(Place::Text(text)) if !timed && !text.contains('\0') => Some(Position::Text(text, serial)),
        Some(Place::Time(time)) if timed => Some(Position::Time(Some(time), serial)),
        None if sort.key == SortKey::LastSeen => Some(Position::Time(None, serial)),
        _ => None,
    }
}

fn name(sort: DeviceSort) -> String {
    let name = SORT_KEYS
        .iter()
        .find(|(_, key)| *key == sort.key)
        .map_or("", |(name, _)| *name);
    if sort.descending {
        format!("-{name}")
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests;
