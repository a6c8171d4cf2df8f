//! Liveness, readiness and metrics.

use reqwest::Method;
use setpoint_tests::{Harness, Version};

#[tokio::test]
async fn a_running_server_is_alive_and_ready() {
    let server = Harness::start().await;
    let api = server.api().anonymous();
    for path in ["/healthz", "/readyz", "/api/v1/healthz", "/api/v1/readyz"] {
        assert_eq!(api.root(Method::GET, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_need_their_scope() {
    let server = Harness::start().await;
    let api = server.api();
    api.anonymous()
        .root(Method::GET, "/metrics")
        .await
        .problem(401, "unauthenticated");
    let other = api.scoped(&["devices:read"]).await;
    for path in ["/metrics", "/api/v1/metrics"] {
        other.root(Method::GET, path).await.problem(403, "forbidden");
    }
    let reader = api.scoped(&["metrics:read"]).await;
    let metrics = reader.root(Method::GET, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .text
            .lines()
            .any(|line| line.starts_with("# HELP setpoint_")),
        "{}",
        metrics.text
    );
    assert!(metrics.text.trim_end().ends_with("# EOF"), "complete OpenMetrics");
}

#[tokio::test]
async fn metrics_count_sessions_and_samples() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let mut session = device.mqtt(Version::V5).connect().await;
    session
        .publish("devices/HOME-1/telemetry", r#"{"t":1,"u":2}"#)
        .await;
    let metrics = server.api().root(Method::GET, "/metrics").await.text;
    let value = |name: &str| -> f64 {
        let lines = metrics
            .lines()
            .filter(|line| !line.starts_with('#') && line.starts_with(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    assert!(
        (value("setpoint_telemetry_samples_stored_total") - 2.0).abs() < 0.1,
        "{metrics}"
    );
    assert!(metrics.contains("setpoint_http_requests_total"), "{metrics}");
    assert!(
        !metrics.contains("HOME-1"),
        "a series per device would grow without end"
    );
}
