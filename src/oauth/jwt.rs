//! Signed JSON Web Tokens (RFC 7519), used as assertions (RFC 7523).

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::private_key::PrivateKey;
use super::{Failure, certificate};
use crate::config::assertion::Algorithm;
use crate::secret::Secret;

#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<RsaKeyPair>,
    algorithm: Algorithm,
    /// The header's members besides `typ` and `alg`: they identify the key.
    header: Map<String, Value>,
}

impl SigningKey {
    /// Reads a key file, PEM or PKCS#12. A certificate in the file identifies the key.
    pub fn read(file: &Secret, password: Option<&Secret>, algorithm: Algorithm) -> Result<Self, String> {
        let PrivateKey { key, certificate } = PrivateKey::read(file, password)?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err("it is not an RSA key".to_owned()),
        };
        let pair = pair.map_err(|rejected| format!("this RSA key cannot be used: {rejected}"))?;
        let mut own = Self { pair: Arc::new(pair), algorithm, header: Map::new() };
        if let Some(certificate) = certificate {
            own.identify_by(&certificate);
        }
        Ok(own)
    }

    /// Identifies the key by the first certificate in this PEM.
    pub fn with_certificate(mut self, pem: &[u8]) -> Result<Self, String> {
        self.identify_by(&certificate::read(pem)?);
        Ok(self)
    }

    /// `x5t#S256` (RFC 7515 section 4.1.8).
    fn identify_by(&mut self, certificate: &[u8]) {
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(certificate));
        self.header.insert("x5t#S256".to_owned(), json!(thumbprint));
    }

    /// `kid` (RFC 7515 section 4.1.4).
    pub fn with_id(mut self, id: Option<&str>) -> Self {
        self.header.extend(id.map(|id| ("kid".to_owned(), json!(id))));
        self
    }

    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// How the header identifies the key, in words.
    pub fn name(&self) -> String {
        let name =
            self.header.iter().find_map(|(name, value)| Some(format!("a key named by {name} {}", value.as_str()?)));
        name.unwrap_or_else(|| "a key that no header names".to_owned())
    }

    /// Signs these claims (RFC 7515 section 3.1).
    pub fn sign(&self, claims: &Value) -> Result<String, Failure> {
        let mut header = self.header.clone();
        header.insert("typ".to_owned(), json!("JWT"));
        header.insert("alg".to_owned(), json!(self.algorithm.name()));
        let encoding: &dyn RsaEncoding = match self.algorithm {
            Algorithm::Ps256 => &RSA_PSS_SHA256,
            Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        };
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&Value::Object(header)), part(claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let result = self.pair.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        result.map_err(|_| Failure::Misconfigured("the key cannot sign".to_owned()))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}
