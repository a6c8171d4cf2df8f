//! What fuzz targets reach that nobody else does.

use crate::{
    backend::Version,
    wire::{Wire, frame_length, greet},
};

/// Reads bytes as a greeting and as packets of both versions.
///
/// # Panics
/// When the codec does; the edge would catch it.
pub fn decode(bytes: &[u8]) {
    const LIMIT: u32 = 256 * 1024;
    if let Ok(Some(length)) = frame_length(bytes, Version::V5, LIMIT)
        && let Some(frame) = bytes.get(..length)
    {
        let _ = greet(frame);
    }
    for version in [Version::V3, Version::V5] {
        let mut wire = Wire::new(version);
        let mut rest = bytes;
        while let Ok(Some(length)) = frame_length(rest, version, LIMIT)
            && let Some((frame, after)) = rest.split_at_checked(length)
        {
            rest = after;
            if let Err(breach) = wire.decode(frame) {
                assert_ne!(breach.text, "the codec panicked");
            }
        }
    }
}
