//! The gate that every request passes: the right host, a browser that has entered, and a form of our own.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::warn;
use url::form_urlencoded;

use super::state::SetupState;
use super::view;
use crate::net::peer::Visitor;
use crate::secret::Secret;

/// The longest form, in bytes. The longest field is the key of a service account.
const MAX_FORM: usize = 64 * 1024;

/// The path of what is live. To keep it open does not count as use.
pub const EVENTS: &str = "/events";

/// <https://www.w3.org/TR/fetch-metadata/>
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The fields of a form that has passed the gate.
#[derive(Clone)]
pub struct SentForm(Arc<Secret>);

impl SentForm {
    /// A field without the blanks around it; empty if it is missing.
    pub fn text(&self, name: &str) -> String {
        self.find(name).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// A field as it was typed, if it is not empty.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.find(name).filter(|value| !value.is_empty()).map(|value| Secret::new(value.into_bytes()))
    }

    /// All values of a field that can occur several times.
    pub fn all(&self, name: &str) -> Vec<String> {
        let fields = form_urlencoded::parse(self.0.expose());
        fields.filter(|(key, _)| key == name).map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// A field as it was typed.
    pub fn find(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.0.expose()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// Lets a request through with its session, and a form with its fields.
pub async fn pass(State(site): State<Arc<SetupState>>, mut request: Request, next: Next) -> Response {
    if !site.hosts.has(request.headers()) {
        return (StatusCode::MISDIRECTED_REQUEST, "postkey does not answer under this name\n").into_response();
    }
    let visitor = request.extensions().get::<Visitor>().copied().unwrap_or(Visitor::Nobody);
    let path = request.uri().path();
    if let Some(name) = path.strip_prefix("/enter/").filter(|_| request.method() == Method::GET) {
        return enter(&site, name, visitor).await;
    }
    if ["/style.css", "/script.js"].contains(&path) {
        return next.run(request).await;
    }
    let Some(session) = site.entrance.session(request.headers()) else {
        return match is_return(&request) {
            true => view::again(path),
            false => view::closed(StatusCode::FORBIDDEN),
        };
    };
    if !visitor.may_be(|user| session.users.contains(&user)) {
        warn!(?visitor, "another user of this machine has sent the cookie of the setup page ({visitor:?}); refused");
        return view::closed(StatusCode::FORBIDDEN);
    }
    if path != EVENTS {
        site.touch();
    }
    match *request.method() {
        Method::GET if is_own(request.headers()) => {}
        Method::POST if is_own(request.headers()) && is_form(request.headers()) => {
            let (parts, body) = request.into_parts();
            let Ok(body) = to_bytes(body, MAX_FORM).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
            let form = SentForm(Arc::new(Secret::new(body.to_vec())));
            if !session.has_key(&form.text(view::FORM_KEY)) {
                return view::foreign();
            }
            request = Request::from_parts(parts, axum::body::Body::empty());
            request.extensions_mut().insert(form);
        }
        // The page at the redirect URI has another port. To lead the browser once more makes the request our own.
        Method::GET if is_return(&request) => return view::again(path),
        Method::GET | Method::POST => return view::foreign(),
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
    request.extensions_mut().insert(session);
    next.run(request).await
}

async fn enter(site: &SetupState, name: &str, visitor: Visitor) -> Response {
    match site.entrance.enter(name, visitor) {
        Some(cookie) => {
            site.touch();
            // Without any account there is nothing else to do.
            let is_new =
                site.status().await.is_ok_and(|status| status.accounts.is_empty() && status.damaged.is_empty());
            ([(SET_COOKIE, cookie)], view::see_other(if is_new { "/add" } else { "/" })).into_response()
        }
        None => {
            warn!(
                ?visitor,
                "a link to the setup page was refused: it was used before, is too old, or not for {visitor:?}"
            );
            view::closed(StatusCode::FORBIDDEN)
        }
    }
}

/// Whether a person comes back from the provider. The browser may not send the cookie then (SameSite=Strict), but it
/// does if our own page leads to the same address again.
fn is_return(request: &Request) -> bool {
    let path = request.uri().path();
    let value = |name| request.headers().get(name).map(|value: &HeaderValue| value.as_bytes());
    request.method() == Method::GET
        && (path == "/" || path.starts_with("/add/"))
        && value(SEC_FETCH_MODE).is_some_and(|mode| mode == b"navigate")
        && value(SEC_FETCH_SITE).is_some_and(|from| from == b"cross-site" || from == b"same-site")
}

/// Whether a request comes from one of our own pages, or a person has typed the address. Browsers say so (Fetch section
/// 3.2, Fetch Metadata section 2.3). `Host` has been checked before.
fn is_own(headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).map(|value: &HeaderValue| value.as_bytes());
    let here = [b"http://", value(HOST).unwrap_or_default()].concat();
    value(ORIGIN).is_none_or(|origin| origin == here)
        && value(SEC_FETCH_SITE).is_none_or(|site| site == b"same-origin" || site == b"none")
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded")
}
