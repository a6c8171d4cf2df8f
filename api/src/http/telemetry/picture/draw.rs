//! A picture as SVG: panels above each other that share one axis of time, one for each unit, and a lane for each boolean.

use chrono::{DateTime, Utc};
use plotters::{prelude::*, style::text_anchor::HPos};

use super::{
    axis::{Axis, millis},
    style::{self, Ink},
    ticks,
    words::{Area, CAPTION, Drawn, SCALE, caption, clean, escaped, font, large, long, words},
};
use crate::app::telemetry::{Curve, Picture, Shape, Spread};

/// Heights and widths, in pixels of the picture.
const HEAD: u32 = 46;
const FOOT: u32 = 30;
const LANE: u32 = 40;
const LEFT: u32 = 64;
const RIGHT: u32 = 24;
/// The least and the usual height of a panel of numbers, its caption included.
const LEAST_PANEL: u32 = 70;
const USUAL_PANEL: u32 = 180;
/// How much of an interval may be missing before the line breaks: so many times the usual distance of two points.
const GAP: i64 = 3;

/// What stands above each other.
pub(super) struct Layout<'a> {
    /// Curves of numbers that have a unit in common.
    panels: Vec<Vec<&'a Curve>>,
    /// Booleans.
    lanes: Vec<&'a Curve>,
}

impl<'a> Layout<'a> {
    pub(super) fn of(picture: &'a Picture) -> Self {
        let mut layout = Self {
            panels: Vec::new(),
            lanes: Vec::new(),
        };
        for curve in &picture.curves {
            if matches!(curve.shape, Shape::Flags(_)) {
                layout.lanes.push(curve);
                continue;
            }
            let alike = layout.panels.iter_mut().find(|panel| {
                let unit = panel.first().and_then(|first| first.unit.as_ref());
                unit.is_some() && unit == curve.unit.as_ref()
            });
            match alike {
                Some(panel) => panel.push(curve),
                None => layout.panels.push(vec![curve]),
            }
        }
        layout
    }

    fn height(&self, panel: u32) -> u32 {
        let panels = u32::try_from(self.panels.len()).unwrap_or(u32::MAX);
        let lanes = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let drawn = panels
            .saturating_mul(panel)
            .saturating_add(lanes.saturating_mul(LANE));
        // Without anything to draw there are words.
        HEAD.saturating_add(FOOT).saturating_add(drawn.max(LEAST_PANEL))
    }

    /// The least height that it can be drawn in.
    pub(super) fn least_height(&self) -> u32 {
        self.height(LEAST_PANEL)
    }

    /// The height that suits it.
    pub(super) fn usual_height(&self) -> u32 {
        self.height(USUAL_PANEL)
    }
}

/// How many points side by side can be told apart in a picture of this width.
pub(super) fn points(width: u32) -> u32 {
    width.saturating_sub(LEFT + RIGHT) / 3
}

/// Draws a picture of this width and height.
///
/// # Errors
/// Whatever the library finds wrong.
pub(super) fn svg(picture: &Picture, width: u32, height: u32) -> Drawn<String> {
    let layout = Layout::of(picture);
    let mut drawn = String::new();
    {
        let root = SVGBackend::with_string(&mut drawn, (width * SCALE, height * SCALE)).into_drawing_area();
        root.fill(&style::PAPER.day)?;
        head(&root, picture, width)?;
        if layout.panels.is_empty() && layout.lanes.is_empty() {
            let middle = (width / 2, HEAD.midpoint(height.saturating_sub(FOOT)));
            words(
                &root,
                "no data in this range",
                middle,
                14,
                style::FAINT,
                HPos::Center,
            )?;
        } else {
            body(&root, picture, &layout, width, height)?;
        }
        root.present()?;
    }
    Ok(framed(&drawn, picture, width, height))
}

/// The library's root element with one in its place that has the picture's own size, words and style.
fn framed(drawn: &str, picture: &Picture, width: u32, height: u32) -> String {
    let inner = drawn.split_once('\n').map_or("", |(_, inner)| inner);
    let title = escaped(&clean(&picture.title));
    let sheet = &*style::SHEET;
    let (large, tall) = (width * SCALE, height * SCALE);
    format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {large} {tall}\" role=\"img\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n<title>{title}</title>\n<style>{sheet}</style>\n{inner}"
    )
}

