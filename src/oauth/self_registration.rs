//! Dynamic client registration (RFC 7591): postkey registers itself if the authorization server lets anybody do so.

use serde_json::json;
use url::{Url, form_urlencoded};

use super::http::FORM;
use super::members::Members;
use super::outcome::{self, RequestError};
use super::{Failure, Http};
use crate::config::flow::Flow;
use crate::secret::Secret;
use crate::wire::printable;

/// Identifies the software independently of its version (RFC 7591 section 2).
const SOFTWARE_ID: &str = "3f0f7c3e-6f2e-4f5c-9d52-0b7c7a3d5e91";

/// Code and verifier of a token request that only checks whether the client is known: valid in form (RFC 7636 section 4.1), and
/// understandable in the server's log.
const QUESTION: &str = "postkey-asks-whether-this-client-is-still-known";

/// The port of the second redirect URI, outside the kernel's range of ephemeral ports.
const PORT: u16 = 28765;

/// The redirect URI with a fixed port, for servers that compare ports although RFC 8252 section 7.3 has them ignore the port of a
/// loopback URI. None if it has a port already, or is not a loopback URI.
pub fn with_fixed_port(redirect_uri: &Url) -> Option<Url> {
    let mut fixed = redirect_uri.clone();
    let may_change = redirect_uri.scheme() == "http" && redirect_uri.port().is_none();
    (may_change && fixed.set_port(Some(PORT)).is_ok()).then_some(fixed)
}

/// The task of an administrator if the server does not let postkey register itself.
pub fn by_hand(redirect_uri: &Url, flow: Flow) -> String {
    let client = match (flow, with_fixed_port(redirect_uri)) {
        (Flow::DeviceCode, _) => "a public client that may use the device grant".to_owned(),
        (_, Some(fixed)) => format!(
            "a public client with the redirect URI {redirect_uri}, or if the server compares ports {fixed}, which you then give \
             with --redirect-uri"
        ),
        (_, None) => format!("a public client with the redirect URI {redirect_uri}"),
    };
    format!("ask the server's administrator for {client}; then run the command again with --client-id ID")
}

/// The registration as the server has stored it.
pub struct Registered {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// If the server does not take the client for a public one.
    pub client_secret: Option<Secret>,
    /// The scopes that the client may request, if the server says so.
    pub scope: Option<Vec<String>>,
    /// `token_endpoint_auth_method`, if the server says so.
    method: Option<String>,
}

/// Registers a public native client for this redirect URI and scope. It names the scope, because some servers otherwise allow
/// none.
pub async fn register(
    http: &Http,
    (endpoint, token_endpoint): (&Url, &Url),
    redirect_uri: &Url,
    flow: Flow,
    scope: &[String],
) -> Result<Registered, Failure> {
    let fixed = with_fixed_port(redirect_uri);
    let both: Vec<&Url> = [redirect_uri].into_iter().chain(&fixed).collect();
    let ask = async |uris: &[&Url]| http.post(endpoint, "application/json", request(uris, flow, scope)).await;
    let mut answer = ask(&both).await?;
    if (400..500).contains(&answer.status) && fixed.is_some() {
        answer = ask(&[redirect_uri]).await?;
    }
    let is_refused = (400..500).contains(&answer.status);
    let refused = |error| refusal(error, is_refused, &by_hand(redirect_uri, flow));
    let registered = read(&outcome::members(answer).map_err(refused)?)?;
    registered.reconciled(http, token_endpoint, redirect_uri, flow).await
}

impl Registered {
    /// Resolves a contradiction: some servers give a public client a secret, or another client none. A request to the token
    /// endpoint shows which is true.
    async fn reconciled(
        self,
        http: &Http,
        token_endpoint: &Url,
        redirect_uri: &Url,
        flow: Flow,
    ) -> Result<Self, Failure> {
        let Some(method) = &self.method else { return Ok(self) };
        let is_public = method == "none";
        if is_public == self.client_secret.is_none() {
            return Ok(self);
        }
        let ask = async |secret| ask(http, token_endpoint, &self.client_id, secret, redirect_uri).await;
        let without = ask(None).await;
        match &self.client_secret {
            _ if without == Standing::Known || without == Standing::Unclear && is_public => {
                Ok(Self { client_secret: None, ..self })
            }
            Some(secret) if ask(Some(secret)).await == Standing::Known => Ok(self),
            _ => Err(Failure::Misconfigured(format!(
                "the authorization server has registered postkey as a client with the method {}, but does not accept it with what \
                 it gave; {}",
                printable(method),
                by_hand(redirect_uri, flow)
            ))),
        }
    }
}

