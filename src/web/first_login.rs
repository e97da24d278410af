//! The pages of a first login: one that leads to the provider, and one that asks for the mail program's password after
//! the person has returned.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use tokio::net::TcpListener;
use url::{Url, form_urlencoded};

use super::origin::is_own;
use super::page::Page;
use super::redirect::{is_own_host, open, see_other};
use super::server::HttpServer;
use crate::broker::{Authorized, Confirmation, FirstLogins, Refused};
use crate::net::listen::{self, Bound};
use crate::net::peer::Visitor;
use crate::net::strangers::Strangers;
use crate::oauth::authorization_code::is_answer;
use crate::secret::Secret;
use crate::vault::password::Password;

/// The longest form, in bytes: a password of 255 bytes, each written as `%XX`, and some more.
const MAX_FORM: usize = 4096;

/// Waits for browsers that return from the provider. Dropping it closes its ports.
pub struct FirstLoginSite {
    /// The redirect URI with its real port.
    pub uri: Url,
    /// Whether browsers connect directly. If another program forwards them, that program's user means nothing.
    is_direct: bool,
    sockets: Vec<TcpListener>,
    /// Duplicates of the sockets.
    handles: Vec<OwnedFd>,
    server: Option<HttpServer>,
}

struct FirstLoginPage {
    first_logins: Arc<FirstLogins>,
    uri: Url,
    is_direct: bool,
}

impl FirstLoginSite {
    /// Binds `listen`, or else the address to which a redirect URI leads, although the sites in `closing` may still be
    /// open there. Returns None if `listen` is not set and the URI leads elsewhere.
    pub fn bind(redirect_uri: &Url, listen: Option<SocketAddr>, closing: &[&Self]) -> io::Result<Option<Self>> {
        let closing: Vec<&OwnedFd> = closing.iter().flat_map(|site| &site.handles).collect();
        let Some((uri, sockets)) = open(redirect_uri, listen, &|address| listen::bind_over(address, &closing))? else {
            return Ok(None);
        };
        let handles = sockets.iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect::<io::Result<_>>()?;
        Ok(Some(Self { uri, is_direct: listen.is_none(), sockets, handles, server: None }))
    }

    pub fn serve(&mut self, first_logins: &Arc<FirstLogins>, strangers: &Arc<Strangers>) {
        let site =
            FirstLoginPage { first_logins: Arc::clone(first_logins), uri: self.uri.clone(), is_direct: self.is_direct };
        let router = Router::new().fallback(visit).with_state(Arc::new(site));
        let sockets = std::mem::take(&mut self.sockets).into_iter().map(Bound::Tcp);
        self.server = Some(HttpServer::new(sockets.collect(), &router, strangers));
    }
}

