//! The bodies that token endpoints really send: RFC 6749 section 5, and what servers make of it.

use std::time::Duration;

use oauth2::basic::BasicTokenType;
use oauth2::{AccessToken, ErrorResponse, RefreshToken, Scope, TokenResponse};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::errors::{Meaning, Said, meaning};
use super::{Failure, Trouble};
use crate::clock::Moment;
use crate::secret::Token;
use crate::token::{Life, TokenSet};
use crate::wire::{printable, quote};

/// The life of a token whose server does not tell: an hour is what nearly all of them give.
const USUAL_LIFE: u64 = 3600;

/// A year: longer lives are cut to it, so that no arithmetic on moments can go wrong.
const LONGEST_LIFE: u64 = 366 * 24 * 3600;

/// A successful answer.
#[derive(Deserialize)]
pub struct TokenBody {
    access_token: AccessToken,
    #[serde(default)]
    token_type: Option<BasicTokenType>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<RefreshToken>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    id_token: Option<String>,
}

impl TokenBody {
    /// Who has signed in, where the server tells.
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_deref()
    }

    /// The token set that the server has just issued. Where it brings no refresh token, `before` stays good.
    pub fn into_token_set(self, now: Moment, before: Option<Token>) -> Result<TokenSet, Failure> {
        let token = |text: &str| {
            Token::parse(text).ok_or_else(|| {
                Failure::Temporary(Trouble::Lost, "the authorization server sent an unusable token".into())
            })
        };
        let refresh = match &self.refresh_token {
            Some(refresh) => Some(token(refresh.secret())?),
            None => before,
        };
        let life = self.expires_in.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
        Ok(TokenSet {
            access: token(self.access_token.secret())?,
            refresh,
            life: Life { issued: now, expires: now.after(life) },
            scope: printable(self.scope.as_deref().unwrap_or_default()),
        })
    }
}

/// `expires_in` is a number; Microsoft's older endpoints send it as a string.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(f64),
        Text(String),
        Nothing(()),
    }
    match Seconds::deserialize(deserializer)? {
        Seconds::Number(number) if number >= 0.0 => Ok(Some(number as u64)),
        Seconds::Number(_) => Err(D::Error::custom("expires_in is negative")),
        Seconds::Text(text) => text.trim().parse().map(Some).map_err(D::Error::custom),
        Seconds::Nothing(()) => Ok(None),
    }
}

impl TokenResponse for TokenBody {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        self.token_type.as_ref().unwrap_or(&BasicTokenType::Bearer)
    }

    fn expires_in(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

/// The trait asks for it; tokens are not for showing.
impl std::fmt::Debug for TokenBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenBody")
    }
}

/// The trait asks for it; tokens are not for writing down.
impl Serialize for TokenBody {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("a token response is never serialized"))
    }
}

/// A refusal (RFC 6749 section 5.2), with what Microsoft and Google add.
#[derive(Debug, Deserialize, Serialize)]
pub struct ErrorBody {
    /// The error code.
    pub error: String,
    #[serde(default)]
    error_description: Option<String>,
    /// Microsoft's.
    #[serde(default)]
    suberror: Option<String>,
    /// The same from Google.
    #[serde(default)]
    error_subtype: Option<String>,
    /// Not only what we take for numbers: an answer is not to be lost over what it says besides.
    #[serde(default)]
    error_codes: serde_json::Value,
    /// What Microsoft's support asks for.
    #[serde(default)]
    correlation_id: Option<String>,
}

impl ErrorBody {
    /// Who has to act, and a sentence for them.
    pub fn meaning(&self) -> Meaning {
        let numbers = self.error_codes.as_array().into_iter().flatten();
        let numbers: Vec<u32> = numbers.filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect();
        let (subtype, description) =
            (self.subtype().unwrap_or_default(), self.error_description.as_deref().unwrap_or_default());
        meaning(&Said { code: &self.error, numbers: &numbers, subtype, description })
    }

    fn subtype(&self) -> Option<&str> {
        self.suberror.as_deref().or(self.error_subtype.as_deref())
    }

