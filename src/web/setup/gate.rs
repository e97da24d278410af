//! The checks that every request has to pass: the host, the session, and the origin and key of a form.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::warn;

use super::super::origin::{is_led_here, is_own};
use super::form::SentForm;
use super::state::SetupState;
use super::view;
use crate::net::peer::Visitor;

/// The longest form, in bytes. The longest field is the key of a service account.
const MAX_FORM: usize = 64 * 1024;

/// The path of the live events. An open connection to it does not count as use.
pub const EVENTS: &str = "/events";

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
        Method::GET if is_own(request.headers(), None) => {}
        Method::POST if is_own(request.headers(), None) && is_form(request.headers()) => {
            let (parts, body) = request.into_parts();
            let Ok(body) = to_bytes(body, MAX_FORM).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
            let form = SentForm::new(body.to_vec());
            if !session.has_key(&form.text(view::FORM_KEY)) {
                return view::foreign();
            }
            request = Request::from_parts(parts, axum::body::Body::empty());
            request.extensions_mut().insert(form);
        }
        // The page at the redirect URI has another port. One more redirect makes the request same-origin.
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
            // Without an account, the overview would be empty.
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

/// Whether a browser returns from the provider. It may not send the cookie then (SameSite=Strict), but it does after a page of
/// ours has redirected it to the same address.
fn is_return(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::GET && (path == "/" || path.starts_with("/add/")) && is_led_here(request.headers())
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded")
}
