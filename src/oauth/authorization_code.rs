//! The authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 8252, RFC 9207).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;

use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, AuthorizationCode, ClientId, HttpRequest, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, TokenUrl,
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::error_codes::RequestKind;
use super::errors::ErrorResponse;
use super::outcome;
use super::{Failure, Granted, Http, Registration};
use crate::clock::{Clock, Moment};
use crate::pasted;
use crate::secret::Secret;

/// The contents of an authorization request.
pub struct AuthorizationParameters<'a> {
    /// The authorization endpoint. It may have a query.
    pub endpoint: &'a Url,
    /// The authorization server's own name, if it is known.
    pub issuer: Option<&'a str>,
    /// Whether every redirect names the issuer (RFC 9207 section 3).
    pub names_itself: bool,
    pub client_id: &'a str,
    pub redirect_uri: &'a Url,
    pub scope: &'a [String],
    /// Additional parameters.
    pub parameters: &'a BTreeMap<String, String>,
    /// The person who should sign in.
    pub login_hint: &'a str,
}

/// An authorization that was requested, but not given yet.
pub struct PendingAuthorization {
    /// The page where the person signs in and consents.
    pub url: Url,
    redirect_uri: Url,
    state: Secret,
    verifier: PkceCodeVerifier,
    /// For the id_token, if one is requested.
    nonce: Option<String>,
    issuer: Option<String>,
    names_itself: bool,
}

/// What the answer to an authorization request is checked against, and the code is exchanged with, for another process of
/// postkey. It is as secret as a token.
#[derive(Serialize, Deserialize)]
pub struct CarriedAuthorization {
    redirect_uri: Url,
    state: String,
    verifier: PkceCodeVerifier,
    nonce: Option<String>,
    issuer: Option<String>,
    names_itself: bool,
}

/// Why a redirect, or an address that a person has pasted, does not bring the authorization. Only [`RedirectError::Denied`] is
/// final. After the others the right one may still come.
#[derive(Debug, PartialEq, Eq)]
pub enum RedirectError {
    /// It has neither a code nor an error.
    NoAnswer,
    /// It belongs to another attempt (RFC 6749 section 10.12).
    WrongState,
    /// It comes from another authorization server (RFC 9207).
    WrongIssuer,
    /// It was pasted, and is not complete.
    BrokenOff,
    /// The authorization server or the person refuses.
    Denied(Failure),
}

impl std::fmt::Display for RedirectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("this address has no authorization code; paste the one with `code=` in it"),
            Self::WrongState => f.write_str("this address belongs to another attempt; open the page shown above again"),
            Self::WrongIssuer => f.write_str("this address comes from another authorization server and is not used"),
            Self::BrokenOff => f.write_str("this address is incomplete; paste the rest of it, or all of it again"),
            Self::Denied(failure) => write!(f, "the authorization was not given: {failure}"),
        }
    }
}

impl AuthorizationParameters<'_> {
    /// A server ignores `offline_access` unless the person is asked to consent (OpenID Connect Core 1.0 section 11).
    fn prompt(&self) -> Option<&'static str> {
        let is_set =
            self.parameters.contains_key("prompt") || self.endpoint.query_pairs().any(|(key, _)| key == "prompt");
        (!is_set && self.scope.iter().any(|scope| scope == "offline_access")).then_some("consent")
    }
}

impl From<CarriedAuthorization> for PendingAuthorization {
    fn from(carried: CarriedAuthorization) -> Self {
        let CarriedAuthorization { redirect_uri, state, verifier, nonce, issuer, names_itself } = carried;
        let state = Secret::new(state.into_bytes());
        Self { url: redirect_uri.clone(), redirect_uri, state, verifier, nonce, issuer, names_itself }
    }
}

