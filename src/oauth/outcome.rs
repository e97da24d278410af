//! The meaning of an authorization server's answer. Every answer is read here, whatever was requested.
//!
//! The content decides, not the status or the content type: an object with an access token is a token answer, an object with an
//! `error` is a refusal (RFC 6749 section 5.2), and anything else comes from something in the server's place.

use super::Failure;
use super::TemporaryCause::{Faulty, Lasting, Lost, Unexplained};
use super::error_codes::RequestKind;
use super::errors::{ErrorResponse, is_known};
use super::http::{BodyEnd, MOST, ServerResponse};
use super::members::Members;
use super::registration::Registration;
use crate::clock::Moment;
use crate::secret::Token;
use crate::token::{Life, TokenSet};
use crate::wire::quote;

/// The life of a token in seconds if the answer does not say it. Nearly all servers give an hour.
const USUAL_LIFE: u64 = 3600;

/// A year. Longer lives are cut to it, so that arithmetic on moments cannot overflow.
const LONGEST_LIFE: u64 = 366 * 24 * 3600;

/// Members whose values are never shown, whatever the answer is.
const NEVER_SHOWN: [&str; 6] =
    ["access_token", "refresh_token", "id_token", "client_secret", "device_code", "registration_access_token"];

/// Parts of the names of members with words for people, in an answer that may also have tokens under any name.
const COMPLAINTS: [&str; 8] = ["error", "message", "msg", "detail", "reason", "status", "title", "description"];

/// The contents of a token answer.
pub struct Granted {
    pub tokens: TokenSet,
    /// The identity of the person who has signed in (OpenID Connect Core 1.0 section 2), not checked yet.
    pub id_token: Option<String>,
    /// The nonce that the id_token has to repeat.
    pub nonce: Option<String>,
}

/// Why a request to an endpoint was not successful.
pub enum RequestError {
    /// With an OAuth error.
    Refused(Box<ErrorResponse>),
    /// Without one, or before the request was sent.
    Failed(Failure),
}

