//! A client registration, as the configuration has it.

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
}

impl Client {
    /// Reads the client of a provider or an account; `base` is what the file changes.
    pub(super) fn read(section: &mut Section<'_>, base: Option<&Self>) -> Option<Self> {
        let id = section.text("client_id").or_else(|| Some(base?.id.clone()));
        let authentication = ClientAuthentication::read(section);
        if let Some(value) = section.get("client_secret").filter(|_| id.is_none()) {
            value.mistake("belongs to a client_id, and there is none; add client_id, or remove this");
        }
        let authentication = authentication.or_else(|| Some(base?.authentication.clone()));
        Some(Self { id: id?, authentication: authentication.unwrap_or_default() })
    }
}

impl ClientAuthentication {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        SecretSource::read(&section.get("client_secret")?).map(Self::Secret)
    }
}
