//! The id_token (OpenID Connect Core 1.0 section 2): what the authorization server says of who has signed in.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Sha256, Sha384, Sha512};
use url::Url;

use super::keys::Keys;
use super::tenant::Tenant;
use crate::clock::Moment;
use crate::secret::Secret;
use crate::wire::printable;

/// Seconds by which the clocks of both sides may differ.
const LEEWAY: u64 = 300;

/// What an id_token has to say.
pub struct Expected<'a> {
    /// To whom it is given.
    pub client_id: &'a str,
    /// The client's secret, by which some servers sign (section 3.1.3.7, point 8).
    pub secret: Option<&'a Secret>,
    /// By whom, where that is known.
    pub issuer: Option<&'a str>,
    /// Where it came from; at Microsoft that tells by whom it may be.
    pub token_endpoint: Option<&'a Url>,
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
    /// It is signed by nobody, or by somebody else; the algorithm that it names.
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

/// What an id_token says.
#[derive(Debug, PartialEq)]
pub struct CheckedIdToken {
    /// Its claims (section 2).
    pub claims: Value,
    /// Whether its signature was verified. Otherwise there was nothing to verify it by, and the connection to the token
    /// endpoint vouches for it, from which it came straight (section 3.1.3.7, point 6).
    pub is_verified: bool,
}

/// Reads an id_token, if it is what it has to be (section 3.1.3.7).
pub fn check(id_token: &str, keys: Option<&Keys>, expected: &Expected<'_>) -> Result<CheckedIdToken, Untrusted> {
    let (signed, signature) = id_token.rsplit_once('.').ok_or(Untrusted::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Untrusted::Malformed)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Untrusted::Malformed)?;
    let is_good = header.is_signed(keys, expected.secret, signed.as_bytes(), &decode(signature)?);
    if is_good == Some(false) {
        return Err(Untrusted::Signature(printable(&header.alg)));
    }
    let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| Untrusted::Malformed)?;
    expected.judge(&claims)?;
    Ok(CheckedIdToken { claims, is_verified: is_good.is_some() })
}

impl Header {
    /// Whether the signature is the issuer's; None where there is nothing to verify it by. No signature is never one, and
    /// neither is one that a key of the server's could have made and did not.
    fn is_signed(
        &self,
        keys: Option<&Keys>,
        secret: Option<&Secret>,
        message: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        if signature.is_empty() || self.alg.eq_ignore_ascii_case("none") {
            return keys.is_some().then_some(false);
        }
        let by_secret = |secret: &Secret| match self.alg.as_str() {
            "HS256" => Some(is_mac::<Hmac<Sha256>>(secret, message, signature)),
            "HS384" => Some(is_mac::<Hmac<Sha384>>(secret, message, signature)),
            "HS512" => Some(is_mac::<Hmac<Sha512>>(secret, message, signature)),
            _ => None,
        };
        match self.alg.starts_with("HS") {
            true => by_secret(secret?),
            false => keys?.have_signed(&self.alg, self.kid.as_deref(), message, signature),
        }
    }
}

/// RFC 7518 section 3.2.
fn is_mac<M: Mac + KeyInit>(secret: &Secret, message: &[u8], signature: &[u8]) -> bool {
    let mac = <M as KeyInit>::new_from_slice(secret.expose());
    mac.is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok())
}

fn decode(part: &str) -> Result<Vec<u8>, Untrusted> {
    BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).map_err(|_| Untrusted::Malformed)
}

