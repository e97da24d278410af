//! The loopback redirect listener (RFC 8252 section 7.3): receives the browser that returns from the authorization
//! server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::warn;
use url::Url;

use super::page::{NO_REFERRER, Page};
use super::server::{CONNECTIONS, HttpServer};
use crate::authorization::{Plan, Redirect};
use crate::config::provider::is_protected;
use crate::exit::{Exit, Failed};
use crate::net::listen::{self, Bound};
use crate::net::peer::Visitor;
use crate::net::strangers::Strangers;
use crate::oauth::self_registration::with_fixed_port;

/// How many ports to try if a free IPv4 port is in use on IPv6.
const TRIES: u32 = 10;

/// How long a browser may take to fetch the last page.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// Waits for the browser while one authorization is pending.
pub struct RedirectListener {
    /// The redirect URI with its real port.
    pub uri: Url,
    arrivals: mpsc::Receiver<Arrival>,
    shown: Arc<Notify>,
    server: HttpServer,
}

/// A browser that has returned and waits for the result.
pub struct Arrival {
    /// The query of its address.
    pub query: String,
    reply: oneshot::Sender<Outcome>,
}

/// The result for the browser. The page repeats nothing that the browser sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Authorized,
    /// The terminal says why.
    Failed,
    /// Another account is signed in; the terminal shows where to try again.
    SomebodyElse,
    /// The visit does not belong to the pending authorization, which continues to wait.
    Ignored,
}

impl Arrival {
    /// Sends the browser the result.
    pub fn reply(self, outcome: Outcome) {
        // If the browser has disconnected, it only misses a page.
        let _gone = self.reply.send(outcome);
    }
}

struct RedirectPage {
    /// The redirect URI.
    uri: Url,
    arrivals: mpsc::Sender<Arrival>,
    shown: Arc<Notify>,
    last: Page,
    users: Vec<u32>,
    /// Whether the browser connects directly. If another program forwards it, that program's user means nothing.
    is_for_own_browser: bool,
}

impl RedirectListener {
    /// Listens at `listen`. Without it, listens on 127.0.0.1 and ::1, because `localhost` may be either, at the port of
    /// `redirect_uri` or at a free one. Returns None if `listen` is not set and `redirect_uri` does not lead to this
    /// machine over http; then a person has to paste the address. `last` is the page to show after success, and `users` are
    /// those whose browsers may return.
    pub async fn bind(
        redirect_uri: &Url,
        listen: Option<SocketAddr>,
        last: Page,
        users: Vec<u32>,
    ) -> io::Result<Option<Self>> {
        let Some((uri, sockets)) = open(redirect_uri, listen, &listen::bind)? else { return Ok(None) };
        let (sender, arrivals) = mpsc::channel(8);
        let shown = Arc::new(Notify::new());
        let site = Arc::new(RedirectPage {
            uri: uri.clone(),
            arrivals: sender,
            shown: Arc::clone(&shown),
            last,
            users,
            is_for_own_browser: listen.is_none(),
        });
        let router = Router::new().fallback(visit).with_state(site);
        let server =
            HttpServer::new(sockets.into_iter().map(Bound::Tcp).collect(), &router, &Strangers::new(CONNECTIONS, 0));
        Ok(Some(Self { uri, arrivals, shown, server }))
    }

