//! The token endpoint, the authorization endpoint, and two that report the counts and set the distance.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get as on_get, post as on_post};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use url::Url;

use super::TOKEN;

/// Serves on a free port, and returns it.
pub async fn serve(flights: Arc<AtomicU32>, distance: Arc<AtomicU64>, expires_in: u32) -> io::Result<u16> {
    let router = Router::new()
        .route("/authorize", on_get(authorize))
        .route("/token", on_post(move || token(expires_in)))
        .route(
            "/flights",
            on_get(async |State(flights): State<Arc<AtomicU32>>| flights.load(Ordering::Relaxed).to_string()),
        )
        .route(
            "/distance/{milliseconds}",
            on_get(async move |Path(milliseconds)| {
                distance.store(milliseconds, Ordering::Relaxed);
            }),
        )
        .with_state(flights);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(port)
}

/// The parameters of an authorization request that matter here (RFC 6749 section 4.1.1).
#[derive(Deserialize)]
struct Request {
    redirect_uri: Url,
    state: String,
}

/// Consents at once.
async fn authorize(Query(mut request): Query<Request>) -> impl IntoResponse {
    request.redirect_uri.query_pairs_mut().append_pair("code", "bench").append_pair("state", &request.state);
    (StatusCode::FOUND, [(header::LOCATION, request.redirect_uri.to_string())])
}

/// Answers every grant with the one token.
async fn token(expires_in: u32) -> impl IntoResponse {
    let tokens = json!({
        "access_token": TOKEN, "token_type": "Bearer", "expires_in": expires_in, "refresh_token": "bench", "scope": "mail",
    });
    ([(header::CONTENT_TYPE, "application/json")], tokens.to_string())
}

/// Gets a page and follows redirects. Fails if the last answer is not a success.
pub async fn get(url: &str) -> io::Result<String> {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build();
    let answer = client.map_err(io::Error::other)?.get(url).send().await.map_err(io::Error::other)?;
    answer.error_for_status().map_err(io::Error::other)?.text().await.map_err(io::Error::other)
}
