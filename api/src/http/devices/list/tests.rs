use serde_json::json;
use setpoint_model::{DeviceId, device::Description};

use super::*;

fn parse(parameters: &[(&str, &str)]) -> Result<Asked, Problem> {
    Asked::parse(
        parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    )
}

#[test]
fn filters_go_by_field_name() {
    let asked = parse(&[
        ("serial", "A"),
        ("model", "home"),
        ("online", "true"),
        ("tag.site", "oslo"),
        ("tag.floor", "2"),
        ("q", "hall"),
        ("sort", "-last_seen"),
        ("limit", "7"),
    ])
    .unwrap();
    let expected = DeviceFilter {
        serial: Some("A".into()),
        model: Some("home".into()),
        online: Some(true),
        tags: vec![
            ("site".into(), vec![json!("oslo")]),
            ("floor".into(), vec![json!("2"), json!(2)]),
        ],
        search: Some("hall".into()),
        ..DeviceFilter::default()
    };
    assert_eq!(asked.filter, expected);
    assert_eq!(
        asked.sort,
        DeviceSort {
            key: SortKey::LastSeen,
            descending: true
        }
    );
    assert_eq!(asked.limit, 7);
}

#[test]
fn every_wrong_parameter_is_named() {
    let problem = parse(&[
        ("colour", "red"),
        ("online", "yes"),
        ("sort", "size"),
        ("limit", "many"),
        ("cursor", "x"),
        ("serial", "A"),
        ("serial", "B"),
        ("tag.", "x"),
        ("name", &"x".repeat(201)),
    ])
    .unwrap_err();
    let named: Vec<&str> = problem.errors.keys().map(String::as_str).collect();
    assert_eq!(
        named,
        [
            "colour", "cursor", "limit", "name", "online", "serial", "sort", "tag."
        ]
    );
    assert_eq!(parse(&[("limit", "0")]).unwrap_err().status, 422);
}

#[test]
fn a_cursor_leads_on_in_its_own_order_alone() {
    let device = Device {
        id: DeviceId(1),
        serial: "A-1".parse().unwrap(),
        description: Description {
            name: "2026-01-01T00:00:00Z".into(),
            ..Description::default()
        },
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        online: false,
        last_seen: None,
        disconnect_reason: None,
        settings_version: 1,
        credential_created_at: None,
        stolen_at: None,
    };
    let orders: Vec<String> = SORT_KEYS
        .iter()
        .flat_map(|(n, _)| [(*n).to_owned(), format!("-{n}")])
        .collect();
    for order in &orders {
        let sort = parse_sort(order).unwrap();
        let cursor = cursor(sort, &device);
        let asked = parse(&[("sort", order), ("cursor", &cursor)]).unwrap();
        assert_eq!(asked.after, Some(sort.key.position(&device)), "{order}");
        for other in orders.iter().filter(|other| *other != order) {
            assert!(
                parse(&[("sort", other), ("cursor", &cursor)]).is_err(),
                "{order} in {other}"
            );
        }
    }
}