    /// Code, description and sub-error on one printable line. Only the first line of the description: the rest is trace ids.
    pub fn words(&self) -> String {
        let description = self.error_description.as_deref().and_then(|text| text.lines().next());
        let parts = [description, self.subtype()].into_iter().flatten();
        let parts: Vec<&str> =
            parts.map(|part| part.trim().trim_end_matches('.')).filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => quote(&self.error),
            parts => quote(&format!("{} ({})", self.error, parts.join(", "))),
        }
    }

    /// By which the provider's support finds what happened.
    pub fn correlation_id(&self) -> String {
        self.correlation_id.as_deref().map(printable).unwrap_or_default()
    }
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words())
    }
}

impl ErrorResponse for ErrorBody {}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(body: &str) -> Option<u64> {
        let body: TokenBody = serde_json::from_str(body).ok()?;
        let set = body.into_token_set(Moment(0), Token::parse("before")).ok()?;
        Some(set.life.expires.0)
    }

    #[test]
    fn the_life_of_a_token_is_read_in_every_dialect() {
        assert_eq!(life(r#"{"access_token":"a","expires_in":1799}"#), Some(1799));
        assert_eq!(life(r#"{"access_token":"a","token_type":"bearer","expires_in":"3599"}"#), Some(3599));
        assert_eq!(life(r#"{"access_token":"a","expires_in":60.5}"#), Some(60));
        assert_eq!(life(r#"{"access_token":"a"}"#), Some(3600));
        assert_eq!(life(r#"{"access_token":"a","expires_in":null}"#), Some(3600));
        assert_eq!(life(r#"{"access_token":"a","expires_in":1e300}"#), Some(LONGEST_LIFE));
        assert_eq!(life(r#"{"access_token":"a","expires_in":-1}"#), None);
        assert_eq!(life(r#"{"access_token":"a","expires_in":"soon"}"#), None);
        assert_eq!(life(r#"{"access_token":"a\u0001b"}"#), None);
        assert_eq!(life(r#"{"expires_in":1}"#), None);
    }

    #[test]
    fn a_refresh_token_stays_good_where_no_new_one_comes() {
        let refresh = |body: &str| {
            let body: TokenBody = serde_json::from_str(body).unwrap();
            body.into_token_set(Moment(0), Token::parse("before")).unwrap().refresh.unwrap().expose().to_owned()
        };
        assert_eq!(refresh(r#"{"access_token":"a"}"#), "before");
        assert_eq!(refresh(r#"{"access_token":"a","refresh_token":"after"}"#), "after");
    }

    #[test]
    fn an_error_is_told_on_one_line() {
        let words = |body: &str| serde_json::from_str::<ErrorBody>(body).unwrap().words();
        let long = r#"{"error":"invalid_grant","error_description":"AADSTS70008: expired.\r\nTrace ID: 1","suberror":"bad_token"}"#;
        assert_eq!(words(long), "invalid_grant (AADSTS70008: expired, bad_token)");
        assert_eq!(
            words(r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#),
            "invalid_grant (invalid_rapt)"
        );
        assert_eq!(words(r#"{"error":"invalid_grant"}"#), "invalid_grant");
    }

    #[test]
    fn an_error_is_understood_in_every_dialect() {
        let sentence = |body: &str| serde_json::from_str::<ErrorBody>(body).unwrap().meaning().sentence;
        let expired = sentence(r#"{"error":"invalid_grant","error_codes":[700082]}"#);
        assert!(expired.contains("not used for too long"));
        for body in [
            r#"{"error":"invalid_grant","error_description":"AADSTS700082: x","error_codes":"odd","suberror":null}"#,
            r#"{"error":"invalid_grant","error_codes":[1,700082,-1,"2",null]}"#,
        ] {
            assert_eq!(sentence(body), expired, "{body}");
        }
        let rapt =
            sentence(r#"{"error":"invalid_grant","error_subtype":"invalid_rapt","error_description":"Bad Request"}"#);
        assert!(rapt.contains("session control"));
    }
}