/// Serves everything on one path, because only that may be forwarded to here. The query distinguishes the pages.
async fn visit(
    State(site): State<Arc<FirstLoginPage>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    if request.uri().path() != site.uri.path() || !is_own_host(&site.uri, request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let visitor = if site.is_direct { visitor } else { Visitor::Unknown };
    let ticket = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "authorize").map(|(_, ticket)| ticket);
    match (request.method(), ticket, query.as_str()) {
        (&Method::GET, None, "authorized") => AUTHORIZED.response(StatusCode::OK),
        (&Method::GET, None, "authorized-for-now") => AUTHORIZED_FOR_NOW.response(StatusCode::OK),
        (&Method::GET, None, "failed") => FAILED.response(StatusCode::OK),
        (&Method::GET, None, "somebody-else") => SOMEBODY_ELSE.response(StatusCode::OK),
        (&Method::GET, None, query) => site.receive(query, visitor).await,
        (&Method::GET, Some(ticket), _) => site.introduce(&ticket, visitor).await,
        (&Method::POST, ..) if !site.is_own_form(request.headers()) => StatusCode::FORBIDDEN.into_response(),
        (&Method::POST, Some(ticket), _) => site.redirect_to_provider(&ticket, visitor).await,
        (&Method::POST, None, "") => site.confirm(request, visitor).await,
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

impl FirstLoginPage {
    /// Whether a form comes from one of our own pages.
    fn is_own_form(&self, headers: &HeaderMap) -> bool {
        is_own(headers, Some(&self.uri.origin().ascii_serialization()))
    }

    /// Shows the page that explains the first login.
    async fn introduce(&self, ticket: &str, visitor: Visitor) -> Response {
        match self.first_logins.awaited(ticket, visitor).await {
            Ok(address) => introduction(&address).response(StatusCode::OK),
            Err(refused) => self.refuse(&refused, None),
        }
    }

    async fn redirect_to_provider(&self, ticket: &str, visitor: Visitor) -> Response {
        match self.first_logins.ask_consent(ticket, visitor).await {
            Ok(url) => see_other(url.as_str()),
            Err(refused) => self.refuse(&refused, None),
        }
    }

    /// Asks for the password after a consent. Other results redirect to an address without a code, so that none is left
    /// in the browser's history.
    async fn receive(&self, query: &str, visitor: Visitor) -> Response {
        match self.first_logins.returned(query, visitor).await {
            Ok(confirmation) => question(self.uri.path(), &confirmation, "").response(StatusCode::OK),
            Err(Refused::SomebodyElse) => self.see("somebody-else"),
            Err(Refused::Failed) => self.see("failed"),
            Err(Refused::NotAwaited) if is_answer(query) => UNKNOWN_ANSWER.response(StatusCode::NOT_FOUND),
            Err(refused) => self.refuse(&refused, None),
        }
    }

    async fn confirm(&self, request: Request, visitor: Visitor) -> Response {
        let Some((key, password)) = typed(request).await else { return StatusCode::BAD_REQUEST.into_response() };
        match self.first_logins.confirm(&key, password, visitor).await {
            Ok(Authorized::Lasting) => self.see("authorized"),
            Ok(Authorized::Ending) => self.see("authorized-for-now"),
            Err(refused) => self.refuse(&refused, Some(key)),
        }
    }

    fn see(&self, outcome: &str) -> Response {
        see_other(&format!("{}?{outcome}", self.uri.path()))
    }

    /// Answers a refusal. `key` is the form's, if there was one.
    fn refuse(&self, refused: &Refused, key: Option<String>) -> Response {
        match (refused, key) {
            (Refused::WrongPassword(address), Some(key)) => {
                let again = Confirmation { address: address.clone(), key };
                question(self.uri.path(), &again, WRONG).response(StatusCode::FORBIDDEN)
            }
            (Refused::OtherUser, _) => OTHER_USER.response(StatusCode::FORBIDDEN),
            (Refused::TooManyWrong, _) => TOO_MANY_WRONG.response(StatusCode::FORBIDDEN),
            (Refused::Exists, _) => EXISTS.response(StatusCode::CONFLICT),
            (Refused::SomebodyElse, _) => SOMEBODY_ELSE.response(StatusCode::FORBIDDEN),
            (Refused::Failed, _) => FAILED.response(StatusCode::SERVICE_UNAVAILABLE),
            (Refused::NotAwaited | Refused::WrongPassword(_), _) => GONE.response(StatusCode::NOT_FOUND),
        }
    }
}

/// Reads the key and the password from the page's form.
async fn typed(request: Request) -> Option<(String, Password)> {
    let body = Secret::new(to_bytes(request.into_body(), MAX_FORM).await.ok()?.to_vec());
    let field = |name| form_urlencoded::parse(body.expose()).find(|(key, _)| key == name).map(|(_, value)| value);
    Some((field("key")?.into_owned(), Password::read(field("password")?.as_bytes())))
}

/// The first page, whose address the mail program shows.
fn introduction(address: &str) -> Page {
    let address = escaped(address);
    Page::with_form(format!(
        "<h1>Set up {address}</h1>\
         <p>A mail program wants to log in to <b>{address}</b>. If it is not yours, close this page.\
         <p>If it is yours, continue. Your provider will ask you to sign in as <b>{address}</b>. After that, type the password \
         that you gave to the mail program.\
         <form method=\"post\"><button>Continue</button></form>"
    ))
}

/// The page after the consent, which asks for the mail program's password.
fn question(path: &str, Confirmation { address, key }: &Confirmation, complaint: &str) -> Page {
    let (address, path) = (escaped(address), escaped(path));
    Page::with_form(format!(
        "<h1>One more step</h1>\
         <p>You have signed in as <b>{address}</b>. To give your mail program access, type the password that you gave to it.{complaint}\
         <form method=\"post\" action=\"{path}\"><input type=\"hidden\" name=\"key\" value=\"{key}\">\
         <label for=\"password\">Password</label><input id=\"password\" type=\"password\" name=\"password\" autocomplete=\"off\" autofocus required>\
         <button>Give access</button></form>\
         <p>If you have not set up a mail program, somebody else is trying to get access with your help. Close this page, and \
         tell whoever runs postkey. Nobody gets access without this password."
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

const WRONG: &str = "<p><b>That is not the password your mail program is using.</b> Type the one that you gave to it. If you have \
changed it there, let the mail program log in once more, and then type it here again.";
const GONE: Page = Page::own(
    "<h1>Not this page</h1><p>This page is no longer valid. \
Let your mail program log in again, and open the page that it shows.",
);
/// A command may wait on this machine or on another replica, and a reverse proxy leads all browsers here.
const UNKNOWN_ANSWER: Page = Page::own(
    "<h1>Not this page</h1><p>No first login waits for this answer of your provider. If a command or another page of postkey has sent you there, copy the address of this page, and paste it there. Otherwise let your mail program log in again, and open the page that it shows.",
);
const AUTHORIZED: Page = Page::own(
    "<h1>Done</h1><p>postkey is authorized. You can close this \
page. Your mail program can log in now.",
);
const AUTHORIZED_FOR_NOW: Page = Page::own(
    "<h1>Done, but it will not last</h1><p>Your mail program can log in now. But your \
provider issued no refresh token, so mail will stop when the access token expires, with most providers after an hour. Tell whoever \
runs postkey; its log says what to change.",
);
const FAILED: Page = Page::own(
    "<h1>Not authorized</h1><p>The authorization failed. postkey's log \
says why. To try again, open the page that your mail program shows.",
);
const SOMEBODY_ELSE: Page = Page::own(
    "<h1>Not authorized</h1><p>You are signed in as somebody else at the \
provider. Sign in there with the address that your mail program uses, and open the page that it shows again. If it was this \
address, postkey's log says why it was not accepted.",
);
const EXISTS: Page = Page::own(
    "<h1>Already set up</h1><p>This address is already set up. \
Your mail program can log in with its app password.",
);
const TOO_MANY_WRONG: Page = Page::own(
    "<h1>Not set up</h1><p>None of these was the password your mail \
program is using. Check the password there, let the mail program log in again, and open the page that it shows.",
);
const OTHER_USER: Page = Page::own(
    "<h1>Not from here</h1><p>The mail program belongs to another \
user of this machine. Open this page in a browser of that user.",
);
