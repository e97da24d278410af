//! Which page a request comes from, as the browser reports it (Fetch section 3.2, Fetch Metadata).

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

/// <https://www.w3.org/TR/fetch-metadata/>
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

fn value(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}

/// Whether a request comes from a page of ours, or a person has typed the address. `public` is the origin under which a
/// reverse proxy serves our pages, if there is one. Pages at other ports of this host are foreign. The caller has to check
/// `Host` before.
pub(super) fn is_own(headers: &HeaderMap, public: Option<&str>) -> bool {
    let here = [b"http://", value(headers, HOST).unwrap_or_default()].concat();
    let is_ours = |origin: &[u8]| origin == here || public.is_some_and(|public| origin == public.as_bytes());
    value(headers, ORIGIN).is_none_or(is_ours)
        && value(headers, SEC_FETCH_SITE).is_none_or(|site| site == b"same-origin" || site == b"none")
}

/// Whether the browser follows a link or a redirect from another origin.
pub(super) fn is_led_here(headers: &HeaderMap) -> bool {
    value(headers, SEC_FETCH_MODE).is_some_and(|mode| mode == b"navigate")
        && value(headers, SEC_FETCH_SITE).is_some_and(|site| site == b"cross-site" || site == b"same-site")
}
