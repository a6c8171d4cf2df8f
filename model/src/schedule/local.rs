//! Local times of a zone as instants: where a window begins and where it ends, also when the clock is changed.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};

/// The first instant at which the clock shows `local` or a later time.
///
/// In the hour that is missing: the first instant behind the gap. In the hour that comes twice: the first pass.
pub(super) fn begin(local: NaiveDateTime, zone: Tz) -> DateTime<Utc> {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(at) => at.to_utc(),
        MappedLocalTime::Ambiguous(one, other) => one.min(other).to_utc(),
        MappedLocalTime::None => behind_gap(local, zone),
    }
}

/// The instant from which on the clock never again shows a time before `local`.
///
/// In the hour that is missing: the first instant behind the gap. In the hour that comes twice: the second pass,
/// since the clock goes back to times before `local`; so not for the hour's very beginning, to which it goes back.
pub(super) fn end(local: NaiveDateTime, zone: Tz) -> DateTime<Utc> {
    let moment = TimeDelta::nanoseconds(1);
    let Some(before) = local.checked_sub_signed(moment) else {
        return begin(local, zone);
    };
    match zone.from_local_datetime(&before) {
        MappedLocalTime::Single(at) => at.to_utc() + moment,
        MappedLocalTime::Ambiguous(one, other) => one.max(other).to_utc() + moment,
        MappedLocalTime::None => behind_gap(before, zone),
    }
}

fn behind_gap(local: NaiveDateTime, zone: Tz) -> DateTime<Utc> {
    match GapInfo::new(&local, &zone).and_then(|gap| gap.end) {
        Some(end) => end.to_utc(),
        // Beyond what is known of the zone: with the offset that holds about then.
        None => local.and_utc() - zone.offset_from_utc_datetime(&local).fix(),
    }
}
