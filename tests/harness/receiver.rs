//! A program outside that webhooks tell of events: a real HTTP server, which answers as a test wants.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Response, Uri},
    serve::Listener,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use ring::hmac;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use super::wait::within;

/// An answer to be given: its status, and further headers.
pub type Answer = (u16, Vec<(&'static str, String)>);

/// A receiver that runs.
#[derive(Debug)]
pub struct Receiver {
    scheme: &'static str,
    port: u16,
    shared: Arc<Shared>,
    told: mpsc::UnboundedReceiver<Told>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    /// What the next requests are answered; 204 when there is nothing more.
    answers: Mutex<VecDeque<Answer>>,
    /// Whether answers wait.
    held: watch::Sender<bool>,
    teller: mpsc::UnboundedSender<Told>,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it was sent.
    pub raw: Bytes,
    /// Its body as JSON.
    pub body: Value,
}

/// Takes connections that speak TLS; one that breaks off meanwhile is passed over.
struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = TcpListener::accept(&self.listener).await.expect("a connection");
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn answers(&self) -> MutexGuard<'_, VecDeque<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Starts one on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve("http", listener)
    }

    /// Starts one that speaks TLS alone, with a certificate and its key in PEM files.
    pub async fn over_tls(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
            .expect("a certificate")
            .collect();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(
                certificates.expect("a certificate"),
                PrivateKeyDer::from_pem_file(key).expect("a key"),
            );
        let encrypted = Encrypted {
            listener: TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            acceptor: Arc::new(config.expect("a certificate with its key")).into(),
        };
        Self::serve("https", encrypted)
    }

    fn serve(scheme: &'static str, listener: impl Listener<Addr = SocketAddr>) -> Self {
        let port = listener.local_addr().expect("its address").port();
        let (teller, told) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            held: watch::Sender::new(false),
            teller,
        });
        let routes = Router::new().fallback(hear).with_state(Arc::clone(&shared));
        let task = super::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self {
            scheme,
            port,
            shared,
            told,
            task,
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is told.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/hook", self.scheme, self.port)
    }

    /// What the next requests are answered.
    pub fn answer(&self, statuses: &[u16]) {
        let answers = statuses.iter().map(|status| (*status, Vec::new()));
        self.shared.answers().extend(answers);
    }

    /// What the next request is answered, with a header.
    pub fn answer_with(&self, status: u16, name: &'static str, value: &str) {
        self.shared
            .answers()
            .push_back((status, vec![(name, value.to_owned())]));
    }

    /// Lets requests come in, and answers none.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Answers what waits, and whatever comes.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// The next request.
    pub async fn next(&mut self) -> Told {
        within("a webhook to be told", self.told.recv())
            .await
            .expect("a request")
    }

    /// The next request that was not looked at yet, if there is one.
    pub fn next_so_far(&mut self) -> Option<Told> {
        self.told.try_recv().ok()
    }
}

async fn hear(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, raw: Bytes) -> Response<Body> {
    let answer = shared.answers().pop_front();
    let (status, further) = answer.unwrap_or((204, Vec::new()));
    let body = serde_json::from_slice(&raw).unwrap_or(Value::Null);
    let told = Told {
        path: uri.to_string(),
        headers,
        raw,
        body,
    };
    // The test may be over.
    let _ = shared.teller.send(told);
    let mut held = shared.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    let mut response = Response::builder().status(status);
    for (name, value) in further {
        response = response.header(name, value);
    }
    response.body(Body::empty()).expect("an answer")
}

impl Told {
    /// A header's text, empty without it.
    pub fn header(&self, name: &str) -> String {
        let value = self.headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().expect("ASCII").to_owned())
    }

    /// Whether one of its signatures is by this secret: the verification of the Standard Webhooks specification, time
    /// aside.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = secret.strip_prefix("whsec_").expect("a secret");
        let key = BASE64_STANDARD.decode(key).expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let mut signed = format!(
            "{}.{}.",
            self.header("webhook-id"),
            self.header("webhook-timestamp")
        )
        .into_bytes();
        signed.extend_from_slice(&self.raw);
        let signatures = self.header("webhook-signature");
        signatures.split(' ').any(|signature| {
            let signature = signature.strip_prefix("v1,").expect("a version");
            let signature = BASE64_STANDARD.decode(signature).expect("base64");
            hmac::verify(&key, &signed, &signature).is_ok()
        })
    }
}
