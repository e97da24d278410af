//! What another replica gets of an attempt and of a consent.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::carried::TokenSetDef;
use crate::net::peer::Source;
use crate::token::TokenSet;

/// An attempt without its passwords and requests.
#[derive(Serialize, Deserialize)]
pub struct CarriedAttempt {
    pub ticket: String,
    pub address: String,
    pub page: Url,
    pub source: Source,
    /// The seconds until it expires.
    pub seconds: u64,
}

/// A consent without its server, which the configuration names.
#[derive(Serialize, Deserialize)]
pub struct CarriedConsent {
    pub attempt: CarriedAttempt,
    #[serde(with = "TokenSetDef")]
    pub tokens: TokenSet,
    pub end: Option<String>,
}
