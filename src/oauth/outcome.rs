//! What an authorization server's answer means. Everything that such a server says is read here, whatever was asked.
//!
//! The content decides, and neither the status nor the label: an object with an access token is tokens, an object with an
//! `error` is a refusal (RFC 6749 section 5.2), and what is neither comes from something else that stands in the server's place.

use std::time::Duration;

use tracing::debug;

use super::errors::{ErrorClass, ErrorContext, Meaning, Said, is_known, meaning};
use super::http::{BodyEnd, HttpError, MOST, ServerResponse};
use super::members::Members;
use crate::clock::Moment;
use crate::exit::Exit;
use crate::secret::Token;
use crate::token::{Life, TokenSet};
use crate::wire::{Redactor, printable, quote};

/// The life of a token whose server does not tell, in seconds: an hour is what nearly all of them give.
const USUAL_LIFE: u64 = 3600;

/// A year: longer lives are cut to it, so that no arithmetic on moments can go wrong.
const LONGEST_LIFE: u64 = 366 * 24 * 3600;

/// Members whose values are never shown, whatever an answer is.
const NEVER_SHOWN: [&str; 6] =
    ["access_token", "refresh_token", "id_token", "client_secret", "device_code", "registration_access_token"];

/// Parts of the names of members that hold words for people, in an answer that may also hold tokens under any name.
const COMPLAINTS: [&str; 8] = ["error", "message", "msg", "detail", "reason", "status", "title", "description"];

/// What an authorization has brought.
pub struct Granted {
    /// The token set.
    pub tokens: TokenSet,
    /// Who has signed in (OpenID Connect Core 1.0 section 2), not checked yet.
    pub id_token: Option<String>,
    /// What the id_token has to repeat.
    pub nonce: Option<String>,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something that passes by itself.
    Temporary(TemporaryCause, String),
    /// The authorization has ended: a person has to give it again.
    Ended(String),
    /// An administrator at the provider has to allow or correct something.
    Forbidden(String),
    /// The client registration or a setting is wrong: whoever set postkey up has to act.
    Misconfigured(String),
}

/// What passes by itself, by what can be done meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporaryCause {
    /// The server was not reached, so that asking again costs it nothing.
    Unreachable,
    /// The request was sent, and its answer did not come whole: nobody knows what the server has given.
    Lost,
    /// The server has a trouble of its own, which may be a short one.
    Faulty,
    /// Asking again soon is useless: somebody else answers, or the server wants to be left alone, for so long if it said.
    Lasting(Option<Duration>),
    /// The server refuses with 400 or 401 and gives no reason that OAuth knows. It may pass. But some servers answer a dead
    /// refresh token so, and then it never does: see `UNEXPLAINED` in `broker/state.rs`.
    Unexplained,
}

impl Failure {
    /// Its kind, in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Temporary(..) => "temporary",
            Self::Ended(_) => "ended",
            Self::Forbidden(_) => "forbidden",
            Self::Misconfigured(_) => "misconfigured",
        }
    }

    /// The exit code of a command that fails for it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Temporary(..) => Exit::Temporary,
            Self::Ended(_) | Self::Forbidden(_) => Exit::NoPermission,
            Self::Misconfigured(_) => Exit::Config,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Temporary(_, text) | Self::Ended(text) | Self::Forbidden(text) | Self::Misconfigured(text)) = self;
        f.write_str(text)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let trouble = match error {
            HttpError::Network(_) => TemporaryCause::Unreachable,
            HttpError::Lost(_) => TemporaryCause::Lost,
        };
        Self::Temporary(trouble, error.to_string())
    }
}

/// Why an endpoint has not given what was asked for.
pub enum Denied {
    /// It says so (RFC 6749 section 5.2).
    Said(Box<ErrorResponse>),
    /// It was not asked, or nothing was heard of it that OAuth knows.
    Unsaid(Failure),
}

