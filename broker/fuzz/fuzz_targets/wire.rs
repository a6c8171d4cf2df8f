//! Any bytes are a packet or a breach, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| setpoint_broker::fuzzing::decode(bytes));
