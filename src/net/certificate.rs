//! A server's certificate, for people: when it ends, and what is wrong with it.

use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error, InvalidMessage};

use super::tls;
use crate::clock::Moment;

/// The last second of the year 9999, which is the last that a certificate can name (RFC 5280 section 4.1.2.5).
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// When the certificate of `host` ends, the first of the chain. None where it never does, or is not trusted anyway.
pub fn end(chain: &[CertificateDer<'_>], host: &str, ca_file: Option<&Path>) -> Option<Moment> {
    let (own, others) = chain.split_first()?;
    let (verifier, name) = (tls::verifier(ca_file).ok()?, ServerName::try_from(host).ok()?);
    // By the last day of all it has expired, and the verifier tells since when.
    match verifier.verify_server_cert(own, others, &name, &[], UnixTime::since_unix_epoch(LAST)) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(Moment(not_after.as_secs()))
        }
        _ => None,
    }
}

/// What is wrong with a TLS handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The certificate has expired; when.
    Expired(Moment),
    /// It is not valid yet; from when on.
    NotYet(Moment),
    /// It is for other names.
    OtherName(Vec<String>),
    /// Nobody whom we trust has signed it.
    UnknownAuthority,
    /// The server does not speak TLS.
    NotTls,
    /// Something else; the TLS library's words.
    Other(String),
}

impl Flaw {
    /// Reads the error of a handshake.
    pub fn of(error: &io::Error) -> Self {
        let known = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match known {
            Some(Error::InvalidCertificate(error)) => Self::of_certificate(error),
            // Its first bytes are those of a greeting.
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NotTls,
            _ => Self::Other(error.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(Moment(not_after.as_secs())),
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYet(Moment(not_before.as_secs())),
            CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName(presented.clone()),
            // An authority of the same name with another key has not signed it either.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            other => Self::Other(other.to_string()),
        }
    }
}

/// A clause: what it is, and what to do.
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(end) => write!(
                f,
                "its certificate has expired, on {end}: its administrator has to renew it, unless this machine's clock is wrong"
            ),
            Self::NotYet(begin) => {
                write!(f, "its certificate is not valid before {begin}: set this machine's clock right, which seems behind")
            }
            Self::OtherName(names) => write!(
                f,
                "its certificate is for another name ({}): correct the host in the configuration, or somebody is in between",
                names.join(", ")
            ),
            Self::UnknownAuthority => f.write_str(
                "its certificate is signed by nobody whom this machine trusts: if the server or a filter of your own is there, \
                 name its authority with ca_file; otherwise somebody is in between",
            ),
            Self::NotTls => f.write_str(
                "it does not speak TLS on this port: correct port or security in the configuration",
            ),
            Self::Other(words) => write!(f, "the TLS handshake fails: {words}"),
        }
    }
}
