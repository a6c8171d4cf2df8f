//! Where an axis has its marks, and what stands at them.

use chrono::{
    DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;

/// Steps within a day, in seconds.
const STEPS: [i64; 17] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
];
/// Steps of whole days.
const DAY_STEPS: [u32; 4] = [1, 2, 7, 14];
/// Steps of whole months.
const MONTH_STEPS: [u32; 8] = [1, 3, 6, 12, 24, 60, 120, 600];
/// The most marks that are looked for.
const MOST: usize = 200;

/// A mark: where, and its words.
pub(super) type Mark<T> = (T, String);

/// Marks between two times, about `count` of them, at even times of a clock in `zone`.
pub(super) fn times(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    zone: Tz,
    count: i64,
) -> Vec<Mark<DateTime<Utc>>> {
    let span = (to - from).num_seconds().max(1);
    let fits = |step: i64| span / step <= count.max(1);
    let local = from.with_timezone(&zone).naive_local();
    let midnight = local.date().and_time(NaiveTime::MIN);
    let marks = if let Some(step) = STEPS.into_iter().find(|step| fits(*step)) {
        let into = (local - midnight).num_seconds() / step * step;
        let first = midnight.checked_add_signed(TimeDelta::seconds(into));
        let next = |at: NaiveDateTime| at.checked_add_signed(TimeDelta::seconds(step));
        let words = move |at: NaiveDateTime| {
            if at.time() == NaiveTime::MIN {
                at.format("%-d %b").to_string()
            } else if step < 60 {
                at.format("%H:%M:%S").to_string()
            } else {
                at.format("%H:%M").to_string()
            }
        };
        walk(first, next, words)
    } else if let Some(step) = DAY_STEPS.into_iter().find(|step| fits(i64::from(*step) * 86_400)) {
        // Weeks begin on Monday; the rest counts on from the day that the picture begins with.
        let back = if step >= 7 {
            local.weekday().num_days_from_monday()
        } else {
            0
        };
        let first = midnight.checked_sub_days(Days::new(u64::from(back)));
        let next = |at: NaiveDateTime| at.checked_add_days(Days::new(u64::from(step)));
        walk(first, next, |at| at.format("%-d %b").to_string())
    } else {
        let month = 30 * 86_400;
        let step = MONTH_STEPS
            .into_iter()
            .find(|step| fits(i64::from(*step) * month));
        let step = step.unwrap_or(1_200);
        let first = if step >= 12 {
            let years = i32::try_from(step / 12).unwrap_or(1);
            let year = local.year().div_euclid(years) * years;
            NaiveDate::from_ymd_opt(year, 1, 1)
        } else {
            NaiveDate::from_ymd_opt(local.year(), local.month0() / step * step + 1, 1)
        };
        let first = first.map(|day| day.and_time(NaiveTime::MIN));
        let next = |at: NaiveDateTime| at.checked_add_months(Months::new(step));
        let form = if step >= 12 { "%Y" } else { "%b %Y" };
        walk(first, next, |at| at.format(form).to_string())
    };
    let placed = marks.into_iter().filter_map(|(at, words)| {
        // An hour that the clock leaves out has no mark, one that it has twice has it the first time.
        let at = zone.from_local_datetime(&at).earliest()?.with_timezone(&Utc);
        (from <= at && at <= to).then_some((at, words))
    });
    placed.collect()
}

fn walk(
    first: Option<NaiveDateTime>,
    next: impl Fn(NaiveDateTime) -> Option<NaiveDateTime>,
    words: impl Fn(NaiveDateTime) -> String,
) -> Vec<(NaiveDateTime, String)> {
    std::iter::successors(first, |at| next(*at))
        .take(MOST)
        .map(|at| (at, words(at)))
        .collect()
}

