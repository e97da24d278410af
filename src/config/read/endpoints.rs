//! The URLs of a provider's table: its authorization server's endpoints, and the redirect URI.

use url::Url;

use super::reader::Section;
use crate::config::provider::{Endpoints, is_protected};

pub fn read(section: &mut Section<'_>) -> Endpoints {
    Endpoints::read(|key| url(section, key, endpoint))
}

pub fn redirect_uri(section: &mut Section<'_>) -> Option<Url> {
    url(section, "redirect_uri", protected)
}

/// The identifier of an authorization server, and the root of its metadata's address (RFC 8414 section 2).
pub fn issuer(section: &mut Section<'_>) -> Option<String> {
    section.parse("issuer", |text| {
        let refusal = |error| format!("is not a URL ({error}); write it like \"https://auth.example.test\"");
        let url = Url::parse(text).map_err(refusal).and_then(protected)?;
        match url.query().is_some() || url.fragment().is_some() {
            true => Err("an issuer has neither ?query nor #fragment; remove it".to_owned()),
            // As it is written, because it is compared byte by byte.
            false => Ok(text.to_owned()),
        }
    })
}

fn url(section: &mut Section<'_>, key: &'static str, judge: fn(Url) -> Result<Url, String>) -> Option<Url> {
    section.parse(key, |text| {
        let refusal = |error| format!("is not a URL ({error}); write it like \"https://auth.example.test/token\"");
        Url::parse(text).map_err(refusal).and_then(judge)
    })
}

/// RFC 6749 section 3: TLS, and no fragment.
fn endpoint(url: Url) -> Result<Url, String> {
    if url.fragment().is_some() {
        return Err("an endpoint has no #fragment; remove it".to_owned());
    }
    protected(url)
}

fn protected(url: Url) -> Result<Url, String> {
    if is_protected(&url) {
        return Ok(url);
    }
    Err(format!("must begin with https:// (http:// only on this machine), and begins with {}:", url.scheme()))
}
