//! The id_token (OpenID Connect Core 1.0 section 2): what the authorization server says of who has signed in.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::keys::Keys;
use crate::clock::Moment;
use crate::wire::printable;

/// Seconds by which the clocks of both sides may differ.
const LEEWAY: u64 = 300;

/// What an id_token has to say.
pub struct Expected<'a> {
    /// To whom it is given.
    pub client_id: &'a str,
    /// By whom, where that is known.
    pub issuer: Option<&'a str>,
    /// In answer to which request, where that had a nonce.
    pub nonce: Option<&'a str>,
    /// When.
    pub now: Moment,
}

/// Why an id_token is not believed.
#[derive(Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It is none.
    Malformed,
    /// It is signed by none of the issuer's keys; the algorithm that it names.
    Signature(String),
    /// It is another issuer's.
    Issuer(String),
    /// It is for another client.
    Audience,
    /// It is old, or one of the two clocks is wrong.
    Expired,
    /// It answers another request.
    Nonce,
    /// The userinfo endpoint speaks of somebody else.
    Subject,
}

impl std::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what the authorization server says of who has signed in is not believed: ")?;
        match self {
            Self::Malformed => f.write_str("the id_token cannot be read"),
            Self::Signature(algorithm) => {
                write!(f, "the id_token is not signed by one of the issuer's keys (its algorithm is {algorithm})")
            }
            Self::Issuer(other) => write!(f, "the id_token is of another issuer, {other}"),
            Self::Audience => f.write_str("the id_token is for another client"),
            Self::Expired => f.write_str("the id_token has expired; check this machine's clock"),
            Self::Nonce => f.write_str("the id_token answers another request"),
            Self::Subject => f.write_str("the userinfo endpoint speaks of somebody else than the id_token"),
        }
    }
}

impl std::error::Error for Untrusted {}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

/// The claims of an id_token, if it is what it has to be (section 3.1.3.7). It comes straight from the token endpoint over
/// TLS, which vouches for it where the issuer's keys are not known.
pub fn check(id_token: &str, keys: Option<&Keys>, expected: &Expected<'_>) -> Result<Value, Untrusted> {
    let (signed, signature) = id_token.rsplit_once('.').ok_or(Untrusted::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Untrusted::Malformed)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Untrusted::Malformed)?;
    if let Some(keys) = keys
        && !keys.have_signed(&header.alg, header.kid.as_deref(), signed.as_bytes(), &decode(signature)?)
    {
        return Err(Untrusted::Signature(printable(&header.alg)));
    }
    let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| Untrusted::Malformed)?;
    expected.judge(&claims)?;
    Ok(claims)
}

fn decode(part: &str) -> Result<Vec<u8>, Untrusted> {
    BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).map_err(|_| Untrusted::Malformed)
}

