//! Files of factory serials: taken as a whole or not at all.

use reqwest::Method;
use serde_json::{Value, json};
use setpoint_tests::{Answer, Harness, Options, eventually};

use crate::{PROGRAM, claiming, sessions::person};

async fn import(server: &Harness, query: &str, file: impl Into<reqwest::Body>) -> Answer {
    let call = server.api().post(&format!("/factory/imports{query}"));
    call.header("content-type", "text/csv").body(file).await
}

/// Waits until an import has come to its end.
async fn ended(server: &Harness, begun: &Answer) -> Value {
    let import = begun.expect(202);
    let path = begun.header("location");
    assert_eq!(
        path,
        format!("/api/v1/factory/imports/{}", import["id"].as_str().unwrap())
    );
    eventually!({
        let import = server.api().root(Method::GET, &path).await.expect(200);
        (import["state"] == "done" || import["state"] == "refused").then_some(import)
    })
}

#[tokio::test]
async fn what_the_factory_knows_is_what_a_claim_finds() {
    let server = Harness::setup().with("claiming.create", "false").start().await;
    server.sql("update models set claim_secret = true").await;
    let file = "serial,secret,name,tags\nF-1,from the label,Hall,site=oslo; floor=2\nF-2,another,,\n";
    let import = ended(&server, &import(&server, "", file).await).await;
    assert_eq!(import["state"], "done", "{import}");
    assert_eq!(
        (
            &import["lines"],
            &import["added"],
            &import["replaced"],
            &import["errors"]
        ),
        (&json!(2), &json!(2), &json!(0), &json!([]))
    );
    let entry = server.api().get("/audit?action=factory.import").await.expect(200);
    assert_eq!(
        entry["items"][0]["after"],
        json!({"added": 2, "replaced": 0, "errors": 0})
    );
    assert!(!entry.to_string().contains("from the label"));

    let anna = person(&server, "anna", "owner").await;
    let asked = |body: &'static str| claiming::form(&server, "/oauth/device_authorization", body.to_owned());
    asked("client_id=device&serial=F-1&secret=another")
        .await
        .expect(401);
    let codes = asked("client_id=device&serial=F-1&secret=from+the+label")
        .await
        .expect(200);
    let decision = json!({"user_code": codes["user_code"], "decision": "approve"});
    anna.activate(&decision).await.expect(200);
    let device = anna.get("/devices/F-1").await.expect(200);
    assert_eq!(
        (&device["name"], &device["tags"]),
        (&json!("Hall"), &json!({"site": "oslo", "floor": 2}))
    );
}

