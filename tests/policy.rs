//! Every operation of the API, asked for by everybody there is: the exact answer of each.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;
use setpoint_model::{Clock as _, Scope, SystemClock, clock::ManualClock};
use setpoint_tests::{Answer, Api, Harness, harness::api::Call};

use crate::sessions::{Person, person};

/// What an operation answers, with the body `{}`: without sign-in, to a viewer, to an owner of another device, to the
/// device's owner and to an operator. 422 is that of who may, and sent too little.
///
/// The scope is what a token needs; empty where none is asked for.
#[rustfmt::skip]
const OPERATIONS: &[(&str, &str, [u16; 5])] = &[
    //                                                                 anonymous viewer foreign owner operator
    ("get /activate",                              "",                [200, 200, 200, 200, 200]),
    ("post /activate",                             "devices:claim",   [401, 403, 422, 422, 422]),
    ("get /healthz",                               "",                [200, 200, 200, 200, 200]),
    ("get /readyz",                                "",                [200, 200, 200, 200, 200]),
    ("get /metrics",                               "metrics:read",    [401, 200, 403, 403, 200]),
    ("post /oauth/device_authorization",           "",                [400, 400, 400, 400, 400]),
    ("post /oauth/token",                          "",                [400, 400, 400, 400, 400]),
    ("get /alerts",                                "alerts:read",     [401, 200, 403, 403, 200]),
    ("post /alerts",                               "alerts:write",    [401, 403, 403, 403, 422]),
    ("get /alerts/{name}",                         "alerts:read",     [401, 404, 403, 403, 404]),
    ("put /alerts/{name}",                         "alerts:write",    [401, 403, 403, 403, 422]),
    ("patch /alerts/{name}",                       "alerts:write",    [401, 403, 403, 403, 404]),
    ("delete /alerts/{name}",                      "alerts:write",    [401, 403, 403, 403, 404]),
    ("get /alerts/{name}/devices",                 "alerts:read",     [401, 404, 403, 403, 404]),
    ("get /audit",                                 "audit:read",      [401, 403, 403, 403, 403]),
    ("get /changes",                               "settings:read",   [401, 200, 403, 403, 200]),
    ("post /changes",                              "settings:write",  [401, 403, 403, 403, 422]),
    ("get /changes/{id}",                          "settings:read",   [401, 404, 403, 403, 404]),
    ("get /changes/{id}/devices",                  "settings:read",   [401, 404, 403, 403, 404]),
    ("post /changes/{id}/pause",                   "settings:write",  [401, 403, 403, 403, 404]),
    ("post /changes/{id}/resume",                  "settings:write",  [401, 403, 403, 403, 404]),
    ("post /changes/{id}/cancel",                  "settings:write",  [401, 403, 403, 403, 404]),
    ("post /changes/{id}/undo",                    "settings:write",  [401, 403, 403, 403, 404]),
    ("get /devices",                               "devices:read",    [401, 200, 200, 200, 200]),
    ("post /devices",                              "devices:write",   [401, 403, 403, 403, 422]),
    ("get /devices/{serial}",                      "devices:read",    [401, 200, 404, 200, 200]),
    ("patch /devices/{serial}",                    "devices:write",   [401, 403, 404, 200, 200]),
    ("delete /devices/{serial}",                   "devices:write",   [401, 403, 404, 403, 204]),
    ("get /devices/{serial}/alerts",               "alerts:read",     [401, 200, 404, 200, 200]),
    ("post /devices/{serial}/credential",          "devices:write",   [401, 403, 404, 201, 201]),
    ("delete /devices/{serial}/credential",        "devices:write",   [401, 403, 404, 204, 204]),
    ("get /devices/{serial}/owners",               "devices:read",    [401, 200, 404, 200, 200]),
    ("put /devices/{serial}/owners/{username}",    "devices:claim",   [401, 403, 404, 404, 404]),
    ("delete /devices/{serial}/owners/{username}", "devices:claim",   [401, 403, 404, 404, 404]),
    ("delete /devices/{serial}/registration",      "devices:claim",   [401, 403, 404, 204, 204]),
    ("get /devices/{serial}/schedules",            "settings:read",   [401, 200, 404, 200, 200]),
    ("post /devices/{serial}/schedules",           "settings:write",  [401, 403, 404, 422, 422]),
    ("get /devices/{serial}/schedules/preview",    "settings:read",   [401, 200, 404, 200, 200]),
    ("get /devices/{serial}/schedules/{name}",     "settings:read",   [401, 404, 404, 404, 404]),
    ("put /devices/{serial}/schedules/{name}",     "settings:write",  [401, 403, 404, 422, 422]),
    ("patch /devices/{serial}/schedules/{name}",   "settings:write",  [401, 403, 404, 404, 404]),
    ("delete /devices/{serial}/schedules/{name}",  "settings:write",  [401, 403, 404, 404, 404]),
    ("get /devices/{serial}/settings",             "settings:read",   [401, 200, 404, 200, 200]),
    ("patch /devices/{serial}/settings",           "settings:write",  [401, 403, 404, 200, 200]),
    ("put /devices/{serial}/settings",             "settings:write",  [401, 403, 404, 200, 200]),
    ("get /devices/{serial}/settings/versions",    "settings:read",   [401, 200, 404, 200, 200]),
    ("get /devices/{serial}/settings/versions/{version}", "settings:read", [401, 200, 404, 200, 200]),
    ("post /devices/{serial}/settings/versions/{version}/revert", "settings:write", [401, 403, 404, 200, 200]),
    ("get /devices/{serial}/telemetry",            "telemetry:read",  [401, 200, 404, 200, 200]),
    ("post /devices/{serial}/telemetry",           "telemetry:write", [401, 403, 404, 403, 422]),
    ("delete /devices/{serial}/telemetry",         "telemetry:write", [401, 403, 404, 403, 422]),
    ("get /devices/{serial}/telemetry/latest",     "telemetry:read",  [401, 200, 404, 200, 200]),
    ("get /devices/{serial}/telemetry.svg",        "telemetry:read",  [401, 200, 404, 200, 200]),
    ("get /devices/{serial}/timeline",             "devices:read",    [401, 200, 404, 200, 200]),
    ("post /factory/imports",                      "devices:write",   [401, 403, 403, 403, 422]),
    ("get /factory/imports/{id}",                  "devices:write",   [401, 403, 403, 403, 404]),
    ("get /events",                                "devices:read",    [401, 200, 200, 200, 200]),
    ("get /groups",                                "groups:read",     [401, 200, 403, 403, 200]),
    ("post /groups",                               "groups:write",    [401, 403, 403, 403, 422]),
    ("get /groups/{name}",                         "groups:read",     [401, 404, 403, 403, 404]),
    ("put /groups/{name}",                         "groups:write",    [401, 403, 403, 403, 422]),
    ("patch /groups/{name}",                       "groups:write",    [401, 403, 403, 403, 404]),
    ("delete /groups/{name}",                      "groups:write",    [401, 403, 403, 403, 404]),
    ("get /groups/{name}/devices",                 "groups:read",     [401, 404, 403, 403, 404]),
    ("get /groups/{name}/schedules",               "settings:read",   [401, 404, 403, 403, 404]),
    ("post /groups/{name}/schedules",              "settings:write",  [401, 403, 403, 403, 422]),
    ("get /groups/{name}/schedules/preview",       "settings:read",   [401, 404, 403, 403, 404]),
    ("get /groups/{name}/schedules/{schedule}",    "settings:read",   [401, 404, 403, 403, 404]),
    ("put /groups/{name}/schedules/{schedule}",    "settings:write",  [401, 403, 403, 403, 422]),
    ("patch /groups/{name}/schedules/{schedule}",  "settings:write",  [401, 403, 403, 403, 404]),
    ("delete /groups/{name}/schedules/{schedule}", "settings:write",  [401, 403, 403, 403, 404]),
    ("get /models",                                "models:read",     [401, 200, 200, 200, 200]),
    ("post /models",                               "models:write",    [401, 403, 403, 403, 422]),
    ("get /models/export",                         "models:read",     [401, 200, 200, 200, 200]),
    ("post /models/import",                        "models:write",    [401, 403, 403, 403, 422]),
    ("get /models/{name}",                         "models:read",     [401, 200, 200, 200, 200]),
    ("get /sessions",                              "devices:read",    [401, 200, 200, 200, 200]),
    ("get /sessions/{id}",                         "devices:read",    [401, 404, 404, 404, 404]),
    ("delete /sessions/{id}",                      "devices:write",   [401, 403, 404, 404, 404]),
    ("put /models/{name}",                         "models:write",    [401, 403, 403, 403, 422]),
    ("patch /models/{name}",                       "models:write",    [401, 403, 403, 403, 200]),
    ("delete /models/{name}",                      "models:write",    [401, 403, 403, 403, 409]),
    ("get /models/{name}/header.h",                "models:read",     [401, 200, 200, 200, 200]),
    ("get /models/{name}/openapi.json",            "models:read",     [401, 200, 200, 200, 200]),
    ("get /models/{name}/versions",                "models:read",     [401, 200, 200, 200, 200]),
    ("get /models/{name}/versions/{version}",      "models:read",     [401, 200, 200, 200, 200]),
    ("post /session",                              "",                [422, 422, 422, 422, 422]),
    ("get /session",                               "",                [401, 200, 200, 200, 200]),
    ("delete /session",                            "",                [401, 204, 204, 204, 204]),
    ("patch /session",                             "",                [401, 422, 422, 422, 422]),
    ("get /session/methods",                       "",                [200, 200, 200, 200, 200]),
    ("get /session/oidc",                          "",                [409, 409, 409, 409, 409]),
    ("get /session/oidc/callback",                 "",                [409, 409, 409, 409, 409]),
    ("post /session/password",                     "",                [401, 422, 422, 422, 422]),
    ("post /session/totp",                         "",                [401, 200, 200, 200, 200]),
    ("post /session/totp/confirm",                 "",                [401, 422, 422, 422, 422]),
    ("post /session/totp/disable",                 "",                [401, 422, 422, 422, 422]),
    ("get /telemetry",                             "telemetry:read",  [401, 200, 200, 200, 200]),
    ("get /telemetry/latest",                      "telemetry:read",  [401, 200, 200, 200, 200]),
    ("get /tokens",                                "tokens:write",    [401, 200, 200, 200, 200]),
    ("post /tokens",                               "tokens:write",    [401, 422, 422, 422, 422]),
    ("get /tokens/{id}",                           "tokens:write",    [401, 404, 404, 404, 404]),
    ("delete /tokens/{id}",                        "tokens:write",    [401, 404, 404, 404, 404]),
    ("get /users",                                 "admin",           [401, 403, 403, 403, 403]),
    ("post /users",                                "admin",           [401, 403, 403, 403, 403]),
    ("get /users/{username}",                      "admin",           [401, 403, 403, 403, 403]),
    ("patch /users/{username}",                    "admin",           [401, 403, 403, 403, 403]),
    ("delete /users/{username}",                   "admin",           [401, 403, 403, 403, 403]),
    ("delete /users/{username}/totp",              "admin",           [401, 403, 403, 403, 403]),
    ("get /webhooks",                              "webhooks:read",   [401, 403, 403, 403, 200]),
    ("post /webhooks",                             "webhooks:write",  [401, 403, 403, 403, 422]),
    ("get /webhooks/{name}",                       "webhooks:read",   [401, 403, 403, 403, 404]),
    ("patch /webhooks/{name}",                     "webhooks:write",  [401, 403, 403, 403, 404]),
    ("delete /webhooks/{name}",                    "webhooks:write",  [401, 403, 403, 403, 404]),
    ("post /webhooks/{name}/secret",               "webhooks:write",  [401, 403, 403, 403, 404]),
    ("post /webhooks/{name}/test",                 "webhooks:write",  [401, 403, 403, 403, 404]),
    ("post /webhooks/{name}/replay",               "webhooks:write",  [401, 403, 403, 403, 404]),
    ("get /webhooks/{name}/deliveries",            "webhooks:read",   [401, 403, 403, 403, 404]),
    ("get /webhooks/{name}/deliveries/{id}",       "webhooks:read",   [401, 403, 403, 403, 404]),
    ("post /webhooks/{name}/deliveries/{id}/replay", "webhooks:write", [401, 403, 403, 403, 404]),
];

