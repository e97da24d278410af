//! The authorization server: an authorization endpoint with its consent page, and a token endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, DATE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::{Url, form_urlencoded};

use super::grants::{Request, Tokens};
use super::introduction;
use super::settings::{IdToken, Settings, TokenEndpoint};
use super::{Service, assertions, device, lock};

type Fields = HashMap<String, String>;
type Shared = State<Arc<Service>>;

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Serves until its task is ended.
pub async fn serve(service: Arc<Service>, listener: TcpListener) {
    let routes = Router::new()
        .route("/authorize", get(authorize))
        .route("/consent", post(consent))
        .route("/token", post(token))
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/device_authorization", post(device::begin))
        .route("/device", get(device::form).post(device::decide))
        .route("/revoke", post(revoke))
        .route("/.well-known/{place}", get(introduction::metadata))
        .route("/keys", get(introduction::keys))
        .route("/userinfo", get(introduction::userinfo))
        .route("/register", post(introduction::register))
        .layer(axum::middleware::map_response_with_state(service.clone(), date))
        .with_state(service.clone());
    let served = match service.options.https {
        true => axum::serve(TlsListener { tcp: listener, acceptor: service.tls.clone() }, routes).await,
        false => axum::serve(listener, routes).await,
    };
    served.expect("axum serves for ever");
}

/// RFC 9110 section 6.6.1.
async fn date(State(service): Shared, mut response: Response) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let seconds = now.as_secs().saturating_add_signed(service.settings().clock_ahead);
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    response.headers_mut().insert(DATE, date.parse().expect("a date is ASCII"));
    response
}

/// RFC 6749 section 4.1.1. The person learns what is wrong with the client or redirect, and the client everything else.
async fn authorize(State(service): Shared, RawQuery(query): RawQuery) -> Response {
    let fields = fields(query.as_deref().unwrap_or_default());
    if !is_known(&service, field(&fields, "client_id")) {
        return page(StatusCode::BAD_REQUEST, "<p>Unknown client.</p>");
    }
    let redirect_uri = field(&fields, "redirect_uri");
    if !is_registered(redirect_uri) {
        return page(StatusCode::BAD_REQUEST, "<p>This redirect URI is not registered.</p>");
    }
    let request = Request {
        redirect_uri: redirect_uri.to_owned(),
        scope: field(&fields, "scope").to_owned(),
        state: field(&fields, "state").to_owned(),
        code_challenge: field(&fields, "code_challenge").to_owned(),
        nonce: field(&fields, "nonce").to_owned(),
        client_id: field(&fields, "client_id").to_owned(),
    };
    let wanted = service.settings().authorization_error.map(|error| (error, "a test wants it so"));
    match wanted.or_else(|| fault(&fields)) {
        Some((error, why)) => send_back(&service, &request, &[("error", error), ("error_description", why)]),
        None => ask(&service, request, field(&fields, "login_hint")),
    }
}

/// What is wrong with an authorization request: the error code, and its description.
fn fault(fields: &Fields) -> Option<(&'static str, &'static str)> {
    if field(fields, "response_type") != "code" {
        return Some(("unsupported_response_type", "response_type is code"));
    }
    if field(fields, "code_challenge_method") != "S256" || field(fields, "code_challenge").len() != 43 {
        return Some(("invalid_request", "PKCE with S256 is mandatory"));
    }
    if field(fields, "state").len() < 22 {
        return Some(("invalid_request", "state is too short to hold 128 random bits"));
    }
    let mail = field(fields, "scope").split(' ').any(|scope| scope == "mail");
    (!mail).then_some(("invalid_scope", "there is nothing here but mail"))
}

/// The consent page.
fn ask(service: &Service, request: Request, hint: &str) -> Response {
    let number = lock(&service.grants).ask(request);
    let hint = hint.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let form = format!(
        r#"<h1>May this program read and send your mail?</h1>
<form method="post" action="/consent">
<input type="hidden" name="request" value="{number}">
<label>You are <input type="email" name="address" value="{hint}"></label>
<button name="decision" value="allow">Yes</button>
<button name="decision" value="deny">No</button>
</form>"#
    );
    page(StatusCode::OK, &form)
}

