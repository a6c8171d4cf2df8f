//! A browser as far as signing in needs one: it follows where it is sent, and keeps cookies.

use reqwest::{Client, Response, redirect::Policy};
use serde_json::Value;

use super::{START, location};

/// A browser, with the cookies of one server.
pub(crate) struct Browser {
    http: Client,
    pub(super) server: String,
    pub(super) cookies: Vec<(String, String)>,
    /// Every value that a cookie ever had.
    pub(crate) seen: Vec<String>,
}

impl Browser {
    pub(crate) fn new(server: &str) -> Self {
        let http = Client::builder().no_proxy().redirect(Policy::none()).build();
        Self {
            http: http.unwrap(),
            server: server.to_owned(),
            cookies: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Goes to an address; the server's own get its cookies.
    pub(super) async fn go(&mut self, url: &str) -> Response {
        let url = if url.starts_with('/') {
            format!("{}{url}", self.server)
        } else {
            url.to_owned()
        };
        let mut request = self.http.get(&url);
        if url.starts_with(&self.server) {
            let cookies: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
            request = request.header("cookie", cookies.join("; "));
        }
        let response = setpoint_tests::within(&url, request.send()).await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
                self.seen.push(value.to_owned());
            }
        }
        response
    }

    /// Begins to sign in and has been at the provider: the address it is sent back to.
    pub(super) async fn sent_back(&mut self, path: &str) -> String {
        let to_provider = location(&self.go(path).await);
        location(&self.go(&to_provider).await)
    }

    /// The whole way through.
    pub(crate) async fn sign_in(&mut self) -> Response {
        let back = self.sent_back(START).await;
        self.go(&back).await
    }

    /// What a cookie holds.
    pub(crate) fn cookie(&self, name: &str) -> String {
        let held = self.cookies.iter().find(|(known, _)| known == name);
        held.expect("a cookie of this name").1.clone()
    }

    pub(super) async fn session(&mut self) -> Option<Value> {
        let response = self.go("/api/v1/session").await;
        if response.status() != 200 {
            return None;
        }
        response.json().await.ok()
    }
}
