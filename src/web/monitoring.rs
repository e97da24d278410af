//! Metrics and health over HTTP, for this machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::time::timeout;

use super::redirect::host_of;
use crate::broker::Broker;
use crate::net::peer::Visitor;

/// The format that Prometheus reads, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the vault may take to answer. Its writes take milliseconds.
const VAULT: Duration = Duration::from_secs(5);

pub fn router(broker: Arc<Broker>) -> Router {
    let router = Router::new().route("/metrics", get(metrics)).route("/health", get(health));
    router.layer(from_fn(only_by_local_names)).with_state(broker)
}

/// Serves the metrics. They name the accounts, so not every user of this machine may see them.
async fn metrics(State(broker): State<Arc<Broker>>, Extension(visitor): Extension<Visitor>) -> Response {
    let user = if let Visitor::User(user) = visitor { Some(user) } else { None };
    if !broker.config().metrics_users.allow(user) {
        return (StatusCode::FORBIDDEN, "metrics_allow_uids does not name your user\n").into_response();
    }
    ([(CONTENT_TYPE, OPEN_METRICS)], broker.metrics_text()).into_response()
}

/// Answers 200 if the vault works, to everybody. An account that needs a person is not a failure, because a restart
/// would not help; the metrics have those.
async fn health(State(broker): State<Arc<Broker>>) -> Response {
    let vault = Arc::clone(&broker.context.vault);
    let answer = tokio::task::spawn_blocking(move || vault.accounts().len());
    match timeout(VAULT, answer).await {
        // A restart would not help a database.
        Ok(Ok(_)) if broker.context.vault.trouble().is_some() => {
            (StatusCode::OK, "degraded: changes cannot be stored\n").into_response()
        }
        Ok(Ok(_)) => (StatusCode::OK, "ok\n").into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the vault does not answer\n").into_response(),
    }
}

/// Refuses other host names, because a foreign web page can make its own name lead here and read our answers (DNS
/// rebinding).
async fn only_by_local_names(request: Request, next: Next) -> Response {
    if is_local(request.headers()) { next.run(request).await } else { StatusCode::MISDIRECTED_REQUEST.into_response() }
}

pub(super) fn is_local(headers: &HeaderMap) -> bool {
    let Some(name) = host_of(headers) else { return true };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::header::HOST;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for (host, local) in [
            ("127.0.0.1:9143", true),
            ("localhost", true),
            ("localhost:9143", true),
            ("[::1]:9143", true),
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
