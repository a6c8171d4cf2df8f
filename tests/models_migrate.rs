//! A change of a model, and what is stored already: refused with the list of devices, or migrated.

use futures_util::future::join_all;
use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually};

use crate::models::make_lamp;

async fn lamps(server: &Harness, values: &[(&str, Value)]) {
    make_lamp(server.api()).await;
    for (serial, overrides) in values {
        let body = json!({"serial": serial, "model": "lamp"});
        server.api().post("/devices").json(&body).await.expect(201);
        let path = format!("/devices/{serial}/settings");
        server.api().put(&path).json(overrides).await.expect(200);
    }
}

async fn overrides(server: &Harness, serial: &str) -> Value {
    let path = format!("/devices/{serial}/settings");
    server.api().get(&path).await.expect(200)["overrides"].clone()
}

#[tokio::test]
async fn a_change_that_stored_values_do_not_fit_is_refused_with_the_devices() {
    let server = Harness::start().await;
    let values = [
        ("LAMP-1", json!({"brightness": 90})),
        ("LAMP-2", json!({"brightness": 30})),
        ("LAMP-3", json!({})),
        ("LAMP-4", json!({"brightness": 61})),
    ];
    lamps(&server, &values).await;
    server.device("HOME-1").await;
    let patch = json!({"title": "x", "settings": {"brightness": {"maximum": 60}}});
    for path in ["/models/lamp", "/models/lamp?dry_run=true"] {
        let refused = server.api().patch(path).json(&patch).await;
        let refused = refused.problem(409, "stored_values_misfit");
        let message = json!({"brightness": "must be from 0 to 60"});
        assert_eq!(
            refused["misfits"],
            json!({
                "devices": [
                    {"serial": "LAMP-1", "model": "lamp", "errors": message},
                    {"serial": "LAMP-4", "model": "lamp", "errors": message},
                ],
                "devices_total": 2,
                "groups": [],
                "groups_total": 0,
                "schedules": [],
                "schedules_total": 0,
            })
        );
        assert_eq!(
            refused["detail"],
            "values that are set on 2 devices break the new rules: change them first, or say in `migrate` what \
             replaces them"
        );
    }
    // Nothing of it happened.
    let model = server.api().get("/models/lamp").await.expect(200);
    assert_eq!((&model["version"], &model["title"]), (&json!(1), &json!("Lamp")));
    // A wider range, or another unit, fits everything.
    let wider = json!({"settings": {"brightness": {"maximum": 200, "unit": "lx"}}});
    let changed = server.api().patch("/models/lamp").json(&wider).await;
    assert_eq!(changed.expect(200)["version"], 2);
    // So does what is not set anywhere.
    let more = json!({"settings": {"colour": {"type": "string"}}});
    server.api().patch("/models/lamp").json(&more).await.expect(200);
}

#[tokio::test]
async fn stored_values_are_replaced_or_dropped_on_request() {
    let server = Harness::start().await;
    let values = [
        ("LAMP-1", json!({"brightness": 90})),
        ("LAMP-2", json!({"brightness": 30})),
        ("LAMP-3", json!({"brightness": 80})),
    ];
    lamps(&server, &values).await;
    let patch = json!({"settings": {"brightness": {"maximum": 60}}, "migrate": {"brightness": 60}});
    let tried = server.api().patch("/models/lamp?dry_run=true").json(&patch).await;
    assert_eq!(tried.expect(200)["version"], 2);
    assert_eq!(overrides(&server, "LAMP-1").await, json!({"brightness": 90}));
    server.api().patch("/models/lamp").json(&patch).await.expect(200);
    for (serial, expected) in [("LAMP-1", 60), ("LAMP-2", 30), ("LAMP-3", 60)] {
        assert_eq!(
            overrides(&server, serial).await,
            json!({"brightness": expected}),
            "{serial}"
        );
    }
    let version = server.api().get("/models/lamp/versions/2").await.expect(200);
    assert_eq!(
        (&version["migrate"], &version["migrated_devices"]),
        (&json!({"brightness": 60}), &json!(2))
    );
    // A setting that goes takes what is set with it only where that is said.
    let gone = json!({"settings": {"brightness": null}});
    let refused = server.api().patch("/models/lamp").json(&gone).await;
    let refused = refused.problem(409, "stored_values_misfit");
    assert_eq!(refused["misfits"]["devices_total"], 3);
    assert_eq!(
        refused["misfits"]["devices"][0]["errors"],
        json!({"brightness": "unknown setting"})
    );
    let gone = json!({"settings": {"brightness": null}, "migrate": {"brightness": null}});
    server.api().patch("/models/lamp").json(&gone).await.expect(200);
    assert_eq!(overrides(&server, "LAMP-2").await, json!({}));
}

