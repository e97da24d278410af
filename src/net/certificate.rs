//! A server's certificate, for people: when it expires, and what is wrong with it.

use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};

use super::tls;
use crate::clock::Moment;

/// The last second of the year 9999, which is the last that a certificate can name (RFC 5280 section 4.1.2.5).
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// When the certificate of `host`, the first of the chain, expires. None if it never does, or is not trusted anyway.
pub fn end(chain: &[CertificateDer<'_>], host: &str, ca_file: Option<&Path>) -> Option<Moment> {
    let (own, others) = chain.split_first()?;
    let (verifier, name) = (tls::verifier(ca_file).ok()?, ServerName::try_from(host).ok()?);
    // By that day it has expired, and the verifier reports when.
    match verifier.verify_server_cert(own, others, &name, &[], UnixTime::since_unix_epoch(LAST)) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(Moment(not_after.as_secs()))
        }
        _ => None,
    }
}

/// The cause of a failed TLS handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The certificate expired at this time.
    Expired(Moment),
    /// The certificate is not valid before this time.
    NotYet(Moment),
    /// The certificate is for these other names.
    OtherName(Vec<String>),
    /// No authority that we trust has signed it.
    UnknownAuthority,
    /// The server speaks without TLS, with this greeting.
    NotTls(String),
    /// Any other error, in the TLS library's words.
    Other(String),
}

impl Flaw {
    /// Classifies the error of a handshake.
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref();
        match (inner.and_then(|inner| inner.downcast_ref()), inner.and_then(|inner| inner.downcast_ref())) {
            (Some(Self::NotTls(greeting)), _) => Self::NotTls(greeting.clone()),
            (_, Some(Error::InvalidCertificate(error))) => Self::of_certificate(error),
            _ => Self::Other(error.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(Moment(not_after.as_secs())),
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYet(Moment(not_before.as_secs())),
            CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName(presented.clone()),
            // A CA of the same name with another key has not signed it either.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            other => Self::Other(other.to_string()),
        }
    }
}

impl std::error::Error for Flaw {}

/// Writes a clause: what is wrong, and what to do.
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(end) => write!(
                f,
                "its certificate expired on {end}; check this machine's clock, or ask the server's administrator to renew it"
            ),
            Self::NotYet(begin) => {
                write!(f, "its certificate is not valid before {begin}; set this machine's clock, which seems to be slow")
            }
            Self::OtherName(names) => write!(
                f,
                "its certificate is for another name ({}); correct the host in the configuration, otherwise somebody intercepts the \
                 connection",
                names.join(", ")
            ),
            Self::UnknownAuthority => f.write_str(
                "its certificate is not signed by a CA that this machine trusts; for your own server or a TLS-inspecting filter \
                 set ca_file to its CA, otherwise somebody intercepts the connection",
            ),
            Self::NotTls(greeting) => write!(
                f,
                "it does not speak TLS on this port, but says \"{greeting}\"; unless that is a temporary problem, set \
                 security = \"starttls\" or correct the port"
            ),
            Self::Other(words) => write!(f, "the TLS handshake failed: {words}"),
        }
    }
}
