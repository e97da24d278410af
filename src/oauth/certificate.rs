//! The certificate by which an authorization server identifies a client's key.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::private_key::PrivateKey;
use super::source;
use crate::clock::Moment;
use crate::config::client::ClientAuthentication;
use crate::config::secret_source::SecretSource;
use crate::x509;

/// Reads the first certificate in a PEM file (RFC 7468 section 5), in DER.
pub fn read(pem: &[u8]) -> Result<Vec<u8>, String> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| "there is no certificate in PEM".to_owned())?;
    Ok(certificate.to_vec())
}

/// When the certificate of a client's key expires. None if there is none, if it cannot be read, or if a command prints the key,
/// because that may ask a person or a smart card.
pub async fn expiry_of(authentication: &ClientAuthentication) -> Option<Moment> {
    let ClientAuthentication::Key(key) = authentication else { return None };
    let certificate = match (&key.certificate, &key.key.file) {
        (Some(path), _) => read(&tokio::fs::read(path).await.ok()?).ok()?,
        (None, SecretSource::Command(_)) => return None,
        (None, _) => {
            let (file, password) = source::read_key(&key.key, "the client key").await.ok()?;
            PrivateKey::read(&file, password.as_ref()).ok()?.certificate?
        }
    };
    x509::expiry(&certificate)
}
