//! Webhooks over TLS: whom the server trusts, and whom it doesn't.

use serde_json::{Value, json};
use setpoint_tests::{Child, Options, eventually, harness::receiver::Receiver};

use crate::{PROGRAM, transports::Certificates};

/// A receiver with the server's certificate that was made last.
async fn receiver(certificates: &Certificates) -> Receiver {
    Receiver::over_tls(certificates.text("server.pem"), certificates.text("server.key")).await
}

/// Makes a webhook and has it tested: its secret, and what came of the test.
async fn tested(child: &Child, name: &str, url: &str) -> (String, Value) {
    let body = json!({"name": name, "url": url, "events": ["presence"]});
    let made = child.api.post("/webhooks").json(&body).await.expect(201);
    let test = child.api.post(&format!("/webhooks/{name}/test")).await;
    let path = test.header("location");
    let path = path.strip_prefix("/api/v1").expect("an address of ours");
    let ended = eventually!({
        let delivery = child.api.get(path).await.expect(200);
        (delivery["state"] != "pending").then_some(delivery)
    });
    (made["secret"].as_str().unwrap().to_owned(), ended)
}

#[tokio::test]
async fn an_event_goes_to_a_receiver_whose_certificate_holds_and_to_no_other() {
    let (known, unknown) = (Certificates::new(), Certificates::new());
    let child = Options::new(PROGRAM)
        .env("SSL_CERT_FILE", &known.text("ca.pem"))
        .env("SETPOINT_WEBHOOKS__ALLOW_PRIVATE", r#"["127.0.0.0/8"]"#)
        .start()
        .await;
    let mut trusted = receiver(&known).await;
    let (secret, ended) = tested(&child, "trusted", &trusted.url()).await;
    assert_eq!(
        (&ended["state"], &ended["last_status"], &ended["last_error"]),
        (&json!("delivered"), &json!(204), &Value::Null)
    );
    let told = trusted.next().await;
    assert!(told.is_signed_by(&secret));
    assert_eq!(told.body["type"], "ping");

    // Its authority has the name of the one that is trusted, and another key.
    let mut stranger = receiver(&unknown).await;
    let (_, ended) = tested(&child, "stranger", &stranger.url()).await;
    assert_eq!(
        (&ended["state"], &ended["last_status"], &ended["last_error"]),
        (
            &json!("dead"),
            &Value::Null,
            &json!("the connection failed: invalid peer certificate: BadSignature")
        )
    );
    // Of an authority that is trusted, but for another name than the one in the URL.
    known.make(&["server", "--force", "--name", "receiver.example"]);
    let mut misnamed = receiver(&known).await;
    let (_, ended) = tested(&child, "misnamed", &misnamed.url()).await;
    assert_eq!(ended["state"], "dead");
    let wrong = ended["last_error"].as_str().unwrap();
    let expected =
        "the connection failed: invalid peer certificate: certificate not valid for name \"127.0.0.1\"";
    assert!(wrong.starts_with(expected), "{wrong}");
    // And one that doesn't speak TLS where the URL says so.
    let mut plain = Receiver::start().await;
    let url = plain.url().replace("http://", "https://");
    let (_, ended) = tested(&child, "plain", &url).await;
    assert_eq!(ended["state"], "dead");
    for receiver in [&mut stranger, &mut misnamed, &mut plain] {
        assert!(
            receiver.next_so_far().is_none(),
            "nothing is told before TLS holds"
        );
    }
}
