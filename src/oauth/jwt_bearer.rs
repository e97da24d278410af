//! The JWT bearer grant (RFC 7523 section 2.1): a key whose assertions open mailboxes.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::jwt::SigningKey;
use super::{Failure, Registration, source};
use crate::clock::Moment;
use crate::config::assertion::{Algorithm, AssertionIssuer, Issuer};
use crate::config::provider::Provider;
use crate::secret::Secret;

pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Google's limit for an assertion, in seconds.
const SERVICE_ACCOUNT: u64 = 3600;

/// The claims of an assertion, and the key that signs it.
pub struct AssertionTemplate {
    key: SigningKey,
    issuer: String,
    audience: String,
    subject: Option<String>,
    lifetime: u64,
    /// Further claims, none of which is one of the above.
    claims: Map<String, Value>,
}

impl AssertionTemplate {
    /// The signed assertion that opens the mailbox of `user`.
    pub fn assertion(self, user: &str, scope: &str, now: Moment) -> Result<String, Failure> {
        let mut claims = self.claims;
        claims.extend([
            ("iss".to_owned(), json!(self.issuer)),
            ("sub".to_owned(), json!(self.subject.as_deref().unwrap_or(user))),
            ("aud".to_owned(), json!(self.audience)),
            ("scope".to_owned(), json!(scope)),
            ("iat".to_owned(), json!(now.0)),
            ("exp".to_owned(), json!(now.after(self.lifetime).0)),
        ]);
        self.key.sign(&Value::Object(claims))
    }
}

/// The template for the key in the configuration.
pub async fn configured(provider: &Provider, registration: &Registration) -> Result<AssertionTemplate, Failure> {
    match &provider.bearer {
        Some(AssertionIssuer::ServiceAccount(source)) => {
            let file = source::read(source, "the service account's key").await?;
            service_account(&file, &format!("from {source}"))
        }
        Some(AssertionIssuer::Issuer(own)) => issuer(own, registration).await,
        None => Err(Failure::Misconfigured(format!(
            "the provider {} has neither service_account nor assertion in the configuration",
            provider.name
        ))),
    }
}

/// The template for the key file that is stored with the account.
pub fn stored(file: &Secret) -> Result<AssertionTemplate, Failure> {
    service_account(file, "of this account")
}

/// Google's file with a service account's key. It has more members.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    token_uri: String,
}

/// Reads a key file. `place` says where it is from.
fn service_account(file: &Secret, place: &str) -> Result<AssertionTemplate, Failure> {
    let unusable =
        |why: &str| Failure::Misconfigured(format!("the service account's key {place} cannot be used: {why}"));
    // The parser's own words could quote the key.
    let file: KeyFile = serde_json::from_slice(file.expose())
        .map_err(|_| unusable("it is not the JSON file that Google makes for a service account"))?;
    let pem = Secret::new(file.private_key.as_bytes().to_vec());
    let key = SigningKey::read(&pem, None, Algorithm::Rs256).map_err(|why| unusable(&why))?;
    let key = key.with_id(file.private_key_id.as_deref());
    let (issuer, audience) = (file.client_email, file.token_uri);
    Ok(AssertionTemplate { key, issuer, audience, subject: None, lifetime: SERVICE_ACCOUNT, claims: Map::new() })
}

async fn issuer(issuer: &Issuer, registration: &Registration) -> Result<AssertionTemplate, Failure> {
    let (file, password) = source::read_key(&issuer.key, "the assertion's key").await?;
    let unusable =
        |why| Failure::Misconfigured(format!("the assertion's key from {} cannot be used: {why}", issuer.key.file));
    let key = SigningKey::read(&file, password.as_ref(), issuer.algorithm).map_err(unusable)?;
    let key = key.with_id(issuer.key_id.as_deref());
    let audience = issuer.audience.clone().unwrap_or_else(|| registration.token_endpoint.to_string());
    let (name, subject, lifetime) = (issuer.name.clone(), issuer.subject.clone(), issuer.lifetime.as_secs());
    Ok(AssertionTemplate { key, issuer: name, audience, subject, lifetime, claims: issuer.claims.clone() })
}
