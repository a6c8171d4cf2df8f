//! `/devices/{serial}/telemetry.svg`.

mod axis;
mod draw;
mod style;
mod ticks;
mod words;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use setpoint_model::{
    Serial,
    telemetry::{Bucket, MetricList},
};

use super::query::{field, range};
use crate::{
    app::{
        Actor, App, Error, FieldErrors,
        telemetry::{MAX_DRAWN, Sight},
    },
    http::{Path, Problem, Query},
};

/// The sides of a picture, in pixels: at least, usually, at most.
const WIDTHS: (u32, u32, u32) = (300, 900, 4_000);
const HEIGHTS: (u32, u32) = (120, 4_000);

/// What a picture shows.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PictureQuery {
    /// Metrics, with commas between: 12 at most; without it, as many of all that have samples in the range. Texts are named
    /// but not drawn.
    #[param(example = "temperature,humidity")]
    metric: Option<String>,
    /// The earliest time, RFC 3339 or so long ago: `-24h`; 24 hours before `to` without it.
    #[param(example = "-24h")]
    from: Option<String>,
    /// The first time that is too late, RFC 3339, so long ago, or `now`, which it is without it.
    to: Option<String>,
    /// The width of a bucket: `30s`, `5m`, `1h`, `1d`; without it, one that suits the picture's width.
    bucket: Option<String>,
    /// In pixels: 300 to 4000, 900 by default.
    width: Option<u32>,
    /// In pixels, up to 4000; without it, as much as what is drawn takes.
    height: Option<u32>,
}

/// What is asked for, understood.
struct Asked {
    sight: Sight,
    width: u32,
    height: Option<u32>,
}

impl Asked {
    fn parse(query: &PictureQuery, now: DateTime<Utc>) -> Result<Self, Error> {
        let mut errors = FieldErrors::new();
        let metrics = field::<MetricList>(&mut errors, "metric", query.metric.as_deref());
        let bucket = field::<Bucket>(&mut errors, "bucket", query.bucket.as_deref());
        let (from, to) = range(&mut errors, query.from.as_deref(), query.to.as_deref(), now);
        let metrics = metrics.map(|metrics| metrics.as_slice().to_vec());
        if metrics.as_ref().is_some_and(|metrics| metrics.len() > MAX_DRAWN) {
            errors.insert("metric".to_owned(), format!("at most {MAX_DRAWN} in one picture"));
        }
        let (narrowest, usual, widest) = WIDTHS;
        let width = query.width.unwrap_or(usual);
        if !(narrowest..=widest).contains(&width) {
            errors.insert("width".to_owned(), format!("{narrowest} to {widest}"));
        }
        let (lowest, highest) = HEIGHTS;
        if query
            .height
            .is_some_and(|height| !(lowest..=highest).contains(&height))
        {
            errors.insert("height".to_owned(), format!("{lowest} to {highest}"));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid { errors });
        }
        let sight = Sight {
            metrics,
            from,
            to,
            bucket,
            points: draw::points(width),
        };
        Ok(Self {
            sight,
            width,
            height: query.height,
        })
    }
}

/// Draws a device's history: a curve with its mean, smallest and largest for each number, a lane for each boolean.
///
/// Times are those of the device's time zone; colours suit a light and a dark page. Where samples are missing the line
/// breaks.
#[utoipa::path(
    get, path = "/devices/{serial}/telemetry.svg", tag = "telemetry",
    security(("bearer" = ["telemetry:read"])),
    params(("serial" = String, Path, description = "The device's serial"), PictureQuery),
    responses(
        (status = 200, description = "The picture", body = String, content_type = "image/svg+xml"),
        (status = 404, description = "No such device"),
        (status = 422, description = "A parameter is not valid, or it would be too many points"),
    )
)]
pub(super) async fn picture(
    State(app): State<App>,
    actor: Actor,
    Path(serial): Path<Serial>,
    Query(query): Query<PictureQuery>,
) -> Result<Response, Problem> {
    let asked = Asked::parse(&query, app.clock.now())?;
    let picture = app.telemetry_picture(&actor, &serial, &asked.sight).await?;
    let layout = draw::Layout::of(&picture);
    let least = layout.least_height();
    let height = asked.height.unwrap_or_else(|| layout.usual_height());
    if height < least {
        return Err(Error::invalid("height", format!("at least {least} for what is drawn")).into());
    }
    let svg = draw::svg(&picture, asked.width, height).map_err(Error::Internal)?;
    let policy = HeaderValue::from_str(&style::POLICY).map_err(Error::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml")),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    Ok((headers, svg).into_response())
}
