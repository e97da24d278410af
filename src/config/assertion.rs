//! Assertions that postkey signs itself (RFC 7523).

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Map;

use super::secret_source::SecretSource;

/// The signature algorithm of a JSON Web Token (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    pub const ALL: [Self; 2] = [Self::Ps256, Self::Rs256];

    /// The name in the configuration and in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }
}

/// The source of a private key.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// PEM or PKCS#12.
    pub file: SecretSource,
    /// The password of a PKCS#12 file.
    pub password: Option<SecretSource>,
}

impl KeySource {
    pub const fn sources(&self) -> [Option<&SecretSource>; 2] {
        [Some(&self.file), self.password.as_ref()]
    }
}

/// A client's own key (RFC 7523 section 2.2).
#[derive(Clone, Debug)]
pub struct ClientKey {
    pub key: KeySource,
    /// The certificate that the authorization server has, PEM. Its thumbprint is in each assertion.
    pub certificate: Option<PathBuf>,
    pub algorithm: Algorithm,
}

/// The service account that acts for the owners of mailboxes in the JWT bearer grant (RFC 7523 section 2.1).
#[derive(Clone, Debug)]
pub enum AssertionIssuer {
    /// The JSON file that Google creates for a service account's key.
    ServiceAccount(SecretSource),
    /// The content of such a file as single keys.
    Issuer(Issuer),
}

/// The issuer of the JWT bearer grant's assertions.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `iss`.
    pub name: String,
    /// `aud`, by default the token endpoint.
    pub audience: Option<String>,
    /// `sub`, by default the mailbox.
    pub subject: Option<String>,
    /// How long an assertion is valid.
    pub lifetime: Duration,
    /// Further claims of the assertion.
    pub claims: Map<String, serde_json::Value>,
    pub key: KeySource,
    /// `kid`, which identifies one of the issuer's keys.
    pub key_id: Option<String>,
    pub algorithm: Algorithm,
}

impl AssertionIssuer {
    /// The sources of its key and of the key's password.
    pub const fn sources(&self) -> [Option<&SecretSource>; 2] {
        match self {
            Self::ServiceAccount(source) => [Some(source), None],
            Self::Issuer(issuer) => issuer.key.sources(),
        }
    }
}
