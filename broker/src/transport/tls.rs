//! TLS from files: certificate chain, key, and the CA of client certificates; replaceable while connections live.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
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
    /// A file can't be read, or is not PEM of the kind that belongs there.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate can't be parsed.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: certificate::Error,
    },
    /// Certificate and key can't be used together, or one of them not at all.
    #[error("certificate {} and key {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong with them; a key of another certificate is `KeyMismatch`.
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
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| LoadError::File {
            path: self.key.clone(),
            source,
        })?;
        let leaf = chain.first().ok_or(LoadError::File {
            path: self.certificate.clone(),
            source: pem::Error::NoItemsFound,
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
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|source| LoadError::Pair {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
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

/// All certificates of a PEM file; at least one.
fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let failed = |source| LoadError::File {
        path: path.clone(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        Err(failed(pem::Error::NoItemsFound))
    } else {
        Ok(certificates)
    }
}
