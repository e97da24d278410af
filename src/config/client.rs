//! A client registration, as the configuration has it.

use super::assertion::{Algorithm, ClientKey};
use super::reader::Section;
use super::secret_source::SecretSource;

/// A client registration (RFC 6749 section 2).
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name at the authorization server.
    pub id: String,
    /// How it proves who it is.
    pub authentication: ClientAuthentication,
}

/// How a client proves to the token endpoint who it is.
#[derive(Clone, Debug, Default)]
pub enum ClientAuthentication {
    /// Not at all: a public client (RFC 6749 section 2.1).
    #[default]
    None,
    /// By a secret (RFC 6749 section 2.3.1).
    Secret(SecretSource),
    /// By an assertion that its key signs (RFC 7523 section 2.2, `private_key_jwt`).
    Key(ClientKey),
    /// By an assertion that somebody else has signed and renews in its place (workload identity federation).
    Assertion(SecretSource),
}

/// The keys of the configuration by which a client shows who it is.
const KEYS: [&str; 3] = ["client_secret", "client_key", "client_assertion"];

impl Client {
    /// No client at all: the JWT bearer grant may do without one.
    pub fn nobody() -> Self {
        Self { id: String::new(), authentication: ClientAuthentication::None }
    }

    /// Reads the client of a provider or an account; `base` is what the file changes.
    pub(super) fn read(section: &mut Section<'_>, base: Option<&Self>) -> Option<Self> {
        let id = section.text("client_id").or_else(|| Some(base?.id.clone()));
        let authentication = ClientAuthentication::read(section);
        let are_several = section.count(&KEYS) > 1;
        for value in KEYS.into_iter().filter_map(|key| section.get(key)) {
            if id.is_none() {
                value.mistake("belongs to a client_id, and there is none; add client_id, or remove this");
            } else if are_several {
                value.mistake("is one of several ways to authenticate the client; leave one of them");
            }
        }
        let authentication = authentication.or_else(|| Some(base?.authentication.clone()));
        Some(Self { id: id?, authentication: authentication.unwrap_or_default() })
    }
}

impl ClientAuthentication {
    /// Where its secret, key or assertion comes from.
    pub fn source(&self) -> Option<&SecretSource> {
        match self {
            Self::None => None,
            Self::Secret(source) | Self::Assertion(source) => Some(source),
            Self::Key(key) => Some(&key.key),
        }
    }

    fn read(section: &mut Section<'_>) -> Option<Self> {
        let [secret, key, assertion] = KEYS.map(|key| section.get(key).and_then(|value| SecretSource::read(&value)));
        let certificate = section.get("client_certificate");
        let algorithm = section.get("client_algorithm");
        for value in [&certificate, &algorithm].into_iter().flatten().filter(|_| key.is_none()) {
            value.absence("belongs to a client_key, and there is none; add client_key, or remove this");
        }
        let certificate = certificate.and_then(|value| value.file());
        // What Microsoft documents; RFC 8725 section 3.2 wants PSS, too.
        let algorithm = Algorithm::read(section, "client_algorithm").unwrap_or(Algorithm::Ps256);
        let key = key.map(|key| Self::Key(ClientKey { key, certificate, algorithm }));
        secret.map(Self::Secret).or(key).or(assertion.map(Self::Assertion))
    }
}
