//! An authorization server's metadata (RFC 8414, OpenID Connect Discovery 1.0).

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::http::{Http, HttpError};
use crate::config::endpoints::is_protected;
use crate::config::provider::Endpoints;
use crate::wire::printable;

/// The longest wait for metadata, both places together: a person waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an authorization server tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its endpoints, each https. Those that it has not, or that postkey has no use for, are missing.
    pub endpoints: Endpoints,
    /// Whether it promises to name itself when the browser returns (RFC 9207 section 3).
    pub names_itself: bool,
}

/// Why there are no metadata.
#[derive(Debug)]
pub enum DiscoveryError {
    /// The configured issuer cannot be one.
    NoIssuer,
    /// There are none.
    Absent,
    /// The server did not answer, or not with a document.
    Http(HttpError),
    /// The document is not what the RFC asks for.
    Malformed,
    /// It belongs to this other issuer, and so could be anybody's (RFC 8414 section 3.3).
    OtherIssuer(String),
    /// It names an endpoint that would have secrets cross the network in the clear.
    Unprotected(String),
    /// It took too long.
    Late,
}

impl std::fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoIssuer => f.write_str("the issuer is no URL that metadata could be found under"),
            Self::Absent => {
                f.write_str("the issuer publishes no metadata, neither as RFC 8414 nor as OpenID Connect has it")
            }
            Self::Http(error) => error.fmt(f),
            Self::Malformed => f.write_str("the authorization server's metadata are not in the form of RFC 8414"),
            Self::OtherIssuer(other) => {
                write!(f, "the metadata belong to another issuer, {other}; they are not used. Correct issuer")
            }
            Self::Unprotected(endpoint) => {
                write!(f, "the metadata name {endpoint}, which is not https; they are not used")
            }
            Self::Late => write!(f, "the authorization server's metadata did not come within {PATIENCE:?}"),
        }
    }
}

impl std::error::Error for DiscoveryError {}

/// Asks an issuer for its metadata, in the place of RFC 8414 and then in that of OpenID Connect.
///
/// # Errors
///
/// Where neither place has metadata of this very issuer: why those of the first place are not used, or, where there are none
/// in it, those of the second.
pub async fn discover(http: &Http, issuer: &str) -> Result<Metadata, DiscoveryError> {
    timeout(PATIENCE, search(http, issuer)).await.unwrap_or(Err(DiscoveryError::Late))
}

async fn search(http: &Http, issuer: &str) -> Result<Metadata, DiscoveryError> {
    let [first, second] = places(issuer).ok_or(DiscoveryError::NoIssuer)?;
    let found = fetch(http, issuer, &first).await;
    let Err(why) = found else { return found };
    match (why, fetch(http, issuer, &second).await) {
        (_, Ok(metadata)) => Ok(metadata),
        (DiscoveryError::Absent, Err(other)) => Err(other),
        (why, Err(_)) => Err(why),
    }
}

/// Where an issuer's metadata are: the well-known path put before its own path (RFC 8414 section 3.1), or behind it (OpenID
/// Connect Discovery 1.0 section 4.1).
fn places(issuer: &str) -> Option<[Url; 2]> {
    let url = Url::parse(issuer).ok().filter(is_protected)?;
    let path = url.path().trim_end_matches('/');
    let place = |path: &str| {
        let mut place = url.clone();
        place.set_path(path);
        place
    };
    let inserted = format!("/.well-known/oauth-authorization-server{path}");
    Some([place(&inserted), place(&format!("{path}/.well-known/openid-configuration"))])
}

async fn fetch(http: &Http, issuer: &str, place: &Url) -> Result<Metadata, DiscoveryError> {
    let answer = match http.get(place, None).await {
        Err(HttpError::NotJson(404)) => return Err(DiscoveryError::Absent),
        answer => answer.map_err(DiscoveryError::Http)?,
    };
    match answer.status().as_u16() {
        200 => read(issuer, answer.body()),
        404 => Err(DiscoveryError::Absent),
        status => Err(DiscoveryError::Http(HttpError::Status(status, None))),
    }
}

