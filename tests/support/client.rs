//! A plain mail client, for tests that talk to a mail server themselves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Mechanism, Protocol, Security};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Provider;
use super::connection::Stream;
use super::tls::Identity;

/// After this time, nothing more will come. Two hundred logins at once take long if two cores have other work, too.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a mail server. Anything that takes longer than half a minute has failed.
pub struct Client(BufReader<Box<dyn Stream>>);

impl Client {
    /// Without TLS, to any port of this machine; the greeting is not read yet.
    pub async fn clear(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a server");
        Self(BufReader::new(Box::new(stream)))
    }

    /// To a Unix socket; the greeting is not read yet.
    pub async fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).await.expect("a server");
        Self(BufReader::new(Box::new(stream)))
    }

    /// To a mail server of the provider: with TLS, greeted, and in SMTP after EHLO.
    pub async fn connect(provider: &Provider, protocol: Protocol, security: Security) -> Self {
        let mut client = Self::clear(provider.port(protocol, security)).await;
        let greeting = ["* OK", "+OK", "220"][protocol as usize];
        if security == Security::StartTls {
            client.expect(greeting).await;
            client.ehlo(protocol, "250-STARTTLS").await;
            client.say(["a STARTTLS", "STLS", "STARTTLS"][protocol as usize]).await;
            client.expect(["a OK", "+OK", "220"][protocol as usize]).await;
        }
        let mut client = client.protect(&provider.identity).await;
        if security == Security::Tls {
            client.expect(greeting).await;
        }
        client.ehlo(protocol, "250-AUTH XOAUTH2 OAUTHBEARER").await;
        client
    }

    /// The same connection, with TLS from here on. What was read ahead is lost.
    pub async fn protect(self, identity: &Identity) -> Self {
        let connector = TlsConnector::from(Arc::new(identity.client_config()));
        let name = ServerName::try_from("localhost").unwrap();
        let protected = connector.connect(name, self.0.into_inner()).await.expect("a connection that is alive");
        Self(BufReader::new(Box::new(protected)))
    }

    async fn ehlo(&mut self, protocol: Protocol, wanted: &str) {
        if protocol == Protocol::Smtp {
            let mut lines = vec![self.ask("EHLO client.example.test").await];
            while lines.last().unwrap().starts_with("250-") {
                lines.push(self.line().await);
            }
            assert!(lines.iter().any(|line| line == wanted), "{lines:?}");
        }
    }

    /// Logs in, or fails the test.
    pub async fn log_in(&mut self, protocol: Protocol, mechanism: Mechanism, user: &str, token: &str) {
        let reply = self.authenticate(protocol, mechanism, user, token).await;
        assert!(reply.starts_with(["a OK", "+OK", "235"][protocol as usize]), "{reply}");
    }

    /// AUTH in two steps. Returns the server's answer to the token.
    pub async fn authenticate(&mut self, protocol: Protocol, mechanism: Mechanism, user: &str, token: &str) -> String {
        let verb = if protocol == Protocol::Imap { "a AUTHENTICATE" } else { "AUTH" };
        self.say(&format!("{verb} {}", mechanism.name())).await;
        self.expect(prompt(protocol)).await;
        self.ask(&response(mechanism, user, token)).await
    }

    /// An IMAP command that succeeds. Returns all untagged lines before its end.
    pub async fn run(&mut self, command: &str) -> String {
        self.say(command).await;
        let mut untagged = String::new();
        loop {
            let line = self.line().await;
            if line.starts_with("a ") {
                assert!(line.starts_with("a OK"), "{command}: {line}");
                return untagged;
            }
            untagged += &format!("{line}\r\n");
        }
    }

    /// Sends a line.
    pub async fn say(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes()).await;
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("a connection that is alive");
        self.0.flush().await.expect("a connection that is alive");
    }

    /// Sends a line and reads one.
    pub async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.line().await
    }

    /// Reads a line that has to begin like this.
    pub async fn expect(&mut self, beginning: &str) {
        let line = self.line().await;
        assert!(line.starts_with(beginning), "{line:?} is not {beginning:?}");
    }

    /// Reads a line without its CRLF.
    pub async fn line(&mut self) -> String {
        let mut line = Vec::new();
        in_time(self.0.read_until(b'\n', &mut line)).await.expect("a connection that is alive");
        String::from_utf8(line).unwrap().strip_suffix("\r\n").expect("a line ends in CRLF").to_owned()
    }

    /// Reads so many bytes.
    pub async fn exactly(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        in_time(self.0.read_exact(&mut bytes)).await.expect("a connection that is alive");
        bytes
    }

    /// Reads up to the end of what the server sends.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        in_time(self.0.read_to_end(&mut bytes)).await.expect("an orderly end");
        bytes
    }

    /// The connection itself.
    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite {
        self.0
    }

    /// Sends nothing more, but goes on reading.
    pub async fn finish(&mut self) {
        self.0.shutdown().await.expect("a connection that is alive");
    }

    /// Reads up to the end, even if it is abrupt, and meanwhile sends these bytes as far as somebody reads them.
    pub async fn talk(mut self, pieces: &[&[u8]]) -> Vec<u8> {
        for piece in pieces {
            if self.0.write_all(piece).await.is_err() || self.0.flush().await.is_err() {
                break;
            }
        }
        let mut bytes = Vec::new();
        let _abrupt = in_time(self.0.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Whether nothing more comes. An abrupt end is an end as well.
    pub async fn is_closed(&mut self) -> bool {
        in_time(self.0.read(&mut [0])).await.map_or(true, |size| size == 0)
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer in time")
}

/// A SASL response in base64; the user is written as it is.
pub fn response(mechanism: Mechanism, user: &str, token: &str) -> String {
    BASE64_STANDARD.encode(match mechanism {
        Mechanism::XOAuth2 => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
        Mechanism::OAuthBearer => format!("n,a={user},\x01auth=Bearer {token}\x01\x01"),
    })
}

/// How the server begins its lines within a SASL exchange.
pub fn prompt(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Smtp { "334 " } else { "+ " }
}