fn head(root: &Area<'_>, picture: &Picture, width: u32) -> Drawn {
    words(
        root,
        &clean(&picture.title),
        (LEFT / 4, 16),
        16,
        style::TEXT,
        HPos::Left,
    )?;
    let shown = |at: DateTime<Utc>| {
        at.with_timezone(&picture.zone)
            .format("%-d %b %Y %H:%M")
            .to_string()
    };
    let mut line = format!("{} – {}", shown(picture.from), shown(picture.to));
    let mut further = vec![
        format!(", {}", picture.zone.name()),
        format!(" · mean of each {}", span(picture.bucket.seconds())),
    ];
    if !picture.left_out.is_empty() {
        further.push(format!(" · not drawn: {}", picture.left_out.join(", ")));
    }
    // As much as there is room for.
    for more in further {
        if LEFT / 2 + long(&line, 11) + long(&more, 11) <= width {
            line.push_str(&more);
        }
    }
    words(root, &line, (LEFT / 4, 34), 11, style::FAINT, HPos::Left)
}

fn span(seconds: u32) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let unit = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    unit.map_or_else(String::new, |(unit, name)| format!("{} {name}", seconds / unit))
}

fn body(root: &Area<'_>, picture: &Picture, layout: &Layout<'_>, width: u32, height: u32) -> Drawn {
    let lanes = u32::try_from(layout.lanes.len()).unwrap_or(0);
    let panels = u32::try_from(layout.panels.len()).unwrap_or(0);
    let room = height.saturating_sub(HEAD + FOOT + lanes * LANE);
    let tall = room.checked_div(panels).unwrap_or(0);
    let marks = ticks::times(
        picture.from,
        picture.to,
        picture.zone,
        i64::from(width.saturating_sub(LEFT + RIGHT) / 80),
    );
    let mut top = HEAD;
    let mut inks = style::CURVES.iter().copied().cycle();
    for (n, panel) in layout.panels.iter().enumerate() {
        let last = lanes == 0 && n + 1 == layout.panels.len();
        let inked: Vec<(&Curve, Ink)> = panel.iter().copied().zip(inks.by_ref()).collect();
        numbers(
            root,
            picture,
            &inked,
            &marks,
            Strip {
                top,
                tall,
                width,
                last,
            },
        )?;
        top = top.saturating_add(tall);
    }
    for (n, lane) in layout.lanes.iter().enumerate() {
        let Some(ink) = inks.next() else { break };
        let last = n + 1 == layout.lanes.len();
        let strip = Strip {
            top,
            tall: LANE,
            width,
            last,
        };
        flags(root, picture, (lane, ink), &marks, strip)?;
        top = top.saturating_add(LANE);
    }
    Ok(())
}

/// A part of the picture from one side to the other, in its pixels.
#[derive(Clone, Copy)]
struct Strip {
    top: u32,
    tall: u32,
    width: u32,
    /// Whether the axis of time stands below it.
    last: bool,
}

impl Strip {
    /// Its plot: what is below the caption, with the room for the axes.
    fn plot<'a>(self, root: &Area<'a>) -> Area<'a> {
        let foot = if self.last { FOOT } else { 0 };
        let top = self.top.saturating_add(CAPTION);
        let tall = self.tall.saturating_sub(CAPTION).saturating_add(foot);
        root.clone()
            .shrink((0, large(top)), (large(self.width - RIGHT), large(tall)))
    }
}

fn numbers(
    root: &Area<'_>,
    picture: &Picture,
    curves: &[(&Curve, Ink)],
    marks: &[ticks::Mark<DateTime<Utc>>],
    strip: Strip,
) -> Drawn {
    let all = || {
        curves.iter().flat_map(|(curve, _)| match &curve.shape {
            Shape::Numbers(spreads) => spreads.as_slice(),
            Shape::Flags(_) => &[],
        })
    };
    let low = all().map(|spread| spread.min).fold(f64::INFINITY, f64::min);
    let high = all().map(|spread| spread.max).fold(f64::NEG_INFINITY, f64::max);
    let (bottom, top, levels) = ticks::numbers(low, high, strip.tall.saturating_sub(CAPTION) / 36);
    let step = match levels.as_slice() {
        [(first, _), (second, _), ..] => second - first,
        _ => top - bottom,
    };
    let mut x = LEFT;
    for (curve, ink) in curves {
        let newest = match &curve.shape {
            Shape::Numbers(spreads) => spreads.last(),
            Shape::Flags(_) => None,
        };
        let newest = newest.map_or_else(String::new, |spread| ticks::short(spread.last, step / 10.0));
        let unit = curve.unit.as_deref().unwrap_or_default();
        x = caption(root, curve, &format!("{newest} {unit}"), *ink, (x, strip.top))?;
    }

    let plot = strip.plot(root);
    let marked = levels.len().max(1);
    let heights = Axis {
        from: bottom,
        to: top,
        marks: levels,
    };
    let mut chart = ChartBuilder::on(&plot)
        .y_label_area_size(large(LEFT))
        .x_label_area_size(if strip.last { large(FOOT) } else { 0 })
        .build_cartesian_2d(Axis::of_time(picture, marks), heights)?;
    chart
        .configure_mesh()
        .x_labels(marks.len().max(1))
        .y_labels(marked)
        .bold_line_style(style::GRID.day.stroke_width(SCALE))
        .light_line_style(TRANSPARENT)
        .axis_style(style::AXIS.day.stroke_width(SCALE))
        .label_style(("sans-serif", font(11), &style::FAINT.day))
        .set_all_tick_mark_size(large(3))
        .draw()?;
    for (curve, ink) in curves {
        let Shape::Numbers(spreads) = &curve.shape else {
            continue;
        };
        let half = picture.bucket.width() / 2;
        let x = |spread: &Spread| {
            // In the middle of what the bucket has of the range.
            let middle = spread.at + half;
            millis(middle.clamp(picture.from, picture.to))
        };
        for part in parts(spreads, |spread| spread.at, picture) {
            if part.iter().any(|spread| spread.min < spread.max) {
                let above = part.iter().map(|spread| (x(spread), spread.max));
                let below = part.iter().rev().map(|spread| (x(spread), spread.min));
                let band: Vec<_> = above.chain(below).collect();
                chart.draw_series([Polygon::new(band, ink.day.mix(0.18).filled())])?;
            }
            let line = part.iter().map(|spread| (x(spread), spread.mean));
            let pen = ink.day.stroke_width(SCALE + SCALE / 2);
            chart.draw_series(LineSeries::new(line, pen))?;
            if let [alone] = part {
                let dot = Circle::new((x(alone), alone.mean), large(2), ink.day.filled());
                chart.draw_series([dot])?;
            }
        }
    }
    Ok(())
}

