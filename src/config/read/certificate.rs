//! `certificate`, `key` and `names` of a listener.

use super::reader::{Section, Value};
use crate::config::Certificate;
use crate::config::host_name::HostName;
use crate::protocol::Security;

/// The value that stands for a certificate of postkey's own authority.
const OWN: &str = "own";

pub fn read(section: &mut Section<'_>, security: Option<Security>) -> Option<Certificate> {
    let values = ["certificate", "key", "names"].map(|key| section.get(key));
    if security == Some(Security::Clear) {
        for value in values.iter().flatten() {
            value.mistake(
                "is not used while security is \"none\"; set security to \"tls\" or \"starttls\", or remove this",
            );
        }
        return None;
    }
    let [certificate, key, names] = values;
    match (certificate, key) {
        (Some(certificate), key) if certificate.is_word(OWN) => {
            if let Some(key) = key {
                key.mistake(
                    "is not used with certificate = \"own\"; remove it, or write \"./own\" for a file of that name",
                );
            }
            let names = names.map(|value| value.list()).unwrap_or_default();
            Some(Certificate::Own { names: names.iter().filter_map(|name| name.parse(HostName::read)).collect() })
        }
        (certificate, key) => {
            let is_meant = certificate.as_ref().is_some_and(|value| value.suggest(&[OWN]).is_some());
            if let Some(names) = names.filter(|_| !is_meant) {
                names.mistake("is for certificate = \"own\"; a certificate file already has its names, so remove this");
            }
            files(section, security, certificate, key)
        }
    }
}

fn files(
    section: &Section<'_>,
    security: Option<Security>,
    certificate: Option<Value<'_>>,
    key: Option<Value<'_>>,
) -> Option<Certificate> {
    match (&certificate, &key) {
        (Some(value), None) if value.suggest(&[OWN]).is_some() => {
            value.mistake("did you mean \"own\"? The certificate of a file also needs key");
            return None;
        }
        (None, None) if security.is_some() => section.absence(
            "certificate is missing; add certificate = \"own\" and postkey issues it, or certificate and key with files",
        ),
        _ if security.is_some() => section.require(&["certificate", "key"]),
        _ => {}
    }
    let (chain, key) = (certificate.and_then(|value| value.file()), key.and_then(|value| value.secret_file()));
    Some(Certificate::Files { chain: chain?, key: key? })
}