/// The consent page's form. It asks for no password: anybody who gets here may be anybody.
async fn consent(State(service): Shared, body: String) -> Response {
    let fields = fields(&body);
    let address = field(&fields, "address");
    let Some(request) = lock(&service.grants).decided(field(&fields, "request")) else {
        return page(StatusCode::BAD_REQUEST, "<p>Nobody asked.</p>");
    };
    if field(&fields, "decision") != "allow" {
        return send_back(&service, &request, &[("error", "access_denied")]);
    }
    if !service.options.addresses.iter().any(|known| known == address) {
        return page(StatusCode::FORBIDDEN, "<p>There is no such mailbox.</p>");
    }
    let code = lock(&service.grants).issue_code(request.clone(), address);
    send_back(&service, &request, &[("code", &code)])
}

/// The authorization response (RFC 6749 section 4.1.2), with `iss` (RFC 9207).
fn send_back(service: &Service, request: &Request, answer: &[(&str, &str)]) -> Response {
    let Ok(mut target) = Url::parse(&request.redirect_uri) else {
        return page(StatusCode::BAD_REQUEST, "<p>This redirect URI is none.</p>");
    };
    let name = service.settings().names_itself.then_some(("iss", service.issuer.as_str()));
    target.query_pairs_mut().extend_pairs(answer).append_pair("state", &request.state).extend_pairs(name);
    (StatusCode::SEE_OTHER, [(LOCATION, String::from(target))]).into_response()
}

/// `http://127.0.0.1/` and its siblings on any port (RFC 8252 section 7.3).
fn is_registered(redirect_uri: &str) -> bool {
    let Ok(uri) = Url::parse(redirect_uri) else { return false };
    // A tunnel's other end, which leads back here.
    if redirect_uri == "https://tunnel.example.test/callback" {
        return true;
    }
    let loopback = matches!(uri.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    loopback && uri.scheme() == "http" && uri.path() == "/" && uri.query().is_none() && uri.fragment().is_none()
}

/// RFC 6749 sections 4.1.3 and 6.
async fn token(State(service): Shared, headers: HeaderMap, body: String) -> Response {
    let fields = fields(&body);
    lock(&service.log).requests.push(field(&fields, "grant_type").to_owned());
    lock(&service.log).scopes.push(field(&fields, "scope").to_owned());
    let settings = service.settings();
    match settings.token_endpoint.clone() {
        TokenEndpoint::Normal => {}
        TokenEndpoint::Delay(time) => tokio::time::sleep(time).await,
        TokenEndpoint::Gate(gate) => gate.acquire().await.expect("a gate is never closed").forget(),
        TokenEndpoint::Hang => std::future::pending().await,
        TokenEndpoint::Status(status) => {
            return StatusCode::from_u16(status).expect("a test knows its statuses").into_response();
        }
        TokenEndpoint::Refuse(body) => {
            let body = body.to_string().replace("{token}", field(&fields, "refresh_token"));
            return no_store(StatusCode::BAD_REQUEST, serde_json::from_str(&body).expect("a token needs no escapes"));
        }
        TokenEndpoint::InvalidGrant => return refusal("invalid_grant", "a test wants it so"),
        TokenEndpoint::Html => return page(StatusCode::OK, "<p>Welcome to our hotel!</p>"),
        TokenEndpoint::LoseAnswer => {
            exchange(&service, &settings, &headers, &fields);
            std::future::pending().await
        }
    }
    match lock(&service.settings).token_errors.pop_front() {
        Some("") | None => exchange(&service, &settings, &headers, &fields),
        Some(error) => match error.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()) {
            Some(status) => status.into_response(),
            None => refusal(error, "a test wants it so"),
        },
    }
}

