//! HTTP to an authorization server. This is the only file that uses reqwest.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use oauth2::HttpRequest;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::{Failure, TemporaryCause};
use crate::clock::Moment;
use crate::config::provider::ProxyKind;
use crate::proxy::Proxy;
use crate::resolver::Resolver;
use crate::secret::Token;
use crate::wire::Redactor;

/// The largest answer in bytes. Real ones have less than 16 KiB.
pub const MOST: usize = 64 * 1024;

/// The media type of a form (RFC 6749 appendix B).
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(8);

/// The longest wait for a connection and the whole answer, in steps. A request whose answer is lost is sent once more, and both fit
/// in the 30 seconds that a client waits.
const STEP: Duration = Duration::from_secs(1);
const STEPS: u32 = 14;

/// Any answer of a server. [`super::outcome`] decides what it means.
pub struct ServerResponse {
    pub status: u16,
    /// The body, as far as it was received.
    pub body: Vec<u8>,
    pub end: BodyEnd,
    /// How long the server wants no further request (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// The secrets of the request, which the answer may repeat.
    pub sent: Redactor,
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    Whole,
    /// The connection broke before the end.
    Cut,
    /// It is longer than [`MOST`].
    TooLong,
}

/// An HTTP client for the authorization server of one provider.
#[derive(Clone)]
pub struct Http(reqwest::Client);

impl Http {
    /// Follows no redirect, because a token request is for one server only. If IPv6 does not work, IPv4 is tried after 300 ms
    /// (hyper-util's Happy Eyeballs). The proxy is that of the configuration, not of the environment, and only for https,
    /// because http does not leave this machine.
    pub fn new(tls: ClientConfig, resolver: Resolver, proxy: Option<&Proxy>) -> Result<Self, String> {
        let failed = |error: reqwest::Error| format!("HTTPS cannot be set up: {error}");
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(proxy) = proxy {
            client = client.proxy(settings(proxy).map_err(failed)?);
        }
        let client = client
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .dns_resolver(Names(resolver))
            .connect_timeout(CONNECT)
            // One token request an hour needs no open connection.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("postkey/", env!("CARGO_PKG_VERSION")));
        client.build().map(Self).map_err(failed)
    }

    /// Fetches a document, with this access token.
    pub async fn get(&self, url: &Url, bearer: Option<&Token>) -> Result<ServerResponse, Failure> {
        let request = oauth2::http::Request::get(url.as_str()).header(ACCEPT, "application/json");
        let request = match bearer {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
            None => request,
        };
        self.send(request.body(Vec::new()).map_err(|error| unreachable(&error))?).await
    }

    /// Sends a document of this media type.
    pub async fn post(&self, url: &Url, kind: &str, body: Vec<u8>) -> Result<ServerResponse, Failure> {
        let request = oauth2::http::Request::post(url.as_str());
        let request = request.header(ACCEPT, "application/json").header(CONTENT_TYPE, kind).body(body);
        self.send(request.map_err(|error| unreachable(&error))?).await
    }

    /// The time in a server's answer, whatever the answer is (RFC 9110 section 6.6.1); None if it has none. An answer of a proxy
    /// in front of the server counts as lost.
    pub async fn date(&self, url: &Url) -> Result<Option<Moment>, Failure> {
        let answer = AnswerLimit::begin().wait(self.0.get(url.clone()).send()).await;
        let answer = answer.ok_or_else(too_late)?.map_err(network)?;
        let status = answer.status().as_u16();
        if matches!(status, 502..=504) {
            return Err(lost(&format!("a proxy in front of it answers with HTTP status {status}")));
        }
        let date = answer.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        Ok(date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).map(|age| Moment(age.as_secs())))
    }

    pub async fn send(&self, request: HttpRequest) -> Result<ServerResponse, Failure> {
        let sent = secrets(&request);
        let request = reqwest::Request::try_from(request).map_err(network)?;
        let mut limit = AnswerLimit::begin();
        let mut response = limit.wait(self.0.execute(request)).await.ok_or_else(too_late)?.map_err(network)?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let mut body = Vec::new();
        let end = loop {
            match limit.wait(response.chunk()).await {
                Some(Ok(Some(chunk))) if body.len() + chunk.len() <= MOST => body.extend_from_slice(&chunk),
                Some(Ok(Some(_))) => break BodyEnd::TooLong,
                Some(Ok(None)) => break BodyEnd::Whole,
                Some(Err(_)) | None => break BodyEnd::Cut,
            }
        };
        Ok(ServerResponse { status, body, end, retry_after, sent })
    }
}

