//! The claims of an access token that is a JWT (RFC 9068, and Microsoft's own kind).
//!
//! They are for the mail servers. postkey decides nothing by them, but shows a person why the servers refuse the token.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::secret::Token;
use crate::wire::printable;

/// The claims of an access token, printable; empty if they are missing.
pub struct Claims {
    /// `aud`: the service that it is for.
    pub audience: String,
    /// `tid`: Microsoft's tenant.
    pub tenant: String,
    /// The person who has signed in: the first of `upn`, `unique_name`, `preferred_username` and `email`.
    pub person: String,
    /// `scp` or `scope`, and `roles`.
    rights: Vec<String>,
}

impl Claims {
    /// None if the token is not a JWT. Most are not.
    pub fn read(token: &Token) -> Option<Self> {
        let mut parts = token.expose().split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&claims).ok().filter(Value::is_object).as_ref().map(Self::of)
    }

    pub fn of(claims: &Value) -> Self {
        let list = |name: &str| match claims.get(name) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(printable).collect(),
            Some(Value::String(text)) => text.split_whitespace().map(printable).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(printable).filter(|text| !text.is_empty());
        let names = ["upn", "unique_name", "preferred_username", "email"];
        Self {
            audience: list("aud").join(" "),
            tenant: text("tid").unwrap_or_default(),
            person: names.into_iter().find_map(text).unwrap_or_default(),
            rights: ["scp", "scope", "roles"].into_iter().flat_map(list).collect(),
        }
    }

    /// The token's permissions, word by word.
    pub fn rights(&self) -> impl Iterator<Item = &str> {
        self.rights.iter().map(String::as_str)
    }
}

/// "for ..., of tenant ..., for ann@example.com", without what is missing.
impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("for", &self.audience), ("of tenant", &self.tenant), ("for", &self.person)];
        let known: Vec<String> =
            parts.iter().filter(|(_, text)| !text.is_empty()).map(|(word, text)| format!("{word} {text}")).collect();
        f.write_str(if known.is_empty() { "for nobody in particular" } else { "" })?;
        f.write_str(&known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_jwt_is_read() {
        let encode = |claims: Value| BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        let claims = json!({"aud": "https://a.test\r\n", "tid": 5, "unique_name": "ann@example.test", "scp": "A B"});
        let read = |text: String| Claims::read(&Token::parse(&text).unwrap());
        let found = read(format!("e30.{}.c2ln", encode(claims.clone()))).unwrap();
        assert_eq!(found.to_string(), "for https://a.test, for ann@example.test");
        assert_eq!(found.rights().collect::<Vec<_>>(), ["A", "B"]);
        for none in ["ya29.opaque".to_owned(), "a.b.c".into(), format!("a.{}.c.d", encode(claims)), "a.W10.c".into()] {
            assert!(read(none.clone()).is_none(), "{none}");
        }
    }
}
