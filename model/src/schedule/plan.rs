//! When a schedule holds, as people write it: days and times of day, or a period.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc, Weekday};
use serde_json::Value;

use crate::{device::FieldErrors, settings::Document};

/// The fields of a weekly plan.
const WEEKLY: [&str; 3] = ["days", "from", "to"];
/// The fields of a single period.
const ONCE: [&str; 2] = ["starts_at", "ends_at"];
/// The years a period may lie in.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2999;

/// The days of the week, and the names they go by.
const NAMES: [(Weekday, &str); 7] = [
    (Weekday::Mon, "mon"),
    (Weekday::Tue, "tue"),
    (Weekday::Wed, "wed"),
    (Weekday::Thu, "thu"),
    (Weekday::Fri, "fri"),
    (Weekday::Sat, "sat"),
    (Weekday::Sun, "sun"),
];

/// When a schedule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Every week: `{"days":["mon"],"from":"22:00","to":"06:30"}`.
    Weekly {
        /// The days on which a window begins.
        days: Days,
        /// When it begins, by the device's clock.
        from: TimeOfDay,
        /// When it ends: on the next day, unless it is later than `from`. Equal times mean a whole day.
        to: TimeOfDay,
    },
    /// Once: `{"starts_at":"2026-12-24T16:00:00Z","ends_at":"2026-12-27T08:00:00Z"}`.
    Once(Period),
}

/// A single period, its end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// The same instants everywhere.
    Absolute {
        /// When it begins.
        starts_at: DateTime<Utc>,
        /// When it ends.
        ends_at: DateTime<Utc>,
    },
    /// By each device's clock.
    Local {
        /// When it begins.
        starts_at: NaiveDateTime,
        /// When it ends.
        ends_at: NaiveDateTime,
    },
}

/// One day of the week or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

/// A time of day to the minute: `00:00` to `23:59`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(NaiveTime);

impl Plan {
    /// Takes a plan's fields out of `fields`, and reads them.
    ///
    /// # Errors
    /// A message per field that is missing, wrong or out of place.
    pub(super) fn take(fields: &mut Document) -> Result<Self, FieldErrors> {
        let present = |name: &&&str| fields.get(**name).is_some_and(|value| !value.is_null());
        let given = |names: &[&'static str]| names.iter().find(present).copied();
        match (given(&WEEKLY), given(&ONCE)) {
            (Some(_), Some(field)) => {
                let message = "either `days`, `from` and `to`, or `starts_at` and `ends_at`";
                Err([(field.to_owned(), message.to_owned())].into())
            }
            (_, None) => Self::take_weekly(fields),
            (None, Some(_)) => Self::take_once(fields),
        }
    }

    fn take_weekly(fields: &mut Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let days = read(fields, "days", &mut errors, Days::parse);
        let from = read(fields, "from", &mut errors, TimeOfDay::parse);
        let to = read(fields, "to", &mut errors, TimeOfDay::parse);
        match (days, from, to) {
            (Some(days), Some(from), Some(to)) => Ok(Self::Weekly { days, from, to }),
            _ => Err(errors),
        }
    }

    fn take_once(fields: &mut Document) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let starts_at = read(fields, "starts_at", &mut errors, Moment::parse);
        let ends_at = read(fields, "ends_at", &mut errors, Moment::parse);
        let (Some(starts_at), Some(ends_at)) = (starts_at, ends_at) else {
            return Err(errors);
        };
        let (period, in_order) = match (starts_at, ends_at) {
            (Moment::Absolute(starts_at), Moment::Absolute(ends_at)) => {
                (Period::Absolute { starts_at, ends_at }, starts_at < ends_at)
            }
            (Moment::Local(starts_at), Moment::Local(ends_at)) => {
                (Period::Local { starts_at, ends_at }, starts_at < ends_at)
            }
            _ => {
                let message = "must have an offset if `starts_at` has one, and none if that has none";
                return Err([("ends_at".to_owned(), message.to_owned())].into());
            }
        };
        if in_order {
            Ok(Self::Once(period))
        } else {
            let message = "must be later than `starts_at`";
            Err([("ends_at".to_owned(), message.to_owned())].into())
        }
    }

    /// Reads a plan from its fields.
    ///
    /// # Errors
    /// A message per field that is missing, wrong or out of place.
    pub fn from_document(mut fields: Document) -> Result<Self, FieldErrors> {
        Self::take(&mut fields)
    }

