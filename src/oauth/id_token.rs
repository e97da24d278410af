//! The id_token (OpenID Connect Core 1.0 section 2): what the authorization server says about the person who has signed in.

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

const MALFORMED: &str = "the id_token cannot be read";

/// The claims that an id_token must have.
pub struct Expected<'a> {
    pub client_id: &'a str,
    /// The client's secret, with which some servers sign (section 3.1.3.7, point 8).
    pub secret: Option<&'a Secret>,
    /// The issuer, if it is known.
    pub issuer: Option<&'a str>,
    /// Where the id_token came from. Microsoft's endpoint restricts the issuers.
    pub token_endpoint: Option<&'a Url>,
    /// The nonce of the request, if it had one.
    pub nonce: Option<&'a str>,
    pub now: Moment,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

/// A valid id_token.
#[derive(Debug, PartialEq)]
pub struct CheckedIdToken {
    pub claims: Value,
    /// Whether its signature was verified. Otherwise there was no key, and TLS vouches for it, because it came directly from the
    /// token endpoint (section 3.1.3.7, point 6).
    pub is_verified: bool,
}

/// Reads an id_token and validates it (section 3.1.3.7).
///
/// # Errors
///
/// A clause that says what is wrong with it.
pub fn check(id_token: &str, keys: Option<&Keys>, expected: &Expected<'_>) -> Result<CheckedIdToken, String> {
    let (signed, signature) = id_token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| MALFORMED)?;
    let is_signed = header.is_signed(keys, expected.secret, signed.as_bytes(), &decode(signature)?);
    if is_signed == Some(false) {
        let algorithm = printable(&header.alg);
        return Err(format!("the id_token is not signed by one of the issuer's keys (its algorithm is {algorithm})"));
    }
    let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| MALFORMED)?;
    expected.validate(&claims)?;
    Ok(CheckedIdToken { claims, is_verified: is_signed.is_some() })
}

impl Header {
    /// Whether the signature is the issuer's; None if there is no key to verify it with.
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

fn decode(part: &str) -> Result<Vec<u8>, &'static str> {
    BASE64_URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).map_err(|_| MALFORMED)
}

impl Expected<'_> {
    /// Whether one organization decides with which names people sign in: the issuer is known, or the endpoint is its own.
    pub fn is_of_one_tenant(&self) -> bool {
        self.issuer.is_some() || self.tenant().is_none_or(|tenant| tenant.is_one())
    }

    fn tenant(&self) -> Option<Tenant<'_>> {
        self.token_endpoint.and_then(Tenant::of)
    }

    fn accepts_issuer(&self, issuer: &str, tid: Option<&str>) -> bool {
        match self.issuer {
            Some(expected) => issuer == expected,
            None => self.tenant().is_none_or(|tenant| tenant.has_issued(issuer, tid)),
        }
    }

    fn validate(&self, claims: &Value) -> Result<(), String> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let issuer = text("iss").ok_or(MALFORMED)?;
        if !self.accepts_issuer(issuer, text("tid")) {
            return Err(format!("the id_token is from another issuer, {}", printable(issuer)));
        }
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(|one| one == self.client_id),
            one => one.is_some_and(|one| one == self.client_id),
        };
        if !is_for_us {
            return Err("the id_token is for another client".to_owned());
        }
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or(MALFORMED)?;
        if Moment(expires as u64).after(LEEWAY) < self.now {
            return Err("the id_token has expired; check this machine's clock".to_owned());
        }
        match self.nonce.is_some_and(|nonce| text("nonce") != Some(nonce)) {
            true => Err("the id_token answers another request".to_owned()),
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

    fn is_not_signed(result: Result<CheckedIdToken, String>) -> bool {
        result.is_err_and(|error| error.contains("is not signed by one of the issuer's keys"))
    }

    #[test]
    fn only_the_issuers_keys_are_accepted() {
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
            assert!(is_not_signed(read(&forged)) && is_not_signed(read(&format!("{signed}."))));
        }
        assert!(is_not_signed(read(&stranger.token(json!({"alg": "ES256", "kid": "curve"}), &good()))));
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
            let error = read(&token).unwrap_err();
            assert!(error.ends_with(&format!("issuer's keys (its algorithm is {algorithm})")), "{kid}: {error}");
        }
    }

    #[test]
    fn a_signature_with_the_clients_secret_is_verified_if_there_is_one() {
        let signer = Signer::new();
        let (keys, none) = (Keys::read(signer.keys().to_string().as_bytes()), Keys::read(br#"{"keys":[]}"#));
        let token = signer.token(json!({"alg": "HS256"}), &good());
        let (right, wrong) = (Secret::new(b"secret".to_vec()), Secret::new(b"another".to_vec()));
        for keys in [keys.as_ref(), none.as_ref(), None] {
            let read = |token: &str, secret| check(token, keys, &Expected { secret, ..EXPECTED });
            assert!(read(&token, Some(&right)).unwrap().is_verified);
            assert!(is_not_signed(read(&token, Some(&wrong))));
            assert!(!read(&token, None).unwrap().is_verified, "nobody can tell");
            let unsigned = signer.token(json!({"alg": "HS256"}), &good()).rsplit_once('.').unwrap().0.to_owned() + ".";
            assert_eq!(read(&unsigned, Some(&right)).is_err(), keys.is_some(), "no signature");
        }
    }

    #[test]
    fn without_keys_of_the_issuer_a_signature_is_not_verified() {
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
            ("iss", json!("https://evil.test"), Some("the id_token is from another issuer, https://evil.test")),
            ("iss", json!(null), Some(MALFORMED)),
            ("aud", json!("you"), Some("the id_token is for another client")),
            ("aud", json!(["you"]), Some("the id_token is for another client")),
            ("aud", json!(null), Some("the id_token is for another client")),
            ("exp", json!(NOW.0 - LEEWAY - 1), Some("the id_token has expired; check this machine's clock")),
            ("exp", json!(-1), Some("the id_token has expired; check this machine's clock")),
            ("exp", json!("soon"), Some(MALFORMED)),
            ("nonce", json!("twice"), Some("the id_token answers another request")),
            ("nonce", json!(null), Some("the id_token answers another request")),
        ] {
            assert_eq!(
                check(&token(claim, value.clone()), None, &EXPECTED).err().as_deref(),
                expected,
                "{claim} {value}"
            );
        }
        for junk in ["", "junk", "a.b.c", "e30.e30.e30", "..."] {
            assert_eq!(check(junk, None, &EXPECTED), Err(MALFORMED.to_owned()), "{junk}");
        }
    }

    #[test]
    fn a_tenant_signs_only_for_itself() {
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
            assert!(read(issuer, tid).unwrap_err().contains("from another issuer"));
        }
    }
}
