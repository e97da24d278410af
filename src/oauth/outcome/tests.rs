use std::time::Duration;

use super::*;
use crate::wire::Redactor;

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
    let granted = tokens(answer, NOW, Some(&before())).map_err(|error| error.failure(RequestKind::Refresh, None))?;
    Ok(granted.tokens)
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
fn an_object_with_an_access_token_is_a_token_answer() {
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
    assert!(matches!(cut, Err(Failure::Temporary(Lost, _))));
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
        assert!(matches!(refused(200, body), Failure::Temporary(Lost, _)), "{body}");
    }
    for body in ["", "{", "hello"] {
        let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, body) }).map(|_| ());
        assert!(matches!(cut, Err(Failure::Temporary(Lost, _))), "{body}");
    }
    let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, "hello") }).map(|_| ()).unwrap_err();
    assert!(cut.to_string().ends_with("was lost: it was cut off"), "{cut}");
}

/// Some servers send no length, and end the connection without TLS's close_notify.
#[test]
fn an_answer_that_came_whole_counts_although_the_connection_broke() {
    for body in [r#"{"access_token":"new"}"#, r#"{"access_token":"new","refresh_token":"next"}"#] {
        let tokens = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, body) }).unwrap();
        assert_eq!(tokens.access.expose(), "new", "{body}");
    }
    let cut = read(ServerResponse { end: BodyEnd::Cut, ..answer(200, r#"{"access_token":"new""#) }).map(|_| ());
    assert!(matches!(cut, Err(Failure::Temporary(Lost, _))));
}

/// A missing document ends no authorization, whatever the server calls it.
#[test]
fn a_missing_document_is_a_temporary_failure() {
    let members = document(answer(200, r#"{"issuer":"https://a.test"}"#)).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(members.text("issuer").as_deref(), Some("https://a.test"));
    for (body, words) in [
        (r#"{"error":"invalid_grant"}"#, "HTTP status 404 and says invalid_grant"),
        (r#"{"message":"not here"}"#, "HTTP status 404 and says not here"),
    ] {
        let failure = document(answer(404, body)).map(|_| ()).unwrap_err();
        let Failure::Temporary(Lasting(None), text) = &failure else { panic!("{failure:?}") };
        assert!(text.ends_with(words), "{text}");
    }
}

#[test]
fn an_answer_that_is_too_long_says_so() {
    let failure = read(ServerResponse { end: BodyEnd::TooLong, ..answer(200, r#"["#) }).map(|_| ()).unwrap_err();
    let Failure::Temporary(Lasting(None), text) = &failure else { panic!("{failure:?}") };
    assert!(text.ends_with(&format!("larger than {MOST} bytes")), "{text}");
}

/// The spent token is not sent again at once.
#[test]
fn a_whole_answer_without_tokens_is_not_asked_for_again_soon() {
    for (body, words) in [
        ("{}", "has no tokens"),
        (r#"{"access_token":"a b"}"#, "an unusable token"),
        (r#"{"accessToken":"hush","message":"hello"}"#, "only the words \"hello\""),
        ("[]", "HTTP status 200"),
        ("", "HTTP status 200"),
        ("<html>Welcome to our hotel!", "not an OAuth answer (HTTP status 200)"),
    ] {
        let failure = refused(200, body);
        assert!(matches!(failure, Failure::Temporary(Lasting(None), _)), "{body}: {failure:?}");
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
    assert!(matches!(refused(503, r#"{"error":"its_own_code"}"#), Failure::Temporary(Faulty, _)));
    assert!(matches!(refused(500, r#"{"error":"temporarily_unavailable"}"#), Failure::Temporary(Faulty, _)));
    assert!(matches!(refused(400, r#"{"error":"slow_down"}"#), Failure::Temporary(Lasting(None), _)));
    assert!(matches!(refused(401, r#"{"error":"invalid_client"}"#), Failure::Misconfigured(_)));
    assert!(matches!(refused(400, r#"{"error":"admin_policy_enforced"}"#), Failure::Forbidden(_)));
}

#[test]
fn a_refusal_that_oauth_does_not_know_keeps_status_and_words() {
    for (status, body, cause, words) in [
        (400, "", Unexplained, "HTTP status 400, without"),
        (401, "{}", Unexplained, "HTTP status 401, without"),
        (
            400,
            r#"{"code":400,"error_code":"refresh_token_not_found","msg":"Invalid Refresh Token"}"#,
            Unexplained,
            "HTTP status 400 and says 400, refresh_token_not_found, Invalid Refresh Token",
        ),
        (401, "no such token: the-refresh-token-1", Unexplained, "no such token: ..."),
        (400, r#"{"error":{"code":400,"message":"API key?"}}"#, Unexplained, "says 400, API key?"),
        (400, r#"{"error":"Bad Request","path":"/token"}"#, Unexplained, "says Bad Request, /token"),
        (400, "<h1>Bad Request</h1>", Lasting(None), "not an OAuth answer (HTTP status 400)"),
        (403, r#"{"message":"blocked"}"#, Lasting(None), "HTTP status 403 and says blocked"),
        (302, "", Lasting(None), "HTTP status 302"),
        (429, "slowly", Lasting(None), "HTTP status 429 and says slowly"),
        (500, r#"{"error":"Internal Server Error"}"#, Faulty, "HTTP status 500 and says Internal Server Error"),
        (503, "<h1>busy</h1>", Faulty, "HTTP status 503"),
    ] {
        let failure = refused(status, body);
        let Failure::Temporary(is, text) = &failure else { panic!("{body}: {failure:?}") };
        assert_eq!(*is, cause, "{status} {body}");
        assert!(text.contains(words) && !text.contains('<'), "{text}");
    }
    let after = Some(Duration::from_secs(120));
    let busy = read(ServerResponse { retry_after: after, ..answer(503, "") }).map(|_| ());
    assert!(matches!(busy, Err(Failure::Temporary(Lasting(asked), _)) if asked == after));
}

#[test]
fn an_error_is_shown_on_one_line() {
    let words = |body: &str| match members(answer(400, body)) {
        Err(RequestError::Refused(refusal)) => refusal.words(),
        _ => panic!("{body}"),
    };
    let long = r#"{"error":"invalid_grant","error_description":"AADSTS70008: expired.\r\nTrace ID: 1","suberror":"bad_token"}"#;
    assert_eq!(words(long), "invalid_grant (AADSTS70008: expired, bad_token)");
    assert_eq!(words(r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#), "invalid_grant (invalid_rapt)");
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
    assert!(matches!(looped, Failure::Temporary(Lasting(Some(time)), _) if time.as_secs() >= 300));
}
