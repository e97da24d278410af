//! An authorization server's metadata (RFC 8414, OpenID Connect Discovery 1.0).

use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::members::Members;
use super::{Failure, Http, outcome};
use crate::config::provider::{ClientMethods, Endpoints, is_protected};
use crate::wire::printable;

/// The longest wait for metadata, both places together: a person waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an authorization server tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its endpoints, each https. Those that it has not, or that postkey has no use for, are missing.
    pub endpoints: Endpoints,
    /// Whether it promises to name itself when the browser returns (RFC 9207 section 3).
    pub names_itself: bool,
    /// `scopes_supported`; empty where it says nothing.
    pub scopes: Vec<String>,
    /// How clients may show who they are.
    pub methods: ClientMethods,
}

impl Metadata {
    /// These, and what another document of the same issuer says beside them.
    fn and(self, other: Self) -> Self {
        let both = |one: Vec<String>, other: Vec<String>| {
            let more: Vec<String> = other.into_iter().filter(|entry| !one.contains(entry)).collect();
            [one, more].concat()
        };
        Self {
            endpoints: self.endpoints.or(&other.endpoints),
            names_itself: self.names_itself || other.names_itself,
            scopes: both(self.scopes, other.scopes),
            methods: ClientMethods {
                token: both(self.methods.token, other.methods.token),
                algorithms: both(self.methods.algorithms, other.methods.algorithms),
                revocation: both(self.methods.revocation, other.methods.revocation),
            },
        }
    }
}

/// Why there are no metadata.
#[derive(Debug)]
pub enum DiscoveryError {
    /// The configured issuer cannot be one.
    NoIssuer,
    /// There are none.
    Absent,
    /// The server did not answer, or not with a document; why.
    NoDocument(String),
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
            Self::NoDocument(why) => f.write_str(why),
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

/// Asks an issuer for its metadata, in the place of RFC 8414 and in that of OpenID Connect: some servers say in one what they
/// leave out in the other.
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
    match tokio::join!(fetch(http, issuer, &first), fetch(http, issuer, &second)) {
        (Ok(one), Ok(other)) => Ok(one.and(other)),
        (Ok(metadata), Err(_)) | (Err(_), Ok(metadata)) => Ok(metadata),
        (Err(DiscoveryError::Absent), Err(other)) => Err(other),
        (Err(why), Err(_)) => Err(why),
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
    let no_document = |failure: Failure| DiscoveryError::NoDocument(failure.to_string());
    let answer = http.get(place, None).await.map_err(no_document)?;
    if answer.status == 404 {
        return Err(DiscoveryError::Absent);
    }
    read(issuer, &outcome::document(answer).map_err(no_document)?)
}

/// Reads a document that is said to be of this issuer (RFC 8414 section 2), as far as postkey has a use for it.
fn read(issuer: &str, document: &Members) -> Result<Metadata, DiscoveryError> {
    let own = document.get("issuer").and_then(|own| own.as_str()).ok_or(DiscoveryError::Malformed)?;
    if own != issuer {
        return Err(DiscoveryError::OtherIssuer(printable(own)));
    }
    // Only an issuer on this machine, as tests have one, may have endpoints without TLS.
    let is_local = issuer.starts_with("http:");
    let endpoints = Endpoints::read(|name| document.url(name));
    let is_good = |url: &&Url| url.scheme() == "https" || is_local && is_protected(url);
    if let Some(bad) = endpoints.all().find(|url| !is_good(url)) {
        return Err(DiscoveryError::Unprotected(printable(bad.as_str())));
    }
    let list = |name: &str| document.words(name).unwrap_or_default().iter().map(|word| printable(word)).collect();
    Ok(Metadata {
        endpoints,
        names_itself: document.is_true("authorization_response_iss_parameter_supported"),
        scopes: list("scopes_supported"),
        methods: ClientMethods {
            token: list("token_endpoint_auth_methods_supported"),
            algorithms: list("token_endpoint_auth_signing_alg_values_supported"),
            revocation: list("revocation_endpoint_auth_methods_supported"),
        },
    })
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
        read(ISSUER, &Members::read(document.to_string().as_bytes()).unwrap())
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
        assert!(matches!(read_with("issuer", 7.into()), Err(DiscoveryError::Malformed)));
    }

    #[test]
    fn a_member_that_is_nothing_does_not_spoil_the_document() {
        for nothing in [serde_json::json!(null), "".into(), "token".into(), 7.into(), serde_json::json!([])] {
            let metadata = read_with("userinfo_endpoint", nothing).unwrap();
            assert!(metadata.endpoints.userinfo.is_none() && metadata.endpoints.token.is_some());
        }
    }

    #[test]
    fn two_documents_complete_each_other() {
        let one = read_with("scopes_supported", serde_json::json!(["openid"])).unwrap();
        let mut other = read_with("scopes_supported", serde_json::json!(["openid", "mail"])).unwrap();
        other.endpoints.device_authorization = Url::parse("https://login.example.test/device").ok();
        other.endpoints.token = Url::parse("https://elsewhere.example.test/").ok();
        let both = one.clone().and(other.clone());
        assert_eq!(both.endpoints.device_authorization, other.endpoints.device_authorization);
        assert_eq!(both.endpoints.token, one.endpoints.token);
        assert_eq!(both.scopes, ["openid", "mail"]);
    }
}
