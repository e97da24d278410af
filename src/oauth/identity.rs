//! Who has signed in, as far as the authorization server tells.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::wire::printable;

/// The names of whoever has signed in; empty where the server does not tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity(Vec<String>);

impl Identity {
    /// Reads an id_token (OpenID Connect Core 1.0 section 2). Its signature is not checked: it came straight from the token
    /// endpoint over TLS, which vouches for it (section 3.1.3.7, point 6). `email` and `preferred_username` are standard
    /// claims, `upn` is Microsoft's; only what has the form of an address can be compared with one.
    pub fn from_id_token(id_token: &str) -> Self {
        Self::read(id_token).unwrap_or_default()
    }

    fn read(id_token: &str) -> Option<Self> {
        let payload = id_token.split('.').nth(1)?;
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
        let names = ["email", "preferred_username", "upn"].iter().filter_map(|claim| claims.get(claim)?.as_str());
        Some(Self(names.filter(|name| name.contains('@')).map(|name| printable(&name.to_lowercase())).collect()))
    }

    /// Whether the server tells that this is who signed in.
    pub fn is(&self, address: &str) -> bool {
        self.0.iter().any(|name| name == address)
    }

    /// The name to show of somebody who is not `address`; None if it is them, or nobody can tell.
    pub fn other_than(&self, address: &str) -> Option<&str> {
        if self.0.iter().any(|name| name == address) { None } else { self.0.first().map(String::as_str) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(claims: &str) -> Identity {
        Identity::from_id_token(&format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn somebody_else_is_noticed() {
        let ben = identity(r#"{"email":"Ben@Example.test","preferred_username":"ben"}"#);
        assert_eq!(ben.other_than("ann@example.test"), Some("ben@example.test"));
        assert_eq!(ben.other_than("ben@example.test"), None);
        let alias = identity(r#"{"email":"b@example.test","upn":"ben@example.test"}"#);
        assert_eq!(alias.other_than("ben@example.test"), None);
    }

    #[test]
    fn where_nobody_tells_nobody_is_suspected() {
        for unknown in
            [identity("{}"), identity(r#"{"email":5}"#), Identity::from_id_token("junk"), Identity::default()]
        {
            assert_eq!(unknown.other_than("ann@example.test"), None);
        }
    }
}
