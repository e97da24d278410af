//! Renders pages and sets their headers.

use askama::Template;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use url::form_urlencoded;

use super::super::page::Page;
use super::entrance::BrowserSession;
use crate::clock::Moment;

/// The hidden field of every form.
pub const FORM_KEY: &str = "key";

/// Pages load only our own files, cannot be framed, and send forms only to us.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page for browsers without a session. Its style is inline, because nothing can be loaded after the page is closed.
const CLOSED: &str = include_str!("../pages/closed.html");

/// The parts that all pages have in common.
pub struct Shell {
    /// For the field [`FORM_KEY`].
    pub key: String,
    /// The current entry of the navigation.
    pub place: &'static str,
}

impl Shell {
    pub fn new(session: &BrowserSession, place: &'static str) -> Self {
        Self { key: session.form_key.clone(), place }
    }
}

/// The answer to a form that did not come from one of our pages.
#[derive(Template)]
#[template(path = "foreign.html")]
struct Foreign;

/// A page that redirects to itself, so that the browser sends the cookie.
#[derive(Template)]
#[template(path = "again.html")]
struct Again<'a> {
    path: &'a str,
}

/// A page that shows why something could not be done.
#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage<'a> {
    shell: &'a Shell,
    title: &'a str,
    why: &'a str,
    back: &'a str,
}

pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => self::html(status, html),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Sends HTML with the headers of all our pages.
pub fn html(status: StatusCode, html: impl Into<Body>) -> Response {
    let headers = [
        // With `no-referrer` the `Origin` of our own forms would be `null` (Fetch section 3.2), as that of other sites may
        // be. Other origins get no referrer with this policy either.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (status, headers, Html(html.into())).into_response()
}

/// Sends a file for the browser to store under this name.
pub fn download(name: &str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, text).into_response()
}

pub fn shown(template: &impl Template) -> Response {
    page(StatusCode::OK, template)
}

pub fn closed(status: StatusCode) -> Response {
    Page::own(CLOSED).response(status)
}

pub fn foreign() -> Response {
    page(StatusCode::FORBIDDEN, &Foreign)
}

pub fn again(path: &str) -> Response {
    page(StatusCode::OK, &Again { path })
}

pub fn failed(shell: &Shell, status: StatusCode, title: &str, why: &str, back: &str) -> Response {
    page(status, &FailedPage { shell, title, why: &sentence(why), back })
}

/// Redirects the browser to one of our pages after a form.
pub fn see_other(place: &str) -> Response {
    super::super::redirect::see_other(place)
}

/// Sends a static file.
pub fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// The path of an account's page.
pub fn account_path(address: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(address.as_bytes()).collect();
    format!("/accounts/{encoded}")
}

/// A message as a sentence: with a full stop, and a capital letter unless it begins with an address or a name of a file.
pub fn sentence(message: &str) -> String {
    let message = message.trim();
    let end = if message.ends_with(['.', '!', '?']) || message.is_empty() { "" } else { "." };
    if message.split(' ').next().is_some_and(|word| word.contains(['@', '.', '/', '`', '"'])) {
        return format!("{message}{end}");
    }
    let mut letters = message.chars();
    let first: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}{end}", letters.as_str())
}

/// How long ago something was, or how far away it is, in one unit.
pub fn distance(now: Moment, then: Moment) -> String {
    let (seconds, is_past) = if then <= now { (now.since(then), true) } else { (then.since(now), false) };
    let (count, unit) = match seconds {
        0..60 => return if is_past { "just now" } else { "in less than a minute" }.to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if is_past { format!("{count} {unit}{plural} ago") } else { format!("in {count} {unit}{plural}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_has_one_unit() {
        let now = Moment(1_000_000);
        for (then, words) in [
            (now, "just now"),
            (Moment(999_940), "1 minute ago"),
            (now.after(59), "in less than a minute"),
            (now.after(7200), "in 2 hours"),
            (Moment(0), "11 days ago"),
        ] {
            assert_eq!(distance(now, then), words);
        }
    }

    #[test]
    fn a_message_becomes_a_sentence_and_an_address_a_path() {
        assert_eq!(sentence("cannot read it"), "Cannot read it.");
        assert_eq!(sentence("Really?"), "Really?");
        assert_eq!(sentence(""), "");
        assert_eq!(sentence("ann@example.test is here"), "ann@example.test is here.");
        assert_eq!(account_path("a+b/c@example.test"), "/accounts/a%2Bb%2Fc%40example.test");
    }
}