/// Below the API's base, unless OAuth or the server itself says otherwise.
fn full(path: &str) -> String {
    let outside = ["/activate", "/healthz", "/readyz", "/metrics", "/oauth/"];
    if outside.iter().any(|known| path.starts_with(known)) {
        path.to_owned()
    } else {
        format!("/api/v1{path}")
    }
}

fn split(operation: &str, version: i64) -> (Method, String) {
    let (method, path) = operation.split_once(' ').unwrap();
    let path = full(path)
        .replace("/models/{name}/versions/{version}", "/models/home/versions/1")
        .replace("{serial}", "HOME-1")
        .replace("{version}", &version.to_string())
        .replace("{schedule}", "night")
        .replace("{name}", "home");
    let path = path
        .replace("{username}", "nobody")
        .replace("{id}", "00000000-0000-0000-0000-000000000001");
    (method.to_uppercase().parse().unwrap(), path)
}

fn with_body(call: Call, method: &Method) -> Call {
    if method == Method::GET {
        call
    } else {
        call.body("{}")
    }
}

async fn ask(api: &Api, person: Option<&Person>, operation: &str, version: i64) -> Answer {
    let (method, path) = split(operation, version);
    let mut call = api.root(method.clone(), &path);
    if let Some(person) = person {
        call = call
            .header("cookie", &person.cookie)
            .header("x-csrf-token", &person.csrf);
    }
    with_body(call, &method).await
}

