//! The loopback redirect listener (RFC 8252 section 7.3): takes the browser back from the authorization server.

use std::borrow::Cow;
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

use crate::config::endpoints::is_protected;
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
    /// Another account is signed in; the terminal shows where to try again.
    SomebodyElse,
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
    /// The redirect URI's host.
    host: String,
    /// The redirect URI's path.
    path: String,
    arrivals: mpsc::Sender<Arrival>,
    shown: Arc<Notify>,
    last: Page,
    /// Whether the browser comes by itself. Where another program passes it on, that one's user says nothing.
    is_for_own_browser: bool,
}

impl RedirectListener {
    /// Listens at `listen`; without it on 127.0.0.1 and ::1, for a browser may take `localhost` for either, at the port of
    /// `redirect_uri` or, where it has none, at a free one. None if `redirect_uri` does not lead back to this machine over
    /// http and nothing says where to listen: then a person has to paste the address. `last` is shown at a good end.
    pub async fn bind(redirect_uri: &Url, listen: Option<SocketAddr>, last: Page) -> io::Result<Option<Self>> {
        let Some((uri, sockets)) = open(redirect_uri, listen)? else { return Ok(None) };
        let (sender, arrivals) = mpsc::channel(8);
        let shown = Arc::new(Notify::new());
        let site = Arc::new(Site {
            host: uri.host_str().unwrap_or_default().to_owned(),
            path: uri.path().to_owned(),
            arrivals: sender,
            shown: Arc::clone(&shown),
            last,
            is_for_own_browser: listen.is_none(),
        });
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

/// The redirect URI with its real port, and the sockets where it leads to, as [`RedirectListener::bind`] has it.
pub(super) fn open(redirect_uri: &Url, listen: Option<SocketAddr>) -> io::Result<Option<(Url, Vec<TcpListener>)>> {
    let mut uri = redirect_uri.clone();
    match listen {
        Some(address) => Ok(Some((uri, vec![listen::bind(address)?]))),
        None if uri.scheme() == "http" && is_protected(&uri) => {
            let (sockets, port) = bind_both(uri.port())?;
            // Cannot fail for an http URL with a host.
            let _fits = uri.set_port(Some(port));
            Ok(Some((uri, sockets)))
        }
        None => Ok(None),
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

/// Who runs this command; who has become that user to run it, by sudo(8) or another login; and root, who could do all
/// that is done here anyway, and whose command acts as the vault's owner.
fn is_expected(user: u32) -> bool {
    let of_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let of_login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|uid| uid.trim().parse().ok());
    user == 0 || user == rustix::process::geteuid().as_raw() || of_sudo == Some(user) || of_login == Some(user)
}

/// Answers every request: the redirect itself, and the page without the code to which it leads on.
async fn visit(
    State(site): State<Arc<Site>>,
    ConnectInfo(visitor): ConnectInfo<Visitor>,
    request: Request,
) -> Response {
    if site.is_for_own_browser && !visitor.is_expected {
        return Page::STRANGER.response(StatusCode::FORBIDDEN);
    }
    if request.method() != Method::GET || !is_meant(&site.host, request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match (request.uri().path(), request.uri().query()) {
        (path, Some(query)) if path == site.path => site.arrive(query.to_owned()).await,
        (path, None) if path == site.below(AUTHORIZED) => site.last_page(site.last.clone()),
        (path, None) if path == site.below(FAILED) => site.last_page(Page::FAILED),
        (path, None) if path == site.below(SOMEBODY_ELSE) => Page::SOMEBODY_ELSE.response(StatusCode::OK),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A page of another site cannot reach us under a name of its own (DNS rebinding). `host` is the redirect URI's.
pub(super) fn is_meant(host: &str, headers: &HeaderMap) -> bool {
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = asked.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(asked, |(name, _)| name);
    ["localhost", "127.0.0.1", "[::1]"].contains(&name) || name.eq_ignore_ascii_case(host)
}

impl Site {
    /// The path of a last page: below the redirect URI's own, for a reverse proxy may pass on nothing else.
    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }

    /// Waits until the terminal's side knows how it went, then leads on to an address that holds no code, so that none is
    /// left in the browser's history.
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
            Outcome::Ignored => return Page::IGNORED.response(StatusCode::BAD_REQUEST),
        };
        see_other(&self.below(name))
    }

    fn last_page(&self, page: Page) -> Response {
        self.shown.notify_one();
        page.response(StatusCode::OK)
    }
}

/// Sends the browser on, and has nothing of where it was kept.
pub(super) fn see_other(place: &str) -> Response {
    (StatusCode::SEE_OTHER, HEADERS, [(header::LOCATION, place.to_owned())]).into_response()
}

/// The last parts of the pages' paths.
const AUTHORIZED: &str = "authorized";
const FAILED: &str = "failed";
const SOMEBODY_ELSE: &str = "somebody-else";

const HEADERS: [(header::HeaderName, &str); 2] =
    [(header::REFERRER_POLICY, "no-referrer"), (header::CACHE_CONTROL, "no-store")];

/// A page of HTML. It can load nothing, and no other page can frame it.
#[derive(Clone)]
pub struct Page {
    html: Cow<'static, [u8]>,
    policy: &'static str,
}

impl Page {
    /// What is shown at a good end, if nobody wants another page.
    pub const AUTHORIZED: Self = Self::own(
        "<!doctype html><title>postkey</title><h1>Done</h1><p>postkey is authorized. You can close this page; the terminal \
         shows what to type into your mail program.",
    );
    const FAILED: Self = Self::own(
        "<!doctype html><title>postkey</title><h1>Not authorized</h1><p>It did not work; the terminal says why.",
    );
    const IGNORED: Self = Self::own(
        "<!doctype html><title>postkey</title><h1>Not this page</h1><p>This address does not belong to the authorization \
         that postkey waits for. Open the address that the terminal shows.",
    );
    const STRANGER: Self = Self::own(
        "<!doctype html><title>postkey</title><h1>Not from here</h1><p>postkey runs as another user of this machine. Paste the \
         address of this page into its terminal.",
    );

    const SOMEBODY_ELSE: Self = Self::own(
        "<!doctype html><title>postkey</title><h1>Somebody else</h1><p>Another account is signed in in this browser. Sign out \
         of it at the provider; then open the new address that the terminal shows.",
    );

    /// A page of ours.
    pub(super) const fn own(html: &'static str) -> Self {
        Self { html: Cow::Borrowed(html.as_bytes()), policy: "default-src 'none'; frame-ancestors 'none'" }
    }

    /// A page of somebody else's making, which is sent as it is; its styles and images have to be within it.
    pub fn foreign(html: Vec<u8>) -> Self {
        let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";
        Self { html: Cow::Owned(html), policy }
    }

    /// A page of ours that was made for one visit.
    pub(super) fn made(html: String) -> Self {
        Self { html: Cow::Owned(html.into_bytes()), ..Self::own("") }
    }

    /// Shows it.
    pub(super) fn response(self, status: StatusCode) -> Response {
        (status, HEADERS, [(header::CONTENT_SECURITY_POLICY, self.policy)], Html(self.html)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_lead_here_are_answered() {
        let site = Site {
            host: "mail.example.test".into(),
            path: "/callback".into(),
            arrivals: mpsc::channel(1).0,
            shown: Arc::default(),
            last: Page::AUTHORIZED,
            is_for_own_browser: true,
        };
        let is_meant =
            |host: &str| is_meant(&site.host, &HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]));
        for name in ["localhost", "127.0.0.1:8090", "[::1]", "[::1]:8090", "mail.example.test", "Mail.example.test:443"]
        {
            assert!(is_meant(name), "{name}");
        }
        for name in ["", "evil.test", "evil.test:8090", "localhost.evil.test", "[::2]", "mail.example.test.evil.test"] {
            assert!(!is_meant(name), "{name}");
        }
        assert_eq!(site.below(AUTHORIZED), "/callback/authorized");
    }
}