/// RFC 8414 section 2, as far as postkey has a use for it.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<Url>,
    token_endpoint: Option<Url>,
    device_authorization_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    registration_endpoint: Option<Url>,
    userinfo_endpoint: Option<Url>,
    jwks_uri: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Reads a document that is said to be of this issuer.
fn read(issuer: &str, document: &[u8]) -> Result<Metadata, DiscoveryError> {
    let document: Document = serde_json::from_slice(document).map_err(|_| DiscoveryError::Malformed)?;
    if document.issuer != issuer {
        return Err(DiscoveryError::OtherIssuer(printable(&document.issuer)));
    }
    // Only an issuer on this machine, as tests have one, may have endpoints without TLS.
    let is_local = issuer.starts_with("http:");
    let endpoints = Endpoints {
        authorization: document.authorization_endpoint,
        token: document.token_endpoint,
        device_authorization: document.device_authorization_endpoint,
        revocation: document.revocation_endpoint,
        registration: document.registration_endpoint,
        userinfo: document.userinfo_endpoint,
        jwks: document.jwks_uri,
    };
    let is_good = |url: &&Url| url.scheme() == "https" || is_local && is_protected(url);
    if let Some(bad) = endpoints.all().find(|url| !is_good(url)) {
        return Err(DiscoveryError::Unprotected(printable(bad.as_str())));
    }
    Ok(Metadata { endpoints, names_itself: document.authorization_response_iss_parameter_supported })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://login.example.test/mail";

    fn read_with(key: &str, value: serde_json::Value) -> Result<Metadata, DiscoveryError> {
        let mut document = serde_json::json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://login.example.test/authorize?tenant=mail",
            "token_endpoint": "https://tokens.example.test/",
            "grant_types_supported": ["implicit"],
        });
        document[key] = value;
        read(ISSUER, document.to_string().as_bytes())
    }

    #[test]
    fn the_path_goes_behind_or_before_the_well_known_one() {
        let both = |issuer| places(issuer).map(|both| both.map(String::from));
        let [oauth, openid] = both(ISSUER).unwrap();
        assert_eq!(oauth, "https://login.example.test/.well-known/oauth-authorization-server/mail");
        assert_eq!(openid, "https://login.example.test/mail/.well-known/openid-configuration");
        let [oauth, openid] = both("https://a.test/").unwrap();
        assert_eq!(oauth, "https://a.test/.well-known/oauth-authorization-server");
        assert_eq!(openid, "https://a.test/.well-known/openid-configuration");
        assert_eq!(both("http://a.test"), None);
        assert_eq!(both("a.test"), None);
    }

    #[test]
    fn what_the_document_names_is_used() {
        let metadata = read_with("authorization_response_iss_parameter_supported", true.into()).unwrap();
        assert!(metadata.names_itself);
        assert_eq!(metadata.endpoints.token.unwrap().as_str(), "https://tokens.example.test/");
        assert_eq!(metadata.endpoints.authorization.unwrap().query(), Some("tenant=mail"));
        assert_eq!(metadata.endpoints.revocation, None);
    }

    #[test]
    fn hostile_metadata_are_not_used() {
        let bad = |key, value: &str| read_with(key, value.into()).unwrap_err().to_string();
        for other in ["https://login.example.test", "https://login.example.test/mail/", "https://evil.test/mail"] {
            assert!(bad("issuer", other).contains(&format!("another issuer, {other}")), "{other}");
        }
        for key in ["authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "revocation_endpoint"]
        {
            for url in ["http://login.example.test/t", "http://127.0.0.1/t", "file:///etc/passwd", "javascript:0"] {
                assert!(bad(key, url).contains(&format!("{url}, which is not https")), "{key} {url}");
            }
        }
        assert!(matches!(read_with("token_endpoint", "token".into()), Err(DiscoveryError::Malformed)));
        assert!(matches!(read_with("issuer", 7.into()), Err(DiscoveryError::Malformed)));
        assert!(matches!(read(ISSUER, b"[]"), Err(DiscoveryError::Malformed)));
    }
}