    /// Listens at the redirect URI of a plan. `last` is the page to show after success, and `users` are those whose browsers
    /// may return. Returns None if the person has to paste the address: as [`Self::bind`], or because another process is there,
    /// such as the daemon that waits for first logins.
    ///
    /// # Errors
    ///
    /// Fails if it cannot listen there.
    pub async fn of(plan: &Plan, last: Page, users: Vec<u32>) -> Result<Option<Self>, Failed> {
        let Redirect { uri, listen } = &plan.redirect;
        let is_self_registered = plan.server.discovered.as_ref().is_some_and(|found| found.is_self_registered);
        let fixed = with_fixed_port(uri).filter(|_| listen.is_none() && is_self_registered);
        let bound = match &fixed {
            Some(fixed) => Self::bind(fixed, *listen, last.clone(), users.clone()).await.ok(),
            None => None,
        };
        let listener = match bound {
            Some(bound) => Ok(bound),
            // Another authorization may be waiting on the fixed port.
            None => Self::bind(uri, *listen, last, users).await,
        };
        listener.or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return Ok(None);
            }
            let address = listen.map_or_else(|| uri.to_string(), |listen| listen.to_string());
            Err(Failed::new(Exit::Os, format!("cannot wait for the browser at {address}: {error}")))
        })
    }

    /// Waits for the next browser that returns.
    pub async fn arrival(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Waits until the browser has its last page.
    pub async fn finish(self) {
        let last_page = async {
            self.shown.notified().await;
            // The browser has requested the page, but we have not sent it yet.
            self.server.finish().await;
        };
        let _in_time = tokio::time::timeout(LAST_PAGE, last_page).await;
    }
}