/// The client metadata (RFC 7591 section 2), in the profile for open public clients.
fn request(redirect_uris: &[&Url], flow: Flow, scope: &[String]) -> Vec<u8> {
    let grant = match flow {
        Flow::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
        _ => "authorization_code",
    };
    let metadata = json!({
        "client_name": "postkey",
        "redirect_uris": redirect_uris,
        "application_type": "native",
        "grant_types": [grant, "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": scope.join(" "),
        "software_id": SOFTWARE_ID,
        "software_version": env!("CARGO_PKG_VERSION"),
    });
    metadata.to_string().into_bytes()
}

fn read(answer: &Members) -> Result<Registered, Failure> {
    let unusable =
        || Failure::Misconfigured("the authorization server's answer to the registration has no client id".into());
    // It is used in URLs and forms, and shown in the terminal.
    let is_usable = |id: &String| id.len() <= 1024 && id.bytes().all(|b| b.is_ascii_graphic());
    Ok(Registered {
        client_id: answer.text("client_id").filter(is_usable).ok_or_else(unusable)?,
        client_secret: answer.text("client_secret").map(|secret| Secret::new(secret.into_bytes())),
        scope: answer.words("scope").filter(|scope| !scope.is_empty()),
        method: answer.text("token_endpoint_auth_method"),
    })
}

/// RFC 7591 section 3.2.2.
fn refusal(error: RequestError, is_refused: bool, by_hand: &str) -> Failure {
    let why = match error {
        RequestError::Refused(error) => error.words(),
        RequestError::Failed(failure) if is_refused => failure.to_string(),
        RequestError::Failed(failure) => return failure,
    };
    Failure::Misconfigured(format!("the authorization server does not register postkey: {why}; {by_hand}"))
}

/// A server's knowledge of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It refuses the code, but not the client.
    Known,
    /// It refuses the client (RFC 6749 section 5.2).
    Unknown,
    /// Its answer does not show it.
    Unclear,
}

/// Whether the server still knows a public client that it has registered. If it does not, a browser would end on an error page
/// instead of returning.
pub async fn is_known(http: &Http, token_endpoint: &Url, client_id: &str, redirect_uri: &Url) -> bool {
    ask(http, token_endpoint, client_id, None, redirect_uri).await != Standing::Unknown
}

/// Requests tokens with an invalid code. The server refuses either the client or the code.
async fn ask(
    http: &Http,
    token_endpoint: &Url,
    client_id: &str,
    secret: Option<&Secret>,
    redirect_uri: &Url,
) -> Standing {
    let secret = secret.map(|secret| String::from_utf8_lossy(secret.expose()));
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "authorization_code")
        .append_pair("code", QUESTION)
        .append_pair("code_verifier", QUESTION)
        .append_pair("redirect_uri", redirect_uri.as_str())
        .append_pair("client_id", client_id)
        .extend_pairs(secret.map(|secret| ("client_secret", secret)))
        .finish();
    let Ok(answer) = http.post(token_endpoint, FORM, form.into_bytes()).await else { return Standing::Unclear };
    match outcome::members(answer) {
        Err(RequestError::Refused(error)) if error.code == "invalid_client" => Standing::Unknown,
        Err(RequestError::Refused(_)) => Standing::Known,
        _ => Standing::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Registered, Failure> {
        super::read(&Members::read(body.as_bytes()).unwrap())
    }

    #[test]
    fn an_administrator_learns_which_client_to_create() {
        let text = |uri: &str, flow| by_hand(&Url::parse(uri).unwrap(), flow);
        let usual = text("http://127.0.0.1/", Flow::AuthorizationCode);
        assert!(
            usual.contains("URI http://127.0.0.1/, or") && usual.contains(" http://127.0.0.1:28765/, which"),
            "{usual}"
        );
        let own = text("https://mail.example.test/back", Flow::AuthorizationCode);
        assert!(own.contains("URI https://mail.example.test/back; then"), "{own}");
        assert!(!text("http://127.0.0.1/", Flow::DeviceCode).contains("redirect"));
    }

    #[test]
    fn an_answer_without_a_usable_client_id_is_refused() {
        let good = read(r#"{"client_id":"abc","client_secret":"","client_id_issued_at":1,"scope":""}"#).unwrap();
        assert!(good.client_id == "abc" && good.client_secret.is_none() && good.scope.is_none());
        let full = read(r#"{"client_id":7,"client_secret":"s","scope":["mail"]}"#).unwrap();
        assert!(full.client_id == "7" && full.client_secret.is_some() && full.scope.unwrap() == ["mail"]);
        for bad in ["{}", r#"{"client_id":""}"#, r#"{"client_id":"a b"}"#, r#"{"client_id":"a\u001b["}"#] {
            assert!(matches!(read(bad), Err(Failure::Misconfigured(_))), "{bad}");
        }
    }
}
