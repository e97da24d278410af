//! URLs in a provider's section: its authorization server's endpoints, and where the browser returns to.

use url::{Host, Url};

use super::provider::Endpoints;
use super::reader::Section;

/// Reads the endpoints; what the section leaves out is taken from `base`.
pub fn read(section: &mut Section<'_>, base: Option<&Endpoints>) -> Endpoints {
    let mut endpoint = |key| url(section, key, endpoint);
    let own = Endpoints {
        authorization: endpoint("authorization_endpoint"),
        token: endpoint("token_endpoint"),
        device_authorization: endpoint("device_authorization_endpoint"),
        revocation: endpoint("revocation_endpoint"),
        registration: endpoint("registration_endpoint"),
        userinfo: endpoint("userinfo_endpoint"),
        jwks: endpoint("jwks_uri"),
    };
    base.map_or_else(|| own.clone(), |base| own.or(base))
}

/// Where the browser returns to, where the section says so.
pub fn redirect_uri(section: &mut Section<'_>) -> Option<Url> {
    url(section, "redirect_uri", protected)
}

/// What an authorization server calls itself, and the root of its metadata's address (RFC 8414 section 2).
pub fn issuer(section: &mut Section<'_>) -> Option<String> {
    section.get("issuer")?.parse(|text| {
        let refusal = |error| format!("is no URL ({error}); write it like \"https://auth.example.test\"");
        let url = Url::parse(text).map_err(refusal).and_then(protected)?;
        match url.query().is_some() || url.fragment().is_some() {
            true => Err("an issuer has neither ?query nor #fragment; remove it".to_owned()),
            // As it stands: it is compared to the letter.
            false => Ok(text.to_owned()),
        }
    })
}

fn url(section: &mut Section<'_>, key: &'static str, judge: fn(Url) -> Result<Url, String>) -> Option<Url> {
    section.get(key)?.parse(|text| {
        let refusal = |error| format!("is no URL ({error}); write it like \"https://auth.example.test/token\"");
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

/// Whether a URL is https, or http that does not leave this machine.
pub fn is_protected(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}