impl RequestError {
    /// Its meaning as the answer to a request of this client.
    pub fn failure(self, request: RequestKind, client: Option<&Registration>) -> Failure {
        match self {
            Self::Refused(error) => error.failure(request, client),
            Self::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The members of a successful answer.
pub fn members(answer: ServerResponse) -> Result<Members, RequestError> {
    let form = || Members::read_form(&answer.body, &["access_token", "error"]).filter(|_| answer.end == BodyEnd::Whole);
    let members = Members::read(&answer.body).or_else(form);
    let is_success = (200..300).contains(&answer.status);
    let code = members.as_ref().and_then(error_code).filter(|code| is_from_oauth(answer.status, code));
    match (members, code) {
        (Some(members), None) if is_success => Ok(members),
        (Some(members), Some(_)) if is_success && members.text("access_token").is_some() => Ok(members),
        (Some(members), Some(code)) => {
            Err(RequestError::Refused(Box::new(ErrorResponse::read(&members, code, answer.sent))))
        }
        (members, None) | (members @ None, _) => Err(RequestError::Failed(foreign(&answer, members.as_ref()))),
    }
}

/// An answer to a request that has no tokens to lose, such as for a document: its members, or its status and words.
pub fn document(answer: ServerResponse) -> Result<Members, Failure> {
    let status = answer.status;
    members(answer).map_err(|error| match error {
        RequestError::Failed(failure) => failure,
        RequestError::Refused(error) => {
            let text = format!("the authorization server answers with HTTP status {status} and says {}", error.words());
            Failure::Temporary(Lasting(None), text)
        }
    })
}

fn error_code(members: &Members) -> Option<String> {
    members.get("error")?.as_str().map(|code| code.trim().to_owned())
}

/// Whether an `error` with this status is an OAuth error: frameworks write the status there in words ("Bad Request",
/// "Internal Server Error"). A known code is one with every status.
fn is_from_oauth(status: u16, code: &str) -> bool {
    let is_success = (200..300).contains(&status);
    let has_form =
        code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b':' | b'/'));
    is_known(code) || is_success || has_form && !is_busy(status)
}

/// Whether the status alone means a temporary problem (RFC 9110 section 15, RFC 6585).
fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

/// The meaning of an answer that is not an OAuth answer.
fn foreign(answer: &ServerResponse, members: Option<&Members>) -> Failure {
    let &ServerResponse { status, end, retry_after, .. } = answer;
    let text = String::from_utf8_lossy(&answer.body);
    let is_page = members.is_none() && text.contains('<');
    let cause = match status {
        _ if end == BodyEnd::Cut && !is_page => Lost,
        408 | 425 | 500.. if retry_after.is_none() => Faulty,
        400 | 401 if !is_page => Unexplained,
        _ => Lasting(retry_after),
    };
    let words = match members {
        Some(members) => members.leaves(|name| !NEVER_SHOWN.contains(&name)).join(", "),
        None if is_page => String::new(),
        None => text.trim().lines().next().unwrap_or_default().to_owned(),
    };
    let words = match answer.sent.quote(&words) {
        words if words.is_empty() => words,
        words => format!(" and says {words}"),
    };
    let text = match cause {
        Lost => "'s answer was lost: it was cut off".to_owned(),
        _ if end == BodyEnd::TooLong => format!("'s answer is larger than {MOST} bytes"),
        Unexplained => format!(" refuses with HTTP status {status}{words}, without an OAuth error"),
        _ if is_page && !is_busy(status) => format!("'s answer is not an OAuth answer (HTTP status {status})"),
        _ => format!(" answers with HTTP status {status}{words}"),
    };
    Failure::Temporary(cause, format!("the authorization server{text}"))
}

/// The tokens in an answer. If it has no refresh token or scope, those of `before` remain valid.
///
/// Their life is counted from when they were requested, because an answer can arrive late: a machine that was suspended reads it
/// when the access token may have expired.
///
/// A refresh token is never lost: if the access token beside it is unusable, it is kept with the access token of `before`.
pub fn tokens(answer: ServerResponse, requested: Moment, before: Option<&TokenSet>) -> Result<Granted, RequestError> {
    let members = members(answer)?;
    let token = |name| members.text(name).as_deref().and_then(Token::parse);
    let (access, refresh) = (token("access_token"), token("refresh_token"));
    let seconds = members.seconds("expires_in").unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
    let life = Life { issued: requested, expires: requested.after(seconds) };
    let (access, life) = match (access, &refresh, before) {
        // What was cut off after the access token may be the next refresh token.
        (Some(access), Some(_), _) => (access, life),
        (Some(access), None, _) if members.is_whole() => (access, life),
        (None, Some(_), Some(before)) => (before.access.clone(), before.life),
        _ => return Err(without_tokens(&members).into()),
    };
    let scope = members.words("scope").map(|words| words.iter().map(|word| clean(word)).collect::<Vec<_>>().join(" "));
    let tokens = TokenSet {
        access,
        refresh: refresh.or_else(|| before?.refresh.clone()),
        life,
        scope: scope.filter(|scope| !scope.is_empty()).or_else(|| Some(before?.scope.clone())).unwrap_or_default(),
    };
    Ok(Granted { tokens, id_token: members.text("id_token"), nonce: None })
}

/// Describes a successful answer without usable tokens.
fn without_tokens(members: &Members) -> Failure {
    let (cause, what) = match members.get("access_token") {
        _ if !members.is_whole() => (Lost, "was cut off".to_owned()),
        Some(_) => (Lasting(None), "has an unusable token".to_owned()),
        None => {
            let words = members.leaves(|name| COMPLAINTS.iter().any(|part| name.contains(part))).join(", ");
            let what = if words.is_empty() { "no tokens" } else { &format!("only the words \"{}\"", quote(&words)) };
            (Lasting(None), format!("has {what}"))
        }
    };
    Failure::Temporary(cause, format!("the authorization server's answer {what}"))
}

/// One word of a scope, printable and whole.
fn clean(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Reads a body as the answer to a refresh: new tokens, or why there are none.
#[cfg(fuzzing)]
pub fn of_refresh(status: u16, body: &[u8], before: &TokenSet, now: Moment) -> Result<TokenSet, Failure> {
    let sent = crate::wire::Redactor::default();
    let answer = ServerResponse { status, body: body.to_vec(), end: BodyEnd::Whole, retry_after: None, sent };
    let granted = tokens(answer, now, Some(before)).map_err(|error| error.failure(RequestKind::Refresh, None))?;
    Ok(granted.tokens)
}

#[cfg(test)]
mod tests;
