//! A certification authority for one run, and the upstream's certificate from it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Writes `ca.pem`, `chain.pem` and `key.pem` (ECDSA, P-256: what large providers use).
pub fn write(dir: &Path) -> io::Result<()> {
    let issue = || -> Result<_, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        // By default both would have one name, and the leaf would look like a root.
        authority.distinguished_name.push(DnType::CommonName, "Benchmark CA");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let ca = authority.self_signed(&key)?;
        let leaf_key = KeyPair::generate()?;
        let leaf =
            CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&leaf_key, &Issuer::new(authority, key))?;
        Ok((ca.pem(), leaf.pem(), leaf_key.serialize_pem()))
    };
    let (ca, chain, key) = issue().map_err(io::Error::other)?;
    fs::write(dir.join("ca.pem"), ca)?;
    fs::write(dir.join("chain.pem"), chain)?;
    fs::write(dir.join("key.pem"), key)
}

/// The TLS configuration of the upstream. It issues tickets, as providers do, so that clients can resume.
pub fn server(dir: &Path) -> io::Result<ServerConfig> {
    let chain = rustls_pemfile::certs(&mut open(dir, "chain.pem")?).collect::<io::Result<Vec<_>>>()?;
    let key = rustls_pemfile::private_key(&mut open(dir, "key.pem")?)?.ok_or(io::ErrorKind::InvalidData)?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(io::Error::other)?;
    config.ticketer = Ticketer::new().map_err(io::Error::other)?;
    Ok(config)
}

/// The TLS configuration of a client that trusts our authority.
pub fn client(dir: &Path) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut open(dir, "ca.pem")?) {
        roots.add(certificate?).map_err(io::Error::other)?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()).into())
}

fn open(dir: &Path, name: &str) -> io::Result<BufReader<File>> {
    File::open(dir.join(name)).map(BufReader::new)
}