/// Tokens for any client that authenticates.
fn exchange(service: &Service, settings: &Settings, headers: &HeaderMap, fields: &Fields) -> Response {
    let grant_type = field(fields, "grant_type");
    // The issuer of a bearer's assertion needs no client.
    let needs_client = grant_type != JWT_BEARER || fields.contains_key("client_id");
    if needs_client && !is_our_client(service, headers, fields) {
        return refusal("invalid_client", "unknown client, or not its secret");
    }
    let (mut grants, scope) = (lock(&service.grants), field(fields, "scope"));
    let tokens = match grant_type {
        "authorization_code" => {
            let [code, uri, verifier] = ["code", "redirect_uri", "code_verifier"].map(|name| field(fields, name));
            grants.redeem(code, uri, verifier, settings)
        }
        "refresh_token" => grants.refresh(field(fields, "refresh_token"), settings),
        DEVICE_CODE => match grants.redeem_device(field(fields, "device_code"), settings) {
            Ok(tokens) => Ok(tokens),
            Err(error) => return refusal(error, ""),
        },
        // The client may open the first mailbox.
        "client_credentials" => Ok(grants.grant_once(&service.options.addresses[0], scope, settings)),
        JWT_BEARER => spoken_for(service, field(fields, "assertion"))
            .map(|(address, scope)| grants.grant_once(&address, &scope, settings)),
        "password" => owner(service, fields).map(|address| grants.grant(&address, "mail", settings)),
        _ => return refusal("unsupported_grant_type", "there is no such grant here"),
    };
    match tokens {
        Ok(tokens) => no_store(StatusCode::OK, token_response(service, settings, tokens, field(fields, "client_id"))),
        Err(why) => refusal("invalid_grant", why),
    }
}

/// The mailbox of an assertion (RFC 7523 section 3), and the scope, which Google's assertions contain.
fn spoken_for(service: &Service, assertion: &str) -> Result<(String, String), &'static str> {
    let assertion = assertions::judge(assertion, &format!("{}/token", service.issuer))?;
    let claim = |name: &str| assertion.claims[name].as_str().unwrap_or_default().to_owned();
    if claim("iss") != "service@example.test" {
        return Err("this issuer speaks for nobody");
    }
    let subject = service.options.addresses.iter().find(|address| **address == claim("sub"));
    let found = (subject.ok_or("there is no such mailbox")?.clone(), claim("scope"));
    lock(&service.log).assertions.push(assertion);
    Ok(found)
}

/// The person whose password a client has sent (RFC 6749 section 4.3.2), for a scope or, in the older way, for a
/// resource.
fn owner(service: &Service, fields: &Fields) -> Result<String, &'static str> {
    let known = service.options.addresses.iter().find(|address| **address == field(fields, "username"));
    let is_for_mail =
        field(fields, "scope").split(' ').any(|scope| scope == "mail") || field(fields, "resource") == "mail";
    match known.filter(|_| field(fields, "password") == service.options.password) {
        Some(address) if is_for_mail => Ok(address.clone()),
        Some(_) => Err("neither scope nor resource is mail"),
        None => Err("wrong user name or password"),
    }
}

/// Client authentication by body or by header (RFC 6749 section 2.3.1), or by assertion (RFC 7523 section 2.2). A
/// public client sends none.
pub(super) fn is_our_client(service: &Service, headers: &HeaderMap, fields: &Fields) -> bool {
    let options = &service.options;
    let in_body = (fields.get("client_id").cloned(), fields.get("client_secret").cloned());
    let (id, secret) = basic(headers).map_or(in_body, |(id, secret)| (Some(id), Some(secret)));
    let registered = lock(&service.registered);
    match registered.iter().find(|one| Some(&one.client_id) == id.as_ref()) {
        Some(own) => secret == own.client_secret,
        None => id.as_ref() == Some(&options.client_id) && secret == options.client_secret && asserts(service, fields),
    }
}

fn asserts(service: &Service, fields: &Fields) -> bool {
    let options = &service.options;
    let Some(assertion) = fields.get("client_assertion") else { return !options.signs && options.federated.is_none() };
    if field(fields, "client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
        return false;
    }
    if let Some(federated) = &options.federated {
        return assertion == federated;
    }
    let Ok(assertion) = assertions::judge(assertion, &format!("{}/token", service.issuer)) else { return false };
    let mut log = lock(&service.log);
    let is_new = log.assertions.iter().all(|known| known.claims["jti"] != assertion.claims["jti"]);
    let is_own = ["iss", "sub"].iter().all(|name| assertion.claims[*name] == options.client_id.as_str());
    log.assertions.push(assertion);
    options.signs && is_new && is_own
}

