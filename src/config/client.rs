//! A client registration, as the configuration has it.

use super::assertion::ClientKey;
use super::secret_source::SecretSource;

/// A client registration (RFC 6749 section 2).
#[derive(Clone, Debug)]
pub struct ClientRegistration {
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

impl ClientRegistration {
    /// No client at all: the JWT bearer grant may do without one.
    pub fn nobody() -> Self {
        Self { id: String::new(), authentication: ClientAuthentication::None }
    }
}

impl ClientAuthentication {
    /// Where its secret, key or assertion comes from, and the password of a key.
    pub fn sources(&self) -> [Option<&SecretSource>; 2] {
        match self {
            Self::None => [None, None],
            Self::Secret(source) | Self::Assertion(source) => [Some(source), None],
            Self::Key(key) => key.key.sources(),
        }
    }
}