/// Makes sure of the device, and that it is `anna`'s; the version of its settings.
async fn restore(server: &Harness) -> i64 {
    server
        .api()
        .post("/devices")
        .json(&json!({"serial": "HOME-1"}))
        .await;
    server
        .sql(
            "insert into device_owners (device_id, user_id, since)
             select d.id, u.id, now() from devices d, users u where d.serial = 'HOME-1' and u.username = 'anna'
             on conflict do nothing",
        )
        .await;
    let device = server.api().get("/devices/HOME-1").await.expect(200);
    device["settings_version"].as_i64().unwrap()
}

#[tokio::test]
async fn every_operation_of_the_document_stands_in_the_table() {
    let server = Harness::start().await;
    let document = server
        .api()
        .anonymous()
        .root(Method::GET, "/openapi.json")
        .await
        .expect(200);
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            described.insert(format!("{method} {path}"));
        }
    }
    let known: BTreeSet<String> = OPERATIONS
        .iter()
        .map(|(operation, _, _)| {
            let (method, path) = operation.split_once(' ').unwrap();
            format!("{method} {}", full(path))
        })
        .collect();
    let missing: Vec<_> = described.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "who may do this? Add a row for each: {missing:?}"
    );
    let gone: Vec<_> = known.difference(&described).collect();
    assert!(gone.is_empty(), "rows of no operation: {gone:?}");
}

