//! Selectors in the list of devices.

use serde_json::{Value, json};
use setpoint_tests::harness::Harness;

#[tokio::test]
async fn devices_are_listed_by_selector() {
    let server = Harness::start().await;
    let api = server.api();
    for body in [
        json!({"serial": "HOME-1", "name": "Kitchen lamp", "tags": {"site": "oslo", "floor": 1}}),
        json!({"serial": "HOME-2", "name": "Hall lamp", "tags": {"site": "oslo", "floor": 3}}),
        json!({"serial": "SHOP-1", "name": "Till"}),
    ] {
        api.post("/devices").json(&body).await.expect(201);
    }
    for (query, expected) in [
        ("selector=site%3Doslo%20and%20floor%20in%20(1,2)", vec!["HOME-1"]),
        ("selector=site!%3Doslo%20or%20floor%3D3", vec!["HOME-2", "SHOP-1"]),
        ("selector=site!%3Doslo%20or%20floor%3D3&q=lamp", vec!["HOME-2"]),
        ("selector=*", vec!["HOME-1", "HOME-2", "SHOP-1"]),
    ] {
        let page = api.get(&format!("/devices?{query}")).await.expect(200);
        let items = page["items"].as_array().expect("items");
        let serials: Vec<&Value> = items.iter().map(|item| &item["serial"]).collect();
        assert_eq!(serials, expected, "{query}");
    }
    let errors = api.get("/devices?selector=site%3D").await.invalid();
    let told = "expected a value at character 6, found the end";
    assert_eq!(errors["selector"], told);
    let long = format!("/devices?selector={}", "a".repeat(2_001));
    assert_eq!(
        api.get(&long).await.invalid()["selector"],
        "longer than 2000 bytes"
    );
}