    /// The plan as fields.
    pub fn to_document(&self) -> Document {
        let fields: Vec<(&str, Value)> = match self {
            Self::Weekly { days, from, to } => vec![
                ("days", days.names().collect::<Vec<_>>().into()),
                ("from", from.to_string().into()),
                ("to", to.to_string().into()),
            ],
            Self::Once(Period::Absolute { starts_at, ends_at }) => vec![
                ("starts_at", rfc_3339(*starts_at).into()),
                ("ends_at", rfc_3339(*ends_at).into()),
            ],
            Self::Once(Period::Local { starts_at, ends_at }) => vec![
                ("starts_at", starts_at.format(LOCAL).to_string().into()),
                ("ends_at", ends_at.format(LOCAL).to_string().into()),
            ],
        };
        let named = |(name, value): (&str, Value)| (name.to_owned(), value);
        fields.into_iter().map(named).collect()
    }
}

/// Takes one field out and reads it; what is wrong with it goes to `errors`.
fn read<T>(
    fields: &mut Document,
    name: &str,
    errors: &mut FieldErrors,
    parse: fn(&Value) -> Result<T, String>,
) -> Option<T> {
    let value = fields.remove(name).filter(|value| !value.is_null());
    let value = value.ok_or_else(|| "is needed".to_owned());
    match value.and_then(|value| parse(&value)) {
        Ok(value) => Some(value),
        Err(message) => {
            errors.insert(name.to_owned(), message);
            None
        }
    }
}

impl Days {
    /// All seven.
    pub const EVERY: Self = Self(0b111_1111);

    /// Whether the date's day of the week is among them.
    pub fn contains(self, date: NaiveDate) -> bool {
        self.0 & bit(date.weekday()) != 0
    }

    /// Their names, Monday first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let mine = move |(day, _): &(Weekday, &str)| self.0 & bit(*day) != 0;
        NAMES.into_iter().filter(mine).map(|(_, name)| name)
    }

    fn parse(value: &Value) -> Result<Self, String> {
        let wrong = || "must be a list of mon, tue, wed, thu, fri, sat, sun, at least one".to_owned();
        let mut days = 0;
        for item in value.as_array().ok_or_else(wrong)? {
            let known = NAMES.iter().find(|(_, name)| item.as_str() == Some(name));
            days |= known.map(|(day, _)| bit(*day)).ok_or_else(wrong)?;
        }
        if days == 0 { Err(wrong()) } else { Ok(Self(days)) }
    }
}

impl FromIterator<Weekday> for Days {
    fn from_iter<I: IntoIterator<Item = Weekday>>(days: I) -> Self {
        Self(days.into_iter().fold(0, |all, day| all | bit(day)))
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.num_days_from_monday()
}

impl TimeOfDay {
    /// As chrono has it.
    pub fn time(self) -> NaiveTime {
        self.0
    }

    fn parse(value: &Value) -> Result<Self, String> {
        let wrong = || "must be a time of day such as \"06:30\", 00:00 to 23:59".to_owned();
        value.as_str().ok_or_else(wrong)?.parse().map_err(|()| wrong())
    }
}

impl FromStr for TimeOfDay {
    type Err = ();

    /// Reads `HH:MM`, two digits each.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (hour, minute) = text.split_once(':').ok_or(())?;
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'..=b'9', b'0'..=b'9'] => digits.parse::<u32>().map_err(|_| ()),
            _ => Err(()),
        };
        NaiveTime::from_hms_opt(number(hour)?, number(minute)?, 0)
            .map(Self)
            .ok_or(())
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format("%H:%M").fmt(f)
    }
}

/// One end of a period.
enum Moment {
    Absolute(DateTime<Utc>),
    Local(NaiveDateTime),
}

/// A local time as it is written.
const LOCAL: &str = "%Y-%m-%dT%H:%M:%S%.f";
/// A local time may be read without its seconds.
const LOCAL_MINUTE: &str = "%Y-%m-%dT%H:%M";

impl Moment {
    /// To the microsecond, which is what the database keeps.
    fn parse(value: &Value) -> Result<Self, String> {
        let wrong = || {
            "must be an RFC 3339 time, or a local time without offset such as \"2026-12-24T17:00:00\", from 1970 to 2999"
                .to_owned()
        };
        let text = value.as_str().ok_or_else(wrong)?;
        let micros = |at: DateTime<Utc>| DateTime::from_timestamp_micros(at.timestamp_micros());
        let known = |at: &DateTime<Utc>| YEARS.contains(&at.year());
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            let at = micros(at.to_utc()).filter(known).ok_or_else(wrong)?;
            return Ok(Self::Absolute(at));
        }
        let local = NaiveDateTime::parse_from_str(text, LOCAL)
            .or_else(|_| NaiveDateTime::parse_from_str(text, LOCAL_MINUTE))
            .map_err(|_| wrong())?;
        let at = micros(local.and_utc()).filter(known).ok_or_else(wrong)?;
        Ok(Self::Local(at.naive_utc()))
    }
}

fn rfc_3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