#[tokio::test]
async fn a_migration_that_would_not_help_is_a_mistake() {
    let server = Harness::start().await;
    lamps(&server, &[("LAMP-1", json!({"brightness": 90}))]).await;
    let narrower = json!({"brightness": {"maximum": 60}});
    for (migrate, errors) in [
        (
            json!({"brightness": 61, "colour": null}),
            json!({
                "migrate.brightness": "must be from 0 to 60",
                "migrate.colour": "no stored value of it can have become invalid",
            }),
        ),
        (
            json!([1]),
            json!({"migrate": "must be an object: setting key to value or null"}),
        ),
    ] {
        let patch = json!({"settings": narrower, "migrate": migrate});
        let answer = server.api().patch("/models/lamp").json(&patch).await;
        assert_eq!(answer.invalid(), errors, "{patch}");
    }
    let pointless = json!({"title": "x", "migrate": {"brightness": null}});
    assert_eq!(
        server
            .api()
            .patch("/models/lamp")
            .json(&pointless)
            .await
            .invalid(),
        json!({"migrate.brightness": "no stored value of it can have become invalid"})
    );
}

#[tokio::test]
async fn a_read_only_setting_is_set_by_its_default_alone() {
    let server = Harness::start().await;
    lamps(&server, &[("LAMP-1", json!({"brightness": 90}))]).await;
    let read_only = "is read-only: the model's default alone sets it";
    let patch = json!({"settings": {"brightness": {"readOnly": true}}});
    let refused = server.api().patch("/models/lamp").json(&patch).await;
    let refused = refused.problem(409, "stored_values_misfit");
    assert_eq!(
        refused["misfits"]["devices"][0]["errors"],
        json!({"brightness": read_only})
    );
    let patch = json!({"settings": {"brightness": {"readOnly": true}}, "migrate": {"brightness": null}});
    server.api().patch("/models/lamp").json(&patch).await.expect(200);
    let change = server.api().patch("/devices/LAMP-1/settings");
    let refused = change.json(&json!({"brightness": 50})).await;
    assert_eq!(refused.invalid(), json!({"brightness": read_only}));
}

#[tokio::test]
async fn a_long_list_of_devices_is_counted_and_cut() {
    let server = Harness::start().await;
    make_lamp(server.api()).await;
    server
        .sql(
            "insert into devices (serial, model) select 'L-' || lpad(n::text, 4, '0'), 'lamp' from generate_series(1, 450) n;
             insert into device_settings (device_id, version, first_version, document, overrides)
             select id, 1, 1, '{\"brightness\": 90}', '{\"brightness\": 90}' from devices where model = 'lamp'",
        )
        .await;
    let patch = json!({"settings": {"brightness": {"maximum": 60}}});
    let refused = server.api().patch("/models/lamp").json(&patch).await;
    let misfits = refused.problem(409, "stored_values_misfit")["misfits"].clone();
    assert_eq!(misfits["devices_total"], 450);
    let listed = misfits["devices"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[99]["serial"]), (100, &json!("L-0100")));
    let patch = json!({"settings": {"brightness": {"maximum": 60}}, "migrate": {"brightness": null}});
    server.api().patch("/models/lamp").json(&patch).await.expect(200);
    let version = server.api().get("/models/lamp/versions/2").await.expect(200);
    assert_eq!(version["migrated_devices"], 450);
}

/// Whatever the order in which they come: no value is left that the rules in force don't take.
#[tokio::test]
async fn no_value_slips_in_while_the_rules_change() {
    let server = Harness::start().await;
    let serials: Vec<String> = (0..8).map(|n| format!("LAMP-{n}")).collect();
    let values: Vec<(&str, Value)> = serials
        .iter()
        .map(|serial| (serial.as_str(), json!({})))
        .collect();
    lamps(&server, &values).await;
    for round in 0..5_i64 {
        let (narrow, wide) = (json!(60 + round), json!(100));
        let changes = serials.iter().map(|serial| {
            let path = format!("/devices/{serial}/settings");
            let api = server.api();
            async move {
                for value in [90 + round, 55 + round, 95 - round] {
                    let status = api
                        .patch(&path)
                        .json(&json!({"brightness": value}))
                        .await
                        .status
                        .as_u16();
                    assert!(matches!(status, 200 | 422), "{status}");
                }
            }
        });
        let tighten = async {
            let patch =
                json!({"settings": {"brightness": {"maximum": narrow}}, "migrate": {"brightness": narrow}});
            server.api().patch("/models/lamp").json(&patch).await.expect(200);
        };
        tokio::join!(join_all(changes), tighten);
        for serial in &serials {
            let left = overrides(&server, serial).await;
            assert!(
                left["brightness"]
                    .as_i64()
                    .is_none_or(|value| value <= 60 + round),
                "{serial}: {left}"
            );
        }
        let widen = json!({"settings": {"brightness": {"maximum": wide}}});
        server.api().patch("/models/lamp").json(&widen).await.expect(200);
    }
}

