//! Every operation of the API, asked for by those who may not.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_model::{Clock as _, Scope, SystemClock, clock::ManualClock};
use setpoint_tests::{Api, Harness};

/// What anybody may ask for.
const PUBLIC: &[&str] = &[
    "get /healthz",
    "get /readyz",
    "get /openapi.json",
    "get /activate",
    "get /api/v1/session/methods",
];

/// Where people and devices begin, who prove themselves by what they send; and what every signed-in person may,
/// whatever their rights. `policy.rs` has the answers.
const BEGINNINGS: &[&str] = &[
    "post /api/v1/session",
    "get /api/v1/session",
    "delete /api/v1/session",
    "patch /api/v1/session",
    "get /api/v1/session/oidc",
    "get /api/v1/session/oidc/callback",
    "post /api/v1/session/password",
    "post /api/v1/session/totp",
    "post /api/v1/session/totp/confirm",
    "post /api/v1/session/totp/disable",
    "post /oauth/device_authorization",
    "post /oauth/token",
];

struct Operation {
    name: String,
    method: Method,
    path: String,
    /// The scopes of which each would do, by what the document says; empty where anybody may.
    schemes: Vec<(String, Vec<String>)>,
}

async fn operations(server: &Harness) -> Vec<Operation> {
    let document = server
        .api()
        .anonymous()
        .root(Method::GET, "/openapi.json")
        .await
        .expect(200);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation.get("security").or(document.get("security"));
            let schemes = security
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .flat_map(|scheme| {
                    scheme.as_object().unwrap().iter().map(|(name, scopes)| {
                        let scopes = scopes.as_array().unwrap().iter();
                        (
                            name.clone(),
                            scopes.map(|scope| scope.as_str().unwrap().to_owned()).collect(),
                        )
                    })
                });
            let filled = path.replace("{serial}", "HOME-1").replace("{version}", "1");
            let filled = filled.split('/').map(|part| {
                if part.starts_with('{') {
                    "00000000-0000-0000-0000-000000000001"
                } else {
                    part
                }
            });
            let name = format!("{method} {path}");
            if BEGINNINGS.contains(&name.as_str()) {
                continue;
            }
            operations.push(Operation {
                name,
                method: method.to_uppercase().parse().unwrap(),
                path: filled.collect::<Vec<_>>().join("/"),
                schemes: schemes.collect(),
            });
        }
    }
    operations
}

/// Asks with a body that each operation could read, though it must not get as far.
async fn ask(api: &Api, operation: &Operation) -> setpoint_tests::Answer {
    let call = api.root(operation.method.clone(), &operation.path);
    if operation.method == Method::GET {
        call.await
    } else {
        call.body("{}").await
    }
}

#[tokio::test]
async fn every_operation_is_either_public_or_guarded() {
    let server = Harness::start().await;
    let public: BTreeSet<&str> = PUBLIC.iter().copied().collect();
    for operation in operations(&server).await {
        let guarded = operation.schemes.iter().any(|(_, scopes)| !scopes.is_empty());
        assert!(
            guarded != public.contains(operation.name.as_str()),
            "{}: name its scope in `security`, or add it to the public ones here",
            operation.name
        );
        for (_, scopes) in &operation.schemes {
            for scope in scopes {
                assert!(
                    scope.parse::<Scope>().is_ok(),
                    "{}: there is no scope {scope}",
                    operation.name
                );
            }
        }
    }
}

#[tokio::test]
async fn without_a_token_that_holds_nothing_is_answered() {
    let clock = ManualClock::new(SystemClock.now());
    let server = Harness::setup().at(&clock).start().await;
    server.device("HOME-1").await;
    let soon = clock.now() + TimeDelta::minutes(1);
    let body = json!({"name": "expired", "scopes": ["admin"], "expires_at": soon});
    let made = server.api().post("/tokens").json(&body).await.expect(201);
    let expired = server.api().with_token(made["token"].as_str().unwrap());
    expired.get("/devices").await.expect(200);
    clock.advance(TimeDelta::minutes(1));
    let callers = [
        server.api().anonymous(),
        server.api().with_token("spt_unknown"),
        expired,
    ];
    for operation in operations(&server).await {
        for caller in &callers {
            let answer = ask(caller, &operation).await;
            if PUBLIC.contains(&operation.name.as_str()) {
                assert!(answer.status.is_success(), "{}: {answer:?}", operation.name);
            } else {
                answer.problem(401, "unauthenticated");
            }
        }
    }
}

#[tokio::test]
async fn every_scope_but_the_right_one_is_not_enough() {
    let server = Harness::start().await;
    server.device("HOME-1").await;
    for operation in operations(&server).await {
        let needed: BTreeSet<&String> = operation.schemes.iter().flat_map(|(_, scopes)| scopes).collect();
        if needed.is_empty() {
            continue;
        }
        let others: Vec<&str> = Scope::ALL
            .iter()
            .map(|scope| scope.as_str())
            .filter(|scope| *scope != "admin" && !needed.iter().any(|needed| needed == scope))
            .collect();
        let caller = server.api().scoped(&others).await;
        let problem = ask(&caller, &operation).await.problem(403, "forbidden");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            needed.iter().any(|scope| detail.contains(scope.as_str())),
            "{}: {detail:?} names none of {needed:?}",
            operation.name
        );
    }
}

#[tokio::test]
async fn the_right_scope_alone_is_enough() {
    let server = Harness::start().await;
    for operation in operations(&server).await {
        for (_, scopes) in &operation.schemes {
            if scopes.is_empty() {
                continue;
            }
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            // The device is made anew each time, since some operations end it.
            server
                .api()
                .post("/devices")
                .json(&json!({"serial": "HOME-1"}))
                .await;
            let caller = server.api().scoped(&scopes).await;
            let status = ask(&caller, &operation).await.status.as_u16();
            assert!(
                !matches!(status, 401 | 403 | 500..),
                "{} with {scopes:?}: {status}",
                operation.name
            );
        }
    }
}
