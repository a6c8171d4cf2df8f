//! HTTP to the provider: encrypted, without redirects, with a time-out and a limit on what is read.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use openidconnect::{HttpRequest, HttpResponse};

/// The largest answer, in bytes: discovery documents and key sets have some thousands.
const MAX_ANSWER: usize = 256 * 1024;

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
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

impl Http {
    /// A client that trusts the system's certificate authorities, and speaks HTTP without TLS if `plain`.
    ///
    /// # Errors
    /// When the system has no certificate authorities.
    pub(super) fn new(timeout: Duration, plain: bool) -> std::io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let connector = if plain {
            // Such a provider is on this machine, where there may be no certificate authorities.
            let none = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(std::io::Error::other)?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(none).https_or_http()
        } else {
            builder.with_provider_and_native_roots(provider)?.https_only()
        };
        let client = Client::builder(TokioExecutor::new())
            // Sign-ins are too rare to keep a connection for them.
            .pool_max_idle_per_host(0)
            .build(connector.enable_http1().build());
        Ok(Self { client, timeout })
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let exchange = async {
            let answer = self
                .client
                .request(request.map(|body| Full::new(body.into())))
                .await?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(HttpError::Answer)?.to_bytes();
            Ok(HttpResponse::from_parts(parts, body.into()))
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::TimedOut(self.timeout)),
        }
    }
}
