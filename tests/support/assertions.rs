//! Assertions, checked as an authorization server does (RFC 7523 section 3).

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{self, KeyPair, RsaKeyPair, UnparsedPublicKey};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The key with which clients of the tests sign, and its certificate. Nobody else uses it.
const KEY: &str = include_str!("signing-key.pem");
const CERTIFICATE: &str = include_str!("signing-certificate.pem");

/// The files of the key and of its certificate.
pub fn key_file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/signing-key.pem"))
}

pub fn certificate_file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/signing-certificate.pem"))
}

/// A valid assertion.
#[derive(Clone, Debug)]
pub struct Assertion {
    pub header: Value,
    pub claims: Value,
}

/// Reads an assertion that the tests' key has signed for this audience and that is valid now.
pub fn judge(token: &str, audience: &str) -> Result<Assertion, &'static str> {
    let (signed, signature) = token.rsplit_once('.').ok_or("the assertion has no signature")?;
    let (header, claims) = signed.split_once('.').ok_or("the assertion has no claims")?;
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "the assertion is not base64url");
    let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| "the assertion is not JSON");
    let (header, claims) = (json(header)?, json(claims)?);
    let algorithm = match header["alg"].as_str() {
        Some("PS256") => &signature::RSA_PSS_2048_8192_SHA256,
        Some("RS256") => &signature::RSA_PKCS1_2048_8192_SHA256,
        _ => return Err("the assertion's algorithm is neither PS256 nor RS256"),
    };
    let key = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).expect("the tests' key");
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("an RSA key");
    let key = UnparsedPublicKey::new(algorithm, key.public_key().as_ref());
    key.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| "the assertion's signature is wrong")?;
    if claims["aud"] != audience {
        return Err("the assertion is for somebody else");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let time = |name: &str| claims[name].as_u64();
    // Ten seconds: the machine may be busy.
    match (time("iat"), time("exp")) {
        (Some(issued), Some(end)) if (now - 10..=now).contains(&issued) && (now..=issued + 3600).contains(&end) => {}
        _ => return Err("the assertion is not good now"),
    }
    Ok(Assertion { header, claims })
}

/// The expected `x5t#S256` (RFC 7515 section 4.1.8).
pub fn thumbprint() -> String {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("the tests' certificate");
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(certificate))
}
