//! The loopback redirect listener (RFC 8252 section 7.3): takes the browser back from the authorization server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::warn;
use url::Url;

use crate::net::{listen, peer};

/// How often another port is tried when a free one of IPv4 is taken on IPv6.
const TRIES: u32 = 10;

/// How long a browser may take to fetch the last page.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// Waits for the browser while one authorization is pending.
pub struct RedirectListener {
    /// The redirect URI with its real port.
    pub uri: Url,
    arrivals: mpsc::Receiver<Arrival>,
    shown: Arc<Notify>,
    /// The servers end in good order once this is dropped.
    open: watch::Sender<()>,
    servers: JoinSet<()>,
}

/// A browser that has come back, and waits to be told how it went.
pub struct Arrival {
    /// The query of the address it was sent to.
    pub query: String,
    reply: oneshot::Sender<Outcome>,
}

/// What the browser is told. Nothing of what it brought is shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The tokens are here.
    Authorized,
    /// It did not work; the terminal says why.
    Failed,
    /// This visit does not belong to the pending authorization, which goes on waiting.
    Ignored,
}

impl Arrival {
    /// Tells the browser how it went.
    pub fn reply(self, outcome: Outcome) {
        // A browser that has gone in the meantime misses nothing but a page.
        let _gone = self.reply.send(outcome);
    }
}

struct Site {
    path: String,
    arrivals: mpsc::Sender<Arrival>,
    shown: Arc<Notify>,
}

impl RedirectListener {
    /// Listens on 127.0.0.1 and ::1, for a browser may take `localhost` for either, at the port of `redirect_uri` or, where
    /// it has none, at a free one. None if `redirect_uri` does not lead back to this machine over http: then a person has
    /// to paste the address.
    pub async fn bind(redirect_uri: &Url) -> io::Result<Option<Self>> {
        let is_loopback = match redirect_uri.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if redirect_uri.scheme() != "http" || !is_loopback {
            return Ok(None);
        }
        let (sockets, port) = bind_both(redirect_uri.port())?;
        let mut uri = redirect_uri.clone();
        // Cannot fail for an http URL with a host.
        let _fits = uri.set_port(Some(port));
        let (sender, arrivals) = mpsc::channel(8);
        let shown = Arc::new(Notify::new());
        let site = Arc::new(Site { path: uri.path().to_owned(), arrivals: sender, shown: Arc::clone(&shown) });
        let (open, is_open) = watch::channel(());
        let mut servers = JoinSet::new();
        for socket in sockets {
            let router = Router::new().fallback(visit).with_state(Arc::clone(&site));
            let router = router.into_make_service_with_connect_info::<Visitor>();
            let mut is_open = is_open.clone();
            let closed = async move { while is_open.changed().await.is_ok() {} };
            servers.spawn(async move {
                let _ended = axum::serve(socket, router).with_graceful_shutdown(closed).await;
            });
        }
        Ok(Some(Self { uri, arrivals, shown, open, servers }))
    }

    /// The next browser that comes back.
    pub async fn arrival(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Stays until the browser has its last page.
    pub async fn finish(mut self) {
        let last_page = async {
            self.shown.notified().await;
            // The page has been asked for, but not yet sent.
            drop(self.open);
            while self.servers.join_next().await.is_some() {}
        };
        let _in_time = tokio::time::timeout(LAST_PAGE, last_page).await;
    }
}

/// A socket on each of the loopback addresses that this machine has, at the same port.
fn bind_both(port: Option<u16>) -> io::Result<(Vec<TcpListener>, u16)> {
    let [v4, v6] = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    for _ in 0..TRIES {
        let first = listen::bind(SocketAddr::new(v4, port.unwrap_or(0)))?;
        let chosen = first.local_addr()?.port();
        match listen::bind(SocketAddr::new(v6, chosen)) {
            Ok(second) => return Ok((vec![first, second], chosen)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port.is_none() => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // No IPv6 on this machine.
            Err(_) => return Ok((vec![first], chosen)),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Whether who has connected may be the person who is waited for.
#[derive(Clone, Copy)]
struct Visitor {
    is_expected: bool,
}

/// Another user of this machine has no business here: what it brings may be a code for a mailbox of its own. Where the
/// kernel cannot be asked, `state` and PKCE stand alone.
impl Connected<IncomingStream<'_, TcpListener>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let is_expected = match peer::user(stream.io()) {
            Ok(user) => user.is_some_and(is_expected),
            Err(_) => true,
        };
        if !is_expected {
            warn!(peer = %stream.remote_addr(), "another user of this machine has come to the redirect listener");
        }
        Self { is_expected }
    }
}

/// Who runs this command; or who has become that user to run it, by sudo(8) or another login.
fn is_expected(user: u32) -> bool {
    let of_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let of_login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|uid| uid.trim().parse().ok());
    user == rustix::process::geteuid().as_raw() || of_sudo == Some(user) || of_login == Some(user)
}

/// Answers every request: the redirect itself, and the page without the code to which it leads on.
async fn visit(
    State(site): State<Arc<Site>>,
    ConnectInfo(visitor): ConnectInfo<Visitor>,
    request: Request,
) -> Response {
    let path = request.uri().path();
    if !visitor.is_expected {
        return page(StatusCode::FORBIDDEN, STRANGER);
    }
    if request.method() != Method::GET || !is_for_us(request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match (path, request.uri().query()) {
        ("/postkey/authorized", None) => site.last_page(StatusCode::OK, AUTHORIZED),
        ("/postkey/failed", None) => site.last_page(StatusCode::OK, FAILED),
        (path, Some(query)) if path == site.path => site.arrive(query.to_owned()).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A page of another site cannot reach us under a name of its own (DNS rebinding).
fn is_for_us(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
}

impl Site {
    /// Waits until the terminal's side knows how it went, then leads on to an address that holds no code, so that none is
    /// left in the browser's history.
    async fn arrive(&self, query: String) -> Response {
        let (reply, outcome) = oneshot::channel();
        let outcome = match self.arrivals.send(Arrival { query, reply }).await {
            Ok(()) => outcome.await.unwrap_or(Outcome::Failed),
            Err(_) => Outcome::Ignored,
        };
        match outcome {
            Outcome::Authorized => see_other("/postkey/authorized"),
            Outcome::Failed => see_other("/postkey/failed"),
            Outcome::Ignored => page(StatusCode::BAD_REQUEST, IGNORED),
        }
    }

    fn last_page(&self, status: StatusCode, text: &'static str) -> Response {
        self.shown.notify_one();
        page(status, text)
    }
}

fn see_other(place: &'static str) -> Response {
    (StatusCode::SEE_OTHER, HEADERS, [(header::LOCATION, place)]).into_response()
}

fn page(status: StatusCode, text: &'static str) -> Response {
    (status, HEADERS, Html(text)).into_response()
}

const HEADERS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

const AUTHORIZED: &str = "<!doctype html><title>postkey</title><h1>Done</h1><p>postkey is authorized. You can close this page; the terminal shows what to type into your mail program.";
const FAILED: &str =
    "<!doctype html><title>postkey</title><h1>Not authorized</h1><p>It did not work; the terminal says why.";
const IGNORED: &str = "<!doctype html><title>postkey</title><h1>Not this page</h1><p>This address does not belong to the authorization that postkey waits for. Open the address that the terminal shows.";
const STRANGER: &str = "<!doctype html><title>postkey</title><h1>Not from here</h1><p>postkey runs as another user of this machine. Paste the address of this page into its terminal.";
