//! The colours of a picture, by day and by night.
//!
//! The drawing library writes colours into each element. A style sheet in the picture finds them there and puts others in
//! their place where the reader's system is dark, so one picture suits both.

use std::{fmt::Write as _, sync::LazyLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use plotters::style::RGBColor;
use sha2::{Digest as _, Sha256};

/// A colour by day, and what stands in its place by night.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ink {
    pub(super) day: RGBColor,
    night: RGBColor,
}

const fn ink(day: (u8, u8, u8), night: (u8, u8, u8)) -> Ink {
    Ink {
        day: RGBColor(day.0, day.1, day.2),
        night: RGBColor(night.0, night.1, night.2),
    }
}

pub(super) const PAPER: Ink = ink((0xfe, 0xfe, 0xfe), (0x16, 0x1b, 0x22));
pub(super) const TEXT: Ink = ink((0x1f, 0x23, 0x28), (0xe6, 0xed, 0xf3));
pub(super) const FAINT: Ink = ink((0x59, 0x63, 0x6e), (0x91, 0x98, 0xa1));
pub(super) const GRID: Ink = ink((0xe4, 0xe8, 0xed), (0x2b, 0x32, 0x3b));
pub(super) const AXIS: Ink = ink((0xaf, 0xb8, 0xc1), (0x4d, 0x56, 0x60));

/// Curves, told apart also by those who see fewer colours (Okabe and Ito, darker by day).
pub(super) const CURVES: [Ink; 6] = [
    ink((0x00, 0x6b, 0xb0), (0x56, 0xb4, 0xe9)),
    ink((0xc5, 0x5a, 0x00), (0xf0, 0x9d, 0x3c)),
    ink((0x00, 0x80, 0x60), (0x2f, 0xc7, 0x9b)),
    ink((0xa8, 0x3e, 0x7d), (0xe3, 0x93, 0xc0)),
    ink((0x8a, 0x6d, 0x00), (0xe8, 0xd2, 0x4a)),
    ink((0x5b, 0x53, 0xc4), (0xa9, 0xa4, 0xf5)),
];

/// The style sheet.
pub(super) static SHEET: LazyLock<String> = LazyLock::new(|| {
    let mut sheet = "text{font-family:system-ui,sans-serif;font-variant-numeric:tabular-nums}\
        polyline{stroke-linejoin:round;stroke-linecap:round}@media(prefers-color-scheme:dark){"
        .to_owned();
    for ink in [PAPER, TEXT, FAINT, GRID, AXIS].iter().chain(&CURVES) {
        let (RGBColor(r, g, b), RGBColor(nr, ng, nb)) = (ink.day, ink.night);
        // Writing to a text can't fail.
        let _ = write!(
            sheet,
            "[fill=\"#{r:02X}{g:02X}{b:02X}\"]{{fill:#{nr:02x}{ng:02x}{nb:02x}}}\
             [stroke=\"#{r:02X}{g:02X}{b:02X}\"]{{stroke:#{nr:02x}{ng:02x}{nb:02x}}}"
        );
    }
    sheet.push('}');
    sheet
});

/// What a picture may load: nothing but this very style sheet.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(SHEET.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});
