//! Refreshing an access token (RFC 6749 section 6).

use oauth2::{RefreshToken, Scope};

use super::errors::RequestKind;
use super::extension::granted;
use super::members::Members;
use super::{Failure, Granted, Http, Registration};
use crate::clock::Clock;
use crate::pasted::bare;
use crate::secret::Token;
use crate::token::TokenSet;

/// Exchanges a refresh token for a new token set, with one request: whether a second one is worth its risk is for the
/// caller to decide. With it comes whose it is, if the server tells. What `before` has stays good where the server gives
/// nothing new.
///
/// Without a scope the new token is good for what was granted (section 6). A server may well have granted less than was
/// asked for, and then refuses a refresh that asks for all of it again.
pub async fn refresh(
    http: &Http,
    registration: &Registration,
    scope: &[String],
    token: &Token,
    before: Option<&TokenSet>,
    clock: &Clock,
) -> Result<Granted, Failure> {
    let requests = registration.requests()?;
    let refresh_token = RefreshToken::new(token.expose().to_owned());
    let mut request = requests.exchange_refresh_token(&refresh_token).add_scopes(scope.iter().cloned().map(Scope::new));
    for (name, value) in registration.assertion(clock.now())? {
        request = request.add_extra_param(name, value);
    }
    let heard = request.request_async(http).await;
    let mut granted = granted(heard, clock.now(), before)
        .map_err(|denied| denied.failure(&registration.context(RequestKind::Refresh)))?;
    granted.tokens.refresh.get_or_insert_with(|| token.clone());
    Ok(granted)
}

/// Whether this is the beginning of a token answer, which ends in a later line.
pub fn is_begun(pasted: &str) -> bool {
    let text = bare(pasted);
    text.starts_with('{') && Members::read(text.as_bytes()).is_none_or(|answer| !answer.is_whole())
}

/// Reads what a person has brought: a refresh token, or the token answer that holds it, also a part of one.
///
/// # Errors
///
/// What it is instead.
pub fn pasted(text: &str) -> Result<Token, String> {
    let text = bare(text);
    let answer = match text {
        _ if text.starts_with('{') => Some(text.to_owned()),
        _ if text.contains("refresh_token\"") => Some(format!("{{\"{text}\"}}")),
        _ => None,
    };
    let Some(answer) = answer else {
        let why = || "this is no refresh token: a token has neither blanks nor other letters than ASCII's";
        return Token::parse(text).ok_or_else(|| why().to_owned());
    };
    let members = Members::read(answer.as_bytes());
    let token = members.and_then(|members| Token::parse(&members.text("refresh_token")?));
    token.ok_or_else(|| "this is no refresh token: it is JSON that holds none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_taken_in_every_dress() {
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
            assert!(pasted(text).err().unwrap().starts_with("this is no refresh token: "), "{text}");
        }
    }

    #[test]
    fn an_answer_in_several_lines_has_begun_until_it_ends() {
        assert!(["{", "{\"access_token\": \"a\",", "'{\n\"a\":1"].iter().all(|text| is_begun(text)));
        assert!(["{}", "{\"a\": 1}", "'{\n\"a\":1\n}'", "token", ""].iter().all(|text| !is_begun(text)));
    }
}