impl PendingAuthorization {
    /// The address to open, and what the answer is checked against.
    pub fn begin(request: &AuthorizationParameters<'_>) -> Self {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let [state, nonce] = [(); 2].map(|()| oauth2::CsrfToken::new_random().into_secret());
        let nonce = request.scope.iter().any(|scope| scope == "openid").then_some(nonce);
        let scope = request.scope.join(" ");
        let mut own = vec![
            ("response_type", "code"),
            ("client_id", request.client_id),
            ("redirect_uri", request.redirect_uri.as_str()),
            ("scope", &scope),
            ("state", &state),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("login_hint", request.login_hint),
        ];
        own.extend(nonce.as_deref().map(|nonce| ("nonce", nonce)));
        let more = request.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        // The configuration must not replace what the security of the grant depends on. With an empty value it leaves a parameter
        // out.
        let more = more.filter(|(key, value)| !own.iter().any(|(own, _)| own == key) && !value.is_empty());
        let mut url = request.endpoint.clone();
        let more: Vec<_> = more.chain(request.prompt().map(|prompt| ("prompt", prompt))).collect();
        url.query_pairs_mut().extend_pairs(&own).extend_pairs(more);
        Self {
            url,
            redirect_uri: request.redirect_uri.clone(),
            state: Secret::new(state.into_bytes()),
            verifier,
            nonce,
            issuer: request.issuer.map(str::to_owned),
            names_itself: request.names_itself,
        }
    }

    /// For another process.
    pub fn carried(&self) -> CarriedAuthorization {
        CarriedAuthorization {
            redirect_uri: self.redirect_uri.clone(),
            state: self.state().into_owned(),
            verifier: PkceCodeVerifier::new(self.verifier.secret().clone()),
            nonce: self.nonce.clone(),
            issuer: self.issuer.clone(),
            names_itself: self.names_itself,
        }
    }

