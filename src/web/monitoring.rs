//! Metrics and health over HTTP, for this machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Router, serve as serve_http};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::warn;

use crate::broker::Broker;

/// What Prometheus wants to read, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the vault may take to answer: it writes within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves `/metrics` and `/health`.
pub async fn serve(listener: TcpListener, broker: Arc<Broker>) {
    let router = Router::new().route("/metrics", get(metrics)).route("/health", get(health));
    let router = router.layer(from_fn(only_by_local_names)).with_state(broker);
    if let Err(error) = serve_http(listener, router).await {
        warn!(%error, "metrics are not served any more");
    }
}

async fn metrics(State(broker): State<Arc<Broker>>) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], broker.metrics_text()).into_response()
}

/// 200 if the vault answers. It costs no login; who needs a person is in the metrics, for no restart helps there.
async fn health(State(broker): State<Arc<Broker>>) -> Response {
    let vault = Arc::clone(broker.vault());
    let answer = tokio::task::spawn_blocking(move || vault.accounts().len());
    match timeout(PATIENCE, answer).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok\n").into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the vault does not answer\n").into_response(),
    }
}

/// A web page elsewhere can have its own name lead here and then read what we say (DNS rebinding); its name is not ours.
async fn only_by_local_names(request: Request, next: Next) -> Response {
    if is_local(request.headers()) { next.run(request).await } else { StatusCode::MISDIRECTED_REQUEST.into_response() }
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|value| value.to_str().ok()) else { return true };
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_ours() {
        for (host, local) in [
            ("127.0.0.1:9143", true),
            ("localhost", true),
            ("localhost:9143", true),
            ("[::1]:9143", true),
            ("::1", true),
            ("evil.test:9143", false),
            ("127.0.0.1.evil.test", false),
            ("192.0.2.1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            assert_eq!(is_local(&headers), local, "{host}");
        }
    }
}
