//! An authorization server's metadata (RFC 8414, OpenID Connect Discovery 1.0).

use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::members::Members;
use super::{Http, outcome};
use crate::config::provider::{ClientMethods, Endpoints, is_protected};
use crate::wire::printable;

/// The longest wait for the metadata of both locations together, because a person waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authorization server's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The endpoints that it has and postkey uses, each https.
    pub endpoints: Endpoints,
    /// Whether every redirect names the issuer (RFC 9207 section 3).
    pub names_itself: bool,
    /// `scopes_supported`; empty if it does not say.
    pub scopes: Vec<String>,
    /// How clients may authenticate.
    pub methods: ClientMethods,
}

impl Metadata {
    /// Adds what another document of the same issuer says.
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

/// Fetches an issuer's metadata, at the location of RFC 8414 and at that of OpenID Connect, because some servers leave out of one
/// what the other has.
///
/// # Errors
///
/// Why the first metadata that the issuer publishes are not usable, as a sentence.
pub async fn discover(http: &Http, issuer: &str) -> Result<Metadata, String> {
    let late = |_| Err(format!("the authorization server's metadata did not come within {PATIENCE:?}"));
    timeout(PATIENCE, search(http, issuer)).await.unwrap_or_else(late)
}

async fn search(http: &Http, issuer: &str) -> Result<Metadata, String> {
    let [first, second] = locations(issuer).ok_or("the issuer is not an https URL")?;
    match tokio::join!(fetch(http, issuer, &first), fetch(http, issuer, &second)) {
        (Ok(Some(one)), Ok(Some(other))) => Ok(one.and(other)),
        (Ok(Some(metadata)), _) | (_, Ok(Some(metadata))) => Ok(metadata),
        (Err(why), _) | (_, Err(why)) => Err(why),
        (Ok(None), Ok(None)) => {
            Err("the issuer publishes no metadata, neither as in RFC 8414 nor as in OpenID Connect".to_owned())
        }
    }
}

/// The well-known path goes before the issuer's own path (RFC 8414 section 3.1), or after it (OpenID Connect Discovery 1.0
/// section 4.1).
fn locations(issuer: &str) -> Option<[Url; 2]> {
    let url = Url::parse(issuer).ok().filter(is_protected)?;
    let path = url.path().trim_end_matches('/');
    let location = |path: &str| {
        let mut location = url.clone();
        location.set_path(path);
        location
    };
    let inserted = format!("/.well-known/oauth-authorization-server{path}");
    Some([location(&inserted), location(&format!("{path}/.well-known/openid-configuration"))])
}

/// None if there are no metadata at this location.
async fn fetch(http: &Http, issuer: &str, location: &Url) -> Result<Option<Metadata>, String> {
    let answer = http.get(location, None).await.map_err(|failure| failure.to_string())?;
    if answer.status == 404 {
        return Ok(None);
    }
    let document = outcome::document(answer).map_err(|failure| failure.to_string())?;
    read(issuer, &document).map(Some)
}

/// Reads the metadata that postkey uses (RFC 8414 section 2).
fn read(issuer: &str, document: &Members) -> Result<Metadata, String> {
    let own = document.get("issuer").and_then(|own| own.as_str());
    let own = own.ok_or("the authorization server's metadata are not in the form of RFC 8414")?;
    // Otherwise they could be anybody's (section 3.3).
    if own != issuer {
        let other = printable(own);
        return Err(format!("the metadata belong to another issuer, {other}; they are not used. Correct issuer"));
    }
    // Only an issuer on this machine, such as a test's, may have endpoints without TLS.
    let is_local = issuer.starts_with("http:");
    let endpoints = Endpoints::read(|name| document.url(name));
    let is_good = |url: &&Url| url.scheme() == "https" || is_local && is_protected(url);
    if let Some(bad) = endpoints.all().find(|url| !is_good(url)) {
        return Err(format!("the metadata name {}, which is not https; they are not used", printable(bad.as_str())));
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

    fn read_with(key: &str, value: serde_json::Value) -> Result<Metadata, String> {
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
    fn the_well_known_path_goes_before_or_after_the_issuers() {
        let both = |issuer| locations(issuer).map(|both| both.map(String::from));
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
    fn endpoints_are_read_from_the_document() {
        let metadata = read_with("authorization_response_iss_parameter_supported", true.into()).unwrap();
        assert!(metadata.names_itself);
        assert_eq!(metadata.endpoints.token.unwrap().as_str(), "https://tokens.example.test/");
        assert_eq!(metadata.endpoints.authorization.unwrap().query(), Some("tenant=mail"));
        assert_eq!(metadata.endpoints.revocation, None);
    }

    #[test]
    fn hostile_metadata_are_not_used() {
        let bad = |key, value: &str| read_with(key, value.into()).unwrap_err();
        for other in ["https://login.example.test", "https://login.example.test/mail/", "https://evil.test/mail"] {
            assert!(bad("issuer", other).contains(&format!("another issuer, {other}")), "{other}");
        }
        for key in ["authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "revocation_endpoint"]
        {
            for url in ["http://login.example.test/t", "http://127.0.0.1/t", "file:///etc/passwd", "javascript:0"] {
                assert!(bad(key, url).contains(&format!("{url}, which is not https")), "{key} {url}");
            }
        }
        assert!(read_with("issuer", 7.into()).unwrap_err().ends_with("not in the form of RFC 8414"));
    }

    #[test]
    fn an_unusable_member_does_not_spoil_the_document() {
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
