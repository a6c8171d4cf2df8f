//! What fuzz targets reach that nobody else does: each reader of foreign bytes, with what must hold of its answer.
//!
//! The ordinary suite replays the seeds in `broker/fuzz/seeds` through the same functions.

use chrono::DateTime;
use setpoint_model::{
    settings::{self, Ack, Document, Patch, document},
    telemetry::{self, Window, is_metric_name},
};

use crate::{
    backend::Version,
    transport::proxy::{self, Progress},
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

/// Reads bytes as a PROXY protocol header, whole and as they trickle in.
///
/// # Panics
/// When the verdict on a part contradicts the one on the whole.
pub fn proxy_header(bytes: &[u8]) {
    let whole = proxy::parse(bytes);
    match &whole {
        Ok(Progress::Done { length, .. }) => assert!(*length <= bytes.len() && *length <= proxy::LONGEST),
        Ok(Progress::Needs(length)) => assert!(*length > bytes.len() && *length <= proxy::LONGEST),
        Err(_) => {}
    }
    for end in 0..bytes.len().min(proxy::LONGEST) {
        let part = bytes.get(..end).unwrap_or_default();
        match (proxy::parse(part), &whole) {
            (Ok(Progress::Needs(length)), _) => assert!(length > end),
            (Ok(part), whole) => assert_eq!(Some(&part), whole.as_ref().ok(), "what follows changes nothing"),
            (Err(_), whole) => assert!(whole.is_err(), "what is refused stays refused"),
        }
    }
}

/// Reads bytes as each payload that a client may send: telemetry, an acknowledgement, a patch of settings.
///
/// # Panics
/// When something is let through that breaks a limit or doesn't read back as it was understood.
pub fn payloads(bytes: &[u8]) {
    let limits = telemetry::Limits::default();
    let window = Window {
        oldest: DateTime::UNIX_EPOCH,
        newest: DateTime::from_timestamp(4_000_000_000, 0).unwrap_or_default(),
    };
    if let Ok(parsed) = telemetry::parse(bytes, &limits, window) {
        assert!(parsed.samples.len() <= limits.items * limits.metrics);
        for sample in &parsed.samples {
            assert!(is_metric_name(&sample.metric));
            match &sample.value {
                telemetry::Value::Number(number) => assert!(number.is_finite()),
                telemetry::Value::Text(text) => assert!(text.len() <= limits.text),
                telemetry::Value::Flag(_) => {}
            }
        }
    }
    let limits = settings::Limits::default();
    if let Ok(read) = document::parse(bytes, limits) {
        let text = serde_json::to_vec(&read).unwrap_or_default();
        let roomy = settings::Limits {
            bytes: usize::MAX,
            ..limits
        };
        assert_eq!(document::parse(&text, roomy).ok(), Some(read));
    }
    if let Ok(patch) = Patch::parse(bytes, limits) {
        // RFC 7396: applying a patch twice is applying it once.
        let once = patch.apply(&Document::new());
        assert_eq!(patch.apply(&once), once);
    }
    if let Ok(ack) = Ack::parse(bytes, limits) {
        for error in ack.errors.values() {
            let _ = error.text();
        }
    }
}
