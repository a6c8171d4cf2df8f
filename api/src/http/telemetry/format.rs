//! In which format a history is wanted: `format=`, or else the header `Accept` (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use mime::Mime;

use crate::{app::Error, http::Problem};

/// A format of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Pages: `{"items":[...],"next":...}`.
    Json,
    /// A stream of one object a line.
    Ndjson,
    /// A stream of records (RFC 4180).
    Csv,
}

impl Format {
    /// The one that is preferred where a client prefers none comes first.
    const ALL: [Self; 3] = [Self::Json, Self::Ndjson, Self::Csv];

    /// Its name in `format=`, and behind the dot of a file's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    /// Its media type without parameters.
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    /// What an answer in it says of itself.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            other => other.media_type(),
        })
    }

    /// The wanted one.
    ///
    /// # Errors
    /// 422 for a `format` that there is not, 406 when the client accepts none of them.
    pub(super) fn wanted(named: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(named) = named {
            let known = Self::ALL.into_iter().find(|format| format.name() == named);
            return known.ok_or_else(|| Error::invalid("format", "one of json, ndjson, csv").into());
        }
        let values = headers.get_all(header::ACCEPT).into_iter();
        let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        accepted(&texts.join(",")).ok_or_else(|| {
            Problem::of_status(
                StatusCode::NOT_ACCEPTABLE,
                "this can be had as application/json, application/x-ndjson or text/csv",
            )
        })
    }
}

/// The format that `Accept` likes best. What can't be read in it says nothing; without anything, all will do.
fn accepted(accept: &str) -> Option<Format> {
    let ranges: Vec<(Mime, f32)> = accept.split(',').filter_map(range).collect();
    if ranges.is_empty() {
        return Some(Format::Json);
    }
    let mut best: Option<(Format, f32)> = None;
    for format in Format::ALL {
        let quality = quality(&ranges, format);
        if quality > best.map_or(0.0, |(_, quality)| quality) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format)
}

/// A media range and its quality.
fn range(text: &str) -> Option<(Mime, f32)> {
    let range: Mime = text.trim().parse().ok()?;
    let quality = match range.get_param("q") {
        Some(quality) => quality
            .as_str()
            .parse()
            .ok()
            .filter(|q| (0.0..=1.0).contains(q))?,
        None => 1.0,
    };
    Some((range, quality))
}

/// How much a format is liked: what the most specific range says that means it.
fn quality(ranges: &[(Mime, f32)], format: Format) -> f32 {
    let means = |range: &Mime| {
        let whole = range.essence_str();
        let (kind, _) = format.media_type().split_once('/')?;
        if whole.eq_ignore_ascii_case(format.media_type()) {
            Some(2)
        } else if range.subtype() == mime::STAR && range.type_().as_str().eq_ignore_ascii_case(kind) {
            Some(1)
        } else if range.type_() == mime::STAR {
            Some(0)
        } else {
            None
        }
    };
    let meant = ranges.iter().filter_map(|(range, q)| Some((means(range)?, *q)));
    let best = meant.reduce(|best, other| if other.0 > best.0 { other } else { best });
    best.map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_what_is_accepted_is_taken() {
        use Format::{Csv, Json, Ndjson};
        for (accept, format) in [
            ("", Some(Json)),
            ("*/*", Some(Json)),
            ("application/json", Some(Json)),
            ("text/csv", Some(Csv)),
            ("TEXT/CSV; charset=utf-8", Some(Csv)),
            ("text/*", Some(Csv)),
            ("application/*", Some(Json)),
            ("application/x-ndjson, */*;q=0.1", Some(Ndjson)),
            ("application/json;q=0.5, text/csv;q=0.8", Some(Csv)),
            ("application/json;q=0.8, text/csv;q=0.8", Some(Json)),
            ("application/json;q=0, */*", Some(Ndjson)),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Some(Json),
            ),
            ("text/html", None),
            ("application/json;q=0", None),
            ("image/png, text/csv;q=0", None),
            ("gibberish", Some(Json)),
            ("text/csv;q=high, application/x-ndjson", Some(Ndjson)),
        ] {
            assert_eq!(accepted(accept), format, "{accept}");
        }
    }
}
