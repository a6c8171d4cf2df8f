//! A tab of the browser, driven as a person would: it is looked at, typed into and clicked (Chrome DevTools Protocol).

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use setpoint_tests::{WAIT, eventually, wait::pause, within};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::chromium::Chromium;

/// How many times [`WAIT`] a browser may take to start on a machine with other things to do.
const START: u32 = 2;

/// The page of a browser.
pub(crate) struct Tab {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    _browser: Chromium,
}

impl Tab {
    /// Opens a browser with this page.
    pub(crate) async fn open(address: &str) -> Self {
        let browser = Chromium::open(address);
        let up = tokio::time::timeout(WAIT * START, debugger(&browser, address)).await;
        let debugger = up.unwrap_or_else(|_| panic!("the browser shows no page: {}", browser.log()));
        let (socket, _) = connect_async(debugger).await.unwrap();
        Self {
            socket,
            calls: 0,
            _browser: browser,
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": params});
        let text = Message::text(call.to_string());
        self.socket.send(text).await.unwrap();
        loop {
            let message = within(method, self.socket.next()).await;
            let Message::Text(text) = message.expect("the browser").unwrap() else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap();
            // Anything else is an event.
            if answer["id"] == self.calls {
                return answer["result"].clone();
            }
        }
    }

    /// What an expression is in the page; null while a page is being loaded.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", asked).await["result"]["value"].clone()
    }

    /// The text that can be seen.
    pub(crate) async fn text(&mut self) -> String {
        let text = self.value("document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until something can be seen: of all that a selector finds, one.
    pub(crate) async fn see(&mut self, selector: &str) {
        eventually!(self.sees(selector).await, "{selector} in {:?}", self.text().await);
    }

    /// Waits until this text can be seen.
    pub(crate) async fn read(&mut self, text: &str) {
        eventually!(
            self.text().await.contains(text),
            "{text:?} in {:?}",
            self.text().await
        );
    }

    /// Whether anything that a selector finds can be seen.
    pub(crate) async fn sees(&mut self, selector: &str) -> bool {
        let all = format!("[...document.querySelectorAll({})]", json!(selector));
        let seen = format!("{all}.some((element) => element.checkVisibility())");
        self.value(&seen).await == true
    }

    /// Has the page shown `light` or `dark`.
    pub(crate) async fn prefer(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
        self.applies(&format!("(prefers-color-scheme: {scheme})")).await;
    }

    /// Has the page shown on a screen so many pixels wide.
    pub(crate) async fn resize(&mut self, width: u64) {
        let screen = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", screen).await;
        self.applies(&format!("(width: {width}px)")).await;
    }

    /// Waits until the page knows what it is shown on.
    async fn applies(&mut self, media: &str) {
        let applies = format!("matchMedia({}).matches", json!(media));
        eventually!(self.value(&applies).await == true, "{media}");
    }

    /// Fills a field, in place of what it holds.
    pub(crate) async fn fill(&mut self, selector: &str, text: &str) {
        self.see(selector).await;
        let field = format!("document.querySelector({})", json!(selector));
        self.value(&format!("{field}.focus(), {field}.select()")).await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Clicks on what a selector finds. Not by the mouse's place: a browser that is still drawing lets such clicks go.
    pub(crate) async fn click(&mut self, selector: &str) {
        self.see(selector).await;
        let click = format!("document.querySelector({}).click()", json!(selector));
        self.value(&click).await;
    }
}

/// The address of the page's debugger.
async fn debugger(browser: &Chromium, address: &str) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    loop {
        if let Some(port) = browser.debugging_port()
            && let Ok(answer) = http
                .get(format!("http://127.0.0.1:{port}/json/list"))
                .send()
                .await
            && let Ok(Value::Array(pages)) = answer.json().await
        {
            let ours = |page: &&Value| page["url"].as_str().is_some_and(|url| url.starts_with(address));
            let found = pages.iter().find(ours).map(|page| &page["webSocketDebuggerUrl"]);
            if let Some(Value::String(debugger)) = found {
                return debugger.clone();
            }
        }
        pause().await;
    }
}
