//! The registrar against a server that answers as scripted, one connection for each request.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::*;

/// Answers requests in order, and returns the line and body of each.
async fn answer(listener: TcpListener, answers: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut heard = Vec::new();
    for (status, body) in answers {
        let (mut stream, _) = timeout(Duration::from_secs(60), listener.accept())
            .await
            .unwrap()
            .unwrap();
        let mut request = Vec::new();
        let (head, content) = loop {
            stream.read_buf(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, content)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.to_ascii_lowercase();
            let length = length
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if content.len() >= length.unwrap_or(0) {
                break (head.to_owned(), content.to_owned());
            }
        };
        assert!(head.contains("authorization: Bearer admin"), "{head}");
        heard.push((head.lines().next().unwrap().to_owned(), content));
        let length = body.len();
        let response = format!(
            "HTTP/1.1 {status}\r\nretry-after: 0\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(response.as_bytes()).await.unwrap();
    }
    heard
}

async fn registrar() -> (Registrar, TcpListener) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    (
        Registrar::new(Rest::new(&base, Some(Token::new("admin"))).unwrap(), "home"),
        listener,
    )
}

#[tokio::test]
async fn a_new_device_is_created() {
    let (registrar, listener) = registrar().await;
    let serial = "A".parse().unwrap();
    let answers = [(
        "201 Created",
        r#"{"serial":"A","credential":{"username":"A","token":"spd_1"}}"#,
    )];
    let (token, heard) = tokio::join!(registrar.credential(&serial), answer(listener, &answers));
    assert_eq!(token.unwrap().reveal(), "spd_1");
    assert_eq!(heard[0].0, "POST /api/v1/devices HTTP/1.1");
    let device: serde_json::Value = serde_json::from_str(&heard[0].1).unwrap();
    assert_eq!(device, json!({"serial": "A", "model": "home"}));
}

#[tokio::test]
async fn a_device_that_exists_gets_a_new_token() {
    for rotated in [
        r#"{"username":"A","token":"spd_2"}"#,
        r#"{"credential":{"username":"A","token":"spd_2"}}"#,
    ] {
        let (registrar, listener) = registrar().await;
        let serial = "A".parse().unwrap();
        let answers = [("409 Conflict", r#"{"title":"it exists"}"#), ("200 OK", rotated)];
        let (token, heard) = tokio::join!(registrar.credential(&serial), answer(listener, &answers));
        assert_eq!(token.unwrap().reveal(), "spd_2");
        assert_eq!(heard[1].0, "POST /api/v1/devices/A/credential HTTP/1.1");
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let (registrar, listener) = registrar().await;
    let serial = "A".parse().unwrap();
    let answers = [
        ("503 Service Unavailable", ""),
        ("429 Too Many Requests", ""),
        ("201 Created", r#"{"credential":{"token":"spd_3"}}"#),
    ];
    let (token, _) = tokio::join!(registrar.credential(&serial), answer(listener, &answers));
    assert_eq!(token.unwrap().reveal(), "spd_3");
}

#[tokio::test]
async fn a_refused_token_and_a_refused_device_are_told_apart() {
    let (wrong_token, listener) = registrar().await;
    let serial = "A".parse().unwrap();
    let refused = [("401 Unauthorized", "{}")];
    let (token, _) = tokio::join!(wrong_token.credential(&serial), answer(listener, &refused));
    assert!(matches!(token, Err(RestError::NotAuthorized { .. })), "{token:?}");

    let (wrong_model, listener) = registrar().await;
    let refused = [(
        "422 Unprocessable Content",
        r#"{"title":"Invalid","detail":"no such model"}"#,
    )];
    let (token, _) = tokio::join!(wrong_model.credential(&serial), answer(listener, &refused));
    assert!(token.unwrap_err().to_string().contains("no such model"));
}

#[tokio::test]
async fn many_are_registered_until_one_fails() {
    let (registrar, listener) = registrar().await;
    let serials: Vec<Serial> = ["A", "B", "C"].map(|serial| serial.parse().unwrap()).into();
    let created = ("201 Created", r#"{"credential":{"token":"t"}}"#);
    let answers = [created, ("500 Internal Server Error", ""), created];
    let credentials = registrar.credentials(serials, 1).try_collect::<Vec<_>>();
    let (registered, _) = tokio::join!(credentials, async {
        // The third is never asked for.
        timeout(Duration::from_secs(60), answer(listener, &answers[..2]))
            .await
            .unwrap()
    });
    assert!(registered.is_err());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let (registrar, listener) = registrar().await;
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = registrar.credential(&"A".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
}
