//! The running server's REST interface, for commands that ask it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use reqwest::{Method, Response, Url};
use serde_json::Value;

use super::Failure;
use crate::{app::first_start::TOKEN_FILE, config::Config, http::BASE};

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which server is asked, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The server's HTTP address, such as http://127.0.0.1:8080; by default that of the key http.listen.
    #[arg(long, global = true, value_name = "URL")]
    api: Option<String>,
    /// The file with the API token to use; by default the administrator's in the data directory.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A client of the running server.
#[derive(Debug)]
pub(super) struct Rest {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Server {
    /// A client of this server.
    pub(super) fn client(self, config: &Config) -> Result<Rest, Failure> {
        let file = self
            .token_file
            .unwrap_or_else(|| config.data_dir.join(TOKEN_FILE));
        let token = std::fs::read_to_string(&file)
            .map_err(|error| Failure::App(format!("the API token in {}: {error}", file.display())))?;
        let base = self
            .api
            .unwrap_or_else(|| format!("http://{}", reachable(config.http.listen)));
        // A proxy meant for the internet would only be in the way of one's own server.
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        Ok(Rest {
            http: http.map_err(|error| Failure::App(reason(&error)))?,
            base: base.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
        })
    }
}

/// Where a server that listens on `address` is reached from its own machine: what listens on every address is here as well.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Rest {
    /// GET below the API's base: the JSON answer.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let answer = self.send(Method::GET, path, query).await?;
        answer.json().await.map_err(|error| self.unreachable(&error))
    }

    /// The server's metrics, as text.
    pub(super) async fn metrics(&self) -> Result<String, Failure> {
        let url = format!("{}/metrics", self.base);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await;
        let answer = answer.and_then(Response::error_for_status);
        let text = answer.map_err(|error| self.unreachable(&error))?.text().await;
        text.map_err(|error| self.unreachable(&error))
    }

    /// DELETE below the API's base.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, &[]).await?;
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        let url = format!("{}{BASE}{path}", self.base);
        let url = Url::parse(&url).map_err(|error| Failure::App(format!("--api {}: {error}", self.base)))?;
        let request = self.http.request(method, url).query(query);
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Value = answer.json().await.unwrap_or_default();
        Err(Failure::App(match sentence(&problem) {
            Some(sentence) => sentence,
            None => format!("{} answered {status}", self.base),
        }))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::App(format!("no server at {}: {}", self.base, reason(error)))
    }
}

/// A problem document in one line, fields included.
fn sentence(problem: &Value) -> Option<String> {
    let fields = problem.get("errors").and_then(Value::as_object);
    let fields: Vec<String> = fields
        .into_iter()
        .flatten()
        .filter_map(|(field, message)| Some(format!("{field}: {}", message.as_str()?)))
        .collect();
    if fields.is_empty() {
        Some(problem.get("detail")?.as_str()?.to_owned())
    } else {
        Some(fields.join("; "))
    }
}

/// The innermost cause: reqwest's own text stops at "error sending request".
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn a_problem_is_told_in_one_line() {
        let problem =
            serde_json::json!({"detail": "some fields are not valid", "errors": {"limit": "1 to 1000"}});
        assert_eq!(sentence(&problem).as_deref(), Some("limit: 1 to 1000"));
        let problem = serde_json::json!({"detail": "session not found"});
        assert_eq!(sentence(&problem).as_deref(), Some("session not found"));
        assert_eq!(sentence(&Value::Null), None);
    }
}
