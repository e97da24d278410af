//! HTTP for token requests: the only file that knows reqwest.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use oauth2::HttpRequest;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::{Failure, TemporaryCause};
use crate::clock::Moment;
use crate::config::provider::ProxyKind;
use crate::proxy::Proxy;
use crate::resolver::Resolver;
use crate::secret::Token;
use crate::wire::Redactor;

/// The largest answer that is read, in bytes. Real ones have less than 16 KiB.
pub const MOST: usize = 64 * 1024;

/// What a form is called (RFC 6749 appendix B).
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The longest wait for a connection, and for the whole answer. A request whose answer is lost is sent once more, and both
/// together fit in the 30 seconds that a client waits.
const CONNECT: Duration = Duration::from_secs(8);
const ANSWER: Duration = Duration::from_secs(14);

/// The HTTP client could not be made.
#[derive(Debug)]
pub struct HttpSetupError(reqwest::Error);

impl std::fmt::Display for HttpSetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTPS cannot be set up: {}", self.0)
    }
}

impl std::error::Error for HttpSetupError {}

/// What a server has answered, whatever it is: [`super::outcome`] decides what it means.
pub struct ServerResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body, or as much of it as came.
    pub body: Vec<u8>,
    /// How the body ended.
    pub end: BodyEnd,
    /// For how long the server wants to be left alone (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// Knows the secrets of the request, which the answer may repeat.
    pub sent: Redactor,
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// It came whole.
    Whole,
    /// The connection broke before it came whole.
    Cut,
    /// It is longer than what is read of an answer.
    TooLong,
}

/// Sends token requests to one provider.
#[derive(Clone)]
pub struct Http(reqwest::Client);

impl Http {
    /// Trusts what this TLS configuration trusts. Follows no redirect: a token request is for one server only. Where IPv6 is
    /// dead, IPv4 gets its turn after 300 ms (hyper-util's Happy Eyeballs). The proxy is that of the configuration, whatever
    /// the environment says, and only for https: http does not leave this machine.
    pub fn new(tls: ClientConfig, resolver: Resolver, proxy: Option<&Proxy>) -> Result<Self, HttpSetupError> {
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(proxy) = proxy {
            client = client.proxy(settings(proxy).map_err(HttpSetupError)?);
        }
        let client = client
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .dns_resolver(Names(resolver))
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // A token request an hour does not need a connection kept open.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("postkey/", env!("CARGO_PKG_VERSION")));
        client.build().map(Self).map_err(HttpSetupError)
    }

    /// Fetches a document, as whoever this token belongs to.
    pub async fn get(&self, url: &Url, bearer: Option<&Token>) -> Result<ServerResponse, Failure> {
        let request = oauth2::http::Request::get(url.as_str()).header(ACCEPT, "application/json");
        let request = match bearer {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
            None => request,
        };
        self.send(request.body(Vec::new()).map_err(|error| unreachable(&error))?).await
    }

    /// Sends a document of this kind.
    pub async fn post(&self, url: &Url, kind: &str, body: Vec<u8>) -> Result<ServerResponse, Failure> {
        let request = oauth2::http::Request::post(url.as_str());
        let request = request.header(ACCEPT, "application/json").header(CONTENT_TYPE, kind).body(body);
        self.send(request.map_err(|error| unreachable(&error))?).await
    }

    /// What time a server says it is (RFC 9110 section 6.6.1), whatever else it answers, unless something in front of it answers
    /// in its place. None if it does not say.
    pub async fn date(&self, url: &Url) -> Result<Option<Moment>, Failure> {
        let answer = self.0.get(url.clone()).send().await.map_err(network)?;
        let status = answer.status().as_u16();
        if matches!(status, 502..=504) {
            return Err(lost(&format!("something in front of it answers in its place, with HTTP status {status}")));
        }
        let date = answer.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        Ok(date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).map(|age| Moment(age.as_secs())))
    }

    /// Sends one request and reads the answer.
    pub async fn send(&self, request: HttpRequest) -> Result<ServerResponse, Failure> {
        let sent = secrets(&request);
        let request = reqwest::Request::try_from(request).map_err(network)?;
        let mut response = self.0.execute(request).await.map_err(network)?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let mut body = Vec::new();
        let end = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MOST => body.extend_from_slice(&chunk),
                Ok(Some(_)) => break BodyEnd::TooLong,
                Ok(None) => break BodyEnd::Whole,
                Err(_) => break BodyEnd::Cut,
            }
        };
        Ok(ServerResponse { status, body, end, retry_after, sent })
    }
}