/// The redirect URI with its real port, and the sockets to which it leads; see [`RedirectListener::bind`].
pub(super) fn open(
    redirect_uri: &Url,
    listen: Option<SocketAddr>,
    bind: &impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<Option<(Url, Vec<TcpListener>)>> {
    let mut uri = redirect_uri.clone();
    match listen {
        Some(address) => Ok(Some((uri, vec![bind(address)?]))),
        None if uri.scheme() == "http" && is_protected(&uri) => {
            let (sockets, port) = bind_both(uri.port(), bind)?;
            // This cannot fail for an http URL with a host.
            let _fits = uri.set_port(Some(port));
            Ok(Some((uri, sockets)))
        }
        None => Ok(None),
    }
}

/// Binds the same port on each of the loopback addresses that this machine has.
fn bind_both(
    port: Option<u16>,
    bind: &impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<(Vec<TcpListener>, u16)> {
    let [v4, v6] = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    for _ in 0..TRIES {
        let first = match bind(SocketAddr::new(v4, port.unwrap_or(0))) {
            Err(error) if listen::is_missing(&error) => {
                let only = bind(SocketAddr::new(v6, port.unwrap_or(0)))?;
                let chosen = only.local_addr()?.port();
                return Ok((vec![only], chosen));
            }
            first => first?,
        };
        let chosen = first.local_addr()?.port();
        match bind(SocketAddr::new(v6, chosen)) {
            Ok(second) => return Ok((vec![first, second], chosen)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port.is_none() => {}
            Err(error) if listen::is_missing(&error) => return Ok((vec![first], chosen)),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The users whose browsers may come here: the user who runs this command; the user who has become that one by sudo(8)
/// or another login; and root, whose command acts as the vault's owner.
pub fn own_users() -> Vec<u32> {
    let of_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let of_login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|uid| uid.trim().parse().ok());
    let own = rustix::process::geteuid().as_raw();
    [Some(0), Some(own), of_sudo, of_login].into_iter().flatten().collect()
}

/// Answers every request: the redirect itself, and the page without the code to which it leads.
async fn visit(
    State(site): State<Arc<RedirectPage>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    // Another user of this machine may bring a code for another mailbox. If the kernel does not know the user, only
    // `state` and PKCE protect us.
    if site.is_for_own_browser && !visitor.may_be(|user| site.users.contains(&user)) {
        warn!(?visitor, "redirect from another user of this machine refused ({visitor:?})");
        return STRANGER_PAGE.response(StatusCode::FORBIDDEN);
    }
    if request.method() != Method::GET || !is_own_host(&site.uri, request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match (request.uri().path(), request.uri().query()) {
        (path, Some(query)) if path == site.uri.path() => site.arrive(query.to_owned()).await,
        (path, None) if path == site.below(AUTHORIZED) => site.last_page(site.last.clone()),
        (path, None) if path == site.below(FAILED) => site.last_page(FAILED_PAGE),
        (path, None) if path == site.below(SOMEBODY_ELSE) => SOMEBODY_ELSE_PAGE.response(StatusCode::OK),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether a request is for this machine or for the host of `uri`. Otherwise another site could reach us under its own
/// name (DNS rebinding).
pub(super) fn is_own_host(uri: &Url, headers: &HeaderMap) -> bool {
    let name = host_of(headers).unwrap_or_default();
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
        || uri.host_str().is_some_and(|host| name.eq_ignore_ascii_case(host))
}

/// The host that a request names, without the port.
pub(super) fn host_of(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    Some(host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name))
}

impl RedirectPage {
    /// The path of a last page, below the redirect URI's own, because a reverse proxy may forward nothing else.
    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.uri.path().trim_end_matches('/'))
    }

    /// Waits for the result, then redirects to an address without a code, so that none is left in the browser's
    /// history.
    async fn arrive(&self, query: String) -> Response {
        let (reply, outcome) = oneshot::channel();
        let outcome = match self.arrivals.send(Arrival { query, reply }).await {
            Ok(()) => outcome.await.unwrap_or(Outcome::Failed),
            Err(_) => Outcome::Ignored,
        };
        let name = match outcome {
            Outcome::Authorized => AUTHORIZED,
            Outcome::Failed => FAILED,
            Outcome::SomebodyElse => SOMEBODY_ELSE,
            Outcome::Ignored => return IGNORED_PAGE.response(StatusCode::BAD_REQUEST),
        };
        see_other(&self.below(name))
    }

    fn last_page(&self, page: Page) -> Response {
        self.shown.notify_one();
        page.response(StatusCode::OK)
    }
}

/// Redirects the browser, and forbids it to store where it was.
pub(super) fn see_other(place: &str) -> Response {
    let headers = [(header::REFERRER_POLICY, NO_REFERRER), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::SEE_OTHER, headers, [(header::LOCATION, place.to_owned())]).into_response()
}

const FAILED_PAGE: Page = Page::own("<h1>Not authorized</h1><p>The authorization failed. The terminal says why.");
const IGNORED_PAGE: Page = Page::own(
    "<h1>Not this page</h1><p>This address does not belong to the current \
     authorization. Open the address that the terminal shows.",
);
const STRANGER_PAGE: Page = Page::own(
    "<h1>Not from here</h1><p>postkey runs as another user of this machine. Paste the \
     address of this page into its terminal.",
);
const SOMEBODY_ELSE_PAGE: Page = Page::own(
    "<h1>Somebody else</h1><p>This browser is signed in to another account. Sign out \
     of it at the provider, then open the new address that the terminal shows.",
);

/// The last parts of the pages' paths.
const AUTHORIZED: &str = "authorized";
const FAILED: &str = "failed";
const SOMEBODY_ELSE: &str = "somebody-else";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_this_machine_or_the_redirect_uri_are_answered() {
        let site = RedirectPage {
            uri: Url::parse("https://mail.example.test/callback").unwrap(),
            arrivals: mpsc::channel(1).0,
            shown: Arc::default(),
            last: Page::AUTHORIZED,
            users: Vec::new(),
            is_for_own_browser: true,
        };
        let is_own =
            |host: &str| is_own_host(&site.uri, &HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]));
        for name in ["localhost", "127.0.0.1:8090", "[::1]", "[::1]:8090", "mail.example.test", "Mail.example.test:443"]
        {
            assert!(is_own(name), "{name}");
        }
        for name in ["", "evil.test", "evil.test:8090", "localhost.evil.test", "[::2]", "mail.example.test.evil.test"] {
            assert!(!is_own(name), "{name}");
        }
        assert_eq!(site.below(AUTHORIZED), "/callback/authorized");
    }
}
