//! What a person sees after a first login: a page that asks for its password, and the way to the provider and back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::{Url, form_urlencoded};

use super::redirect::{Page, is_meant, open, see_other};
use crate::broker::{Broker, Return, Unasked};
use crate::secret::Secret;
use crate::vault::password::Password;

/// The most that the page's form can bring: a password of 255 bytes, each written as `%XX`, and some more.
const FORM: usize = 4096;

/// Listens where browsers come back to. It closes when it is dropped.
pub struct FirstLoginSite {
    /// The redirect URI with its real port.
    pub uri: Url,
    sockets: Vec<TcpListener>,
    servers: JoinSet<()>,
}

struct Site {
    broker: Arc<Broker>,
    /// The redirect URI's host.
    host: String,
    /// The redirect URI's path.
    path: String,
}

impl FirstLoginSite {
    /// Binds where a redirect URI leads to, or `listen`. None if it leads elsewhere, and nothing says where to listen.
    pub fn bind(redirect_uri: &Url, listen: Option<SocketAddr>) -> io::Result<Option<Self>> {
        let bound = open(redirect_uri, listen)?;
        Ok(bound.map(|(uri, sockets)| Self { uri, sockets, servers: JoinSet::new() }))
    }

    /// Serves from now on.
    pub fn serve(&mut self, broker: &Arc<Broker>) {
        let (host, path) = (self.uri.host_str().unwrap_or_default().to_owned(), self.uri.path().to_owned());
        let site = Arc::new(Site { broker: Arc::clone(broker), host, path });
        for socket in self.sockets.drain(..) {
            let router = Router::new().fallback(visit).with_state(Arc::clone(&site));
            self.servers.spawn(async move {
                let _ended = axum::serve(socket, router).await;
            });
        }
    }
}

/// All is on one path, which tells pages apart by its query: it is the one that may lead here from elsewhere.
async fn visit(State(site): State<Arc<Site>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    if request.uri().path() != site.path || !is_meant(&site.host, request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let ticket = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "authorize").map(|(_, ticket)| ticket);
    match (request.method(), ticket, query.as_str()) {
        (&Method::GET, None, "authorized") => AUTHORIZED.response(StatusCode::OK),
        (&Method::GET, None, "failed") => FAILED.response(StatusCode::OK),
        (&Method::GET, None, "somebody-else") => SOMEBODY_ELSE.response(StatusCode::OK),
        (&Method::GET, None, query) => site.come_back(query).await,
        (&Method::GET, Some(ticket), _) => site.ask(&ticket),
        (&Method::POST, Some(ticket), _) => site.lead_on(&ticket, request).await,
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

impl Site {
    /// Asks for the password of the first login.
    fn ask(&self, ticket: &str) -> Response {
        match self.broker.awaited(ticket) {
            Some(address) => form(&address, "").response(StatusCode::OK),
            None => GONE.response(StatusCode::NOT_FOUND),
        }
    }

    /// Sends the person on to the provider.
    async fn lead_on(&self, ticket: &str, request: Request) -> Response {
        let Some(password) = password(request).await else { return StatusCode::BAD_REQUEST.into_response() };
        match self.broker.ask_consent(ticket, &password).await {
            Ok(url) => see_other(url.as_str()),
            Err(Unasked::NotAwaited) => GONE.response(StatusCode::NOT_FOUND),
            Err(Unasked::Failed) => FAILED.response(StatusCode::SERVICE_UNAVAILABLE),
            Err(Unasked::WrongPassword) => match self.broker.awaited(ticket) {
                Some(address) => form(&address, WRONG).response(StatusCode::FORBIDDEN),
                None => GONE.response(StatusCode::NOT_FOUND),
            },
        }
    }

    /// Leads on to an address that holds no code, so that none is left in the browser's history.
    async fn come_back(&self, query: &str) -> Response {
        let to = |outcome: &str| see_other(&format!("{}?{outcome}", self.path));
        match self.broker.returned(query).await {
            Return::Authorized => to("authorized"),
            Return::SomebodyElse => to("somebody-else"),
            Return::Failed => to("failed"),
            Return::NotAwaited => GONE.response(StatusCode::BAD_REQUEST),
        }
    }
}

/// The password in the page's form.
async fn password(request: Request) -> Option<Password> {
    let body = Secret::new(to_bytes(request.into_body(), FORM).await.ok()?.to_vec());
    let (_, typed) = form_urlencoded::parse(body.expose()).find(|(key, _)| key == "password")?;
    Some(Password::read(typed.as_bytes()))
}

/// The page that asks for the password.
fn form(address: &str, complaint: &str) -> Page {
    let address = address.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    Page::made(format!(
        "<!doctype html><title>postkey</title><h1>Is this your mail program?</h1>\
         <p>A mail program wants to log in to <b>{address}</b>. If it is not yours, close this page.\
         <p>If it is, type the password that you gave to it. After that the provider asks you for your consent.{complaint}\
         <form method=\"post\"><input type=\"password\" name=\"password\" autofocus required>\
         <button>Go on</button></form>"
    ))
}

const WRONG: &str = "<p><b>This is another password than your mail program has.</b> If it is the one that you gave to it, \
somebody else tries to log in to your account: close this page, and tell whoever runs postkey.";
const GONE: Page = Page::own(
    "<!doctype html><title>postkey</title><h1>Not this page</h1><p>Nothing waits for you here any more. \
Let your mail program log in again, and open the page that it shows.",
);
const AUTHORIZED: Page = Page::own(
    "<!doctype html><title>postkey</title><h1>Done</h1><p>postkey is authorized. You can close this \
page; your mail program can log in now.",
);
const FAILED: Page = Page::own(
    "<!doctype html><title>postkey</title><h1>Not authorized</h1><p>It did not work; postkey's log says \
why. To try again, open the page that your mail program shows.",
);
const SOMEBODY_ELSE: Page = Page::own(
    "<!doctype html><title>postkey</title><h1>Not authorized</h1><p>At the provider you are signed \
in as somebody else. Sign in there with the address that your mail program has, and open the page that it shows again.",
);