fn flags(
    root: &Area<'_>,
    picture: &Picture,
    (curve, ink): (&Curve, Ink),
    marks: &[ticks::Mark<DateTime<Utc>>],
    strip: Strip,
) -> Drawn {
    let Shape::Flags(values) = &curve.shape else {
        return Ok(());
    };
    let newest = match values.last() {
        Some((_, true)) => "on",
        Some((_, false)) => "off",
        None => "",
    };
    caption(root, curve, newest, ink, (LEFT, strip.top))?;
    let plot = strip.plot(root);
    let mut chart = ChartBuilder::on(&plot)
        .y_label_area_size(large(LEFT))
        .x_label_area_size(if strip.last { large(FOOT) } else { 0 })
        .build_cartesian_2d(Axis::of_time(picture, marks), -0.1_f64..1.1)?;
    chart
        .configure_mesh()
        .x_labels(marks.len().max(1))
        .disable_y_mesh()
        .y_labels(0)
        .bold_line_style(style::GRID.day.stroke_width(SCALE))
        .light_line_style(TRANSPARENT)
        .axis_style(style::AXIS.day.stroke_width(SCALE))
        .label_style(("sans-serif", font(11), &style::FAINT.day))
        .set_all_tick_mark_size(large(3))
        .draw()?;
    for part in parts(values, |(at, _)| *at, picture) {
        let Some((last, _)) = part.last() else { continue };
        // The last value holds to the end of its bucket; each other one until the next.
        let end = (*last + picture.bucket.width()).min(picture.to);
        let ends = part.iter().skip(1).map(|(at, _)| *at).chain([end]);
        let mut line = Vec::new();
        for ((at, on), until) in part.iter().zip(ends) {
            let level = if *on { 1.0 } else { 0.0 };
            let (at, until) = (millis((*at).max(picture.from)), millis(until));
            line.extend([(at, level), (until, level)]);
            if *on {
                let bar = Rectangle::new([(at, 0.0), (until, 1.0)], ink.day.mix(0.25).filled());
                chart.draw_series([bar])?;
            }
        }
        let pen = ink.day.stroke_width(SCALE + SCALE / 2);
        chart.draw_series(LineSeries::new(line, pen))?;
    }
    Ok(())
}

/// Values in runs without gaps: where much more time than usual has none, the line breaks.
fn parts<'a, T>(values: &'a [T], at: impl Fn(&T) -> DateTime<Utc>, picture: &Picture) -> Vec<&'a [T]> {
    let mut distances: Vec<i64> = values
        .windows(2)
        .filter_map(|pair| match pair {
            [one, other] => Some((at(other) - at(one)).num_milliseconds()),
            _ => None,
        })
        .collect();
    distances.sort_unstable();
    let usual = distances.get(distances.len() / 2).copied().unwrap_or(0);
    let most = usual
        .max(picture.bucket.width().num_milliseconds())
        .saturating_mul(GAP);
    values
        .chunk_by(|one, other| (at(other) - at(one)).num_milliseconds() <= most)
        .collect()
}