impl Expected<'_> {
    fn judge(&self, claims: &Value) -> Result<(), Untrusted> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let issuer = text("iss").ok_or(Untrusted::Malformed)?;
        if self.issuer.is_some_and(|expected| issuer != expected) {
            return Err(Untrusted::Issuer(printable(issuer)));
        }
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(|one| one == self.client_id),
            one => one.is_some_and(|one| one == self.client_id),
        };
        if !is_for_us {
            return Err(Untrusted::Audience);
        }
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or(Untrusted::Malformed)?;
        if Moment(expires as u64).after(LEEWAY) < self.now {
            return Err(Untrusted::Expired);
        }
        match self.nonce.is_some_and(|nonce| text("nonce") != Some(nonce)) {
            true => Err(Untrusted::Nonce),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    };
    use serde_json::json;

    use super::*;

    const NOW: Moment = Moment(1_000_000);
    const EXPECTED: Expected<'_> =
        Expected { client_id: "me", issuer: Some("https://a.test"), nonce: Some("once"), now: NOW };

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn good() -> Value {
        json!({"iss": "https://a.test", "aud": "me", "exp": NOW.0 + 60, "nonce": "once", "email": "ann@example.test"})
    }

    /// A server with an elliptic key and one of RSA.
    struct Signer {
        curve: EcdsaKeyPair,
        rsa: RsaKeyPair,
    }

    impl Signer {
        fn new() -> Self {
            let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
            let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
            let curve = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
            // Ring makes no RSA keys; this one signs nothing but the tokens of this test.
            let rsa = RsaKeyPair::from_pkcs8(include_bytes!("../../tests/support/rsa-2048.pk8")).unwrap();
            Self { curve, rsa }
        }

        fn keys(&self) -> Value {
            let (x, y) = self.curve.public_key().as_ref()[1..].split_at(32);
            let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
            json!({"keys": [
                {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
                {"kty": "EC", "crv": "P-256", "kid": "curve", "use": "sig", "alg": "ES256", "x": encode(x), "y": encode(y)},
                {"kty": "RSA", "kid": "rsa", "n": encode(n), "e": encode(e)},
                {"kty": "EC", "crv": "P-256", "kid": "for sealing", "use": "enc", "x": encode(x), "y": encode(y)},
                "not a key",
            ]})
        }

        fn token(&self, header: Value, claims: &Value) -> String {
            let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
            let (random, message) = (SystemRandom::new(), signed.as_bytes());
            let mut rsa = vec![0; self.rsa.public().modulus_len()];
            let signature = match header["alg"].as_str().unwrap() {
                "ES256" => self.curve.sign(&random, message).unwrap().as_ref().to_vec(),
                "RS256" => self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut rsa).map(|()| rsa).unwrap(),
                "PS256" => self.rsa.sign(&RSA_PSS_SHA256, &random, message, &mut rsa).map(|()| rsa).unwrap(),
                "HS256" => {
                    use hmac::{Hmac, KeyInit as _, Mac as _};
                    let mac = Hmac::<sha2::Sha256>::new_from_slice(b"secret").unwrap();
                    mac.chain_update(message).finalize().into_bytes().to_vec()
                }
                _ => Vec::new(),
            };
            format!("{signed}.{}", encode(signature))
        }
    }

    #[test]
    fn only_the_issuers_keys_sign() {
        let (signer, stranger) = (Signer::new(), Signer::new());
        let keys = Keys::read(signer.keys().to_string().as_bytes()).unwrap();
        let read = |token: &str| check(token, Some(&keys), &EXPECTED);
        for header in [
            json!({"alg": "ES256", "kid": "curve"}),
            json!({"alg": "ES256"}),
            json!({"alg": "RS256", "kid": "rsa"}),
            json!({"alg": "PS256", "kid": "rsa"}),
        ] {
            let token = signer.token(header, &good());
            assert_eq!(read(&token).unwrap(), good());
            let mut other = good();
            other["email"] = "ben@example.test".into();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let forged = format!("{}.{}.{signature}", signed.split_once('.').unwrap().0, encode(other.to_string()));
            assert!(matches!(read(&forged), Err(Untrusted::Signature(_))));
            assert!(matches!(read(&format!("{signed}.")), Err(Untrusted::Signature(_))));
        }
        assert!(matches!(
            read(&stranger.token(json!({"alg": "ES256", "kid": "curve"}), &good())),
            Err(Untrusted::Signature(_))
        ));
        for (algorithm, kid) in [
            ("none", "curve"),
            ("None", "curve"),
            ("HS256", "secret"),
            ("ES256", "rsa"),
            ("ES256", "for sealing"),
            ("ES256", "of yesterday"),
            ("RS256", "curve"),
            ("ES384", "curve"),
        ] {
            let token = signer.token(json!({"alg": algorithm, "kid": kid}), &good());
            assert_eq!(read(&token), Err(Untrusted::Signature(algorithm.into())), "{algorithm} {kid}");
        }
    }

    #[test]
    fn every_claim_counts() {
        let token = |claim: &str, value: Value| {
            let mut claims = good();
            claims[claim] = value;
            format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims.to_string()))
        };
        for (claim, value, expected) in [
            ("aud", json!(["you", "me"]), None),
            ("exp", json!(NOW.0 - LEEWAY), None),
            ("iss", json!("https://evil.test"), Some(Untrusted::Issuer("https://evil.test".into()))),
            ("iss", json!(null), Some(Untrusted::Malformed)),
            ("aud", json!("you"), Some(Untrusted::Audience)),
            ("aud", json!(["you"]), Some(Untrusted::Audience)),
            ("aud", json!(null), Some(Untrusted::Audience)),
            ("exp", json!(NOW.0 - LEEWAY - 1), Some(Untrusted::Expired)),
            ("exp", json!(-1), Some(Untrusted::Expired)),
            ("exp", json!("soon"), Some(Untrusted::Malformed)),
            ("nonce", json!("twice"), Some(Untrusted::Nonce)),
            ("nonce", json!(null), Some(Untrusted::Nonce)),
        ] {
            assert_eq!(check(&token(claim, value.clone()), None, &EXPECTED).err(), expected, "{claim} {value}");
        }
        for junk in ["", "junk", "a.b.c", "e30.e30.e30", "..."] {
            assert_eq!(check(junk, None, &EXPECTED), Err(Untrusted::Malformed), "{junk}");
        }
    }
}
