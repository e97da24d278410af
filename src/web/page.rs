//! The pages of first logins, and the last page of a sign-in. They load nothing else, because a reverse proxy may forward only
//! their own path.

use std::borrow::Cow;
use std::sync::LazyLock;

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

/// Keeps the address from other sites.
pub const NO_REFERRER: &str = "no-referrer";

/// The style of all pages.
pub const STYLE: &str = include_str!("pages/style.css");

/// Our own pages load nothing. Their only style is inline.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'")
});

/// The policy for a page from the user's file.
const FOREIGN: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";

/// A page of HTML. It can load nothing, and no other page can frame it.
#[derive(Clone)]
pub struct Page {
    html: Cow<'static, [u8]>,
    /// Whether the HTML is only the content of one of our own pages.
    is_own: bool,
    /// The page to which it redirects.
    next: Option<String>,
    referrer: &'static str,
}

/// One of our own pages.
#[derive(Template)]
#[template(path = "plain.html")]
struct PlainPage<'a> {
    style: &'static str,
    next: Option<&'a str>,
    content: Cow<'a, str>,
}

impl Page {
    /// The page after success, unless the configuration has another one.
    pub const AUTHORIZED: Self = Self::own(
        "<h1>Done</h1><p>postkey is authorized. You can close this page. The terminal shows the settings for your mail program.",
    );

    /// Creates one of our own pages with this content.
    pub(super) const fn own(content: &'static str) -> Self {
        Self { html: Cow::Borrowed(content.as_bytes()), is_own: true, next: None, referrer: NO_REFERRER }
    }

    /// Creates a page from the user's file, which is sent unchanged. Its styles and images have to be inside it.
    pub fn foreign(html: Vec<u8>) -> Self {
        Self { html: Cow::Owned(html), is_own: false, ..Self::own("") }
    }

    /// Creates a page that redirects to another one of ours.
    pub(super) fn leading_to(place: String) -> Self {
        let content = format!("<h1>Back to postkey</h1><p><a href=\"{place}\">Continue</a>");
        Self { html: Cow::Owned(content.into_bytes()), next: Some(place), ..Self::own("") }
    }

    /// Creates a page with a form, for one visit. With `no-referrer` the form's `Origin` would be `null` (Fetch section
    /// 3.2), as that of other sites may be.
    pub(super) fn with_form(content: String) -> Self {
        Self { html: Cow::Owned(content.into_bytes()), referrer: "same-origin", ..Self::own("") }
    }

    /// Creates the response with this page.
    pub(super) fn response(self, status: StatusCode) -> Response {
        let (html, policy) = if self.is_own {
            let content = String::from_utf8_lossy(&self.html);
            let page = PlainPage { style: STYLE, next: self.next.as_deref(), content };
            (Cow::Owned(page.render().unwrap_or_default().into_bytes()), POLICY.as_str())
        } else {
            (self.html, FOREIGN)
        };
        let headers = [
            (header::REFERRER_POLICY, self.referrer),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, policy),
        ];
        (status, headers, Html(html)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_style_that_a_page_has() {
        let page = PlainPage { style: STYLE, next: None, content: "<h1>x</h1>".into() }.render().unwrap();
        let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        assert!(POLICY.contains(&BASE64_STANDARD.encode(Sha256::digest(style))));
    }
}
