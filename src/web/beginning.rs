//! The local address that is passed to a new browser. It redirects to the authorization request, once.
//!
//! Every user can read a browser's command line (proc(5)). If that contained the authorization request, another user
//! could sign in with it and make postkey accept a code for the wrong mailbox.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use tokio::sync::Notify;
use url::Url;

use super::redirect::{is_own_host, see_other};
use super::server::{CONNECTIONS, HttpServer};
use crate::mutex::lock;
use crate::net::listen::{self, Bound};
use crate::net::peer::Visitor;
use crate::net::strangers::Strangers;
use crate::random;

/// Redirects a browser of this user to a page, once. Dropping it closes its port.
pub struct Beginning {
    /// The address to open in the browser.
    pub url: Url,
    visited: Arc<Notify>,
    server: HttpServer,
}

struct StartPage {
    url: Url,
    /// None after the first visit.
    target: Mutex<Option<Url>>,
    visited: Arc<Notify>,
}

impl Beginning {
    /// Starts to redirect to `target`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot listen on a port.
    pub fn of(target: &Url) -> io::Result<Self> {
        let socket = listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let url = format!("http://{}/begin-{}", socket.local_addr()?, random::name());
        let url = Url::parse(&url).map_err(io::Error::other)?;
        let visited = Arc::new(Notify::new());
        let site =
            StartPage { url: url.clone(), target: Mutex::new(Some(target.clone())), visited: Arc::clone(&visited) };
        let router = Router::new().fallback(visit).with_state(Arc::new(site));
        let server = HttpServer::new(vec![Bound::Tcp(socket)], &router, &Strangers::new(CONNECTIONS, 0));
        Ok(Self { url, visited, server })
    }

    /// Waits until the browser has requested the address and received the redirect.
    pub async fn finish(self) {
        self.visited.notified().await;
        self.server.finish().await;
    }
}

async fn visit(
    State(site): State<Arc<StartPage>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    let is_own = visitor.may_be(|user| user == rustix::process::geteuid().as_raw());
    if !is_own || request.uri().path() != site.url.path() || !is_own_host(&site.url, request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match lock(&site.target).take() {
        Some(target) => {
            site.visited.notify_one();
            see_other(target.as_str())
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