/// The ends of an axis that holds `low` to `high`, and marks on it, about `count` of them.
pub(super) fn numbers(low: f64, high: f64, count: u32) -> (f64, f64, Vec<Mark<f64>>) {
    let middle = f64::midpoint(low, high);
    // A line that never moves stands in the middle of an axis that suits its size.
    let least = (middle.abs() * 1e-3).max(1e-9);
    let (low, high) = if high - low < least {
        (
            middle - least.max(middle.abs() * 0.05).max(0.5),
            middle + least.max(middle.abs() * 0.05).max(0.5),
        )
    } else {
        (low, high)
    };
    let rough = (high - low) / f64::from(count.max(1));
    if !rough.is_finite() || rough <= 0.0 {
        return (low, high, Vec::new());
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|nice| nice * power);
    let step = step
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(power * 10.0);
    let (bottom, top) = ((low / step).floor() * step, (high / step).ceil() * step);
    let mut marks = Vec::new();
    let mut at = bottom;
    while at <= top + step / 2.0 && marks.len() < MOST {
        marks.push((at, number(at, step)));
        at = bottom + step * f64::from(u32::try_from(marks.len()).unwrap_or(u32::MAX));
    }
    (bottom, top, marks)
}

/// A number with no more digits than `step` asks for.
pub(super) fn number(value: f64, step: f64) -> String {
    let size = value.abs().max(step.abs());
    if size >= 1e7 || (size < 1e-4 && size > 0.0) {
        return format!("{value:.2e}");
    }
    let digits = (0..8_usize).find(|digits| {
        let scaled = step.abs() * 10_f64.powi(i32::try_from(*digits).unwrap_or(8));
        (scaled - scaled.round()).abs() < 1e-6 && scaled >= 0.5
    });
    let text = format!("{value:.*}", digits.unwrap_or(8));
    // No minus in front of what is shown as nothing.
    if text
        .trim_start_matches('-')
        .chars()
        .all(|c| matches!(c, '0' | '.'))
    {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// The same without noughts at its end.
pub(super) fn short(value: f64, step: f64) -> String {
    let text = number(value, step);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(from: &str, to: &str, zone: Tz) -> Vec<String> {
        let marks = times(from.parse().unwrap(), to.parse().unwrap(), zone, 8);
        marks.into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn marks_stand_at_even_local_times() {
        let oslo = chrono_tz::Europe::Oslo;
        assert_eq!(
            words("2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z", oslo),
            [
                "15:00", "18:00", "21:00", "2 Jan", "03:00", "06:00", "09:00", "12:00"
            ]
        );
        assert_eq!(
            words("2026-01-01T12:00:00Z", "2026-01-01T12:00:10Z", oslo),
            [
                "13:00:00", "13:00:02", "13:00:04", "13:00:06", "13:00:08", "13:00:10"
            ]
        );
        assert_eq!(
            words("2026-01-01T00:00:00Z", "2026-01-29T00:00:00Z", Tz::UTC),
            ["5 Jan", "12 Jan", "19 Jan", "26 Jan"]
        );
        assert_eq!(
            words("2025-06-15T00:00:00Z", "2026-06-15T00:00:00Z", oslo),
            ["Jul 2025", "Oct 2025", "Jan 2026", "Apr 2026"]
        );
        assert_eq!(
            words("2020-06-15T00:00:00Z", "2026-06-15T00:00:00Z", oslo),
            ["2021", "2022", "2023", "2024", "2025", "2026"]
        );
        // The night in which 02:00 to 03:00 isn't there.
        assert_eq!(
            words("2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z", oslo),
            [
                "29 Mar", "00:30", "01:00", "01:30", "03:00", "03:30", "04:00", "04:30", "05:00"
            ]
        );
    }

    #[test]
    fn numbers_are_round_and_hold_what_there_is() {
        let shown = |low, high| {
            let (bottom, top, marks) = numbers(low, high, 4);
            assert!(bottom <= low && high <= top, "{bottom} {low} {high} {top}");
            marks.into_iter().map(|(_, words)| words).collect::<Vec<_>>()
        };
        assert_eq!(shown(18.2, 24.1), ["18", "20", "22", "24", "26"]);
        assert_eq!(shown(0.0, 1.0), ["0.0", "0.5", "1.0"]);
        assert_eq!(
            shown(-0.03, 0.05),
            ["-0.04", "-0.02", "0.00", "0.02", "0.04", "0.06"]
        );
        assert_eq!(shown(21.0, 21.0), ["19", "20", "21", "22", "23"]);
        assert_eq!(
            shown(1e9, 3e9),
            ["1.00e9", "1.50e9", "2.00e9", "2.50e9", "3.00e9"]
        );
        assert!(numbers(-f64::MAX, f64::MAX, 4).2.is_empty());
    }
}
