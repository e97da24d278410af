//! What an access token says of itself, where it is a JWT (RFC 9068, and Microsoft's own kind).
//!
//! It is for the mail servers to read, and nothing is decided by it here: it tells a person why they do not take it.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::secret::Token;
use crate::wire::printable;

/// The claims of an access token, each printable; empty where it does not have them.
pub struct Claims {
    /// `aud`: for whom it is.
    pub audience: String,
    /// `tid`: Microsoft's tenant.
    pub tenant: String,
    /// Who has signed in: the first of `upn`, `unique_name`, `preferred_username` and `email` that is there.
    pub person: String,
    /// `scp` or `scope`, and `roles`: what it is good for, each a word.
    rights: Vec<String>,
}

impl Claims {
    /// Reads a token. None if it is no JWT, as most are not.
    pub fn read(token: &Token) -> Option<Self> {
        let mut parts = token.expose().split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&claims).ok().filter(Value::is_object).as_ref().map(Self::of)
    }

    /// These claims.
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

    /// What it is good for.
    pub fn rights(&self) -> impl Iterator<Item = &str> {
        self.rights.iter().map(String::as_str)
    }
}

/// "for ..., of tenant ..., for ann@example.com", as far as it tells.
impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("for", &self.audience), ("of tenant", &self.tenant), ("for", &self.person)];
        let told: Vec<String> =
            parts.iter().filter(|(_, text)| !text.is_empty()).map(|(word, text)| format!("{word} {text}")).collect();
        f.write_str(if told.is_empty() { "for nobody in particular" } else { "" })?;
        f.write_str(&told.join(", "))
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
