//! The seeds of the fuzz targets, replayed: what was once found stays found, without a fuzzer.

use std::{fs, path::Path};

use rmqtt_codec::types::QoS;
use setpoint_broker::fuzzing;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{PATIENCE, Server, eventually};

/// The seeds of a target: their names and what is in them.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let seeds = entries.map(|entry| {
        let path = entry.unwrap().path();
        (path.display().to_string(), fs::read(&path).unwrap())
    });
    let mut seeds: Vec<_> = seeds.collect();
    seeds.sort();
    assert!(seeds.len() >= 10, "{target} has seeds");
    seeds
}

fn replay(target: &str, read: fn(&[u8])) {
    for (name, bytes) in seeds(target) {
        let outcome = std::panic::catch_unwind(|| read(&bytes));
        assert!(outcome.is_ok(), "{name}");
    }
}

#[test]
fn the_codec_reads_any_bytes() {
    replay("wire", fuzzing::decode);
}

#[test]
fn a_proxy_header_is_the_same_in_one_piece_and_in_many() {
    replay("proxy", fuzzing::proxy_header);
}

#[test]
fn payloads_keep_to_their_limits() {
    replay("payloads", fuzzing::payloads);
}

#[tokio::test]
async fn every_session_ends_and_the_one_beside_it_notices_nothing() {
    let server = Server::start().await;
    let mut bystander = server.device5("H").await;
    bystander.subscribe("devices/H/telemetry", QoS::AtMostOnce).await;
    for (name, bytes) in seeds("edge") {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // As the target does: an even first byte stands for a CONNECT.
        if bytes.first().is_some_and(|byte| byte % 2 == 0) {
            let connect = b"\x10\x0D\0\x04MQTT\x05\x02\0\x3C\0\0\0";
            let _ = stream.write_all(connect).await;
        }
        let _ = stream.write_all(bytes.get(1..).unwrap_or_default()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{name} does not end");
        bystander
            .publish("devices/H/telemetry", "1", QoS::AtMostOnce, 0)
            .await;
        assert_eq!(bystander.message().await.payload, "1", "after {name}");
    }
    eventually("all of them are gone", || server.handle.counts().sessions == 1).await;
    assert_eq!(server.handle.counts().router_restarts, 0);
}
