//! The web site that the browser is pointed at: a page, mqtt.js, and an ear for what the page tells.

use std::{path::Path, sync::Arc};

use serde_json::Value;
use setpoint_tests::{WAIT, within};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::chromium::Chromium;

/// The version that `.ci/tools` fetches.
const MQTT_JS: &str = "target/tools/mqtt-5.16.0.min.js";
/// How many times [`WAIT`] a browser may take to start on a machine with other things to do.
const START: u32 = 2;

/// A site on a port of its own: another origin than the server's.
pub(super) struct Site {
    address: String,
    heard: mpsc::Receiver<Value>,
    _serving: AbortOnDropHandle<()>,
}

fn mqtt_js() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(MQTT_JS);
    std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("mqtt.js is not at {MQTT_JS} ({error}): run .ci/tools, which fetches it")
    })
}

impl Site {
    /// Serves the page, for the device of these credentials.
    pub(super) async fn serve(device: Value) -> Self {
        let pages = Arc::new([
            ("/", "text/html", include_str!("page.html").to_owned()),
            ("/page.js", "text/javascript", include_str!("page.js").to_owned()),
            ("/mqtt.js", "text/javascript", mqtt_js()),
            ("/device", "application/json", device.to_string()),
        ]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let (tell, heard) = mpsc::channel(64);
        let serving = TaskTracker::new().spawn(async move {
            let connections = TaskTracker::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (pages, tell) = (Arc::clone(&pages), tell.clone());
                // A browser also opens connections in advance, on which it says nothing for long.
                connections.spawn(async move { answer(stream, pages.as_slice(), &tell).await });
            }
        });
        Self {
            address,
            heard,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What the page tells first, as soon as the browser is up.
    pub(super) async fn first_told(&mut self, browser: &Chromium) -> Value {
        let told = tokio::time::timeout(WAIT * START, self.heard.recv()).await;
        let told = told.unwrap_or_else(|_| panic!("the browser shows no page: {}", browser.log()));
        told.expect("the site")
    }

    /// What the page tells next.
    pub(super) async fn told(&mut self) -> Value {
        within("the page to tell something", self.heard.recv())
            .await
            .expect("the site")
    }
}

/// Reads one request and answers it: a page by its path, or thanks for what is told.
async fn answer(
    stream: TcpStream,
    pages: &[(&str, &str, String)],
    tell: &mpsc::Sender<Value>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        match header.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap()
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, kind, text) = if path == "/told" {
        let _ = tell.send(serde_json::from_slice(&body).unwrap()).await;
        ("204 No Content", "text/plain", "")
    } else {
        match pages.iter().find(|(known, _, _)| *known == path) {
            Some((_, kind, text)) => ("200 OK", *kind, text.as_str()),
            None => ("404 Not Found", "text/plain", ""),
        }
    };
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
