//! Any bytes are a PROXY protocol header, the beginning of one, or refused for good.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| setpoint_broker::fuzzing::proxy_header(bytes));