/// RFC 7009 section 2: a success has no body, and no content type.
async fn revoke(State(service): Shared, headers: HeaderMap, body: String) -> Response {
    let fields = fields(&body);
    lock(&service.log).revocations.push(field(&fields, "token_type_hint").to_owned());
    if !is_our_client(&service, &headers, &fields) {
        return refusal("invalid_client", "unknown client, or not its secret");
    }
    let status = StatusCode::from_u16(service.settings().revocation_status).expect("a test knows its statuses");
    if status == StatusCode::OK {
        lock(&service.grants).revoke(field(&fields, "token"));
    }
    status.into_response()
}

/// Whether this client is known: the one that always exists, or one that has registered itself.
fn is_known(service: &Service, client_id: &str) -> bool {
    client_id == service.options.client_id || lock(&service.registered).iter().any(|one| one.client_id == client_id)
}

/// User name and password of an `Authorization: Basic` header, both form-urlencoded.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).map(|(name, _)| name.into_owned()).next();
    Some((decoded(id)?, decoded(secret)?))
}

/// RFC 6749 section 5.1.
fn token_response(service: &Service, settings: &Settings, tokens: Tokens, client_id: &str) -> Value {
    let seconds = settings.token_life.as_secs();
    let mut response = json!({
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": if settings.expires_in_as_text { json!(seconds.to_string()) } else { json!(seconds) },
        "scope": tokens.scope,
    });
    if let Some(refresh_token) = tokens.refresh_token.as_ref().filter(|_| settings.gives_refresh_tokens) {
        response["refresh_token"] = json!(refresh_token);
    }
    let is_wanted = tokens.scope.split(' ').any(|scope| scope == "openid");
    if is_wanted && settings.id_token != IdToken::None {
        response["id_token"] = json!(id_token(service, settings, &tokens, client_id));
    }
    response
}

/// Who consented (OpenID Connect Core section 2).
fn id_token(service: &Service, settings: &Settings, tokens: &Tokens, client_id: &str) -> String {
    let how = settings.id_token;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let (iss, address) = (&service.issuer, &tokens.address);
    let aud = if how == IdToken::OtherAudience { "another client" } else { client_id };
    // Far enough for a house, whose clock is another one.
    let exp = now + 1_000_000_000;
    let mut claims = json!({"iss": iss, "aud": aud, "sub": address, "email": address, "iat": now, "exp": exp});
    if let Some(more) = &settings.id_claims {
        claims.as_object_mut().expect("an object").extend(more.clone());
    }
    match how {
        IdToken::OtherNonce => claims["nonce"] = json!("of another request"),
        _ if !tokens.nonce.is_empty() => claims["nonce"] = json!(tokens.nonce),
        _ => {}
    }
    service.keys.sign(&claims, how)
}

/// RFC 6749 section 5.2.
pub(super) fn refusal(error: &str, why: &str) -> Response {
    let status = if error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    no_store(status, json!({"error": error, "error_description": why}))
}

pub(super) fn no_store(status: StatusCode, body: Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

pub(super) fn page(status: StatusCode, content: &str) -> Response {
    (status, Html(format!("<!doctype html><title>Provider</title>\n{content}\n"))).into_response()
}

/// The parameters of a query or a form. One that comes twice counts as missing (RFC 6749 section 3.1).
pub(super) fn fields(encoded: &str) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in form_urlencoded::parse(encoded.as_bytes()).into_owned() {
        let unwanted = fields.contains_key(&name);
        fields.insert(name, if unwanted { String::new() } else { value });
    }
    fields
}

/// A parameter's value. A missing one is the same as an empty one.
pub(super) fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

/// An HTTPS listener for axum. A handshake delays the next one, because there is one client at a time.
struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, peer)) = self.tcp.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
