//! Assertions that postkey signs itself (RFC 7523): by whom, for whom, for how long.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Map;

use super::secret_source::SecretSource;

/// How a JSON Web Token is signed (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ps256, Self::Rs256];

    /// Its name, in the configuration as in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }
}

/// Where a private key comes from.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// The key's file: PEM, or PKCS#12.
    pub file: SecretSource,
    /// The password of a PKCS#12 file.
    pub password: Option<SecretSource>,
}

impl KeySource {
    /// Where both come from.
    pub const fn sources(&self) -> [Option<&SecretSource>; 2] {
        [Some(&self.file), self.password.as_ref()]
    }
}

/// A client's own key (RFC 7523 section 2.2).
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// The private key.
    pub key: KeySource,
    /// The certificate by which the authorization server knows it, PEM; its thumbprint goes with each assertion.
    pub certificate: Option<PathBuf>,
    /// How it signs.
    pub algorithm: Algorithm,
}

/// Who speaks for the owners of mailboxes in the JWT bearer grant (RFC 7523 section 2.1).
#[derive(Clone, Debug)]
pub enum AssertionIssuer {
    /// The JSON file that Google makes for a service account's key.
    ServiceAccount(SecretSource),
    /// The same, one by one.
    Issuer(Issuer),
}

/// The issuer of the JWT bearer grant's assertions.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `iss`.
    pub name: String,
    /// `aud`; the token endpoint if it is left out.
    pub audience: Option<String>,
    /// `sub`; the mailbox if it is left out.
    pub subject: Option<String>,
    /// How long an assertion is good.
    pub lifetime: Duration,
    /// Further claims of the assertion.
    pub claims: Map<String, serde_json::Value>,
    /// The private key.
    pub key: KeySource,
    /// `kid`: which of the issuer's keys it is.
    pub key_id: Option<String>,
    /// How it signs.
    pub algorithm: Algorithm,
}

impl AssertionIssuer {
    /// Where its key comes from, and the password of that.
    pub const fn sources(&self) -> [Option<&SecretSource>; 2] {
        match self {
            Self::ServiceAccount(source) => [Some(source), None],
            Self::Issuer(issuer) => issuer.key.sources(),
        }
    }
}
