//! HTTP to the outside: without redirects, with time-outs, and with a limit on what is read.

mod guard;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, body::Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

pub use guard::{Guard, PlainRefused};
use guard::{Guarded, Resolver};

/// How long a connection is kept for the next request: receivers that have one connection at once are not kept from others.
const IDLE: Duration = Duration::from_secs(5);

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest from the request to the end of the answer.
    pub timeout: Duration,
    /// The longest until there is a connection, TLS aside.
    pub connect_timeout: Duration,
    /// The most of an answer that is read, in bytes.
    pub max_answer: usize,
    /// Connections kept per host for the next request.
    pub idle_connections: usize,
    /// Which of both ways is taken.
    pub ways: Ways,
    /// Which addresses may be reached; all without it.
    pub guard: Option<Guard>,
}

/// With TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// With TLS alone, trusting the system's certificate authorities.
    Encrypted,
    /// Without TLS alone: no certificate authorities are needed.
    Plain,
    /// As the URL says. Without any certificate authority in the system, TLS fails.
    Either,
}

/// A client. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector<Guarded>, Full<Bytes>>,
    timeout: Duration,
    max_answer: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, or a broken one.
    #[error("the connection failed")]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off, or was too large.
    #[error("the answer can't be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl HttpError {
    /// What is wrong, in one line for people.
    pub fn sentence(&self) -> String {
        let mut cause: &dyn std::error::Error = self;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        match self {
            Self::Connection(_) => format!("{self}: {cause}"),
            Self::Answer(_) | Self::TimedOut(_) => self.to_string(),
        }
    }
}

impl Http {
    /// A client.
    ///
    /// # Errors
    /// When TLS alone is to be spoken, and the system has no certificate authorities.
    pub fn new(options: &Options) -> std::io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusting_nobody = || {
            rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map(|builder| {
                    let nobody = rustls::RootCertStore::empty();
                    builder.with_root_certificates(nobody).with_no_client_auth()
                })
                .map_err(std::io::Error::other)
        };
        let builder = HttpsConnectorBuilder::new();
        let connector = match options.ways {
            Ways::Encrypted => builder
                .with_provider_and_native_roots(Arc::clone(&provider))?
                .https_only(),
            Ways::Plain => builder.with_tls_config(trusting_nobody()?).https_or_http(),
            Ways::Either => match builder.with_provider_and_native_roots(Arc::clone(&provider)) {
                Ok(builder) => builder.https_or_http(),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "without certificate authorities no https can be reached"
                    );
                    HttpsConnectorBuilder::new()
                        .with_tls_config(trusting_nobody()?)
                        .https_or_http()
                }
            },
        };
        let guarded = Guarded::new(
            options.guard.as_ref().map(|guard| Arc::new(guard.clone())),
            |resolver| inner(resolver, options.connect_timeout),
        );
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.idle_connections)
            .build(connector.enable_http1().wrap_connector(guarded));
        Ok(Self {
            client,
            timeout: options.timeout,
            max_answer: options.max_answer,
        })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`HttpError`], also for an answer larger than the limit.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        self.exchange(request, async |body| {
            let body = Limited::new(body, self.max_answer).collect().await;
            Ok(body.map_err(HttpError::Answer)?.to_bytes().into())
        })
        .await
    }

    /// Sends a request whose answer is its status: of its body no more is read than the limit.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn tell(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        self.exchange(request, async |mut body| {
            let mut read = BytesMut::new();
            while read.len() < self.max_answer
                && let Some(frame) = body.frame().await
            {
                // What was asked is answered by the status, even if the rest breaks off.
                let Ok(frame) = frame else { break };
                if let Ok(data) = frame.into_data() {
                    read.extend_from_slice(&data);
                }
            }
            read.truncate(self.max_answer);
            Ok(read.into())
        })
        .await
    }

    async fn exchange<F>(&self, request: Request<Vec<u8>>, read: F) -> Result<Response<Vec<u8>>, HttpError>
    where
        F: AsyncFnOnce(Incoming) -> Result<Vec<u8>, HttpError>,
    {
        let exchange = async {
            let answer = self
                .client
                .request(request.map(|body| Full::new(body.into())))
                .await?;
            let (parts, body) = answer.into_parts();
            let body = read(body).await?;
            Ok(Response::from_parts(parts, body))
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::TimedOut(self.timeout)),
        }
    }
}

fn inner(resolver: Resolver, connect_timeout: Duration) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    connector
}
