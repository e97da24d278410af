//! Requests to an authorization server: forms that carry the client's authentication (RFC 6749 section 2.3).

use url::Url;
use url::form_urlencoded::Serializer;

use super::http::{FORM, ServerResponse};
use super::outcome::{self, Granted, RequestError};
use super::{Failure, Http, Registration};
use crate::clock::Clock;
use crate::token::TokenSet;

/// Requests tokens from the token endpoint. `before` supplies the refresh token and scope that the answer leaves out.
pub async fn tokens(
    http: &Http,
    registration: &Registration,
    form: &[(&str, &str)],
    before: Option<&TokenSet>,
    clock: &Clock,
) -> Result<Granted, RequestError> {
    let requested = clock.now();
    let answer = send(http, registration, &registration.token_endpoint, form, clock).await?;
    outcome::tokens(answer, requested, before)
}

/// Sends a form to an endpoint. A parameter without a value is left out (RFC 6749 section 3.2).
pub async fn send(
    http: &Http,
    registration: &Registration,
    endpoint: &Url,
    form: &[(&str, &str)],
    clock: &Clock,
) -> Result<ServerResponse, Failure> {
    let form = form.iter().copied().chain([("client_id", &*registration.client_id)]);
    let body = Serializer::new(String::new())
        .extend_pairs(form.filter(|(_, value)| !value.is_empty()))
        .extend_pairs(registration.authentication(clock.now())?)
        .finish();
    http.post(endpoint, FORM, body.into_bytes()).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

    use super::*;
    use crate::clock::Moment;
    use crate::config::provider::ClientMethods;
    use crate::oauth::Proof;
    use crate::resolver::Resolver;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 41\r\n\r\n\
        {\"access_token\":\"access\",\"expires_in\":60}";

    /// As on a machine that is suspended while the answer is on its way.
    #[tokio::test]
    async fn a_late_answer_does_not_lengthen_the_life_of_its_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registration = Registration {
            client_id: "client".to_owned(),
            proof: Proof::None,
            token_endpoint: format!("http://{}/token", listener.local_addr().unwrap()).parse().unwrap(),
            is_self_registered: false,
            methods: ClientMethods::default(),
        };
        let provider = Arc::new(crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let http = Http::new(tls, Resolver::system(), None).unwrap();
        let seconds = Arc::new(AtomicU64::new(1000));
        let (clock, form) = (Clock::Manual(Arc::clone(&seconds)), [("refresh_token", "refresh")]);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"client_id=client") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request has an end");
            }
            seconds.store(1060, Ordering::SeqCst);
            stream.write_all(ANSWER).await.unwrap();
        };
        let ((), granted) = tokio::join!(server, tokens(&http, &registration, &form, None, &clock));
        let life = granted.ok().unwrap().tokens.life;
        assert_eq!((life.issued, life.expires), (Moment(1000), Moment(1060)));
    }
}
