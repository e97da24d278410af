//! The keys with which an authorization server signs (RFC 7517), and how to verify their signatures (RFC 7515, RFC 7518).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

use super::members::Members;

/// A server's keys, without those of an unknown kind.
pub struct Keys(Vec<Key>);

/// RFC 7517 section 4 and RFC 7518 section 6; numbers are base64url.
#[derive(Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

enum Verification {
    Rsa(&'static RsaParameters),
    /// With a point on the curve of this name.
    Curve(&'static dyn VerificationAlgorithm, &'static str),
}

/// RFC 7518 section 3.1 and RFC 8037, without algorithms that need no key of the server alone: `none`, and HS256, whose secret
/// the client has too.
fn verification(algorithm: &str) -> Option<Verification> {
    Some(match algorithm {
        "RS256" => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Verification::Rsa(&RSA_PSS_2048_8192_SHA256),
        "PS384" => Verification::Rsa(&RSA_PSS_2048_8192_SHA384),
        "PS512" => Verification::Rsa(&RSA_PSS_2048_8192_SHA512),
        "ES256" => Verification::Curve(&ECDSA_P256_SHA256_FIXED, "P-256"),
        "ES384" => Verification::Curve(&ECDSA_P384_SHA384_FIXED, "P-384"),
        "EdDSA" => Verification::Curve(&ED25519, "Ed25519"),
        _ => return None,
    })
}

impl Keys {
    /// RFC 7517 section 5. None if the document is not a key set.
    pub fn read(document: &[u8]) -> Option<Self> {
        let set = Members::read(document)?;
        let keys = set.get("keys")?.as_array()?.iter();
        Some(Self(keys.filter_map(|key| serde_json::from_value(key.clone()).ok()).collect()))
    }

    /// Whether one of the keys, or the key with this id, has signed the message. None if that cannot be verified, because the
    /// algorithm is unknown, or the server publishes no public key.
    pub fn have_signed(&self, algorithm: &str, key: Option<&str>, message: &[u8], signature: &[u8]) -> Option<bool> {
        let verification = verification(algorithm)?;
        let mut public = self.0.iter().filter(|one| matches!(one.kty.as_str(), "RSA" | "EC" | "OKP")).peekable();
        public.peek()?;
        let is_suitable = |one: &&Key| {
            (key.is_none() || one.kid.as_deref() == key)
                && one.alg.as_deref().is_none_or(|own| own == algorithm)
                && one.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        };
        Some(public.filter(is_suitable).any(|key| key.has_signed(&verification, message, signature).is_some()))
    }
}

impl Key {
    fn has_signed(&self, verification: &Verification, message: &[u8], signature: &[u8]) -> Option<()> {
        match verification {
            Verification::Rsa(parameters) if self.kty == "RSA" => {
                let components = RsaPublicKeyComponents { n: number(&self.n)?, e: number(&self.e)? };
                components.verify(parameters, message, signature).ok()
            }
            Verification::Curve(algorithm, curve) if self.crv.as_deref() == Some(curve) => {
                UnparsedPublicKey::new(*algorithm, self.point()?).verify(message, signature).ok()
            }
            _ => None,
        }
    }

    /// The point of an Edwards curve is `x` alone; others are uncompressed (SEC 1 section 2.3.3).
    fn point(&self) -> Option<Vec<u8>> {
        match self.kty.as_str() {
            "OKP" => number(&self.x),
            "EC" => Some([vec![4], number(&self.x)?, number(&self.y)?].concat()),
            _ => None,
        }
    }
}

fn number(encoded: &Option<String>) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(encoded.as_deref()?).ok()
}
