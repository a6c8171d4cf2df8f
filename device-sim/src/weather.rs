//! A believable indoor climate: a daily curve, slow drift and a little noise.

use std::{
    f64::consts::TAU,
    hash::{DefaultHasher, Hash, Hasher},
};

use chrono::{DateTime, Timelike, Utc};
use setpoint_model::Serial;

/// The coldest temperature ever reported, in degrees Celsius.
pub const COLDEST: f64 = 12.0;
/// The warmest temperature ever reported, in degrees Celsius.
pub const WARMEST: f64 = 29.0;
/// The hour (UTC) of the day's maximum.
const WARMEST_HOUR: f64 = 15.0;

/// What a sensor shows at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Degrees Celsius, to a tenth.
    pub temperature: f64,
    /// Relative humidity in whole per cent.
    pub humidity: u8,
}

/// The climate around one device. Two devices differ; one device is alike on every run.
#[derive(Debug, Clone)]
pub struct Weather {
    noise: fastrand::Rng,
    mean: f64,
    swing: f64,
    drift: f64,
}

impl Weather {
    /// The climate around this device.
    pub fn around(serial: &Serial) -> Self {
        let mut hasher = DefaultHasher::new();
        serial.as_str().hash(&mut hasher);
        let mut noise = fastrand::Rng::with_seed(hasher.finish());
        let mean = 19.0 + 3.0 * noise.f64();
        let swing = 1.5 + 2.0 * noise.f64();
        Self {
            noise,
            mean,
            swing,
            drift: 0.0,
        }
    }

    /// What the sensor shows at `at`. Each call also moves the drift one step.
    pub fn read(&mut self, at: DateTime<Utc>) -> Reading {
        self.drift = (0.95 * self.drift + 0.2 * (self.noise.f64() - 0.5)).clamp(-1.5, 1.5);
        let hour = f64::from(at.num_seconds_from_midnight()) / 3600.0;
        let daily = self.swing * (TAU * (hour - WARMEST_HOUR) / 24.0).cos();
        let temperature = (self.mean + daily + self.drift).clamp(COLDEST, WARMEST);
        // Warm air at the same water content is drier.
        let humidity = (45.0 - 2.5 * (temperature - 20.5) + 2.0 * (self.noise.f64() - 0.5)).clamp(15.0, 90.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 15..=90"
        )]
        let humidity = humidity.round() as u8;
        Reading {
            temperature: (temperature * 10.0).round() / 10.0,
            humidity,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone};

    use super::*;

    fn day(serial: &str) -> Vec<Reading> {
        let mut weather = Weather::around(&serial.parse().unwrap());
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        (0..1440)
            .map(|minute| weather.read(start + TimeDelta::minutes(minute)))
            .collect()
    }

    #[test]
    fn stays_within_a_home() {
        for serial in 0..200 {
            for reading in day(&format!("HOME-{serial}")) {
                assert!((COLDEST..=WARMEST).contains(&reading.temperature), "{reading:?}");
                assert!((15..=90).contains(&reading.humidity), "{reading:?}");
            }
        }
    }

    #[test]
    fn afternoons_are_warmer_and_drier_than_nights() {
        let readings = day("HOME-1");
        let mean = |hours: std::ops::Range<usize>, of: fn(&Reading) -> f64| {
            let slice = &readings[hours.start * 60..hours.end * 60];
            slice.iter().map(of).sum::<f64>() / slice.len() as f64
        };
        assert!(mean(14..16, |r| r.temperature) > mean(2..4, |r| r.temperature) + 1.0);
        assert!(mean(14..16, |r| f64::from(r.humidity)) < mean(2..4, |r| f64::from(r.humidity)) - 1.0);
    }

    #[test]
    fn neighbouring_minutes_are_close() {
        for pair in day("HOME-1").windows(2) {
            assert!(
                (pair[0].temperature - pair[1].temperature).abs() <= 0.3,
                "{pair:?}"
            );
        }
    }

    #[test]
    fn a_device_is_like_itself_and_unlike_others() {
        assert_eq!(day("HOME-1"), day("HOME-1"));
        assert_ne!(day("HOME-1"), day("HOME-2"));
    }
}
