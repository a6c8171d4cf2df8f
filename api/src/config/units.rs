//! Values as people write them: `5s`, `256 KiB`, `off`.

use std::{net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer},
};

/// A duration such as `500ms` or `1h 30m`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format!(
            "a duration such as \"5s\" or \"500ms\" is needed, not {text:?}"
        ))
    })
}

/// A duration that may be left out.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A duration of whole seconds that 16 bits can hold, as MQTT counts a keep-alive.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let duration = duration(deserializer)?;
    match u16::try_from(duration.as_secs()) {
        Ok(seconds) if duration.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(D::Error::custom("whole seconds up to 65535 are needed")),
    }
}

/// The same, or `off`.
pub(super) fn seconds_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == OFF {
        Ok(None)
    } else {
        seconds(text.into_deserializer()).map(Some)
    }
}

/// A size in bytes such as `256 KiB`.
pub(super) fn size<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>()
        .ok()
        .and_then(|size| T::try_from(size.as_u64()).ok())
        .ok_or_else(|| D::Error::custom(format!("a size such as \"256 KiB\" is needed, not {text:?}")))
}

/// An address, or `off`.
pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == OFF {
        return Ok(None);
    }
    let wrong = || format!("an address such as \"127.0.0.1:1883\", or \"off\", is needed, not {text:?}");
    text.parse().map(Some).map_err(|_| D::Error::custom(wrong()))
}

/// A path, or `off`.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == OFF { Ok(None) } else { Ok(Some(text)) }
}

/// What turns a listener off.
const OFF: &str = "off";