    /// The state in its address, by which its answer is found.
    pub fn state(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.state.expose())
    }

    pub fn redirect_uri(&self) -> &Url {
        &self.redirect_uri
    }

    /// Reads the query of a redirect. `state` is first, so that a stranger's request changes nothing; then `iss`; then `error`.
    pub fn code(&self, query: &str) -> Result<AuthorizationCode, RedirectError> {
        let value = |name: &str| parameter(query, name);
        let (code, error) = (value("code"), value("error"));
        if code.is_none() && error.is_none() {
            return Err(RedirectError::NoAnswer);
        }
        let state = Secret::new(value("state").unwrap_or_default().into_bytes());
        if !state.same_as(&self.state) {
            return Err(RedirectError::WrongState);
        }
        match (&self.issuer, value("iss")) {
            (Some(expected), Some(issuer)) if issuer != *expected => return Err(RedirectError::WrongIssuer),
            (_, None) if self.names_itself => return Err(RedirectError::WrongIssuer),
            _ => {}
        }
        if let Some(error) = error {
            let error = ErrorResponse::redirected(error, value("error_description").unwrap_or_default());
            return Err(RedirectError::Denied(error.failure(RequestKind::Authorization, None)));
        }
        code.map(AuthorizationCode::new).ok_or(RedirectError::NoAnswer)
    }

    /// Reads what a person has pasted: the whole address, its query, or only the code, which some providers show.
    pub fn pasted(&self, text: &str) -> Result<AuthorizationCode, RedirectError> {
        let (address, text) = (pasted::address(text), pasted::bare(text));
        let query = address.split_once('?').map(|(_, query)| query);
        let query = query.or_else(|| Some(&*address).filter(|it| it.contains("code=") || it.contains("error=")));
        if let Some(query) = query {
            let query = query.split_once('#').map_or(query, |(query, _)| query);
            let is_ours = address.starts_with(self.redirect_uri.as_str()) || !address.contains("://");
            return self.code(query).map_err(|error| match error {
                error if is_ours && self.is_incomplete(query, &error) => RedirectError::BrokenOff,
                error => error,
            });
        }
        match !text.is_empty() && !text.contains("://") && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            // It comes without a state. PKCE still binds the code to this attempt: the server accepts it from nobody else.
            true => Ok(AuthorizationCode::new(text.to_owned())),
            false => Err(RedirectError::NoAnswer),
        }
    }

    /// Whether the query could be valid if it continued.
    fn is_incomplete(&self, query: &str, error: &RedirectError) -> bool {
        let value = |name: &str| parameter(query, name);
        match error {
            RedirectError::NoAnswer => !query.is_empty(),
            RedirectError::WrongState => value("state").is_none_or(|state| state.len() < self.state.len()),
            RedirectError::WrongIssuer => value("iss").is_none_or(|own| {
                self.issuer.as_ref().is_some_and(|issuer| issuer.len() > own.len() && issuer.starts_with(&own))
            }),
            RedirectError::BrokenOff | RedirectError::Denied(_) => false,
        }
    }

    /// Exchanges the code for the first token set.
    pub async fn exchange(
        self,
        http: &Http,
        registration: &Registration,
        code: AuthorizationCode,
        clock: &Clock,
    ) -> Result<Granted, Failure> {
        let nonce = self.nonce.clone();
        let requested = clock.now();
        let request = self.token_request(registration, code, requested)?;
        let granted = outcome::tokens(http.send(request).await?, requested, None);
        let granted = granted.map_err(|error| error.failure(RequestKind::Code, Some(registration)))?;
        Ok(Granted { nonce, ..granted })
    }

    /// The oauth2 crate makes the request and does not send it, because it reads only answers that are labelled as JSON and have
    /// every member in its place.
    fn token_request(
        self,
        registration: &Registration,
        code: AuthorizationCode,
        now: Moment,
    ) -> Result<HttpRequest, Failure> {
        let redirect_uri = RedirectUrl::new(self.redirect_uri.to_string())
            .map_err(|_| Failure::Misconfigured("the redirect URI is not valid".to_owned()))?;
        let client = BasicClient::new(ClientId::new(registration.client_id.clone()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(TokenUrl::from_url(registration.token_endpoint.clone()))
            .set_redirect_uri(redirect_uri);
        let mut request = client.exchange_code(code).set_pkce_verifier(self.verifier);
        for (name, value) in registration.authentication(now)? {
            request = request.add_extra_param(name, value);
        }
        let made = OnceCell::new();
        let _not_sent = request.request(&|request| {
            let _first = made.set(request);
            Err(fmt::Error)
        });
        let failed = || Failure::Misconfigured("the request for tokens cannot be made".to_owned());
        made.into_inner().ok_or_else(failed)
    }
}

/// Whether an authorization server has sent a browser here with this query.
pub fn is_answer(query: &str) -> bool {
    state_of(query).is_some() && ["code", "error"].iter().any(|name| parameter(query, name).is_some())
}

/// The state in a browser's query.
pub fn state_of(query: &str) -> Option<String> {
    parameter(query, "state")
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://login.example.test";

    fn begin(endpoint: &str, scope: &str, names_itself: bool) -> (PendingAuthorization, String) {
        let pending = PendingAuthorization::begin(&AuthorizationParameters {
            endpoint: &Url::parse(endpoint).unwrap(),
            issuer: Some(ISSUER),
            names_itself,
            client_id: "client",
            redirect_uri: &Url::parse("http://127.0.0.1:4000/").unwrap(),
            scope: &["mail".to_owned(), scope.to_owned()],
            parameters: &BTreeMap::from([("state".into(), "mine".into()), ("hint".into(), "a&b".into())]),
            login_hint: "ann@example.test",
        });
        let state = pending.url.query_pairs().find(|(key, _)| key == "state").unwrap().1.into_owned();
        (pending, state)
    }

    fn pending() -> (PendingAuthorization, String) {
        begin("https://login.example.test/auth?prompt=consent&access_type=offline", "openid", false)
    }

    #[test]
    fn the_address_has_what_the_grant_needs_and_keeps_its_own_query() {
        let (pending, state) = pending();
        let pairs: Vec<(String, String)> = pending.url.query_pairs().into_owned().collect();
        let values = |name: &str| {
            pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(values("prompt"), ["consent"]);
        assert_eq!(values("access_type"), ["offline"]);
        assert_eq!(values("hint"), ["a&b"]);
        assert_eq!(values("state"), [state.as_str()], "the configuration cannot set it");
        assert_eq!(values("code_challenge_method"), ["S256"]);
        assert_eq!(values("scope"), ["mail openid"]);
        assert!(values("nonce")[0].len() >= 22, "128 bits at least");
        assert_eq!(values("redirect_uri"), ["http://127.0.0.1:4000/"]);
        assert!(state.len() >= 22, "128 bits at least");
        let (without, _) = begin("https://login.example.test/auth", "offline_access", false);
        assert!(without.url.query_pairs().any(|(key, value)| key == "prompt" && value == "consent"));
        let (login, _) = begin("https://login.example.test/auth?prompt=login", "offline_access", false);
        assert_eq!(
            login.url.query_pairs().filter(|(key, _)| key == "prompt").count(),
            1,
            "the endpoint says otherwise"
        );
        assert!(without.url.query_pairs().all(|(key, _)| key != "nonce"), "there will be no id_token");
    }

    #[test]
    fn only_the_answer_to_this_request_is_accepted() {
        let (pending, state) = pending();
        let read = |query: &str| pending.code(query).map(|code| code.secret().clone());
        assert_eq!(read(&format!("code=4%2F0A&state={state}")).unwrap(), "4/0A");
        assert_eq!(read(&format!("code=a&state={state}&iss=https%3A%2F%2Flogin.example.test")).unwrap(), "a");
        assert_eq!(read(&format!("code=a&state={state}&iss=https%3A%2F%2Fevil.test")), Err(RedirectError::WrongIssuer));
        assert_eq!(read("code=a&state=guess"), Err(RedirectError::WrongState));
        assert_eq!(read("code=a"), Err(RedirectError::WrongState));
        assert_eq!(read("error=access_denied&state=guess"), Err(RedirectError::WrongState));
        assert_eq!(read(&format!("state={state}")), Err(RedirectError::NoAnswer));
        let denied = |error: &str| match read(&format!("error={error}&state={state}")) {
            Err(RedirectError::Denied(failure)) => failure,
            other => panic!("{other:?}"),
        };
        let declined = denied("access_denied&error_description=no%0Dthanks");
        assert!(matches!(&declined, Failure::Ended(text) if text.contains("declined") && text.contains("no?thanks")));
        assert!(matches!(denied("invalid_scope"), Failure::Misconfigured(text) if text.contains("correct scope")));
        assert!(matches!(denied("unauthorized_client"), Failure::Misconfigured(text) if text.contains("browser")));
        assert!(matches!(denied("temporarily_unavailable"), Failure::Temporary(..)));
    }

    #[test]
    fn a_redirect_without_the_promised_issuer_is_refused() {
        let (pending, state) = begin("https://login.example.test/auth", "openid", true);
        let read = |query: &str| pending.code(query).map(|code| code.secret().clone());
        assert_eq!(read(&format!("code=a&state={state}")), Err(RedirectError::WrongIssuer));
        assert_eq!(read(&format!("code=a&state={state}&iss={ISSUER}")).unwrap(), "a");
    }

    #[test]
    fn what_a_person_pastes_is_read_in_every_form() {
        let (pending, state) = pending();
        let read = |text: &str| pending.pasted(text).map(|code| code.secret().clone());
        assert_eq!(read(&format!("  http://127.0.0.1:4000/?code=a%2Fb&state={state}#_\n")).unwrap(), "a/b");
        assert_eq!(read(&format!("code=a&state={state}")).unwrap(), "a");
        assert_eq!(read("7654321").unwrap(), "7654321");
        assert_eq!(read(&format!("\"http://127.0.0.1:4000/?code=a&amp;state={state}\"")).unwrap(), "a");
        assert_eq!(read(&format!("<http://127.0.0.1:4000/?state={state}&co\n  de=a>")).unwrap(), "a");
        assert_eq!(read(&format!("code=a\nstate={state}")).unwrap(), "a");
        assert_eq!(read("\"7654321\"").unwrap(), "7654321");
        let other = format!("http://127.0.0.1:4000/?code=a&state={}", "b".repeat(state.len()));
        assert_eq!(read(&other), Err(RedirectError::WrongState));
        for nothing in ["", "http://127.0.0.1:4000/", "what is this?"] {
            assert_eq!(read(nothing), Err(RedirectError::NoAnswer), "{nothing:?}");
        }
    }

    #[test]
    fn an_incomplete_address_is_recognized() {
        let (pending, state) = begin("https://login.example.test/auth", "openid", true);
        let read = |text: &str| pending.pasted(text).map(|code| code.secret().clone());
        let whole = format!("http://127.0.0.1:4000/?code=abc&state={state}&iss={ISSUER}");
        for end in whole.find('?').unwrap() + 2..whole.len() {
            let beginning = whole.get(..end).unwrap();
            assert_eq!(read(beginning), Err(RedirectError::BrokenOff), "{beginning}");
        }
        assert_eq!(read(&whole).unwrap(), "abc");
        let page = "https://login.example.test/auth?response_type=code&client_id=client";
        assert_eq!(read(page), Err(RedirectError::NoAnswer), "the page's own address");
    }
}
