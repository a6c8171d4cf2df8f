//! Words in a picture, and the captions of its curves.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::style::{self, Ink};
use crate::app::telemetry::Curve;

/// Everything is drawn so many times larger, because the library knows whole numbers alone.
pub(super) const SCALE: u32 = 8;
/// The height of a caption, in pixels of the picture.
pub(super) const CAPTION: u32 = 24;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The name of a curve and its newest value, beside a mark of its colour; where the next one may begin.
pub(super) fn caption(
    root: &Area<'_>,
    curve: &Curve,
    value: &str,
    ink: Ink,
    (x, top): (u32, u32),
) -> Drawn<u32> {
    let (title, value) = (clean(&curve.title), clean(value.trim()));
    let middle = top + CAPTION / 2;
    root.draw(&Circle::new(
        (large(x + 4), large(middle)),
        large(4),
        ink.day.filled(),
    ))?;
    words(root, &title, (x + 14, middle), 12, style::TEXT, HPos::Left)?;
    let behind = x + 14 + long(&title, 12) + 8;
    words(root, &value, (behind, middle), 12, style::FAINT, HPos::Left)?;
    Ok(behind + long(&value, 12) + 24)
}

/// About how wide a text is.
pub(super) fn long(text: &str, size: u32) -> u32 {
    let letters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    letters.saturating_mul(size).saturating_mul(56) / 100
}

pub(super) fn words(root: &Area<'_>, text: &str, at: (u32, u32), size: u32, ink: Ink, side: HPos) -> Drawn {
    let place = Pos::new(side, VPos::Center);
    let font = ("sans-serif", font(size)).into_font();
    let look = TextStyle::from(font).color(&ink.day).pos(place);
    root.draw_text(text, &look, (large(at.0), large(at.1)))?;
    Ok(())
}

/// Pixels of the picture as the library has them.
pub(super) fn large(pixels: u32) -> i32 {
    i32::try_from(pixels.saturating_mul(SCALE)).unwrap_or(i32::MAX)
}

/// The size of a font that comes out as so many pixels: the library writes four fifths of what it is told.
pub(super) fn font(pixels: u32) -> f64 {
    f64::from(pixels.saturating_mul(SCALE)) * 1.24
}

/// A text without what XML can't hold (XML 1.0, section 2.2).
pub(super) fn clean(text: &str) -> String {
    let well = |c: char| {
        if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(well).collect()
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
