//! TLS from files: certificate chain, key, and the CA of client certificates; replaceable while connections live.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};

use super::certificate::{self, Summary};

/// The application protocol name of MQTT (IANA, "TLS ALPN Protocol IDs").
pub const ALPN: &[u8] = b"mqtt";

/// Where a listener's certificates are. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, then the intermediate ones.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 (RSA) or SEC1 (EC), not encrypted.
    pub key: PathBuf,
    /// The CAs whose client certificates are devices' logins; none means no client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused in the handshake; needs `client_ca`.
    pub client_required: bool,
}

/// Why certificates could not be loaded. The text names the file and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file can't be read, or is not PEM.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is nothing of the kind that belongs there in a file.
    #[error("{}: no PEM {wanted} in it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        wanted: &'static str,
    },
    /// The certificate can't be parsed.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: certificate::Error,
    },
    /// The key is that of another certificate.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that can't be used.
    #[error("{} with {}: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong with one of them.
        source: rustls::Error,
    },
    /// A certificate in the client CA file can't be a trust anchor.
    #[error("{}: {source}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The verifier of client certificates refused its settings.
    #[error("client certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The random source failed, or the provider lacks a protocol version.
    #[error("TLS set-up: {0}")]
    Setup(#[source] rustls::Error),
    /// `client_required` without `client_ca`.
    #[error("client certificates are required, but no client CA is given")]
    RequiredWithoutCa,
}

/// A configuration made from [`Files`], and what it presents to clients.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) summary: Summary,
}

impl Files {
    /// Reads and checks all files. Blocks on file access.
    pub(super) fn load(&self) -> Result<Loaded, LoadError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| LoadError::of_file(&self.key, "private key", source))?;
        let leaf = chain.first().ok_or_else(|| LoadError::Missing {
            path: self.certificate.clone(),
            wanted: CERTIFICATE,
        })?;
        let summary = Summary::read(leaf).map_err(|source| LoadError::Certificate {
            path: self.certificate.clone(),
            source,
        })?;

        // Named explicitly: the process-wide default belongs to whoever sets it first.
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(LoadError::Setup)?;
        let builder = match &self.client_ca {
            None if self.client_required => return Err(LoadError::RequiredWithoutCa),
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|source| LoadError::ClientCa {
                        path: path.clone(),
                        source,
                    })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                // Devices with a token connect beside those with a certificate.
                let verifier = if self.client_required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| {
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            match source {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    LoadError::Mismatch { certificate, key }
                }
                source => LoadError::Unusable {
                    certificate,
                    key,
                    source,
                },
            }
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Resumption without a table of sessions: a fleet that reconnects saves the signatures. The ticket key goes
        // with this configuration, so what an old client CA let in is not resumed under a new one.
        config.ticketer = ring::Ticketer::new().map_err(LoadError::Setup)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Loaded {
            config: Arc::new(config),
            summary,
        })
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca)
    }
}

impl LoadError {
    fn of_file(path: &Path, wanted: &'static str, source: pem::Error) -> Self {
        let path = path.to_owned();
        match source {
            pem::Error::NoItemsFound => Self::Missing { path, wanted },
            source => Self::File { path, source },
        }
    }
}

/// What [`LoadError::Missing`] calls one.
const CERTIFICATE: &str = "certificate";

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(none) if none.is_empty() => Err(LoadError::of_file(path, CERTIFICATE, pem::Error::NoItemsFound)),
        found => found.map_err(|source| LoadError::of_file(path, CERTIFICATE, source)),
    }
}