#[tokio::test]
async fn everybody_gets_exactly_their_answer() {
    let server = Harness::start().await;
    let anonymous = server.api().anonymous();
    restore(&server).await;
    for (operation, _, [expected, ..]) in OPERATIONS {
        let answer = ask(&anonymous, None, operation, 1).await;
        assert_eq!(
            answer.status.as_u16(),
            *expected,
            "anonymous: {operation}: {}",
            answer.text
        );
    }
    let people = [
        ("vera", "viewer"),
        ("ben", "owner"),
        ("anna", "owner"),
        ("otto", "operator"),
    ];
    for (place, (name, role)) in people.into_iter().enumerate() {
        let signed_in = person(&server, name, role).await;
        for (operation, _, expected) in OPERATIONS {
            if *operation == "delete /session" {
                continue;
            }
            let version = restore(&server).await;
            let answer = ask(&anonymous, Some(&signed_in), operation, version).await;
            let expected = expected[place + 1];
            assert_eq!(
                answer.status.as_u16(),
                expected,
                "{name}: {operation}: {}",
                answer.text
            );
        }
        ask(&anonymous, Some(&signed_in), "delete /session", 1)
            .await
            .expect(204);
    }
}

#[tokio::test]
async fn a_token_may_what_its_scopes_say_and_no_longer_than_it_holds() {
    let clock = ManualClock::new(SystemClock.now());
    let server = Harness::setup().at(&clock).start().await;
    restore(&server).await;
    let soon = clock.now() + TimeDelta::hours(1);
    let body = json!({"name": "brief", "scopes": ["admin"], "expires_at": soon});
    let made = server.api().post("/tokens").json(&body).await.expect(201);
    let expired = server.api().with_token(made["token"].as_str().unwrap());
    expired.get("/devices").await.expect(200);
    clock.advance(TimeDelta::hours(1));
    for (operation, scope, [anonymous, ..]) in OPERATIONS {
        let answer = ask(&expired, None, operation, 1).await;
        assert_eq!(answer.status.as_u16(), *anonymous, "expired: {operation}");
        if scope.is_empty() {
            continue;
        }
        let others = Scope::ALL.iter().map(|scope| scope.as_str());
        let others: Vec<&str> = others
            .filter(|other| other != scope && *other != "admin")
            .collect();
        let without = server.api().scoped(&others).await;
        ask(&without, None, operation, 1).await.problem(403, "forbidden");
    }
}
