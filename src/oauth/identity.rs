//! The person who has signed in, as far as the authorization server says it.

use serde_json::Value;

use super::Http;
use super::id_token::{self, CheckedIdToken, Expected};
use super::keys::Keys;
use super::members::Members;
use crate::config::provider::Endpoints;
use crate::name::Name;
use crate::secret::Token;

/// The names of the person who has signed in; empty if the server does not say them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity {
    names: Vec<Name>,
    /// The names that the server vouches for.
    vouched: Vec<Name>,
}

impl Identity {
    /// Reads claims (OpenID Connect Core 1.0 section 5.1). `email` and `preferred_username` are standard, `upn` is Microsoft's.
    ///
    /// `is_one_tenant`: one organization decides with which names people sign in. If many do, as at Microsoft, each of them can
    /// write any address into `email`, so only a name that the server itself has verified counts.
    fn from_claims(claims: &Value, is_one_tenant: bool) -> Self {
        let address = |claim| {
            let name = claims.get(claim)?.as_str().filter(|name| name.contains('@'))?;
            Some(Name::claimed(name))
        };
        let names: Vec<Name> = ["email", "preferred_username", "upn"].into_iter().filter_map(address).collect();
        let email = address("email");
        let is_email = |name: &Name| email.as_ref().is_some_and(|email| email.same_as(name));
        let is_verified = is_verified(claims);
        let is_vouched = |name: &&Name| match is_verified {
            Some(is_verified) if is_email(name) => is_verified,
            _ => is_one_tenant,
        };
        let vouched = names.iter().filter(is_vouched).cloned().collect();
        Self { names, vouched }
    }

    /// Whether the server vouches that the person with this address has signed in.
    pub fn is(&self, address: &str) -> bool {
        let address = Name::typed(address);
        self.vouched.iter().any(|name| name.same_as(&address))
    }

    /// Whether the server does not say who has signed in.
    pub fn is_nobody(&self) -> bool {
        self.names.is_empty()
    }

    /// A name of the person if it is not `address`; None if it is, or if the server does not say.
    pub fn other_than(&self, address: &str) -> Option<&str> {
        let address = Name::typed(address);
        let is_one = self.names.iter().any(|name| name.same_as(&address));
        if is_one { None } else { self.names.first().map(Name::as_str) }
    }
}

/// Finds out who has signed in: from the id_token that came with the tokens, or from the userinfo endpoint, which is also asked
/// if the id_token's signature cannot be verified.
///
/// # Errors
///
/// An invalid answer, as a sentence. It is not an error if the server does not say who it is, nor if keys or userinfo are not
/// available: then TLS vouches for the id_token.
pub async fn identify(
    http: &Http,
    endpoints: &Endpoints,
    id_token: Option<&str>,
    access: &Token,
    expected: &Expected<'_>,
) -> Result<Identity, String> {
    let untrusted = |why: String| format!("the sign-in cannot be verified: {why}");
    let mut checked = CheckedIdToken { claims: Value::Null, is_verified: false };
    if let Some(id_token) = id_token {
        let keys = keys(http, endpoints).await;
        checked = id_token::check(id_token, keys.as_ref(), expected).map_err(untrusted)?;
    }
    let is_one_tenant = expected.is_of_one_tenant();
    let identity = Identity::from_claims(&checked.claims, is_one_tenant);
    if checked.is_verified && !identity.is_nobody() {
        return Ok(identity);
    }
    let claims = userinfo(http, endpoints, access, &checked.claims).await.map_err(untrusted)?;
    let asked = Identity::from_claims(&claims, is_one_tenant);
    Ok(if asked.is_nobody() { identity } else { asked })
}

async fn keys(http: &Http, endpoints: &Endpoints) -> Option<Keys> {
    let answer = http.get(endpoints.jwks.as_ref()?, None).await.ok()?;
    if answer.status == 200 { Keys::read(&answer.body) } else { None }
}

/// The claims of the userinfo endpoint (OpenID Connect Core 1.0 section 5.3). Their subject has to be the id_token's.
async fn userinfo(http: &Http, endpoints: &Endpoints, access: &Token, id_token: &Value) -> Result<Value, String> {
    let Some(endpoint) = &endpoints.userinfo else { return Ok(Value::Null) };
    let answer = http.get(endpoint, Some(access)).await.ok().filter(|answer| answer.status == 200);
    let claims = answer.and_then(|answer| Members::read(&answer.body)).map(Members::into_value);
    let claims = claims.unwrap_or_default();
    match id_token.get("sub").is_some_and(|subject| claims.get("sub") != Some(subject)) && claims.is_object() {
        true => Err("the userinfo endpoint and the id_token name different people".to_owned()),
        false => Ok(claims),
    }
}

