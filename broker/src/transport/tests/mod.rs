//! Real sockets on loopback, real certificates, `tokio_rustls` as the client.

mod client_certificate;
mod handshake;
mod proxy;
mod replace;
mod stream;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Acceptor, Certificates, Error, Io, tls};
use crate::backend::Peer;

/// Far longer than anything here takes; only a defect waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate and its key, both PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// A certification authority.
struct Ca {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for the host `localhost`, told from others by its common name.
    fn server(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    fn device(&self, serial: &str) -> Pair {
        self.issue(serial, ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    fn issue(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(usage);
        // Unlike rcgen's 1975, in the range that every verifier reads.
        params.not_before = date_time_ymd(2020, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair {
            certificate,
            key: key.serialize_pem(),
        }
    }
}

/// A server's certificate files in a directory of their own.
struct Directory {
    directory: TempDir,
    files: tls::Files,
}

impl Directory {
    fn new(server: &Pair) -> Self {
        let directory = TempDir::new().unwrap();
        let files = tls::Files {
            certificate: directory.path().join("server.pem"),
            key: directory.path().join("server.key"),
            client_ca: None,
            client_required: false,
        };
        let this = Self { directory, files };
        this.replace(server);
        this
    }

    fn with_client_ca(mut self, ca: &Ca, required: bool) -> Self {
        let path = self.directory.path().join("client-ca.pem");
        fs::write(&path, &ca.certificate).unwrap();
        self.files = tls::Files {
            client_ca: Some(path),
            client_required: required,
            ..self.files
        };
        self
    }

    fn replace(&self, server: &Pair) {
        self.put(&self.files.certificate, &server.certificate);
        self.put(&self.files.key, &server.key);
    }

    /// Replaces a file in one step, as well-behaved tools do.
    fn put(&self, path: &PathBuf, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn load(&self) -> Arc<Certificates> {
        Certificates::load(self.files.clone()).unwrap()
    }
}

/// A listener with an acceptor.
struct Server {
    listener: TcpListener,
    acceptor: Acceptor,
}

impl Server {
    async fn new(acceptor: Acceptor) -> Self {
        Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            acceptor,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Takes one connection through its handshake.
    async fn accept(&self) -> Result<(Io, Peer), Error> {
        let (stream, from) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        timeout(PATIENCE, self.acceptor.accept(stream, from))
            .await
            .expect("the handshake ends")
    }

    /// Serves echo to everyone, each connection in a task of its own, as the edge does.
    async fn echo(self) {
        let mut sessions = JoinSet::new();
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            let acceptor = self.acceptor.clone();
            sessions.spawn(async move {
                let Ok((mut io, _)) = acceptor.accept(stream, from).await else {
                    return;
                };
                let mut buffer = vec![0; 4096];
                while let Ok(read @ 1..) = io.read(&mut buffer).await {
                    if io.write_all(&buffer[..read]).await.is_err() || io.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

/// A client's TLS settings: whom it trusts and who it is.
fn client(trusted: &Ca, identity: Option<&Pair>) -> ClientConfig {
    client_with(
        trusted,
        identity,
        &[&rustls::version::TLS13, &rustls::version::TLS12],
    )
}

fn client_with(
    trusted: &Ca,
    identity: Option<&Pair>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

async fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("localhost").unwrap();
    timeout(
        PATIENCE,
        TlsConnector::from(Arc::clone(config)).connect(name, stream),
    )
    .await
    .expect("the handshake ends")
}

/// Sends `text` and reads it back.
async fn ping(stream: &mut TlsStream<TcpStream>, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    let mut back = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut back))
        .await
        .expect("an echo")?;
    assert_eq!(back, text.as_bytes());
    Ok(())
}

/// The common name of the certificate that the server presented.
fn presented(stream: &TlsStream<TcpStream>) -> String {
    let leaf = &stream.get_ref().1.peer_certificates().unwrap()[0];
    super::certificate::common_name(leaf).unwrap().unwrap()
}