#[tokio::test]
async fn new_defaults_and_migrated_values_reach_the_devices() {
    let server = Harness::start().await;
    let values = [("LAMP-1", json!({"brightness": 90})), ("LAMP-2", json!({}))];
    lamps(&server, &values).await;
    let patch = json!({
        "settings": {"brightness": {"maximum": 60, "default": 40}, "mode": {"type": "string", "default": "steady"}},
        "migrate": {"brightness": 60},
    });
    server.api().patch("/models/lamp").json(&patch).await.expect(200);
    for (serial, brightness, version) in [("LAMP-1", 60, 3), ("LAMP-2", 40, 2)] {
        let path = format!("/devices/{serial}/settings");
        let wanted = json!({"brightness": brightness, "mode": "steady"});
        eventually!(server.api().get(&path).await.expect(200)["settings"] == wanted);
        let newest = server
            .api()
            .get(&format!("{path}/versions/{version}"))
            .await
            .expect(200);
        assert_eq!(
            (&newest["source"], &newest["actor"]),
            (&json!("model"), &json!("token:admin-token"))
        );
        assert_eq!(newest["diff"]["mode"], json!({"from": null, "to": "steady"}));
    }
    // A change of words alone makes no version on any device.
    let words = json!({"settings": {"brightness": {"title": "Brightness"}}});
    server.api().patch("/models/lamp").json(&words).await.expect(200);
    let more = json!({"settings": {"speed": {"type": "integer", "default": 1}}});
    server.api().patch("/models/lamp").json(&more).await.expect(200);
    let path = "/devices/LAMP-2/settings";
    eventually!(server.api().get(path).await.expect(200)["settings"]["speed"] == 1);
    assert_eq!(server.api().get(path).await.expect(200)["version"], 3);
}

#[tokio::test]
async fn groups_and_schedules_are_judged_by_what_the_model_accepted_of_them() {
    let server = Harness::start().await;
    lamps(
        &server,
        &[("LAMP-1", json!({})), ("LAMP-2", json!({"brightness": 95}))],
    )
    .await;
    server
        .sql(
            "insert into groups (name, selector, settings, actor, devices_after, created_at, updated_at)
             select name, 'site=oslo', settings::jsonb, 'test', null, now(), now() from (values
                 ('bright', '{\"brightness\": 90}'), ('dim', '{\"brightness\": 10}'),
                 ('others', '{\"brightness\": \"dim\"}'), ('strangers', '{\"brightness\": 90}')) as g (name, settings);
             insert into group_members (group_name, device_id)
             select g.name, d.id from groups g cross join devices d where d.serial = 'LAMP-1' and g.name <> 'strangers';
             update device_settings set layered = true",
        )
        .await;
    let schedule = json!({"name": "day", "days": ["mon"], "from": "08:00", "to": "09:00", "enabled": false,
                          "settings": {"brightness": 80}});
    let schedules = server.api().post("/devices/LAMP-1/schedules");
    schedules.json(&schedule).await.expect(201);
    let patch = json!({"settings": {"brightness": {"maximum": 60}}});
    let refused = server.api().patch("/models/lamp").json(&patch).await;
    let refused = refused.problem(409, "stored_values_misfit");
    let message = json!({"brightness": "must be from 0 to 60"});
    assert_eq!(
        refused["misfits"],
        json!({
            "devices": [{"serial": "LAMP-2", "model": "lamp", "errors": message}],
            "devices_total": 1,
            "groups": [{"name": "bright", "model": "lamp", "errors": message}],
            "groups_total": 1,
            "schedules": [{"name": "day", "serial": "LAMP-1", "group": null, "model": "lamp", "errors": message}],
            "schedules_total": 1,
        })
    );
    assert_eq!(
        refused["detail"],
        "values that are set on 1 device and 1 group and 1 schedule break the new rules: change them first, or say in \
         `migrate` what replaces them"
    );
    let patch = json!({"settings": {"brightness": {"maximum": 60}}, "migrate": {"brightness": 55}});
    server.api().patch("/models/lamp").json(&patch).await.expect(200);
    let schedule = server
        .api()
        .get("/devices/LAMP-1/schedules/day")
        .await
        .expect(200);
    assert_eq!(schedule["settings"], json!({"brightness": 55}));
    // Of two groups the one with the later name wins.
    server
        .sql("delete from group_members where group_name = 'dim'")
        .await;
    let more = json!({"settings": {"mode": {"type": "string", "default": "steady"}}});
    server.api().patch("/models/lamp").json(&more).await.expect(200);
    for (serial, brightness) in [("LAMP-1", 55), ("LAMP-2", 55)] {
        let path = format!("/devices/{serial}/settings");
        let wanted = json!({"brightness": brightness, "mode": "steady"});
        eventually!(server.api().get(&path).await.expect(200)["settings"] == wanted);
    }
}