/// Whether the server has verified `email`, if it says so. Some servers write a text or a number. `xms_edov` is Microsoft's: the
/// domain belongs to the tenant.
fn is_verified(claims: &Value) -> Option<bool> {
    let flags = ["email_verified", "xms_edov"].into_iter().filter_map(|claim| claims.get(claim));
    let is_yes = |value: &Value| *value == true || *value == 1 || *value == "true" || *value == "1";
    flags.map(is_yes).reduce(|one, other| one && other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_person_is_recognized() {
        let ben = Identity::from_claims(&json!({"email": "Ben@Example.test", "preferred_username": "ben"}), true);
        assert_eq!(ben.other_than("ann@example.test"), Some("ben@example.test"));
        assert_eq!(ben.other_than("ben@example.test"), None);
        let alias = Identity::from_claims(&json!({"email": "b@example.test", "upn": "ben@example.test"}), true);
        assert_eq!(alias.other_than("ben@example.test"), None);
    }

    #[test]
    fn one_mailbox_in_another_spelling_is_the_same_person() {
        for (claimed, address) in [
            ("annb@gmail.com", "ann.b@googlemail.com"),
            ("Ann.B@gmail.com", "annb+mail@gmail.com"),
            ("ann@xn--bcher-kva.example", "ann@bücher.example"),
            ("zoe\u{308}@example.test", "zoë@example.test"),
        ] {
            let identity = Identity::from_claims(&json!({"email": claimed}), true);
            assert!(identity.is(address) && identity.other_than(address).is_none(), "{claimed} is {address}");
            let unverified = Identity::from_claims(&json!({"email": claimed, "email_verified": false}), true);
            assert!(!unverified.is(address), "{claimed} is not verified");
        }
        for (claimed, address) in [
            ("annb@example.test", "ann.b@example.test"),
            ("zo?@example.test", "zoë@example.test"),
            ("Ann <ann@example.test>", "ann@example.test"),
            ("an\u{200b}n@example.test", "ann@example.test"),
            ("ann\u{1b}[2J@example.test", "ann@example.test"),
        ] {
            let identity = Identity::from_claims(&json!({"email": claimed}), true);
            assert!(!identity.is(address), "{claimed} is not {address}");
            assert!(!identity.other_than(address).unwrap().contains(char::is_control));
        }
    }

    #[test]
    fn an_unverified_address_does_not_count() {
        let is_ann = |claims| Identity::from_claims(&claims, true).is("ann@example.test");
        assert!(is_ann(json!({"email": "Ann@example.test"})));
        assert!(is_ann(json!({"email": "a@b.test", "upn": "ann@example.test", "email_verified": false})));
        assert!(is_ann(json!({"email": "ann@example.test", "email_verified": true})));
        assert!(is_ann(json!({"email": "ann@example.test", "email_verified": "true"})));
        assert!(!is_ann(json!({"email": "ann@example.test", "email_verified": false})));
        assert!(!is_ann(json!({"email": "ann@example.test", "email_verified": "no"})));
        assert!(!is_ann(json!({"email": "ben@example.test"})) && !is_ann(json!({})));
    }

    /// In Entra, `email` is free text of any tenant's administrator.
    #[test]
    fn with_many_tenants_only_a_verified_address_counts() {
        let is_ann = |claims| Identity::from_claims(&claims, false).is("ann@example.test");
        for verified in [json!(true), json!("true"), json!(1), json!("1")] {
            assert!(is_ann(json!({"email": "ann@example.test", "xms_edov": verified})), "{verified}");
            assert!(is_ann(json!({"email": "ann@example.test", "email_verified": verified})), "{verified}");
        }
        for claims in [
            json!({"email": "ann@example.test"}),
            json!({"email": "ann@example.test", "xms_edov": false}),
            json!({"email": "ann@example.test", "xms_edov": 0}),
            json!({"email": "ann@example.test", "xms_edov": null}),
            json!({"email": "ann@example.test", "xms_edov": true, "email_verified": false}),
            json!({"email": "mallory@evil.test", "xms_edov": true, "preferred_username": "ann@example.test"}),
            json!({"email": "mallory@evil.test", "xms_edov": true, "upn": "ann@example.test"}),
            json!({"preferred_username": "ann@example.test", "email_verified": true}),
        ] {
            assert!(!is_ann(claims.clone()), "{claims}");
        }
        let unverified = Identity::from_claims(&json!({"email": "ann@example.test"}), false);
        assert_eq!(unverified.other_than("ann@example.test"), None, "it is not another person either");
    }

    #[test]
    fn a_letter_that_looks_like_another_is_different() {
        for claimed in
            ["\u{212a}im@example.test", "kim@example.te\u{17f}t", "\u{ff4b}im@example.test", "kim@\u{ff45}xample.test"]
        {
            let identity = Identity::from_claims(&json!({"email": claimed}), true);
            assert!(!identity.is("kim@example.test") && identity.other_than("kim@example.test").is_some(), "{claimed}");
        }
        let long = format!("{}@{}.test", "a".repeat(64), "b".repeat(185));
        assert_eq!(long.len(), 255);
        assert!(!Identity::from_claims(&json!({"email": format!("{long}.evil.test")}), true).is(&long));
    }

    #[test]
    fn without_names_nobody_counts_as_another_person() {
        for unknown in [json!({}), json!({"email": 5}), Value::Null] {
            assert_eq!(Identity::from_claims(&unknown, true).other_than("ann@example.test"), None);
        }
    }
}
