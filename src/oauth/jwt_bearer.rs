//! The JWT bearer grant (RFC 7523 section 2.1): a key whose assertions open mailboxes.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::jwt::SigningKey;
use super::{Failure, Registration, source};
use crate::clock::Moment;
use crate::config::assertion::{Algorithm, AssertionIssuer, Issuer};
use crate::config::provider::Provider;
use crate::config::secret_source::SecretSource;
use crate::secret::Secret;

pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Google's limit for an assertion, in seconds.
const SERVICE_ACCOUNT: u64 = 3600;

/// The claims of an assertion, and the key that signs it.
struct Template {
    key: SigningKey,
    issuer: String,
    audience: String,
    subject: Option<String>,
    lifetime: u64,
    /// Further claims, none of which is one of the above.
    claims: Map<String, Value>,
}

/// The signed assertion that opens the mailbox of `user`.
pub async fn assertion(
    provider: &Provider,
    registration: &Registration,
    user: &str,
    scope: &str,
    now: Moment,
) -> Result<String, Failure> {
    let template = match &provider.bearer {
        Some(AssertionIssuer::ServiceAccount(source)) => service_account(source).await?,
        Some(AssertionIssuer::Issuer(own)) => issuer(own, registration).await?,
        None => {
            return Err(Failure::Misconfigured(format!(
                "the provider {} has neither service_account nor assertion in the configuration",
                provider.name
            )));
        }
    };
    let mut claims = template.claims;
    claims.extend([
        ("iss".to_owned(), json!(template.issuer)),
        ("sub".to_owned(), json!(template.subject.as_deref().unwrap_or(user))),
        ("aud".to_owned(), json!(template.audience)),
        ("scope".to_owned(), json!(scope)),
        ("iat".to_owned(), json!(now.0)),
        ("exp".to_owned(), json!(now.after(template.lifetime).0)),
    ]);
    template.key.sign(&Value::Object(claims))
}

/// Google's file with a service account's key. It has more members.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    token_uri: String,
}

async fn service_account(source: &SecretSource) -> Result<Template, Failure> {
    let file = source::read(source, "the service account's key").await?;
    let unusable =
        |why: &str| Failure::Misconfigured(format!("the service account's key from {source} cannot be used: {why}"));
    // The parser's own words could quote the key.
    let file: KeyFile = serde_json::from_slice(file.expose())
        .map_err(|_| unusable("it is not the JSON file that Google makes for a service account"))?;
    let pem = Secret::new(file.private_key.as_bytes().to_vec());
    let key = SigningKey::read(&pem, None, Algorithm::Rs256).map_err(|why| unusable(&why))?;
    let key = key.with_id(file.private_key_id.as_deref());
    let (issuer, audience) = (file.client_email, file.token_uri);
    Ok(Template { key, issuer, audience, subject: None, lifetime: SERVICE_ACCOUNT, claims: Map::new() })
}

async fn issuer(issuer: &Issuer, registration: &Registration) -> Result<Template, Failure> {
    let (file, password) = source::read_key(&issuer.key, "the assertion's key").await?;
    let unusable =
        |why| Failure::Misconfigured(format!("the assertion's key from {} cannot be used: {why}", issuer.key.file));
    let key = SigningKey::read(&file, password.as_ref(), issuer.algorithm).map_err(unusable)?;
    let key = key.with_id(issuer.key_id.as_deref());
    let audience = issuer.audience.clone().unwrap_or_else(|| registration.token_endpoint.to_string());
    let (name, subject, lifetime) = (issuer.name.clone(), issuer.subject.clone(), issuer.lifetime.as_secs());
    Ok(Template { key, issuer: name, audience, subject, lifetime, claims: issuer.claims.clone() })
}
