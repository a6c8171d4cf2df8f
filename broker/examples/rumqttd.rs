//! rumqttd with its own listener and the limits of the configuration that it ships with, to be measured beside the edge:
//! `cargo run --release -p setpoint-broker --example rumqttd -- 127.0.0.1:1885`
#![expect(clippy::print_stderr, reason = "a program for the terminal")]

use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:1885".to_owned());
    let config = json!({
        "id": 0,
        "router": {
            "id": 0, "max_connections": 25_000, "max_outgoing_packet_count": 200,
            "max_segment_size": 104_857_600, "max_segment_count": 10,
        },
        "v4": {"1": {
            "name": "v4-1", "listen": listen, "next_connection_delay_ms": 1,
            "connections": {
                "connection_timeout_ms": 60_000, "max_payload_size": 20_480, "max_inflight_count": 100,
                "dynamic_filters": true,
            },
        }},
    });
    eprintln!("listening on {listen}");
    rumqttd::Broker::new(serde_json::from_value(config)?).start()?;
    Ok(())
}
