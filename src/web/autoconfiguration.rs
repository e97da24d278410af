//! The files in which mail programs look for their settings: Mozilla's autoconfiguration and Microsoft's autodiscovery.
//!
//! The answer depends on the domain and the configuration alone, so that nobody learns which accounts there are. The
//! only text of the request in it is the address.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tracing::debug;

use super::monitoring::is_local;
use super::redirect::host_of;
use crate::broker::Broker;
use crate::name::Name;
use crate::programs::{MailProgram, Served};

/// The largest request of an autodiscovery, in bytes. Outlook's have a few hundred.
const REQUEST: usize = 16 * 1024;

pub fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/mail/config-v1.1.xml", get(autoconfig))
        .route("/.well-known/autoconfig/mail/config-v1.1.xml", get(autoconfig))
        .route("/autodiscover/autodiscover.xml", post(autodiscover))
        // Outlook also asks in this spelling.
        .route("/Autodiscover/Autodiscover.xml", post(autodiscover))
        .layer(DefaultBodyLimit::max(REQUEST))
        .layer(from_fn_with_state(Arc::clone(&broker), only_by_known_names))
        .with_state(broker)
}

#[derive(Deserialize)]
struct Asked {
    emailaddress: Option<String>,
}

async fn autoconfig(State(broker): State<Arc<Broker>>, Query(asked): Query<Asked>) -> Response {
    match asked.emailaddress {
        Some(address) => answer(&broker, "autoconfig", &address),
        None => (StatusCode::BAD_REQUEST, "add ?emailaddress=YOU@DOMAIN\n").into_response(),
    }
}

async fn autodiscover(State(broker): State<Arc<Broker>>, request: String) -> Response {
    let address = request.split_once("<EMailAddress>").and_then(|(_, rest)| rest.split_once("</EMailAddress>"));
    match address {
        Some((address, _)) => answer(&broker, "autodiscover", address),
        None => (StatusCode::BAD_REQUEST, "the request has no EMailAddress\n").into_response(),
    }
}

/// Fills in the template for an address of a domain that the configuration knows.
fn answer(broker: &Broker, program: &str, address: &str) -> Response {
    let Ok(address) = Name::address(address) else {
        return (StatusCode::BAD_REQUEST, "this is not an e-mail address\n").into_response();
    };
    let Some(served) = Served::at_domain(&broker.config(), &address) else {
        return (StatusCode::NOT_FOUND, "the configuration knows no provider for this domain\n").into_response();
    };
    match MailProgram::find(program).and_then(|program| program.render(&served, None)) {
        Ok(xml) => ([(CONTENT_TYPE, "text/xml; charset=utf-8")], xml).into_response(),
        Err(failed) => {
            debug!("no settings for a mail program: {}", failed.message);
            (StatusCode::NOT_FOUND, "no listener for all accounts of this domain\n").into_response()
        }
    }
}

/// Refuses other host names, because a foreign web page can make its own name lead here. A reverse proxy may pass on
/// the names under which mail programs ask.
async fn only_by_known_names(State(broker): State<Arc<Broker>>, request: Request, next: Next) -> Response {
    let name = host_of(request.headers()).unwrap_or_default().to_ascii_lowercase();
    let domain = ["autoconfig.", "autodiscover."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(&name);
    let is_known = is_local(request.headers()) || broker.config().provider_of_domain(domain).is_some();
    if is_known { next.run(request).await } else { StatusCode::MISDIRECTED_REQUEST.into_response() }
}
