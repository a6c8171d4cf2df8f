//! What the edge reads in an X.509 certificate.

use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, error::X509Error, prelude::FromDer};

/// Why a certificate can't be used, although TLS took it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not an X.509 certificate.
    #[error("unreadable certificate: {0}")]
    Unreadable(#[from] x509_parser::nom::Err<X509Error>),
    /// It is outside its validity period. TLS checks that in a full handshake, but not when a session is resumed.
    #[error("certificate is expired or not yet valid")]
    NotValidNow,
}

/// The facts about a server certificate that its operator wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The subject's distinguished name, as in `CN=broker.example`.
    pub subject: String,
    /// The serial number, in hexadecimal with colons.
    pub serial_number: String,
    /// The end of its validity.
    pub not_after: DateTime<Utc>,
    /// Whether it is within its validity period at the time of reading.
    pub valid_now: bool,
}

impl Summary {
    /// Reads the facts.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`].
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, certificate) = X509Certificate::from_der(certificate)?;
        Ok(Self {
            subject: certificate.subject().to_string(),
            serial_number: certificate.raw_serial_as_string(),
            not_after: DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0)
                .unwrap_or(DateTime::<Utc>::MAX_UTC),
            valid_now: certificate.validity().is_valid(),
        })
    }
}

/// The common name of a client certificate that TLS has verified.
///
/// `None` when the subject has no common name, more than one (which of them would it be?), or one that isn't text.
///
/// # Errors
///
/// [`Error`] when the certificate is unreadable or no longer valid.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Result<Option<String>, Error> {
    let (_, certificate) = X509Certificate::from_der(certificate)?;
    if !certificate.validity().is_valid() {
        return Err(Error::NotValidNow);
    }
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Ok(None);
    };
    Ok(name.as_str().ok().map(str::to_owned))
}
