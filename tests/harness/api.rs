//! A REST client that fails a test with everything the server said.

use std::{future::IntoFuture, pin::Pin};

use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HeaderMap, HeaderName},
};
use serde_json::Value;

use super::{events::EventReader, wait::within};

/// Where REST stands.
const BASE: &str = "/api/v1";

/// The REST interface as seen with one token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Api {
    /// The interface of the server at `server` (`http://127.0.0.1:8080`), without a token.
    pub fn new(server: impl Into<String>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self {
            http,
            server: server.into(),
            token: None,
        }
    }

    /// The same with another token.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// The same without a token.
    pub fn anonymous(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// `http://address:port`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The token.
    ///
    /// # Panics
    /// When there is none.
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("a token")
    }

    /// The same rights, but of a new token with `scopes` alone.
    pub async fn scoped(&self, scopes: &[&str]) -> Self {
        let name: String = scopes.join(" ").chars().take(100).collect();
        let body = serde_json::json!({"name": name, "scopes": scopes});
        let made = self.post("/tokens").json(&body).await.expect(201);
        self.with_token(made["token"].as_str().expect("the token, shown once"))
    }

    /// A request to a path that begins at the root: `/healthz`.
    pub fn root(&self, method: Method, path: &str) -> Call {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.server));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Call {
            what: format!("{method} {path}"),
            request,
        }
    }

    /// A request to a path below `/api/v1`.
    pub fn call(&self, method: Method, path: &str) -> Call {
        self.root(method, &format!("{BASE}{path}"))
    }

    /// GET below `/api/v1`.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// POST below `/api/v1`.
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// PATCH below `/api/v1`.
    pub fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    /// PUT below `/api/v1`.
    pub fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    /// DELETE below `/api/v1`.
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }
}

/// A request that is sent when awaited.
#[derive(Debug)]
pub struct Call {
    what: String,
    request: RequestBuilder,
}

impl Call {
    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.request = self.request.json(body);
        self
    }

    /// With a body of bytes, and no content type.
    #[must_use]
    pub fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// With `Authorization: Basic`.
    #[must_use]
    pub fn basic(mut self, username: &str, password: &str) -> Self {
        self.request = self.request.basic_auth(username, Some(password));
        self
    }

    /// The answer as a stream of events.
    ///
    /// # Panics
    /// When it isn't one.
    pub async fn events(self) -> EventReader {
        let response = within(&self.what, self.request.send()).await.expect("an answer");
        EventReader::new(self.what, response)
    }

    /// The answer as it comes, its body unread.
    ///
    /// # Panics
    /// When there is none.
    pub async fn unread(self) -> reqwest::Response {
        within(&self.what, self.request.send()).await.expect("an answer")
    }

    /// The answer, or `None` when the connection could not be made or broke.
    pub async fn attempt(self) -> Option<Answer> {
        let response = within(&self.what, self.request.send()).await.ok()?;
        Answer::read(self.what, response).await
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let response = within(&self.what, self.request.send()).await;
            let response = response.unwrap_or_else(|error| panic!("{}: {error:?}", self.what));
            let what = self.what.clone();
            let answer = Answer::read(self.what, response).await;
            answer.unwrap_or_else(|| panic!("{what}: the body broke off"))
        })
    }
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    what: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    async fn read(what: String, response: reqwest::Response) -> Option<Self> {
        let (status, headers) = (response.status(), response.headers().clone());
        let stream = headers
            .get(reqwest::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let text = if stream {
            // It has no end.
            String::new()
        } else {
            within(format!("the body of {what}"), response.text())
                .await
                .ok()?
        };
        Some(Self {
            what,
            status,
            headers,
            text,
        })
    }

    /// The JSON body; null for an empty one.
    ///
    /// # Panics
    /// When the status is another, or the body is not JSON.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.what, self.text);
        if self.text.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it isn't.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.what, self.text))
    }

    /// A header's text, empty without that header.
    pub fn header(&self, name: impl TryInto<HeaderName>) -> String {
        let name = name.try_into().ok().expect("a header's name");
        self.headers
            .get(name)
            .map_or_else(String::new, |value| value.to_str().expect("ASCII").to_owned())
    }

    /// The problem (RFC 9457) that this answer must be, checked for everything that all of them have.
    ///
    /// # Panics
    /// When it is anything else.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        let what = &self.what;
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{what}: {body}"
        );
        assert_eq!(body["code"], code, "{what}: {body}");
        assert_eq!(body["status"], status, "{what}: {body}");
        assert_eq!(body["type"], "about:blank", "{what}: {body}");
        for field in ["title", "detail", "request_id"] {
            let text = body[field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{what}: `{field}` in {body}");
        }
        assert_eq!(body["request_id"], self.header("x-request-id"), "{what}: {body}");
        body
    }

    /// The messages per field of the 422 that this answer must be.
    ///
    /// # Panics
    /// When it is anything else.
    #[track_caller]
    pub fn invalid(&self) -> Value {
        self.problem(422, "validation_failed")["errors"].clone()
    }
}
