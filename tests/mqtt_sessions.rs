//! Who is connected over MQTT, and ending a session: REST and the terminal.

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use setpoint_tests::{Child, End, Harness, Options, Version, eventually, harness::operator_login};
use uuid::Uuid;

use crate::{
    PROGRAM,
    claiming::claimed,
    sessions::{Person, person},
};

async fn items(server: &Harness, query: &str) -> Vec<Value> {
    let list = server.api().get(&format!("/sessions?{query}")).await.expect(200);
    list["items"].as_array().unwrap().clone()
}

/// The client ids of a list, in its order.
fn clients(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .map(|item| item["client_id"].as_str().unwrap())
        .collect()
}

/// The id of the one session of a device.
async fn session_of(server: &Harness, serial: &str) -> String {
    let items = items(server, &format!("serial={serial}")).await;
    assert_eq!(items.len(), 1, "{items:?}");
    items[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_tells_who_is_connected_and_how() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    let slow = device.mqtt(Version::V5).without_acks();
    let mut slow = slow.receive_maximum(1).keep_alive(30).connect().await;
    slow.subscribe(&["devices/HOME-1/settings"]).await;
    slow.next("devices/HOME-1/settings").await;
    device.change(json!({"privacyMode": true})).await;

    let id = session_of(&server, "HOME-1").await;
    let session = eventually!({
        let session = server.api().get(&format!("/sessions/{id}")).await.expect(200);
        (session["queued"] == 1).then_some(session)
    });
    assert_eq!(
        session["in_flight"], 1,
        "one document is out, the next waits: {session}"
    );
    for (field, expected) in [
        ("id", json!(id)),
        ("serial", json!("HOME-1")),
        ("token", Value::Null),
        ("client_id", json!("HOME-1")),
        ("transport", json!("tcp")),
        ("version", json!("5.0")),
        ("keep_alive", json!(30)),
        ("clean_start", json!(true)),
        ("subscriptions", json!(["devices/HOME-1/settings"])),
    ] {
        assert_eq!(session[field], expected, "{field}: {session}");
    }
    let address = session["address"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(session["messages_out"].as_u64().unwrap() >= 1, "{session}");
    assert!(session["bytes_in"].as_u64().unwrap() > 0, "{session}");
    let connected = eventually!(device.timeline("connected").await.pop());
    assert_eq!(
        connected["data"]["session"], session["id"],
        "the timeline names the same session"
    );
    assert_eq!(connected["at"], session["since"], "{connected}");

    let _watcher = server.watcher().await;
    let operators = items(&server, "q=watcher").await;
    assert_eq!(operators[0]["serial"], Value::Null);
    assert!(operators[0]["token"].is_string(), "{operators:?}");
}

#[tokio::test]
async fn the_list_is_filtered_and_paged_newest_first() {
    let server = Harness::start().await;
    let mut open = Vec::new();
    for serial in ["A-1", "A-2", "B-1"] {
        let device = server.device(serial).await;
        open.push(device.mqtt_v3().await);
        open.push(
            device
                .mqtt(Version::V5)
                .client_id(&format!("{serial}:second"))
                .connect()
                .await,
        );
    }
    let all = items(&server, "").await;
    assert_eq!(
        clients(&all),
        ["B-1:second", "B-1", "A-2:second", "A-2", "A-1:second", "A-1"]
    );
    assert_eq!(
        clients(&items(&server, "serial=A-2").await),
        ["A-2:second", "A-2"]
    );
    assert_eq!(clients(&items(&server, "q=a-1").await), ["A-1:second", "A-1"]);
    assert_eq!(
        clients(&items(&server, "q=127.0.0.1&serial=B-1").await),
        ["B-1:second", "B-1"]
    );
    assert_eq!(items(&server, "transport=tcp").await.len(), 6);
    assert!(items(&server, "transport=websocket").await.is_empty());
    assert!(items(&server, "serial=A").await.is_empty(), "a serial is whole");

    let (mut paged, mut query) = (Vec::new(), "limit=4".to_owned());
    loop {
        let page = server.api().get(&format!("/sessions?{query}")).await.expect(200);
        paged.extend(page["items"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => query = format!("limit=4&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(clients(&paged), clients(&all));

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("transport=quic", "transport"),
        ("colour=red", "colour"),
    ] {
        let errors = server.api().get(&format!("/sessions?{query}")).await.invalid();
        assert!(errors[field].is_string(), "{query}: {errors}");
    }
}

#[tokio::test]
async fn an_ended_session_is_told_why_and_everybody_can_see_it() {
    let server = Harness::start().await;
    let device = server.device("HOME-1").await;
    for version in [Version::V3, Version::V5] {
        let mut session = device.mqtt(version).connect().await;
        let id = session_of(&server, "HOME-1").await;
        let path = format!("/sessions/{id}");
        server.api().delete(&path).await.expect(204);
        match (version, session.ended().await) {
            (Version::V5, end) => assert_eq!(end, End::Disconnected(0x98), "administrative action"),
            (Version::V3, end) => assert!(matches!(end, End::Closed(_)), "{end:?}"),
        }
        assert!(items(&server, "").await.is_empty());
        server.api().get(&path).await.problem(404, "not_found");
        server.api().delete(&path).await.problem(404, "not_found");
        let entry = eventually!({
            let entries = device.timeline("disconnected").await;
            entries
                .into_iter()
                .find(|entry| entry["data"]["session"] == json!(id))
        });
        assert_eq!(entry["data"]["reason"], "kicked", "{entry}");
        let log = "/audit?action=mqtt_session.end&object=device:HOME-1";
        let log = server.api().get(log).await.expect(200);
        let entry = &log["items"][0];
        assert_eq!(entry["before"]["session"], json!(id), "{log}");
        assert_eq!(
            (&entry["outcome"], &entry["before"]["client_id"]),
            (&json!("done"), &json!("HOME-1"))
        );
    }
    // It was ended, not shut out.
    device.mqtt_v5().await;

    for id in [Uuid::nil().to_string(), Uuid::new_v4().to_string()] {
        server
            .api()
            .delete(&format!("/sessions/{id}"))
            .await
            .problem(404, "not_found");
    }
    let wrong = server.api().delete("/sessions/none").await;
    assert!(matches!(wrong.status.as_u16(), 404 | 422), "{}", wrong.text);
}

#[tokio::test]
async fn an_operators_session_can_be_ended_too() {
    let server = Harness::start().await;
    let mut watcher = server.watcher().await;
    let id = items(&server, "q=watcher").await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    server.api().delete(&format!("/sessions/{id}")).await.expect(204);
    assert_eq!(watcher.ended().await, End::Disconnected(0x98));
    let log = server
        .api()
        .get("/audit?action=mqtt_session.end")
        .await
        .expect(200);
    let object = log["items"][0]["object"].as_str().unwrap();
    assert!(object.starts_with("token:"), "{log}");
}

#[tokio::test]
async fn an_owner_sees_and_ends_their_own_devices_sessions_alone() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let ben = person(&server, "ben", "owner").await;
    let vera = person(&server, "vera", "viewer").await;
    let token = claimed(&server, &anna, "A").await;
    let login = setpoint_tests::mosquitto::Login {
        username: "A".to_owned(),
        password: token,
        client_id: "A".to_owned(),
    };
    let device = setpoint_tests::harness::mqtt::Connect::new(server.mqtt_port(), Version::V5, login);
    let mut device = device.connect().await;
    let _other = server.device("B").await.mqtt_v5().await;
    let _watcher = server.watcher().await;

    let seen = async |who: &Person| {
        let list = who.get("/sessions").await.expect(200);
        clients(list["items"].as_array().unwrap()).join(" ")
    };
    assert_eq!(seen(&anna).await, "A");
    assert_eq!(seen(&ben).await, "");
    assert_eq!(seen(&vera).await, "watcher B A");

    let id = session_of(&server, "A").await;
    let path = format!("/sessions/{id}");
    anna.get(&path).await.expect(200);
    vera.get(&path).await.expect(200);
    ben.get(&path).await.problem(404, "not_found");
    ben.delete(&path).await.problem(404, "not_found");
    vera.call(Method::DELETE, &path).await.problem(403, "forbidden");
    for other in ["B", "watcher"] {
        let id = items(&server, &format!("q={other}")).await[0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        anna.get(&format!("/sessions/{id}"))
            .await
            .problem(404, "not_found");
        anna.delete(&format!("/sessions/{id}"))
            .await
            .problem(404, "not_found");
    }
    assert!(device.is_connected());
    anna.delete(&path).await.expect(204);
    assert_eq!(device.ended().await, End::Disconnected(0x98));
}

/// Runs `setpoint sessions` beside the server: whether it succeeded, and what it printed.
async fn sessions(child: &Child, arguments: &[&str]) -> (bool, String, String) {
    let options = Options::new(PROGRAM).arg("sessions");
    let options = arguments
        .iter()
        .fold(options, |options, argument| options.arg(argument));
    let options = options.arg("--api").arg(child.api.server());
    let (status, stdout, stderr) = options.spawn(&child.data()).ended().await;
    (status.success(), stdout.join("\n"), stderr.join("\n"))
}

#[tokio::test]
async fn the_terminal_shows_sessions_and_ends_them() {
    let mut child = Options::new(PROGRAM).start().await;
    let mut device = child.device("HOME-1").await.mqtt_v5().await;
    let operator = operator_login(child.api.token(), "watcher");
    let operator = setpoint_tests::harness::mqtt::Connect::new(child.mqtt_port, Version::V3, operator);
    let _operator = operator.connect().await;

    let (done, table, stderr) = sessions(&child, &[]).await;
    assert!(done, "{stderr}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for title in [
        "ID",
        "WHO",
        "CLIENT ID",
        "FROM",
        "TRANSPORT",
        "MQTT",
        "SINCE",
        "KEEP-ALIVE",
        "QUEUED",
    ] {
        assert!(lines[0].contains(title), "{title} in {table}");
    }
    assert!(
        lines[1].contains("token:") && lines[1].contains("watcher"),
        "{table}"
    );
    for part in ["HOME-1", "127.0.0.1:", "tcp", "5.0", "60"] {
        assert!(lines[2].contains(part), "{part} in {table}");
    }

    let (done, printed, stderr) = sessions(&child, &["--serial", "HOME-1", "--json"]).await;
    assert!(done, "{stderr}");
    let list: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    let id = list[0]["id"].as_str().unwrap();
    let (done, said, stderr) = sessions(&child, &["end", id]).await;
    assert!(done && said.contains(id), "{said} {stderr}");
    assert_eq!(device.ended().await, End::Disconnected(0x98));

    let (done, _, stderr) = sessions(&child, &["end", id]).await;
    assert!(!done && stderr.contains("session not found"), "{stderr}");
    let (done, _, stderr) = sessions(&child, &["--transport", "quic"]).await;
    assert!(
        !done && stderr.contains("transport: tcp, tls or websocket"),
        "{stderr}"
    );
    let (done, _, stderr) = sessions(&child, &["--token-file", "/nonexistent"]).await;
    assert!(!done && stderr.contains("/nonexistent"), "{stderr}");

    assert!(child.stop(Signal::SIGTERM).await.success());
    let (done, _, stderr) = sessions(&child, &[]).await;
    assert!(
        !done && stderr.contains("no server at http://127.0.0.1"),
        "{stderr}"
    );
}
