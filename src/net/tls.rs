//! TLS in both roles. Only this file uses rustls-pemfile, and only this file chooses the cryptography provider.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, CipherSuite, ClientConfig, RootCertStore, ServerConfig};

use crate::mutex::lock;

/// Why a certificate, a key or a set of authorities cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file contains no PEM block of this kind.
    Missing(PathBuf, &'static str),
    /// The certificate and its key do not match, or are of an unsupported kind.
    Unusable(PathBuf, rustls::Error),
    /// The system has no certificate authorities.
    NoSystemRoots,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Missing(path, what) => write!(f, "{} does not contain a {what} in PEM form", path.display()),
            Self::Unusable(path, error) => write!(f, "cannot use {} with its key: {error}", path.display()),
            Self::NoSystemRoots => f.write_str(
                "the system has no certificate authorities; install them (on Debian: the package ca-certificates), \
                 or name a file with `ca_file`",
            ),
        }
    }
}

impl std::error::Error for TlsError {}

/// The configuration as a client of a provider: TLS 1.2 or 1.3, with the certificate verified against the system's
/// authorities, or only against those in `ca_file`.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider());
    // This cannot fail, because the provider's suites fit both versions. If it did, there would be no TLS to fall back
    // to.
    let config = config.with_safe_default_protocol_versions().map_err(|_| TlsError::NoSystemRoots)?;
    Ok(Arc::new(config.with_root_certificates(authorities(ca_file)?).with_no_client_auth()))
}

/// The verifier of a provider's certificates, for callers that need to know more about one.
pub fn verifier(ca_file: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities(ca_file)?), provider()).build();
    // This cannot fail: there is at least one authority, and no list of revoked certificates.
    verifier.map_err(|_| TlsError::NoSystemRoots)
}

fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => roots.add_parsable_certificates(certificates(path)?),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if roots.is_empty() {
        return Err(ca_file.map_or(TlsError::NoSystemRoots, |path| TlsError::Missing(path.to_owned(), "certificate")));
    }
    Ok(roots)
}

/// The certificate of a TLS listener, which can be replaced at any time. Handshakes that begin after that get the new one,
/// and sessions continue.
pub struct ServerCertificate(Mutex<Arc<CertifiedKey>>);

impl ServerCertificate {
    pub fn new(certified: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Arc::new(certified))))
    }

    pub fn replace(&self, certified: CertifiedKey) {
        *lock(&self.0) = Arc::new(certified);
    }

    /// The chain, our own certificate first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current().cert.clone()
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&lock(&self.0))
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerCertificate")
    }
}

/// The configuration as a server to clients on a TLS listener.
pub fn server_config(certificate: &Arc<ServerCertificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(certificate) as _;
    Ok(Arc::new(config.with_no_client_auth().with_cert_resolver(resolver)))
}

/// Reads a server's certificate with its chain, and its key, which has to match.
pub fn certified_key(chain: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let (certificates, private_key) = (certificates(chain)?, private_key(key)?);
    certify(certificates, private_key).map_err(|error| TlsError::Unusable(chain.to_owned(), error))
}

/// Joins a server's chain and its key, which has to match.
pub fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(chain, key, &provider())
}

/// Checks that an authority makes a chain valid for this name at this time.
pub fn verify_chain(
    authority: CertificateDer<'static>,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    let (own, others) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    verifier.verify_server_cert(own, others, name, &[], now).map(drop)
}

/// Of TLS 1.3's suites, AES-128-GCM comes first, the mandatory one (RFC 8446 section 9.1). Processors have instructions
/// for AES-256-GCM as well, but most have none for the SHA-384 that comes with it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = rustls_pemfile::certs(&mut open(path)?).collect();
    let certificates = certificates.map_err(|error| TlsError::Unreadable(path.to_owned(), error))?;
    if certificates.is_empty() { Err(TlsError::Missing(path.to_owned(), "certificate")) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let key = rustls_pemfile::private_key(&mut open(path)?);
    let key = key.map_err(|error| TlsError::Unreadable(path.to_owned(), error))?;
    key.ok_or_else(|| TlsError::Missing(path.to_owned(), "private key"))
}

fn open(path: &Path) -> Result<BufReader<File>, TlsError> {
    File::open(path).map(BufReader::new).map_err(|error| TlsError::Unreadable(path.to_owned(), error))
}
