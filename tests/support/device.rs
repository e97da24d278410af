//! The device authorization endpoint, and the page where a person types the code in (RFC 8628).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::authorization_server::{field, fields, is_our_client, no_store, page, refusal};
use super::{Service, lock};

/// Sections 3.1 and 3.2. The settings change members; null removes one.
pub async fn begin(State(service): State<Arc<Service>>, headers: axum::http::HeaderMap, body: String) -> Response {
    let fields = fields(&body);
    if !is_our_client(&service, &headers, &fields) {
        return refusal("invalid_client", "unknown client, or not its secret");
    }
    let (device_code, user_code) = lock(&service.grants).ask_device(field(&fields, "scope"));
    let page = format!("{}/device", service.issuer);
    let mut answer = json!({
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "expires_in": 60,
        "interval": 1,
    });
    if let (Value::Object(answer), Some(changes)) = (&mut answer, service.settings().device_answer.as_object()) {
        answer.extend(changes.clone());
        answer.retain(|_, value| !value.is_null());
    }
    no_store(StatusCode::OK, answer)
}

/// The page on which the person types the code.
pub async fn form() -> Response {
    page(
        StatusCode::OK,
        r#"<form method="post" action="/device">
<label>Code <input name="user_code"></label>
<label>You are <input type="email" name="address"></label>
<button name="decision" value="allow">Yes</button>
</form>"#,
    )
}

/// What the person has typed.
pub async fn decide(State(service): State<Arc<Service>>, body: String) -> Response {
    let fields = fields(&body);
    let allowed = field(&fields, "decision") == "allow";
    let address = allowed.then(|| field(&fields, "address").to_owned());
    match lock(&service.grants).decide_device(field(&fields, "user_code"), address) {
        true => page(StatusCode::OK, "<p>Go back to your device.</p>"),
        false => page(StatusCode::NOT_FOUND, "<p>There is no such code.</p>"),
    }
}
