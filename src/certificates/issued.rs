//! The contents of a certificate, for people and for decisions about it.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};

use super::subtree::Subtree;
use crate::clock::Moment;
use crate::config::host_name::HostName;

/// The content of a certificate.
pub struct Issued {
    /// The common name of the subject.
    pub subject: String,
    pub begins: Moment,
    pub ends: Moment,
    /// The names and addresses that it is for, sorted.
    pub names: Vec<HostName>,
    /// The names that an authority may sign for. Empty if it has no constraints.
    pub permitted: Vec<Subtree>,
}

impl Issued {
    /// Reads a certificate in DER. None if it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let names = content.get_extension::<SubjectAltName>().ok()?.map(|(_, names)| names.0).unwrap_or_default();
        let mut names: Vec<HostName> = names.iter().filter_map(host_name).collect();
        names.sort();
        let constraints = content.get_extension::<NameConstraints>().ok()?.map(|(_, constraints)| constraints);
        let permitted = constraints.and_then(|constraints| constraints.permitted_subtrees).unwrap_or_default();
        Some(Self {
            subject: content.subject().common_name().ok()?.map(|name| name.value().into_owned()).unwrap_or_default(),
            begins: Moment(content.validity().not_before.to_unix_duration().as_secs()),
            ends: Moment(content.validity().not_after.to_unix_duration().as_secs()),
            names,
            permitted: permitted.iter().filter_map(|subtree| self::subtree(&subtree.base)).collect(),
        })
    }

    /// Reads the first certificate in a PEM file. None if there is none.
    pub fn read_file(path: &Path) -> Option<Self> {
        Self::read(&CertificateDer::from_pem_slice(&std::fs::read(path).ok()?).ok()?)
    }

    /// Whether an authority with this certificate may sign for a name.
    pub fn permits(&self, name: &HostName) -> bool {
        self.permitted.iter().any(|subtree| subtree.contains(name))
    }
}

/// When a certificate expires.
#[derive(Clone)]
pub struct CertificateExpiry {
    pub file: String,
    pub ends: Moment,
    /// How many seconds before that a person should know.
    pub soon: u64,
    /// What to do.
    pub advice: &'static str,
}

fn host_name(name: &GeneralName) -> Option<HostName> {
    match name {
        GeneralName::DnsName(name) => Some(HostName::Dns(name.as_str().to_ascii_lowercase())),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(HostName::Address),
        _ => None,
    }
}

fn subtree(base: &GeneralName) -> Option<Subtree> {
    match base {
        GeneralName::DnsName(domain) => Some(Subtree::Domain(domain.as_str().to_owned())),
        // An address and its mask.
        GeneralName::IpAddress(bytes) => {
            let (start, mask) = bytes.as_bytes().split_at(bytes.as_bytes().len() / 2);
            IpNet::with_netmask(address(start)?, address(mask)?).ok().map(Subtree::Network)
        }
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The SHA-256 of a certificate in DER, as programs show it: pairs of digits with colons.
pub fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
