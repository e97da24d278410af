//! The authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252, RFC 9207).

use oauth2::{AuthorizationCode, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl};
use url::Url;

use super::identity::Identity;
use super::{Failure, Http, Registration, failure};
use crate::clock::Clock;
use crate::config::provider::Provider;
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::wire::printable;

/// An authorization that has been asked for and not yet been given.
pub struct Pending {
    /// The page where the person signs in and consents.
    pub url: Url,
    redirect_uri: Url,
    state: Secret,
    verifier: PkceCodeVerifier,
    issuer: Option<String>,
}

/// Why an address that a browser was sent to, or that a person has pasted, does not bring the authorization. Only
/// [`RedirectError::Denied`] is an end; after the others the right one may still come.
#[derive(Debug, PartialEq, Eq)]
pub enum RedirectError {
    /// It holds neither a code nor an error.
    NoAnswer,
    /// It belongs to another attempt (RFC 6749 section 10.12).
    WrongState,
    /// It comes from another authorization server (RFC 9207).
    WrongIssuer,
    /// The authorization server, or the person, said no.
    Denied(String),
}

impl std::fmt::Display for RedirectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer => {
                f.write_str("this address holds no authorization code; it has to be the one with `code=` in it")
            }
            Self::WrongState => {
                f.write_str("this address belongs to another attempt; open the page shown above once more")
            }
            Self::WrongIssuer => f.write_str("this address comes from another authorization server and is not used"),
            Self::Denied(text) => write!(f, "the authorization was not given: {text}"),
        }
    }
}

impl Pending {
    /// Begins: the address to open, and what has to be remembered until the answer comes.
    pub fn begin(provider: &Provider, client_id: &str, redirect_uri: Url, address: &str) -> Result<Self, Failure> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = oauth2::CsrfToken::new_random();
        let mut url = provider.authorization_endpoint.clone().ok_or_else(|| {
            Failure::Misconfigured(format!("the provider {} has no authorization_endpoint", provider.name))
        })?;
        let ours = [
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", redirect_uri.as_str()),
            ("scope", &provider.scope.join(" ")),
            ("state", state.secret()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("login_hint", address),
        ];
        let more = provider.authorization_parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        // What the configuration adds must not stand in for what the security of the grant rests on.
        let more = more.filter(|(key, _)| !ours.iter().any(|(our, _)| our == key));
        url.query_pairs_mut().extend_pairs(ours).extend_pairs(more);
        Ok(Self {
            url,
            redirect_uri,
            state: Secret::new(state.secret().clone().into_bytes()),
            verifier,
            issuer: provider.issuer.clone(),
        })
    }

    /// Where the browser returns to.
    pub fn redirect_uri(&self) -> &Url {
        &self.redirect_uri
    }

    /// Reads the query of a redirect: `state` first, so that a stranger's request changes nothing; then `iss`; then `error`.
    pub fn code(&self, query: &str) -> Result<AuthorizationCode, RedirectError> {
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        if value("code").is_none() && value("error").is_none() {
            return Err(RedirectError::NoAnswer);
        }
        let state = Secret::new(value("state").unwrap_or_default().into_bytes());
        if !state.same_as(&self.state) {
            return Err(RedirectError::WrongState);
        }
        match (&self.issuer, value("iss")) {
            (Some(expected), Some(issuer)) if issuer != *expected => return Err(RedirectError::WrongIssuer),
            _ => {}
        }
        match (value("error"), value("code")) {
            (Some(error), _) => {
                let description = value("error_description").unwrap_or_default();
                Err(RedirectError::Denied(printable(format!("{error} {description}").trim())))
            }
            (None, Some(code)) => Ok(AuthorizationCode::new(code)),
            (None, None) => Err(RedirectError::NoAnswer),
        }
    }

    /// Reads what a person has pasted: the whole address, its query, or the code alone, as some providers show it.
    pub fn pasted(&self, text: &str) -> Result<AuthorizationCode, RedirectError> {
        let text = text.trim();
        if let Some((_, query)) = text.split_once('?') {
            return self.code(query.split_once('#').map_or(query, |(query, _)| query));
        }
        let is_bare_code =
            !text.is_empty() && !text.contains("://") && text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.contains("code=") || text.contains("error=") {
            true => self.code(text),
            // No state comes with it. PKCE still binds the code to this attempt: the server takes it from nobody else.
            false if is_bare_code => Ok(AuthorizationCode::new(text.to_owned())),
            false => Err(RedirectError::NoAnswer),
        }
    }

