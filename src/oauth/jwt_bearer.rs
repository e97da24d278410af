//! The JWT bearer grant (RFC 7523 section 2.1): a key that may speak for the owners of mailboxes.

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::grant::Ask;
use super::jwt::SigningKey;
use super::{Failure, Http, Registration, extension, source};
use crate::clock::Clock;
use crate::config::assertion::{Algorithm, Bearer, Issuer};
use crate::config::secret_source::SecretSource;
use crate::secret::Secret;
use crate::token::TokenSet;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Google's own limit, in seconds.
const SERVICE_ACCOUNT: u64 = 3600;

/// What an assertion says, and the key that signs it.
struct Speaker {
    key: SigningKey,
    issuer: String,
    audience: String,
    subject: Option<String>,
    lifetime: u64,
}

/// Asks for a token set for a mailbox. It brings no refresh token: one asks again.
pub async fn ask(http: &Http, registration: &Registration, ask: &Ask<'_>, clock: &Clock) -> Result<TokenSet, Failure> {
    let speaker = match &ask.provider.bearer {
        Some(Bearer::ServiceAccount(place)) => service_account(place).await?,
        Some(Bearer::Issuer(own)) => issuer(own, registration).await?,
        None => {
            return Err(Failure::Misconfigured(format!(
                "the provider {} has neither service_account nor assertion in the configuration",
                ask.provider.name
            )));
        }
    };
    let now = clock.now();
    let assertion = speaker.key.sign(&json!({
        "iss": speaker.issuer,
        "sub": speaker.subject.as_deref().unwrap_or(ask.user),
        "aud": speaker.audience,
        "scope": ask.scope.join(" "),
        "iat": now.0,
        "exp": now.after(speaker.lifetime).0,
    }))?;
    let form = [("grant_type", GRANT_TYPE), ("assertion", &assertion)];
    extension::ask(http, registration, &form, now).await?.into_token_set(clock.now(), None)
}

/// What Google's file says of a service account's key; there is more in it.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    token_uri: String,
}

async fn service_account(place: &SecretSource) -> Result<Speaker, Failure> {
    let file = source::read(place, "the service account's key").await?;
    let unusable =
        |why: &str| Failure::Misconfigured(format!("the service account's key from {place} cannot be used: {why}"));
    // The parser's own words could quote the key.
    let file: KeyFile = serde_json::from_slice(file.expose())
        .map_err(|_| unusable("it is not the JSON file that Google makes for a service account"))?;
    let pem = Secret::new(file.private_key.as_bytes().to_vec());
    let key = SigningKey::read(&pem, Algorithm::Rs256).map_err(|why| unusable(&why))?;
    let key = match &file.private_key_id {
        Some(id) => key.with_id(id),
        None => key,
    };
    let (issuer, audience) = (file.client_email, file.token_uri);
    Ok(Speaker { key, issuer, audience, subject: None, lifetime: SERVICE_ACCOUNT })
}

async fn issuer(issuer: &Issuer, registration: &Registration) -> Result<Speaker, Failure> {
    let pem = source::read(&issuer.key, "the assertion's key").await?;
    let unusable =
        |why| Failure::Misconfigured(format!("the assertion's key from {} cannot be used: {why}", issuer.key));
    let key = SigningKey::read(&pem, issuer.algorithm).map_err(unusable)?;
    let key = match &issuer.key_id {
        Some(id) => key.with_id(id),
        None => key,
    };
    let audience = issuer.audience.clone().unwrap_or_else(|| registration.token_endpoint.to_string());
    let (name, subject, lifetime) = (issuer.name.clone(), issuer.subject.clone(), issuer.lifetime.as_secs());
    Ok(Speaker { key, issuer: name, audience, subject, lifetime })
}
