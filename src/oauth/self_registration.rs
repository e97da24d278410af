//! Dynamic client registration (RFC 7591): postkey registers itself, where the authorization server lets anybody do so.

use serde::Deserialize;
use serde_json::json;
use url::{Url, form_urlencoded};

use super::http::HttpError;
use super::response::ErrorBody;
use super::{Failure, Http, trouble};
use crate::config::flow::Flow;
use crate::secret::Secret;
use crate::wire::printable;

/// Tells the software itself, whatever its version, from others of the name (RFC 7591 section 2).
const SOFTWARE_ID: &str = "3f0f7c3e-6f2e-4f5c-9d52-0b7c7a3d5e91";

/// Code and verifier of a token request that only asks whether the client is known: valid in form (RFC 7636 section 4.1), and
/// telling in the server's log.
const QUESTION: &str = "postkey-asks-whether-this-client-is-still-known";

/// What the server has given.
pub struct Registered {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// Where the server has not made it a public client.
    pub client_secret: Option<Secret>,
}

/// Registers a public native client for this redirect URI and scope. The scope is named, for some servers give none to a
/// client that has not.
pub async fn register(
    http: &Http,
    endpoint: &Url,
    redirect_uri: &Url,
    flow: Flow,
    scope: &[String],
) -> Result<Registered, Failure> {
    let answer = http.post(endpoint, "application/json", request(redirect_uri, flow, scope)).await;
    let answer = match answer {
        Err(HttpError::NotJson(status @ 400..500)) => return Err(refusal(status, b"")),
        answer => answer.map_err(|error| Failure::Temporary(trouble(&error), error.to_string()))?,
    };
    match answer.status().as_u16() {
        200 | 201 => read(answer.body()),
        status => Err(refusal(status, answer.body())),
    }
}

/// The client metadata of RFC 7591 section 2, as the profile for open public clients wants them.
fn request(redirect_uri: &Url, flow: Flow, scope: &[String]) -> Vec<u8> {
    let grant = match flow {
        Flow::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
        _ => "authorization_code",
    };
    let metadata = json!({
        "client_name": "postkey",
        "redirect_uris": [redirect_uri],
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

fn read(body: &[u8]) -> Result<Registered, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        client_id: String,
        client_secret: Option<String>,
    }
    let unusable =
        || Failure::Misconfigured("the authorization server's answer to the registration has no client id".into());
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unusable())?;
    // It goes into URLs, forms and the terminal.
    let is_usable =
        (1..=1024).contains(&answer.client_id.len()) && answer.client_id.bytes().all(|b| b.is_ascii_graphic());
    let client_secret = answer.client_secret.filter(|secret| !secret.is_empty());
    let client_secret = client_secret.map(|secret| Secret::new(secret.into_bytes()));
    is_usable.then_some(Registered { client_id: answer.client_id, client_secret }).ok_or_else(unusable)
}

/// RFC 7591 section 3.2.2.
fn refusal(status: u16, body: &[u8]) -> Failure {
    let why = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.words(),
        Err(_) => format!("HTTP status {status}"),
    };
    Failure::Misconfigured(printable(&format!("the authorization server does not register postkey: {why}")))
}

/// Whether the server still knows a client that it has registered: a token request with a code that is none is refused for
/// the client (RFC 6749 section 5.2) or for the code. A browser would end on an error page instead of coming back.
pub async fn is_known(http: &Http, token_endpoint: &Url, client_id: &str, redirect_uri: &Url) -> bool {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "authorization_code")
        .append_pair("code", QUESTION)
        .append_pair("code_verifier", QUESTION)
        .append_pair("redirect_uri", redirect_uri.as_str())
        .append_pair("client_id", client_id)
        .finish();
    let answer = http.post(token_endpoint, "application/x-www-form-urlencoded", form.into_bytes()).await;
    let error = answer.ok().and_then(|answer| serde_json::from_slice::<ErrorBody>(answer.body()).ok());
    error.is_none_or(|body| body.error != "invalid_client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged() {
        let good = read(br#"{"client_id":"abc","client_secret":"","client_id_issued_at":1}"#).unwrap();
        assert!(good.client_id == "abc" && good.client_secret.is_none());
        assert!(read(br#"{"client_id":"abc","client_secret":"s"}"#).unwrap().client_secret.is_some());
        for bad in
            [&b"{}"[..], b"[]", br#"{"client_id":""}"#, br#"{"client_id":"a b"}"#, br#"{"client_id":"a\u001b["}"#]
        {
            assert!(matches!(read(bad), Err(Failure::Misconfigured(_))), "{}", String::from_utf8_lossy(bad));
        }
        let refused = refusal(400, br#"{"error":"invalid_redirect_uri","error_description":"not\nloopback"}"#);
        let words = "the authorization server does not register postkey: invalid_redirect_uri (not)";
        assert_eq!(refused, Failure::Misconfigured(words.into()));
    }
}