    /// Exchanges the code for the first token set; with it comes who has signed in.
    pub async fn exchange(
        self,
        http: &Http,
        registration: &Registration,
        code: AuthorizationCode,
        clock: &Clock,
    ) -> Result<(TokenSet, Identity), Failure> {
        let redirect_uri = RedirectUrl::new(self.redirect_uri.to_string())
            .map_err(|_| Failure::Misconfigured("the redirect URI is not valid".to_owned()))?;
        let requests = registration.requests()?.set_redirect_uri(redirect_uri);
        let mut request = requests.exchange_code(code).set_pkce_verifier(self.verifier);
        for (name, value) in registration.assertion(clock.now())? {
            request = request.add_extra_param(name, value);
        }
        let body = request.request_async(http).await.map_err(failure)?;
        let identity = body.identity();
        Ok((body.into_token_set(clock.now(), None)?, identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flow::Flow;
    use std::collections::BTreeMap;

    fn provider() -> Provider {
        Provider {
            name: "test".into(),
            domains: vec![],
            flow: Flow::AuthorizationCode,
            authorization_endpoint: Url::parse("https://login.example.test/auth?prompt=consent").ok(),
            token_endpoint: Url::parse("https://login.example.test/token").unwrap(),
            issuer: Some("https://login.example.test".into()),
            scope: vec!["mail".into(), "offline_access".into()],
            authorization_parameters: BTreeMap::from([("state".into(), "mine".into()), ("hint".into(), "a&b".into())]),
            client: None,
            bearer: None,
            resource: None,
            legacy: false,
            device_authorization_endpoint: None,
            redirect_uri: Url::parse("http://127.0.0.1/").unwrap(),
            mechanisms: vec![],
            ca_file: None,
            servers: BTreeMap::new(),
            note: None,
        }
    }

    fn pending() -> (Pending, String) {
        let redirect_uri = Url::parse("http://127.0.0.1:4000/").unwrap();
        let pending = Pending::begin(&provider(), "client", redirect_uri, "ann@example.test").unwrap();
        let state = pending.url.query_pairs().find(|(key, _)| key == "state").unwrap().1.into_owned();
        (pending, state)
    }

    #[test]
    fn the_address_carries_what_the_grant_needs_and_keeps_its_own_query() {
        let (pending, state) = pending();
        let pairs: Vec<(String, String)> = pending.url.query_pairs().into_owned().collect();
        let values = |name: &str| {
            pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(values("prompt"), ["consent"]);
        assert_eq!(values("hint"), ["a&b"]);
        assert_eq!(values("state"), [state.as_str()], "the configuration cannot set it");
        assert_eq!(values("code_challenge_method"), ["S256"]);
        assert_eq!(values("scope"), ["mail offline_access"]);
        assert_eq!(values("redirect_uri"), ["http://127.0.0.1:4000/"]);
        assert!(state.len() >= 22, "128 bits at least");
    }

    #[test]
    fn only_our_own_answer_is_taken() {
        let (pending, state) = pending();
        let read = |query: &str| pending.code(query).map(|code| code.secret().clone());
        assert_eq!(read(&format!("code=4%2F0A&state={state}")).unwrap(), "4/0A");
        assert_eq!(read(&format!("code=a&state={state}&iss=https%3A%2F%2Flogin.example.test")).unwrap(), "a");
        assert_eq!(read(&format!("code=a&state={state}&iss=https%3A%2F%2Fevil.test")), Err(RedirectError::WrongIssuer));
        assert_eq!(read("code=a&state=guess"), Err(RedirectError::WrongState));
        assert_eq!(read("code=a"), Err(RedirectError::WrongState));
        assert_eq!(read("error=access_denied&state=guess"), Err(RedirectError::WrongState));
        assert_eq!(read(&format!("state={state}")), Err(RedirectError::NoAnswer));
        let denied = read(&format!("error=access_denied&error_description=no%0Athanks&state={state}"));
        assert_eq!(denied, Err(RedirectError::Denied("access_denied no?thanks".into())));
    }

    #[test]
    fn what_a_person_pastes_is_read_in_every_form() {
        let (pending, state) = pending();
        let read = |text: &str| pending.pasted(text).map(|code| code.secret().clone());
        assert_eq!(read(&format!("  http://127.0.0.1:4000/?code=a%2Fb&state={state}#_\n")).unwrap(), "a/b");
        assert_eq!(read(&format!("code=a&state={state}")).unwrap(), "a");
        assert_eq!(read("7654321").unwrap(), "7654321");
        assert_eq!(read("http://127.0.0.1:4000/?code=a&state=b"), Err(RedirectError::WrongState));
        for nothing in ["", "http://127.0.0.1:4000/", "what is this?"] {
            assert_eq!(read(nothing), Err(RedirectError::NoAnswer), "{nothing:?}");
        }
    }
}
