//! Where devices connect: an MQTT address and, for TLS, the certificates to trust.

use std::{fmt, fs, path::Path, path::PathBuf, str::FromStr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use url::Url;

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `mqtt://`, plain TCP.
    Mqtt,
    /// `mqtts://`, TLS.
    Mqtts,
    /// `ws://`, WebSocket with the subprotocol `mqtt`.
    Ws,
    /// `wss://`, WebSocket over TLS.
    Wss,
}

impl Scheme {
    fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// The address of an MQTT server: `mqtt://host[:1883]`, `mqtts://host[:8883]`, `ws://host[:8080][/mqtt]` or
/// `wss://host[:443][/mqtt]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

/// Why a text is not an MQTT address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a URL at all.
    #[error("not an address: {0}")]
    Syntax(#[from] url::ParseError),
    /// A scheme that isn't MQTT.
    #[error("an MQTT address begins with mqtt://, mqtts://, ws:// or wss://")]
    Scheme,
    /// No host.
    #[error("the address names no host")]
    Host,
    /// User or password in the address; they'd end up in logs.
    #[error("the address must not hold a user or password")]
    Credentials,
    /// A path where there is none.
    #[error("only ws:// and wss:// addresses have a path")]
    Path,
}

impl MqttUrl {
    /// How bytes travel.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for MqttUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, default_port, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (Scheme::Mqtt, 1883, rest),
            Some(("mqtts", rest)) => (Scheme::Mqtts, 8883, rest),
            Some(("ws", rest)) => (Scheme::Ws, 8080, rest),
            Some(("wss", rest)) => (Scheme::Wss, 443, rest),
            _ => return Err(InvalidUrl::Scheme),
        };
        // One scheme for all: the parser would drop port 80 of ws, and our default for ws is another.
        let url = Url::parse(&format!("mqtt://{rest}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Credentials);
        }
        let host = url.host_str().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(InvalidUrl::Host);
        }
        let path = match (scheme, url.path()) {
            (Scheme::Ws | Scheme::Wss, "" | "/") => "/mqtt",
            (Scheme::Ws | Scheme::Wss, path) => path,
            (_, "" | "/") => "",
            _ => return Err(InvalidUrl::Path),
        };
        let port = url.port().unwrap_or(default_port);
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for MqttUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            host,
            port,
            path,
        } = self;
        if host.contains(':') {
            write!(f, "{}://[{host}]:{port}{path}", scheme.as_str())
        } else {
            write!(f, "{}://{host}:{port}{path}", scheme.as_str())
        }
    }
}

/// PEM files for TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust.
    pub ca: Option<PathBuf>,
    /// The device's own certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// An address together with what is needed to reach it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    url: MqttUrl,
    tls: Option<Arc<ClientConfig>>,
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// TLS without an authority to trust.
    #[error("{0} needs --tls-ca FILE (the system's are often in /etc/ssl/certs/ca-certificates.crt)")]
    NoAuthority(MqttUrl),
    /// A file that can't be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// rustls refuses what the files hold.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Endpoint {
    /// An endpoint; `files` matter for `mqtts://` and `wss://` alone.
    ///
    /// # Errors
    /// When TLS is asked for and its files are missing or bad.
    pub fn new(url: MqttUrl, files: &TlsFiles) -> Result<Self, EndpointError> {
        let tls = if url.scheme.is_tls() {
            Some(tls_config(&url, files)?)
        } else {
            None
        };
        Ok(Self { url, tls })
    }

    /// An endpoint without TLS, on a loopback port: what tests use.
    pub fn loopback(port: u16) -> Self {
        let url = MqttUrl {
            scheme: Scheme::Mqtt,
            host: "127.0.0.1".to_owned(),
            port,
            path: String::new(),
        };
        Self { url, tls: None }
    }

    /// The address.
    pub fn url(&self) -> &MqttUrl {
        &self.url
    }

    /// Host and port as rumqttc wants them: for WebSocket, the host is the whole address.
    pub(crate) fn broker_address(&self) -> (String, u16) {
        match self.url.scheme {
            Scheme::Mqtt | Scheme::Mqtts => (self.url.host.clone(), self.url.port),
            Scheme::Ws | Scheme::Wss => (self.url.to_string(), self.url.port),
        }
    }

    pub(crate) fn transport(&self) -> rumqttc::Transport {
        let tls = self.tls.clone().map(rumqttc::TlsConfiguration::Rustls);
        match (self.url.scheme, tls) {
            (Scheme::Mqtts, Some(tls)) => rumqttc::Transport::Tls(tls),
            (Scheme::Wss, Some(tls)) => rumqttc::Transport::Wss(tls),
            (Scheme::Ws, _) => rumqttc::Transport::Ws,
            _ => rumqttc::Transport::Tcp,
        }
    }
}

fn tls_config(url: &MqttUrl, files: &TlsFiles) -> Result<Arc<ClientConfig>, EndpointError> {
    let ca = files
        .ca
        .as_ref()
        .ok_or_else(|| EndpointError::NoAuthority(url.clone()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &files.identity {
        Some((chain, key)) => config.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn file_error(path: &Path, error: impl fmt::Display) -> EndpointError {
    EndpointError::File {
        path: path.to_owned(),
        error: error.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let pem = fs::read(path).map_err(|error| file_error(path, error))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| file_error(path, error))?;
    if certificates.is_empty() {
        Err(file_error(path, "it holds no certificate"))
    } else {
        Ok(certificates)
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, EndpointError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file_error(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_with_their_defaults_filled_in() {
        for (text, full) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883"),
            ("mqtt://localhost:11883/", "mqtt://localhost:11883"),
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("ws://127.0.0.1", "ws://127.0.0.1:8080/mqtt"),
            ("ws://127.0.0.1:80", "ws://127.0.0.1:80/mqtt"),
            ("ws://127.0.0.1:9001/other", "ws://127.0.0.1:9001/other"),
            ("wss://broker.example", "wss://broker.example:443/mqtt"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
        ] {
            assert_eq!(
                text.parse::<MqttUrl>().map(|url| url.to_string()),
                Ok(full.to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, error) in [
            ("http://127.0.0.1", InvalidUrl::Scheme),
            ("mqtt://", InvalidUrl::Host),
            ("mqtt://user:pw@host", InvalidUrl::Credentials),
            ("mqtt://host/topic", InvalidUrl::Path),
            ("localhost", InvalidUrl::Scheme),
            (
                "mqtt://host:99999",
                InvalidUrl::Syntax(url::ParseError::InvalidPort),
            ),
        ] {
            assert_eq!(text.parse::<MqttUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn tls_needs_an_authority_that_can_be_read() {
        let url: MqttUrl = "mqtts://localhost".parse().unwrap();
        let error = Endpoint::new(url.clone(), &TlsFiles::default()).unwrap_err();
        assert!(error.to_string().contains("--tls-ca"), "{error}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let files = TlsFiles {
            ca: Some(empty.path().to_owned()),
            identity: None,
        };
        let error = Endpoint::new(url, &files).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
