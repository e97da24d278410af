//! HTTP for token requests: the only file that knows reqwest.

use std::pin::Pin;
use std::time::Duration;

use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use tokio_rustls::rustls::ClientConfig;

/// The largest answer that is read, in bytes. Real ones have less than 16 KiB.
const MOST: usize = 64 * 1024;

/// The longest wait for a connection, and for the whole answer. Mail programs give up a login after about a minute.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// The HTTP client could not be made.
#[derive(Debug)]
pub struct HttpSetupError(reqwest::Error);

impl std::fmt::Display for HttpSetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTPS cannot be set up: {}", self.0)
    }
}

impl std::error::Error for HttpSetupError {}

/// Why no OAuth answer came. All of these pass, or may.
#[derive(Debug)]
pub enum HttpError {
    /// The server could not be reached, or fell silent; the cause in words.
    Network(String),
    /// The server has trouble, or has had enough of us; the HTTP status.
    Status(u16),
    /// The answer is not JSON: some other program answers in the server's place.
    NotJson(u16),
    /// The answer has no end.
    TooLarge,
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(cause) => write!(f, "the authorization server cannot be reached: {cause}"),
            Self::Status(status) => write!(f, "the authorization server answers with HTTP status {status}"),
            Self::NotJson(status) => {
                write!(f, "the authorization server's answer is no OAuth answer (HTTP status {status})")
            }
            Self::TooLarge => write!(f, "the authorization server's answer is larger than {MOST} bytes"),
        }
    }
}

impl std::error::Error for HttpError {}

/// Sends token requests to one provider.
#[derive(Clone)]
pub struct Http(reqwest::Client);

impl Http {
    /// Trusts what this TLS configuration trusts. Follows no redirect: a token request is for one server only.
    pub fn new(tls: ClientConfig) -> Result<Self, HttpSetupError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // A token request an hour does not need a connection kept open.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("postkey/", env!("CARGO_PKG_VERSION")));
        client.build().map(Self).map_err(HttpSetupError)
    }

    /// Sends one request and reads the whole answer, if it is one that OAuth knows.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(network)?;
        let mut response = self.0.execute(request).await.map_err(network)?;
        let status = response.status().as_u16();
        if matches!(status, 300..400 | 408 | 425 | 429 | 500..) {
            return Err(HttpError::Status(status));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.to_ascii_lowercase().starts_with("application/json") {
            return Err(HttpError::NotJson(status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(network)? {
            if body.len() + chunk.len() > MOST {
                return Err(HttpError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = response.status();
        Ok(answer)
    }
}

/// Makes this the HTTP client of the oauth2 crate.
impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// The innermost cause: the outer ones only say that a request failed. Never the URL, which may carry a secret.
fn network(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    HttpError::Network(cause.to_string())
}
