//! A soak as a picture: four curves over time, readable on light and on dark.

use std::time::Duration;

use plotters::prelude::*;

use super::sample::Sample;

/// Pixels.
const SIZE: (u32, u32) = (900, 560);
/// Half-way between black and white, for text and axes.
const GREY: RGBColor = RGBColor(128, 128, 128);
const BLUE: RGBColor = RGBColor(59, 130, 246);

/// SVG.
///
/// # Errors
/// What could not be drawn.
pub(super) fn draw(samples: &[Sample]) -> Result<String, String> {
    #[expect(clippy::cast_precision_loss, reason = "pictures are less exact than that")]
    let of = |read: fn(&Sample) -> Option<u64>, divisor: f64| {
        curve(samples, move |sample| {
            read(sample).map(|value| value as f64 / divisor)
        })
    };
    let panels = [
        (
            "memory of the server, MiB",
            of(|sample| sample.memory_kib, 1024.0),
        ),
        ("samples waiting for their commit", of(|sample| sample.queue, 1.0)),
        (
            "PUBACK p99, ms",
            curve(samples, |sample| Some(sample.puback.p99_ms)),
        ),
        (
            "table and its indexes, GiB",
            of(|sample| sample.table_bytes, 1024.0 * 1024.0 * 1024.0),
        ),
    ];
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        for (area, (title, points)) in root.split_evenly((2, 2)).iter().zip(&panels) {
            panel(area, title, points).map_err(|error| error.to_string())?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// Minutes and values.
fn curve(samples: &[Sample], read: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let minutes = |time: Duration| time.as_secs_f64() / 60.0;
    samples
        .iter()
        .filter_map(|sample| Some((minutes(sample.since_start), read(sample)?)))
        .collect()
}

fn panel<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    title: &str,
    points: &[(f64, f64)],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let largest = |read: fn(&(f64, f64)) -> f64| points.iter().map(read).fold(0.0, f64::max);
    let (time, value) = (largest(|point| point.0), largest(|point| point.1));
    let (time, value) = (time.max(0.1), if value > 0.0 { value * 1.1 } else { 1.0 });
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15, &GREY))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..time, 0.0..value)?;
    chart
        .configure_mesh()
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.25))
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 12, &GREY))
        .x_desc("minutes")
        .x_label_formatter(&|minutes| short(*minutes))
        .y_label_formatter(&|value| short(*value))
        .y_labels(6)
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), BLUE.stroke_width(2)))?;
    Ok(())
}

/// Without decimals that say nothing.
fn short(value: f64) -> String {
    if value.fract().abs() < 1e-6 {
        format!("{value:.0}")
    } else if value < 10.0 {
        format!("{value:.2}").trim_end_matches('0').to_owned()
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_curves_are_drawn_also_of_what_was_never_seen() {
        let sample = |second| Sample {
            since_start: Duration::from_secs(second),
            memory_kib: Some(60 * 1024 + second),
            ..Sample::default()
        };
        let svg = draw(&[sample(5), sample(10), sample(15)]).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.contains("memory of the server, MiB"),
            "{svg}"
        );
        assert!(svg.matches("<polyline").count() >= 2);
        draw(&[]).unwrap();
    }
}
