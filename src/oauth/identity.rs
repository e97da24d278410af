//! Who has signed in, as far as the authorization server tells.

use serde_json::Value;

use super::Http;
use super::id_token::{self, Expected, Untrusted};
use super::keys::Keys;
use crate::config::provider::Endpoints;
use crate::secret::Token;
use crate::wire::printable;

/// The names of whoever has signed in; empty where the server does not tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity {
    names: Vec<String>,
    /// The one of them that the server itself has not verified, if it says so.
    unverified: Option<String>,
}

impl Identity {
    /// Reads claims (OpenID Connect Core 1.0 section 5.1). `email` and `preferred_username` are standard ones, `upn` is
    /// Microsoft's; only what has the form of an address can be compared with one.
    fn from_claims(claims: &Value) -> Self {
        let address = |claim| {
            let name = claims.get(claim)?.as_str().filter(|name| name.contains('@'))?;
            Some(printable(&name.to_lowercase()))
        };
        // Some servers write it as a text.
        let is_unverified = claims.get("email_verified").is_some_and(|it| it != true && it != "true");
        Self {
            names: ["email", "preferred_username", "upn"].into_iter().filter_map(address).collect(),
            unverified: address("email").filter(|_| is_unverified),
        }
    }

    /// Whether the server vouches for this being who signed in.
    pub fn is(&self, address: &str) -> bool {
        self.names.iter().any(|name| name == address) && self.unverified.as_deref() != Some(address)
    }

    /// The name to show of somebody who is not `address`; None if it is them, or nobody can tell.
    pub fn other_than(&self, address: &str) -> Option<&str> {
        if self.names.iter().any(|name| name == address) { None } else { self.names.first().map(String::as_str) }
    }
}

/// Finds out who has signed in: from the id_token that came with the tokens, or from the userinfo endpoint.
///
/// # Errors
///
/// Where the server tells, and cannot be believed. A server that does not tell is no error, and neither are keys or userinfo
/// that cannot be had: TLS vouches for the id_token.
pub async fn who(
    http: &Http,
    endpoints: &Endpoints,
    id_token: Option<&str>,
    access: &Token,
    expected: &Expected<'_>,
) -> Result<Identity, Untrusted> {
    let mut claims = Value::Null;
    if let Some(id_token) = id_token {
        let keys = keys(http, endpoints).await;
        claims = id_token::check(id_token, keys.as_ref(), expected)?;
    }
    let identity = Identity::from_claims(&claims);
    match identity.names.is_empty() {
        true => userinfo(http, endpoints, access, &claims).await,
        false => Ok(identity),
    }
}

async fn keys(http: &Http, endpoints: &Endpoints) -> Option<Keys> {
    let answer = http.get(endpoints.jwks.as_ref()?, None).await.ok()?;
    if answer.status() == 200 { Keys::read(answer.body()) } else { None }
}

/// OpenID Connect Core 1.0 section 5.3. Its subject has to be the id_token's.
async fn userinfo(http: &Http, endpoints: &Endpoints, access: &Token, id_token: &Value) -> Result<Identity, Untrusted> {
    let Some(endpoint) = &endpoints.userinfo else { return Ok(Identity::default()) };
    let answer = http.get(endpoint, Some(access)).await.ok().filter(|answer| answer.status() == 200);
    let claims: Option<Value> = answer.and_then(|answer| serde_json::from_slice(answer.body()).ok());
    let claims = claims.unwrap_or_default();
    match id_token.get("sub").is_some_and(|subject| claims.get("sub") != Some(subject)) && claims.is_object() {
        true => Err(Untrusted::Subject),
        false => Ok(Identity::from_claims(&claims)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn somebody_else_is_noticed() {
        let ben = Identity::from_claims(&json!({"email": "Ben@Example.test", "preferred_username": "ben"}));
        assert_eq!(ben.other_than("ann@example.test"), Some("ben@example.test"));
        assert_eq!(ben.other_than("ben@example.test"), None);
        let alias = Identity::from_claims(&json!({"email": "b@example.test", "upn": "ben@example.test"}));
        assert_eq!(alias.other_than("ben@example.test"), None);
    }

    #[test]
    fn an_address_that_the_server_has_not_verified_is_nobodys() {
        let is_ann = |claims| Identity::from_claims(&claims).is("ann@example.test");
        assert!(is_ann(json!({"email": "Ann@example.test"})));
        assert!(is_ann(json!({"email": "a@b.test", "upn": "ann@example.test", "email_verified": false})));
        assert!(is_ann(json!({"email": "ann@example.test", "email_verified": true})));
        assert!(is_ann(json!({"email": "ann@example.test", "email_verified": "true"})));
        assert!(!is_ann(json!({"email": "ann@example.test", "email_verified": false})));
        assert!(!is_ann(json!({"email": "ann@example.test", "email_verified": "no"})));
        assert!(!is_ann(json!({"email": "ben@example.test"})) && !is_ann(json!({})));
    }

    #[test]
    fn where_nobody_tells_nobody_is_suspected() {
        for unknown in [json!({}), json!({"email": 5}), Value::Null] {
            assert_eq!(Identity::from_claims(&unknown).other_than("ann@example.test"), None);
        }
    }
}
