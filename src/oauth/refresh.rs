//! Refreshes access tokens (RFC 6749 section 6).

use super::error_codes::RequestKind;
use super::members::Members;
use super::{Failure, Granted, Http, Registration, request};
use crate::clock::Clock;
use crate::pasted::bare;
use crate::secret::Token;
use crate::token::TokenSet;

/// Exchanges a refresh token for a new token set, with one request: the caller decides whether a second one is worth its risk.
/// `before` supplies what the answer leaves out.
///
/// Without a scope, the new token has the scope that was granted (section 6). A server may have granted less than was requested,
/// and may then refuse a refresh that requests all of it again.
pub async fn refresh(
    http: &Http,
    registration: &Registration,
    scope: &[String],
    token: &Token,
    before: Option<&TokenSet>,
    clock: &Clock,
) -> Result<Granted, Failure> {
    let scope = scope.join(" ");
    let form = [("grant_type", "refresh_token"), ("refresh_token", token.expose()), ("scope", &scope)];
    let granted = request::tokens(http, registration, &form, before, clock).await;
    let mut granted = granted.map_err(|error| error.failure(RequestKind::Refresh, Some(registration)))?;
    granted.tokens.refresh.get_or_insert_with(|| token.clone());
    Ok(granted)
}

/// Whether this is a token answer that continues in a later line.
pub fn is_incomplete(pasted: &str) -> bool {
    let text = bare(pasted);
    text.starts_with('{') && Members::read(text.as_bytes()).is_none_or(|answer| !answer.is_whole())
}

/// Reads the refresh token that a person has pasted, alone or in a token answer or a part of one.
///
/// # Errors
///
/// A sentence that says what it is instead.
pub fn pasted(text: &str) -> Result<Token, String> {
    let text = bare(text);
    let answer = match text {
        _ if text.starts_with('{') => Some(text.to_owned()),
        _ if text.contains("refresh_token\"") => Some(format!("{{\"{text}\"}}")),
        _ => None,
    };
    let Some(answer) = answer else {
        let why = || "this is not a refresh token: a token has only ASCII letters, digits and punctuation";
        return Token::parse(text).ok_or_else(|| why().to_owned());
    };
    let members = Members::read(answer.as_bytes());
    let token = members.and_then(|members| Token::parse(&members.text("refresh_token")?));
    token.ok_or_else(|| "this is not a refresh token: it is JSON without one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_accepted_in_every_form() {
        for text in [
            "1//0a-b_c",
            " \"1//0a-b_c\" ",
            "'1//0a-b_c'",
            "<1//0a-b_c>",
            r#"{"access_token":"ya29","expires_in":3599,"refresh_token":"1//0a-b_c","token_type":"Bearer"}"#,
            "{\n  \"refresh_token\": \"1//0a-b_c\"\n}\n",
            r#"'{"refresh_token":"1//0a-b_c"}'"#,
            r#""refresh_token": "1//0a-b_c","#,
            r#""refresh_token":"1//0a-b_c""#,
            r#""expires_in": 3599, "refresh_token": "1//0a-b_c", "scope": "mail""#,
        ] {
            assert_eq!(pasted(text).map(|token| token.expose().to_owned()), Ok("1//0a-b_c".to_owned()), "{text}");
        }
        for text in ["", "a token", "\"\"", r#"{"access_token":"ya29"}"#, r#"{"refresh_token":""}"#, "{", "ä"] {
            assert!(pasted(text).err().unwrap().starts_with("this is not a refresh token: "), "{text}");
        }
    }

    #[test]
    fn an_answer_in_several_lines_is_incomplete_until_it_ends() {
        assert!(["{", "{\"access_token\": \"a\",", "'{\n\"a\":1"].iter().all(|text| is_incomplete(text)));
        assert!(["{}", "{\"a\": 1}", "'{\n\"a\":1\n}'", "token", ""].iter().all(|text| !is_incomplete(text)));
    }
}