impl Denied {
    /// What it means as the answer to this request.
    pub fn failure(self, context: &ErrorContext) -> Failure {
        match self {
            Self::Said(refusal) => refusal.failure(context),
            Self::Unsaid(failure) => failure,
        }
    }
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        Self::Unsaid(failure)
    }
}

/// The members of an answer that gives what was asked for.
pub fn given(answer: ServerResponse) -> Result<Members, Denied> {
    let form = || Members::read_form(&answer.body, &["access_token", "error"]).filter(|_| answer.end == BodyEnd::Whole);
    let members = Members::read(&answer.body).or_else(form);
    let is_success = (200..300).contains(&answer.status);
    let code = members.as_ref().and_then(code).filter(|code| is_said_by_oauth(answer.status, code));
    match (members, code) {
        (Some(members), None) if is_success => Ok(members),
        (Some(members), Some(_)) if is_success && members.text("access_token").is_some() => Ok(members),
        (Some(members), Some(code)) => Err(Denied::Said(Box::new(ErrorResponse::read(&members, code, answer.sent)))),
        (members, None) | (members @ None, _) => Err(Denied::Unsaid(foreign(&answer, members.as_ref()))),
    }
}

/// The error code, which is a text and not empty.
fn code(members: &Members) -> Option<String> {
    members.get("error")?.as_str().map(|code| code.trim().to_owned())
}

/// Whether an `error` beside this status is one of OAuth's: frameworks write the status there in words ("Bad Request",
/// "Internal Server Error"). A code that is known is one with every status.
fn is_said_by_oauth(status: u16, code: &str) -> bool {
    let is_success = (200..300).contains(&status);
    let has_form =
        code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b':' | b'/'));
    is_known(code) || is_success || has_form && !is_busy(status)
}

/// Whether the status alone says that it passes (RFC 9110 section 15, RFC 6585).
fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

