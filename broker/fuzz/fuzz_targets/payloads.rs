//! Any bytes are telemetry, an acknowledgement or a patch of settings within the limits, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| setpoint_broker::fuzzing::payloads(bytes));