/// The limit for an answer. It counts steps, so a process that was stopped or suspended meanwhile loses one of them at most, and
/// then still reads the answer that has arrived: that may have the only valid refresh token.
struct AnswerLimit {
    left: u32,
    step_ends: Instant,
}

impl AnswerLimit {
    fn begin() -> Self {
        Self { left: STEPS, step_ends: Instant::now() + STEP }
    }

    /// Waits for a part of the answer. None if the time is over.
    async fn wait<T>(&mut self, part: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            part = part => Some(part),
            () = self.end() => None,
        }
    }

    async fn end(&mut self) {
        while self.left > 0 {
            sleep_until(self.step_ends).await;
            (self.left, self.step_ends) = (self.left - 1, Instant::now() + STEP);
        }
    }
}

fn too_late() -> Failure {
    lost(&format!("it did not come within {} s", STEP.as_secs() * u64::from(STEPS)))
}

/// Parameters of a form that are not secret. Every other one counts as a secret.
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

/// The secrets in a request: in a form, or as a bearer.
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

/// reqwest's description of a proxy. A socks5h proxy, unlike socks5, gets the server's name.
fn settings(proxy: &Proxy) -> reqwest::Result<reqwest::Proxy> {
    let scheme = match proxy.config.kind {
        ProxyKind::Http => "http",
        ProxyKind::Socks5 => "socks5h",
    };
    let settings = reqwest::Proxy::https(format!("{scheme}://{}", proxy.address()))?;
    Ok(match proxy.login() {
        Some((user, password)) => settings.basic_auth(user, &String::from_utf8_lossy(password.expose())),
        None => settings,
    })
}

/// Shows the innermost cause, because the outer ones only say that a request failed. Never shows the URL, which may have a
/// secret.
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

/// A date is compared with the server's own clock, because ours may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let value = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let [until, now] = [value, text(DATE)?].map(httpdate::parse_http_date);
    until.ok()?.duration_since(now.ok()?).ok()
}

/// Our resolver for reqwest.
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

    /// IPv6 is a black hole and IPv4 works, so the server is reached by IPv4 before the connection times out.
    #[tokio::test]
    async fn a_broken_address_family_does_not_delay_a_request() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = alive.local_addr().unwrap().port();
        let hole = TcpSocket::new_v6().unwrap();
        hole.bind(SocketAddr::new("::1".parse().unwrap(), port)).unwrap();
        let hole = hole.listen(0).unwrap();
        // A connection to a full queue never succeeds.
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

    #[tokio::test(start_paused = true)]
    async fn a_stop_of_the_process_costs_one_step_of_the_limit() {
        let mut limit = AnswerLimit::begin();
        tokio::time::advance(STEP * STEPS * 5).await;
        assert!(limit.wait(tokio::time::sleep(STEP * (STEPS - 3))).await.is_some());
        assert!(limit.wait(std::future::pending::<()>()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn many_parts_have_one_limit() {
        let (mut limit, begun) = (AnswerLimit::begin(), Instant::now());
        while limit.wait(tokio::time::sleep(STEP / 2)).await.is_some() {}
        let took = begun.elapsed();
        assert!(took >= STEP * (STEPS - 1) && took <= STEP * (STEPS + 1), "{took:?}");
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
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:48:37 GMT"), date.clone()]), None, "it is in the past");
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:50:37 GMT")]), None);
        assert_eq!(after(&[(RETRY_AFTER, "soon"), date.clone()]), None);
        assert_eq!(after(&[(RETRY_AFTER, "-1"), date.clone()]), None);
        assert_eq!(after(&[date]), None);
    }
}
