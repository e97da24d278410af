//! A certificate authority that lives as long as its provider, and the TLS settings of both ends.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// An authority, and the servers' certificate signed by it for `localhost`, 127.0.0.1 and ::1.
pub struct Identity {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The servers' certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// The TLS settings of a server with the servers' certificate.
    pub acceptor: TlsAcceptor,
    ca: CertificateDer<'static>,
}

impl Identity {
    /// Lets clients trust this authority instead, as if it had been imported.
    pub fn trust(&mut self, ca: CertificateDer<'static>) {
        self.ca = ca;
    }

    /// TLS for a client that trusts this authority and no other.
    pub fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).expect("our own certificate");
        ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// A new authority with a new server certificate.
pub fn identity() -> Identity {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // If both had one name, OpenSSL would treat the server's certificate as self-signed.
    authority.distinguished_name.push(DnType::CommonName, "Authority of the tests");
    let authority_key = KeyPair::generate().expect("a new key");
    let ca = authority.self_signed(&authority_key).expect("a certificate signed by itself");
    let issuer = Issuer::new(authority, authority_key);

    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut server = CertificateParams::new(names).expect("valid names");
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a new key");
    let certificate = server.signed_by(&key, &issuer).expect("a certificate signed by our authority");
    let key_der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key that was just written");
    Identity {
        ca_pem: ca.pem(),
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        acceptor: acceptor(certificate.der().clone(), key_der),
        ca: ca.der().clone(),
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    TlsAcceptor::from(Arc::new(config))
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
