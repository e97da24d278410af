//! The client registration of a provider or an account.

use super::reader::Section;
use super::{assertion, secret_source};
use crate::config::assertion::{Algorithm, ClientKey, KeySource};
use crate::config::client::{ClientAuthentication, ClientRegistration};

/// The keys with which a client authenticates.
const KEYS: [&str; 3] = ["client_secret", "client_key", "client_assertion"];

pub fn read(section: &mut Section<'_>) -> Option<ClientRegistration> {
    let id = section.text("client_id");
    let authentication = authentication(section).unwrap_or_default();
    let are_several = section.count(&KEYS) > 1;
    for value in KEYS.into_iter().filter_map(|key| section.get(key)) {
        if id.is_none() {
            value.mistake("has no effect without client_id; add client_id, or remove this");
        } else if are_several {
            value.mistake("is one of several ways to authenticate the client; keep one of them");
        }
    }
    Some(ClientRegistration { id: id?, authentication })
}

fn authentication(section: &mut Section<'_>) -> Option<ClientAuthentication> {
    let [secret, key, assertion] = KEYS.map(|key| section.get(key).and_then(|value| secret_source::read(&value)));
    let [certificate, password, algorithm] =
        ["client_certificate", "client_key_password", "client_algorithm"].map(|key| section.get(key));
    for value in [&certificate, &algorithm, &password].into_iter().flatten().filter(|_| key.is_none()) {
        value.absence("has no effect without client_key; add client_key, or remove this");
    }
    let certificate = certificate.and_then(|value| value.file());
    let password = password.and_then(|value| secret_source::read(&value));
    // Microsoft documents this one, and RFC 8725 section 3.2 also recommends PSS.
    let algorithm = assertion::algorithm(section, "client_algorithm").unwrap_or(Algorithm::Ps256);
    let key = key.map(|file| ClientKey { key: KeySource { file, password }, certificate, algorithm });
    let secret = secret.map(ClientAuthentication::Secret).or(key.map(ClientAuthentication::Key));
    secret.or(assertion.map(ClientAuthentication::Assertion))
}