/// What an answer means that OAuth does not know.
fn foreign(answer: &ServerResponse, members: Option<&Members>) -> Failure {
    let &ServerResponse { status, end, retry_after, .. } = answer;
    let text = String::from_utf8_lossy(&answer.body);
    let is_page = members.is_none() && text.contains('<');
    let trouble = match status {
        _ if end == BodyEnd::Cut && !is_page => TemporaryCause::Lost,
        408 | 425 | 500.. if retry_after.is_none() => TemporaryCause::Faulty,
        400 | 401 if !is_page => TemporaryCause::Unexplained,
        _ => TemporaryCause::Lasting(retry_after),
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
    let text = match trouble {
        TemporaryCause::Lost => "the authorization server's answer was lost: it was cut off".to_owned(),
        _ if end == BodyEnd::TooLong => format!("the authorization server's answer is larger than {MOST} bytes"),
        TemporaryCause::Unexplained => {
            format!("the authorization server refuses with HTTP status {status}{words}, without an OAuth error")
        }
        _ if is_page && !is_busy(status) => {
            format!("the authorization server's answer is no OAuth answer (HTTP status {status})")
        }
        _ => format!("the authorization server answers with HTTP status {status}{words}"),
    };
    Failure::Temporary(trouble, text)
}

/// The tokens of an answer. Where it brings no refresh token or scope, those of `before` stay good.
///
/// A refresh token is never lost: where the access token beside it cannot be used, it is kept with the access token before.
pub fn tokens(members: &Members, now: Moment, before: Option<&TokenSet>) -> Result<Granted, Failure> {
    let unusable = |trouble, why: &str| {
        Failure::Temporary(
            trouble,
            format!("the authorization server has sent {why} in an answer that should have tokens"),
        )
    };
    let token = |name| members.text(name).as_deref().and_then(Token::parse);
    let (access, refresh) = (token("access_token"), token("refresh_token"));
    let seconds = members.seconds("expires_in").unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
    let life = Life { issued: now, expires: now.after(seconds) };
    let (access, life) = match (access, &refresh, before) {
        // What was cut off behind the access token may be the next refresh token.
        (Some(access), Some(_), _) => (access, life),
        (Some(access), None, _) if members.is_whole() => (access, life),
        (None, Some(_), Some(before)) => (before.access.clone(), before.life),
        _ if !members.is_whole() => return Err(unusable(TemporaryCause::Lost, "less than all")),
        (None, ..) if members.get("access_token").is_none() => {
            let words = members.leaves(|name| COMPLAINTS.iter().any(|part| name.contains(part))).join(", ");
            let what =
                if words.is_empty() { "nothing".to_owned() } else { format!("only the words \"{}\"", quote(&words)) };
            return Err(unusable(TemporaryCause::Lasting(None), &what));
        }
        _ => return Err(unusable(TemporaryCause::Lasting(None), "an unusable token")),
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

/// One word of a scope, printable and whole.
fn clean(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A refusal (RFC 6749 section 5.2), with what Microsoft and Google add.
pub struct ErrorResponse {
    /// The error code.
    pub code: String,
    description: String,
    /// Microsoft's `suberror`, Google's `error_subtype`.
    subtype: String,
    /// Microsoft's `error_codes`.
    numbers: Vec<u32>,
    /// What Microsoft's support asks for.
    correlation_id: String,
    /// What must not be shown of it.
    sent: Redactor,
}

impl ErrorResponse {
    fn read(members: &Members, code: String, sent: Redactor) -> Self {
        let numbers = members.get("error_codes").and_then(|numbers| numbers.as_array()).into_iter().flatten();
        let text = |name| members.text(name);
        Self {
            description: ["error_description", "message", "msg", "detail"]
                .into_iter()
                .find_map(text)
                .unwrap_or_default(),
            subtype: ["suberror", "error_subtype"].into_iter().find_map(text).unwrap_or_default(),
            numbers: numbers.filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect(),
            correlation_id: text("correlation_id").unwrap_or_default(),
            code,
            sent,
        }
    }

    /// A refusal that a browser has brought (RFC 6749 section 4.1.2.1).
    pub fn redirected(code: String, description: String) -> Self {
        let (subtype, numbers, correlation_id) = Default::default();
        Self { code, description, subtype, numbers, correlation_id, sent: Redactor::default() }
    }

    /// By who has to act: a sentence for them, and then the server's own words.
    pub fn failure(&self, context: &ErrorContext) -> Failure {
        let Self { code, numbers, subtype, description, .. } = self;
        let Meaning { class, sentence } = meaning(&Said { code, numbers, subtype, description }, context);
        debug!(correlation_id = printable(&self.correlation_id), "the authorization server refuses");
        let text = format!("{sentence}; the authorization server says {}", self.words());
        match class {
            ErrorClass::Passes => Failure::Temporary(TemporaryCause::Faulty, text),
            ErrorClass::BackOff(time) => Failure::Temporary(TemporaryCause::Lasting(time), text),
            ErrorClass::Person | ErrorClass::Flow => Failure::Ended(text),
            ErrorClass::Administrator => Failure::Forbidden(text),
            ErrorClass::Configuration => Failure::Misconfigured(text),
        }
    }

    /// Code, description and sub-error on one printable line. Only the first line of the description: the rest is trace ids.
    pub fn words(&self) -> String {
        let parts = [self.description.lines().next().unwrap_or_default(), &self.subtype];
        let parts: Vec<&str> =
            parts.iter().map(|part| part.trim().trim_end_matches('.')).filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => self.sent.quote(&self.code),
            parts => self.sent.quote(&format!("{} ({})", self.code, parts.join(", "))),
        }
    }
}

/// An answer to a request that has no tokens to lose, such as for a document: its members, or its status and words.
pub fn document(answer: ServerResponse) -> Result<Members, Failure> {
    let status = answer.status;
    given(answer).map_err(|denied| match denied {
        Denied::Unsaid(failure) => failure,
        Denied::Said(refusal) => {
            let text =
                format!("the authorization server answers with HTTP status {status} and says {}", refusal.words());
            Failure::Temporary(TemporaryCause::Lasting(None), text)
        }
    })
}

/// What a body means as the answer to a refresh: new tokens, or why there are none.
#[cfg(fuzzing)]
pub fn of_refresh(status: u16, body: &[u8], before: &TokenSet, now: Moment) -> Result<TokenSet, Failure> {
    let sent = Redactor::default();
    let answer = ServerResponse { status, body: body.to_vec(), end: BodyEnd::Whole, retry_after: None, sent };
    let members = given(answer).map_err(|denied| denied.failure(&super::errors::RequestKind::Refresh.into()))?;
    tokens(&members, now, Some(before)).map(|granted| granted.tokens)
}

#[cfg(test)]
mod tests {
    use super::super::errors::RequestKind;
    use super::*;

    const NOW: Moment = Moment(1000);

    fn answer(status: u16, body: &str) -> ServerResponse {
        let mut sent = Redactor::default();
        sent.know("the-refresh-token-1");
        ServerResponse { status, body: body.as_bytes().to_vec(), end: BodyEnd::Whole, retry_after: None, sent }
    }

    fn before() -> TokenSet {
        let token = |text| Token::parse(text).unwrap();
        TokenSet {
            access: token("old"),
            refresh: Some(token("before")),
            life: Life { issued: Moment(1), expires: Moment(2) },
            scope: "mail".to_owned(),
        }
    }

    fn read(answer: ServerResponse) -> Result<TokenSet, Failure> {
        let members = given(answer).map_err(|denied| denied.failure(&RequestKind::Refresh.into()))?;
        tokens(&members, NOW, Some(&before())).map(|granted| granted.tokens)
    }

    /// Access token, refresh token, life and scope of an answer.
    fn got(status: u16, body: &str) -> (String, String, u64, String) {
        let set = read(answer(status, body)).unwrap_or_else(|failure| panic!("{body}: {failure}"));
        let refresh = set.refresh.unwrap().expose().to_owned();
        (set.access.expose().to_owned(), refresh, set.life.expires.since(set.life.issued), set.scope)
    }

    fn refused(status: u16, body: &str) -> Failure {
        read(answer(status, body)).map(|_| ()).expect_err(body)
    }

    #[test]
    fn whatever_holds_an_access_token_is_the_answer() {
        for (odd, refresh, life, scope) in [
            ("", "before", 3600, "mail"),
            (r#","refresh_token":"next""#, "next", 3600, "mail"),
            (r#","refresh_token":"""#, "before", 3600, "mail"),
            (r#","refresh_token":null"#, "before", 3600, "mail"),
            (r#","refresh_token":[]"#, "before", 3600, "mail"),
            (r#","refresh_token":12345"#, "12345", 3600, "mail"),
            (r#","refresh_token":" next\n""#, "next", 3600, "mail"),
            (r#","refresh_token":"next","refresh_token":null"#, "next", 3600, "mail"),
            (r#","refresh_token":"first","refresh_token":"next""#, "next", 3600, "mail"),
            (r#","expires_in":1799"#, "before", 1799, "mail"),
            (r#","expires_in":"1799""#, "before", 1799, "mail"),
            (r#","expires_in":"1799.9""#, "before", 1799, "mail"),
            (r#","expires_in":-1"#, "before", 3600, "mail"),
            (r#","expires_in":0"#, "before", 3600, "mail"),
            (r#","expires_in":"soon""#, "before", 3600, "mail"),
            (r#","expires_in":{}"#, "before", 3600, "mail"),
            (r#","expires_in":NaN,"scope":"imap""#, "before", 3600, "imap"),
            (r#","expires_in":1e300"#, "before", 31_622_400, "mail"),
            (r#","scope":["openid","mail"]"#, "before", 3600, "openid mail"),
            (r#","scope":"openid  mail\n""#, "before", 3600, "openid mail"),
            (r#","scope":"""#, "before", 3600, "mail"),
            (r#","scope":7"#, "before", 3600, "mail"),
            (r#","scope":"e\u0301 mail""#, "before", 3600, "e? mail"),
            (r#","token_type":"mac""#, "before", 3600, "mail"),
            (r#","token_type":["Bearer"],"id_token":{},"x":[{}]"#, "before", 3600, "mail"),
            (r#","error":"""#, "before", 3600, "mail"),
            (r#","error":"warning","error_description":"this is old""#, "before", 3600, "mail"),
        ] {
            let body = format!(r#"{{"access_token":"new"{odd}}}"#);
            let expected = ("new".to_owned(), refresh.to_owned(), life, scope.to_owned());
            assert_eq!(got(200, &body), expected, "{body}");
            assert_eq!(got(201, &format!("\u{feff}\r\n{body}\n")), expected, "{body}");
        }
    }

    #[test]
    fn a_form_is_an_answer_too() {
        let form = "access_token=new&token_type=bearer&expires_in=1799&refresh_token=n%2Fe%2Bxt&scope=openid+mail\n";
        assert_eq!(got(200, form), ("new".into(), "n/e+xt".into(), 1799, "openid mail".into()));
        let refusal = refused(400, "error=invalid_grant&error_description=The+token+is+revoked");
        assert!(matches!(&refusal, Failure::Ended(text) if text.ends_with("invalid_grant (The token is revoked)")));
        let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, form) }).map(|_| ());
        assert!(matches!(cut, Err(Failure::Temporary(TemporaryCause::Lost, _))));
    }

    #[test]
    fn a_scope_is_kept_whole() {
        let scope = vec!["https://scope.example.test/something"; 50].join(" ");
        assert_eq!(got(200, &format!(r#"{{"access_token":"new","scope":"{scope}"}}"#)).3, scope);
    }

    #[test]
    fn a_new_refresh_token_is_kept_whatever_is_beside_it() {
        for body in [
            r#"{"access_token":"a b","refresh_token":"next"}"#,
            r#"{"access_token":{},"refresh_token":"next"}"#,
            r#"{"refresh_token":"next"}"#,
            r#"{"refresh_token":"next","access_token":"cut of"#,
        ] {
            assert_eq!(got(200, body), ("old".into(), "next".into(), 1, "mail".into()), "{body}");
        }
        assert_eq!(got(200, r#"{"access_token":"new","refresh_token":"next","scope":"ma"#).1, "next");
    }

    #[test]
    fn what_was_cut_off_before_its_refresh_token_is_lost() {
        for body in [r#"{"access_token":"new","refresh_token":"ne"#, r#"{"access_tok"#, "{"] {
            assert!(matches!(refused(200, body), Failure::Temporary(TemporaryCause::Lost, _)), "{body}");
        }
        for body in ["", "{", "hello"] {
            let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, body) }).map(|_| ());
            assert!(matches!(cut, Err(Failure::Temporary(TemporaryCause::Lost, _))), "{body}");
        }
        let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, "hello") }).map(|_| ()).unwrap_err();
        assert!(cut.to_string().ends_with("was lost: it was cut off"), "{cut}");
    }

    /// Some servers end the connection without TLS's close_notify, and say no length before.
    #[test]
    fn an_answer_that_came_whole_counts_although_the_connection_broke() {
        for body in [r#"{"access_token":"new"}"#, r#"{"access_token":"new","refresh_token":"next"}"#] {
            let tokens = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, body) }).unwrap();
            assert_eq!(tokens.access.expose(), "new", "{body}");
        }
        let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, r#"{"access_token":"new""#) }).map(|_| ());
        assert!(matches!(cut, Err(Failure::Temporary(TemporaryCause::Lost, _))));
    }

    #[test]
    fn every_kind_of_failure_has_its_name_in_the_guide_to_monitoring() {
        let guide = include_str!("../../docs/guide/monitoring.md");
        let row = guide.lines().find(|line| line.contains("`postkey_refreshes_total`")).unwrap();
        for (kind, name) in [
            (Failure::Temporary(TemporaryCause::Lost, String::new()), "temporary"),
            (Failure::Ended(String::new()), "ended"),
            (Failure::Forbidden(String::new()), "forbidden"),
            (Failure::Misconfigured(String::new()), "misconfigured"),
        ] {
            assert_eq!(kind.name(), name);
            assert!(row.contains(&format!("`{name}`")), "{name}");
        }
    }

    /// That a document is not there ends no authorization, whatever the server calls it.
    #[test]
    fn a_document_is_its_members_and_its_absence_may_pass() {
        let members = document(answer(200, r#"{"issuer":"https://a.test"}"#)).unwrap_or_else(|it| panic!("{it}"));
        assert_eq!(members.text("issuer").as_deref(), Some("https://a.test"));
        for (body, words) in [
            (r#"{"error":"invalid_grant"}"#, "HTTP status 404 and says invalid_grant"),
            (r#"{"message":"not here"}"#, "HTTP status 404 and says not here"),
        ] {
            let failure = document(answer(404, body)).map(|_| ()).unwrap_err();
            let Failure::Temporary(TemporaryCause::Lasting(None), text) = &failure else { panic!("{failure:?}") };
            assert!(text.ends_with(words), "{text}");
        }
    }

    #[test]
    fn an_answer_without_end_is_named() {
        let failure = read(ServerResponse { end: BodyEnd::TooLong, ..answer(200, r#"["#) }).map(|_| ()).unwrap_err();
        let Failure::Temporary(TemporaryCause::Lasting(None), text) = &failure else { panic!("{failure:?}") };
        assert!(text.ends_with(&format!("larger than {MOST} bytes")), "{text}");
    }

    /// The spent token is not sent again at once.
    #[test]
    fn a_whole_answer_without_tokens_is_not_asked_for_again_soon() {
        for (body, words) in [
            ("{}", "sent nothing"),
            (r#"{"access_token":"a b"}"#, "an unusable token"),
            (r#"{"accessToken":"hush","message":"hello"}"#, "only the words \"hello\""),
            ("[]", "HTTP status 200"),
            ("", "HTTP status 200"),
            ("<html>Welcome to our hotel!", "no OAuth answer (HTTP status 200)"),
        ] {
            let failure = refused(200, body);
            assert!(matches!(failure, Failure::Temporary(TemporaryCause::Lasting(None), _)), "{body}: {failure:?}");
            assert!(failure.to_string().contains(words) && !failure.to_string().contains("hush"), "{failure}");
        }
    }

    #[test]
    fn an_error_is_a_refusal_whatever_the_status_says() {
        for status in [200, 201, 400, 401, 403, 404, 429, 500, 503] {
            let body = r#"{"error":"invalid_grant","error_description":"The token the-refresh-token-1 is revoked."}"#;
            let failure = refused(status, body);
            let Failure::Ended(text) = &failure else { panic!("{status}: {failure:?}") };
            assert!(text.ends_with("invalid_grant (The token ... is revoked)"), "{text}");
        }
        assert!(matches!(refused(200, r#"{"error":"Something went wrong"}"#), Failure::Misconfigured(_)));
        assert!(matches!(refused(400, r#"{"error":"its_own_code"}"#), Failure::Misconfigured(_)));
        assert!(matches!(refused(503, r#"{"error":"its_own_code"}"#), Failure::Temporary(TemporaryCause::Faulty, _)));
        assert!(matches!(
            refused(500, r#"{"error":"temporarily_unavailable"}"#),
            Failure::Temporary(TemporaryCause::Faulty, _)
        ));
        assert!(matches!(
            refused(400, r#"{"error":"slow_down"}"#),
            Failure::Temporary(TemporaryCause::Lasting(None), _)
        ));
        assert!(matches!(refused(401, r#"{"error":"invalid_client"}"#), Failure::Misconfigured(_)));
        assert!(matches!(refused(400, r#"{"error":"admin_policy_enforced"}"#), Failure::Forbidden(_)));
    }

    #[test]
    fn a_refusal_that_oauth_does_not_know_keeps_status_and_words() {
        for (status, body, trouble, words) in [
            (400, "", TemporaryCause::Unexplained, "HTTP status 400, without"),
            (401, "{}", TemporaryCause::Unexplained, "HTTP status 401, without"),
            (
                400,
                r#"{"code":400,"error_code":"refresh_token_not_found","msg":"Invalid Refresh Token"}"#,
                TemporaryCause::Unexplained,
                "HTTP status 400 and says 400, refresh_token_not_found, Invalid Refresh Token",
            ),
            (401, "no such token: the-refresh-token-1", TemporaryCause::Unexplained, "no such token: ..."),
            (400, r#"{"error":{"code":400,"message":"API key?"}}"#, TemporaryCause::Unexplained, "says 400, API key?"),
            (
                400,
                r#"{"error":"Bad Request","path":"/token"}"#,
                TemporaryCause::Unexplained,
                "says Bad Request, /token",
            ),
            (400, "<h1>Bad Request</h1>", TemporaryCause::Lasting(None), "no OAuth answer (HTTP status 400)"),
            (403, r#"{"message":"blocked"}"#, TemporaryCause::Lasting(None), "HTTP status 403 and says blocked"),
            (302, "", TemporaryCause::Lasting(None), "HTTP status 302"),
            (429, "slowly", TemporaryCause::Lasting(None), "HTTP status 429 and says slowly"),
            (
                500,
                r#"{"error":"Internal Server Error"}"#,
                TemporaryCause::Faulty,
                "HTTP status 500 and says Internal Server Error",
            ),
            (503, "<h1>busy</h1>", TemporaryCause::Faulty, "HTTP status 503"),
        ] {
            let failure = refused(status, body);
            let Failure::Temporary(is, text) = &failure else { panic!("{body}: {failure:?}") };
            assert_eq!(*is, trouble, "{status} {body}");
            assert!(text.contains(words) && !text.contains('<'), "{text}");
        }
        let after = Some(Duration::from_secs(120));
        let busy = read(ServerResponse { retry_after: after, ..answer(503, "") }).map(|_| ());
        assert!(matches!(busy, Err(Failure::Temporary(TemporaryCause::Lasting(asked), _)) if asked == after));
    }

    #[test]
    fn an_error_is_told_on_one_line() {
        let words = |body: &str| match given(answer(400, body)) {
            Err(Denied::Said(refusal)) => refusal.words(),
            _ => panic!("{body}"),
        };
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
        let expired = refused(400, r#"{"error":"invalid_grant","error_codes":[700082]}"#).to_string();
        assert!(expired.contains("not used for too long"));
        for body in [
            r#"{"error":"invalid_grant","error_description":"AADSTS700082: x","error_codes":"odd","suberror":null}"#,
            r#"{"error":"invalid_grant","error_codes":[1,700082,-1,"2",null]}"#,
        ] {
            assert!(refused(400, body).to_string().contains("not used for too long"), "{body}");
        }
        let rapt = r#"{"error":"invalid_grant","error_subtype":"invalid_rapt","error_description":"Bad Request"}"#;
        assert!(refused(400, rapt).to_string().contains("session control"));
        let looped = refused(400, r#"{"error":"invalid_grant","error_codes":[50196]}"#);
        assert!(matches!(looped, Failure::Temporary(TemporaryCause::Lasting(Some(time)), _) if time.as_secs() >= 300));
    }
}