#[tokio::test]
async fn one_wrong_line_refuses_the_whole_file_and_each_is_named() {
    let server = Harness::start().await;
    let file = "serial,secret,model\nF-1,a,home\n-,b,home\nF-2,c,spaceship\nF-1,d,home\nF-3\nF-4,e,home\n";
    let refused = ended(&server, &import(&server, "", file).await).await;
    assert_eq!(refused["state"], "refused");
    assert_eq!(
        (&refused["lines"], &refused["error_count"]),
        (&json!(6), &json!(4))
    );
    let errors: Vec<_> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            (
                error["line"].as_i64().unwrap(),
                error["field"].as_str().unwrap(),
                error["message"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(errors[0].1, "serial");
    assert_eq!(
        errors[1..],
        [
            (4, "model", "there is no such model"),
            (5, "serial", "stands in line 2 already"),
            (6, "line", "has 1 fields; the header names 3"),
        ]
    );
    // Nothing of it is known: each would be added.
    let good = "serial,secret\nF-1,a\nF-4,e\n";
    let dry = ended(&server, &import(&server, "?dry_run=true", good).await).await;
    assert_eq!((&dry["state"], &dry["dry_run"]), (&json!("done"), &json!(true)));
    for (query, added, replaced) in [("?dry_run=true", 2, 0), ("", 2, 0), ("", 0, 2)] {
        let import = ended(&server, &import(&server, query, good).await).await;
        assert_eq!(
            (&import["added"], &import["replaced"]),
            (&json!(added), &json!(replaced)),
            "{query} {import}"
        );
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_leaves_nothing() {
    let server = Harness::setup()
        .with("factory.max_import", "64 KiB")
        .start()
        .await;
    for (file, column) in [
        ("", "serial"),
        ("secret\nx\n", "serial"),
        ("serial,colour\n", "colour"),
    ] {
        let errors = import(&server, "", file).await.invalid();
        assert!(errors.get(column).is_some(), "{file}: {errors}");
    }
    let errors = import(&server, "?colour=red", "serial\n").await.invalid();
    assert!(errors.get("colour").is_some(), "{errors}");
    let endless = format!("serial\n\"{}", "A".repeat(100_000));
    import(&server, "", endless).await.problem(413, "too_large");
    let unknown = "/factory/imports/00000000-0000-0000-0000-000000000001";
    server.api().get(unknown).await.problem(404, "not_found");
    server
        .sql("do $$ begin assert (select count(*) = 0 from factory_imports), 'an import was left'; end $$")
        .await;
}

#[tokio::test]
async fn an_import_whose_server_died_is_finished_by_the_next() {
    let mut server = Harness::start().await;
    server
        .sql(
            "insert into factory_imports (id, state, dry_run, actor, created_at, lines)
             values ('00000000-0000-0000-0000-000000000007', 'checking', false, 'user:anna', now(), 1);
             insert into factory_import_lines values
             ('00000000-0000-0000-0000-000000000007', 2, 'F-1', 'home', null, '', '{}')",
        )
        .await;
    server.restart().await;
    let path = "/factory/imports/00000000-0000-0000-0000-000000000007";
    eventually!(server.api().get(path).await.expect(200)["added"] == 1);
    let entry = server.api().get("/audit?action=factory.import").await.expect(200);
    assert_eq!(entry["items"][0]["actor"], "user:anna");
}

#[tokio::test]
async fn a_hundred_thousand_lines_are_no_trouble() {
    let server = Harness::start().await;
    let mut file = "serial,secret,model\n".to_owned();
    for number in 0..100_000 {
        file.push_str(&format!("LARGE-{number},secret {number},home\n"));
    }
    let import = ended(&server, &import(&server, "", file).await).await;
    assert_eq!(
        (&import["state"], &import["added"]),
        (&json!("done"), &json!(100_000))
    );
    server
        .sql("do $$ begin assert (select count(*) = 0 from factory_import_lines), 'lines were left'; end $$")
        .await;
}

#[tokio::test]
async fn the_command_says_what_it_did() {
    let child = Options::new(PROGRAM).start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("serials.csv");
    let run = async |flags: &[&str]| {
        let options = Options::new(PROGRAM).env("SETPOINT_LOG__LEVEL", "error");
        let options = ["factory", "import", file.to_str().unwrap()]
            .iter()
            .chain(flags)
            .fold(options, |options, argument| options.arg(argument));
        let (status, said, complained) = options.spawn(&child.data()).ended().await;
        (status.code(), said.join("\n"), complained.join("\n"))
    };
    std::fs::write(&file, "serial,secret\nF-1,a\nF-2,b\n").unwrap();
    let (status, said, _) = run(&["--dry-run"]).await;
    assert_eq!(
        (status, &*said),
        (Some(0), "2 serials would be added, 0 replaced")
    );
    let (status, said, _) = run(&[]).await;
    assert_eq!((status, &*said), (Some(0), "2 serials added, 0 replaced"));
    std::fs::write(&file, "serial,model\nF-3,spaceship\n").unwrap();
    let (status, said, complained) = run(&[]).await;
    assert_eq!(
        (status, &*said),
        (Some(1), "line 2: model: there is no such model")
    );
    assert!(
        complained.contains("1 errors in 1 lines; nothing was changed"),
        "{complained}"
    );
}
