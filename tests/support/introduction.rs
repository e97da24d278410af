//! What an authorization server publishes about itself (RFC 8414, OpenID Connect Discovery), its keys (RFC 7517),
//! userinfo, and clients that register themselves (RFC 7591).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::settings::IdToken;
use super::{Service, lock, random};

type Shared = State<Arc<Service>>;

/// A client that has registered itself.
pub struct Registered {
    pub client_id: String,
    pub client_secret: Option<String>,
}

/// The key with which id_tokens are signed, and an unpublished one.
pub struct Keys {
    known: EcdsaKeyPair,
    unknown: EcdsaKeyPair,
}

impl Keys {
    pub fn new() -> Self {
        Self { known: key_pair(), unknown: key_pair() }
    }

    /// Signs claims, or returns the kind of token that has to be detected.
    pub fn sign(&self, claims: &Value, how: IdToken) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let (algorithm, key) = match how {
            IdToken::Unsigned => return format!("{}.{}.", encode(&json!({"alg": "none"})), encode(claims)),
            IdToken::Forged => ("ES256", &self.unknown),
            _ => ("ES256", &self.known),
        };
        let signed = format!("{}.{}", encode(&json!({"alg": algorithm, "kid": "one"})), encode(claims));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a good key");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn set(&self) -> Value {
        let (x, y) = self.known.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "one", "x": x, "y": y}]})
    }
}

fn key_pair() -> EcdsaKeyPair {
    let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("the system's randomness");
    EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("a key that was just made")
}

/// The metadata, in one of the two places.
pub async fn metadata(State(service): Shared, Path(place): Path<String>) -> Response {
    let settings = service.settings().publishes;
    let is_there = match place.as_str() {
        "oauth-authorization-server" => settings.metadata.0,
        "openid-configuration" => settings.metadata.1,
        _ => false,
    };
    if !is_there {
        return StatusCode::NOT_FOUND.into_response();
    }
    if let Some(elsewhere) = settings.elsewhere {
        return (StatusCode::FOUND, [(LOCATION, elsewhere)]).into_response();
    }
    let issuer = &service.issuer;
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "authorization_response_iss_parameter_supported": true,
    });
    if settings.registers.is_some() {
        document["registration_endpoint"] = json!(format!("{issuer}/register"));
    }
    for (key, value) in settings.instead {
        document[key] = value;
    }
    let blanks = " ".repeat(settings.blanks);
    ([(CONTENT_TYPE, "application/json")], blanks + &document.to_string()).into_response()
}

pub async fn keys(State(service): Shared) -> Response {
    match service.settings().publishes.keys {
        true => answer(StatusCode::OK, service.keys.set()),
        false => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// OpenID Connect Core 1.0 section 5.3.
pub async fn userinfo(State(service): Shared, headers: HeaderMap) -> Response {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let holder = token.and_then(|token| lock(&service.grants).holder(token).map(str::to_owned));
    match holder.filter(|_| service.settings().publishes.userinfo) {
        Some(address) => answer(StatusCode::OK, json!({"sub": address, "email": address})),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// RFC 7591 section 3.
pub async fn register(State(service): Shared, body: String) -> Response {
    let Some(has_secret) = service.settings().publishes.registers else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let wanted: Value = serde_json::from_str(&body).unwrap_or_default();
    let is_right = wanted["redirect_uris"][0].as_str().is_some_and(|uri| uri.starts_with("http://127.0.0.1"))
        && wanted["application_type"] == "native"
        && wanted["token_endpoint_auth_method"] == "none"
        && wanted["grant_types"] == json!(["authorization_code", "refresh_token"])
        && wanted["response_types"] == json!(["code"])
        && wanted["scope"].as_str().is_some_and(|scope| scope.split(' ').any(|scope| scope == "mail"));
    if !is_right {
        return answer(StatusCode::BAD_REQUEST, json!({"error": "invalid_client_metadata", "error_description": body}));
    }
    let (client_id, client_secret) = (random(12), has_secret.then(|| random(24)));
    let mut registered = json!({"client_id": client_id});
    if let Some(secret) = &client_secret {
        registered["client_secret"] = json!(secret);
        lock(&service.grants).secrets.push(secret.clone());
    }
    lock(&service.registered).push(Registered { client_id, client_secret });
    answer(StatusCode::CREATED, registered)
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
