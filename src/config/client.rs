//! A client registration in the configuration.

use super::assertion::ClientKey;
use super::secret_source::SecretSource;

/// A client registration (RFC 6749 section 2).
#[derive(Clone, Debug)]
pub struct ClientRegistration {
    pub id: String,
    pub authentication: ClientAuthentication,
}

/// How a client authenticates to the token endpoint.
#[derive(Clone, Debug, Default)]
pub enum ClientAuthentication {
    /// A public client (RFC 6749 section 2.1).
    #[default]
    None,
    /// A client secret (RFC 6749 section 2.3.1).
    Secret(SecretSource),
    /// An assertion signed with the client's key (RFC 7523 section 2.2, `private_key_jwt`).
    Key(ClientKey),
    /// An assertion that somebody else signs and keeps renewing (workload identity federation).
    Assertion(SecretSource),
}

impl ClientRegistration {
    /// No client, which is allowed in the JWT bearer grant.
    pub fn nobody() -> Self {
        Self { id: String::new(), authentication: ClientAuthentication::None }
    }
}

impl ClientAuthentication {
    /// The sources of its secret, key or assertion, and of a key's password.
    pub fn sources(&self) -> [Option<&SecretSource>; 2] {
        match self {
            Self::None => [None, None],
            Self::Secret(source) | Self::Assertion(source) => [Some(source), None],
            Self::Key(key) => key.key.sources(),
        }
    }
}