impl Expected<'_> {
    /// Whether one organization decides under which names people sign in: its issuer is named, or its endpoint is its own.
    pub fn is_of_one_tenant(&self) -> bool {
        self.issuer.is_some() || self.tenant().is_none_or(|tenant| tenant.is_one())
    }

    fn tenant(&self) -> Option<Tenant<'_>> {
        self.token_endpoint.and_then(Tenant::of)
    }

    fn may_be_by(&self, issuer: &str, tid: Option<&str>) -> bool {
        match self.issuer {
            Some(expected) => issuer == expected,
            None => self.tenant().is_none_or(|tenant| tenant.has_issued(issuer, tid)),
        }
    }

    fn judge(&self, claims: &Value) -> Result<(), Untrusted> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let issuer = text("iss").ok_or(Untrusted::Malformed)?;
        if !self.may_be_by(issuer, text("tid")) {
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
    const EXPECTED: Expected<'_> = Expected {
        client_id: "me",
        secret: None,
        issuer: Some("https://a.test"),
        token_endpoint: None,
        nonce: Some("once"),
        now: NOW,
    };

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
            assert_eq!(read(&token).unwrap(), CheckedIdToken { claims: good(), is_verified: true });
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
    fn a_signature_by_the_clients_secret_is_verified_where_there_is_one() {
        let signer = Signer::new();
        let (keys, none) = (Keys::read(signer.keys().to_string().as_bytes()), Keys::read(br#"{"keys":[]}"#));
        let token = signer.token(json!({"alg": "HS256"}), &good());
        let (right, wrong) = (Secret::new(b"secret".to_vec()), Secret::new(b"another".to_vec()));
        for keys in [keys.as_ref(), none.as_ref(), None] {
            let read = |token: &str, secret| check(token, keys, &Expected { secret, ..EXPECTED });
            assert!(read(&token, Some(&right)).unwrap().is_verified);
            assert_eq!(read(&token, Some(&wrong)), Err(Untrusted::Signature("HS256".into())));
            assert!(!read(&token, None).unwrap().is_verified, "nobody can tell");
            let unsigned = signer.token(json!({"alg": "HS256"}), &good()).rsplit_once('.').unwrap().0.to_owned() + ".";
            assert_eq!(read(&unsigned, Some(&right)).is_err(), keys.is_some(), "no signature");
        }
    }

    #[test]
    fn where_the_issuer_has_no_keys_nobody_can_tell() {
        let signer = Signer::new();
        let token = signer.token(json!({"alg": "ES256", "kid": "curve"}), &good());
        let none = signer.token(json!({"alg": "none"}), &good());
        for keys in [&br#"{"keys":[]}"#[..], br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},"junk"]}"#] {
            let keys = Keys::read(keys).unwrap();
            assert!(!check(&token, Some(&keys), &EXPECTED).unwrap().is_verified);
            assert!(check(&none, Some(&keys), &EXPECTED).is_err());
        }
        let keys = Keys::read(signer.keys().to_string().as_bytes()).unwrap();
        let unknown = signer.token(json!({"alg": "ES512"}), &good()) + "c2ln";
        assert!(
            !check(&unknown, Some(&keys), &EXPECTED).unwrap().is_verified,
            "an algorithm that postkey does not know"
        );
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
    #[test]
    fn where_the_issuer_is_a_tenant_it_has_to_be_the_one_that_signs() {
        let endpoint = Url::parse("https://login.a.test/organizations/oauth2/v2.0/token").unwrap();
        let expected = Expected { issuer: None, token_endpoint: Some(&endpoint), ..EXPECTED };
        let id = "0a000000-0000-0000-0000-00000000000b";
        let read = |issuer: String, tid: &str| {
            let mut claims = good();
            (claims["iss"], claims["tid"]) = (issuer.into(), tid.into());
            check(&format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims.to_string())), None, &expected)
        };
        assert!(read(format!("https://login.a.test/{id}/v2.0"), id).is_ok());
        for (issuer, tid) in [
            (format!("https://login.a.test/{id}/v2.0"), "0a000000-0000-0000-0000-00000000000c"),
            ("https://a.test".to_owned(), id),
            (format!("https://login.evil.test/{id}/v2.0"), id),
        ] {
            assert!(matches!(read(issuer, tid), Err(Untrusted::Issuer(_))));
        }
    }
}
