//! The one form in which secrets are serialized: as base64, for another process of postkey. They go over the control socket,
//! which only its owner can open, or are sealed for another replica.
//!
//! The types themselves cannot be serialized, so that no secret gets into a file or a log by accident. A field of a
//! message uses this module by `#[serde(with = "carried")]`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::config::flow::Flow;
use crate::config::provider::Discovered;
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};
use crate::vault::password::Password;
use crate::vault::{Authorization, Secrets};

/// A secret, or one that may be missing.
pub trait Carry: Sized {
    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>>;
    fn read(bytes: Option<&[u8]>) -> Option<Self>;
}

impl Carry for Secret {
    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(self.expose().to_vec()))
    }

    fn read(bytes: Option<&[u8]>) -> Option<Self> {
        Some(Self::new(bytes?.to_vec()))
    }
}

impl Carry for Token {
    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(self.expose().as_bytes().to_vec()))
    }

    fn read(bytes: Option<&[u8]>) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes?).ok()?)
    }
}

impl Carry for Password {
    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(self.expose()))
    }

    fn read(bytes: Option<&[u8]>) -> Option<Self> {
        Some(Self::read(bytes?))
    }
}

impl<T: Carry> Carry for Option<T> {
    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.as_ref().and_then(T::bytes)
    }

    fn read(bytes: Option<&[u8]>) -> Option<Self> {
        bytes.map_or(Some(None), |bytes| T::read(Some(bytes)).map(Some))
    }
}

pub fn serialize<S: Serializer>(secret: &impl Carry, serializer: S) -> Result<S::Ok, S::Error> {
    let text = secret.bytes().map(|bytes| Zeroizing::new(BASE64_STANDARD.encode(&*bytes)));
    text.as_ref().map(|text| text.as_str()).serialize(serializer)
}

pub fn deserialize<'de, T: Carry, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.map(Zeroizing::new);
    let bytes = text.map(|text| BASE64_STANDARD.decode(&*text).map(Zeroizing::new)).transpose();
    let bytes = bytes.map_err(D::Error::custom)?;
    T::read(bytes.as_ref().map(|bytes| bytes.as_slice())).ok_or_else(|| D::Error::custom("not a valid secret"))
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Authorization")]
pub struct AuthorizationDef {
    address: String,
    provider: String,
    flow: Flow,
    client_id: Option<String>,
    #[serde(with = "SecretsDef")]
    secrets: Secrets,
    discovered: Option<Discovered>,
    #[serde(with = "TokenSetDef")]
    tokens: TokenSet,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Secrets")]
struct SecretsDef {
    #[serde(with = "self")]
    client_secret: Option<Secret>,
    #[serde(with = "self")]
    grant_secret: Option<Secret>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TokenSet")]
pub struct TokenSetDef {
    #[serde(with = "self")]
    access: Token,
    #[serde(with = "self")]
    refresh: Option<Token>,
    life: Life,
    scope: String,
}