/// Parameters of a form that are no secrets. Every other one is taken for one.
const PUBLIC: [&str; 11] = [
    "audience",
    "client_assertion_type",
    "client_id",
    "code_challenge_method",
    "grant_type",
    "redirect_uri",
    "resource",
    "response_type",
    "scope",
    "token_type_hint",
    "username",
];

/// The secrets that a request carries: in a form, or as a bearer.
fn secrets(request: &HttpRequest) -> Redactor {
    let mut sent = Redactor::default();
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    if header(CONTENT_TYPE) == Some(FORM.as_bytes()) {
        let form = url::form_urlencoded::parse(request.body());
        form.filter(|(name, _)| !PUBLIC.contains(&&**name)).for_each(|(_, value)| sent.know(value.as_bytes()));
    }
    if let Some(bearer) = header(AUTHORIZATION).and_then(|value| value.strip_prefix(b"Bearer ")) {
        sent.know(bearer);
    }
    sent
}

/// A proxy as reqwest wants it. To socks5h, unlike socks5, the server's name is sent.
fn settings(proxy: &Proxy) -> reqwest::Result<reqwest::Proxy> {
    let scheme = match proxy.place.kind {
        ProxyKind::Http => "http",
        ProxyKind::Socks5 => "socks5h",
    };
    let settings = reqwest::Proxy::https(format!("{scheme}://{}", proxy.address()))?;
    Ok(match proxy.login() {
        Some((user, password)) => settings.basic_auth(user, &String::from_utf8_lossy(password.expose())),
        None => settings,
    })
}

/// The innermost cause: the outer ones only say that a request failed. Never the URL, which may carry a secret.
fn network(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_connect() || error.is_builder() { unreachable(cause) } else { lost(cause) }
}

fn unreachable(cause: &dyn std::error::Error) -> Failure {
    let text = format!("the authorization server cannot be reached: {cause}");
    Failure::Temporary(TemporaryCause::Unreachable, text)
}

fn lost(cause: &dyn std::fmt::Display) -> Failure {
    Failure::Temporary(TemporaryCause::Lost, format!("the authorization server's answer was lost: {cause}"))
}

/// For how long the server wants to be left alone (RFC 9110 section 10.2.3). A date is taken against the server's own
/// clock, for ours may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let value = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let [until, now] = [value, text(DATE)?].map(httpdate::parse_http_date);
    until.ok()?.duration_since(now.ok()?).ok()
}

/// Makes this the name resolution of reqwest.
struct Names(Resolver);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            // Port 0 stands for the port in the URL.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::*;

    fn after(headers: &[(reqwest::header::HeaderName, &str)]) -> Option<u64> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        retry_after(&headers).map(|after| after.as_secs())
    }

    /// IPv6 is a black hole and IPv4 alive: the server is reached by IPv4 before the time for a connection is over.
    #[tokio::test]
    async fn a_dead_family_does_not_hold_up_a_request() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = alive.local_addr().unwrap().port();
        let hole = TcpSocket::new_v6().unwrap();
        hole.bind(SocketAddr::new("::1".parse().unwrap(), port)).unwrap();
        let hole = hole.listen(0).unwrap();
        // How long a connection takes that a full queue does not let in: for ever.
        const FULL: Duration = Duration::from_millis(400);
        let mut filling = Vec::new();
        while let Ok(connected) = timeout(FULL, TcpStream::connect(hole.local_addr().unwrap())).await {
            assert!(filling.len() < 10, "there is no black hole");
            filling.push(connected.unwrap());
        }
        let resolver = Resolver::new(|_| Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]));
        let http = Http::new(no_tls(), resolver, None).unwrap();
        let request = oauth2::http::Request::post(format!("http://server.test:{port}/token")).body(Vec::new()).unwrap();
        tokio::select! {
            accepted = alive.accept() => drop(accepted.unwrap()),
            answer = http.send(request) => panic!("{:?}", answer.map(|answer| answer.status)),
        }
    }

    fn no_tls() -> ClientConfig {
        let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        config.with_root_certificates(tokio_rustls::rustls::RootCertStore::empty()).with_no_client_auth()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after(&[(RETRY_AFTER, "120")]), Some(120));
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:50:37 GMT"), date.clone()]), Some(60));
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:48:37 GMT"), date.clone()]), None, "it is over");
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:50:37 GMT")]), None);
        assert_eq!(after(&[(RETRY_AFTER, "soon"), date.clone()]), None);
        assert_eq!(after(&[(RETRY_AFTER, "-1"), date.clone()]), None);
        assert_eq!(after(&[date]), None);
    }
}
