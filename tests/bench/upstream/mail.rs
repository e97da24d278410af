//! As much of IMAP, POP3 and SMTP as the measurements need.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::server::TlsStream;

use super::flights::Counted;
use super::{TOKEN, noise};
use crate::protocol::Protocol;

/// The length of a message's header in octets: five lines.
const HEADER: usize = 390;

/// What the sessions of one port share.
#[derive(Clone)]
pub struct Service {
    pub protocol: Protocol,
    pub message: Arc<[u8]>,
    /// Flights before the last accepted login.
    pub flights: Arc<AtomicU32>,
}

/// A client's connection. The reader's buffer is small, because thousands of sessions are idle; large data bypasses it.
struct Session {
    stream: BufReader<TlsStream<Counted>>,
    service: Service,
}

impl Service {
    /// Serves one client until it hangs up.
    pub async fn session(self, stream: TlsStream<Counted>) -> io::Result<()> {
        let protocol = self.protocol;
        let mut session = Session { stream: BufReader::with_capacity(1024, stream), service: self };
        session.say(greeting(protocol)).await?;
        while let Some(line) = session.line().await? {
            if let Some((size, seed)) = noise::wanted(&line) {
                return noise::answer(session.stream, size, seed).await;
            }
            match protocol {
                Protocol::Imap => session.imap(&line).await?,
                Protocol::Pop3 => session.pop3(&line).await?,
                Protocol::Smtp => session.smtp(&line).await?,
            }
        }
        session.stream.shutdown().await
    }
}

fn greeting(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER] ready\r\n",
        Protocol::Pop3 => "+OK ready\r\n",
        Protocol::Smtp => "220 bench.example.test ESMTP\r\n",
    }
}

impl Session {
    async fn imap(&mut self, line: &str) -> io::Result<()> {
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        let (verb, rest) = verb(command);
        match verb.as_str() {
            "CAPABILITY" => self.say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER\r\n").await?,
            "AUTHENTICATE" => {
                let answer = if self.login(rest, "+ \r\n").await? { "OK [CAPABILITY IMAP4rev1 IDLE]" } else { "NO" };
                return self.say(&format!("{tag} {answer} AUTHENTICATE\r\n")).await;
            }
            "FETCH" => match (rest.strip_prefix("1:"), rest.strip_prefix("1 BODY[]<0.")) {
                (Some(last), _) => self.headers(last.trim_end_matches(" BODY[HEADER]")).await?,
                (_, Some(length)) => {
                    self.message(length.trim_end_matches('>').parse().map_err(io::Error::other)?).await?
                }
                _ => self.message(self.service.message.len()).await?,
            },
            _ => {}
        }
        self.say(&format!("{tag} OK {verb}\r\n")).await
    }

    /// Sends the first part of the message.
    async fn message(&mut self, length: usize) -> io::Result<()> {
        let length = length.min(self.service.message.len());
        self.say(&format!("* 1 FETCH (BODY[] {{{length}}}\r\n")).await?;
        self.stream.write_all(&self.service.message[..length]).await?;
        self.say(")\r\n").await
    }

    /// Sends the headers of all messages up to the last one, each in a TLS record of its own.
    async fn headers(&mut self, last: &str) -> io::Result<()> {
        let header = String::from_utf8_lossy(&self.service.message[..HEADER]).into_owned();
        for number in 1..=last.parse::<usize>().map_err(io::Error::other)? {
            self.say(&format!("* {number} FETCH (BODY[HEADER] {{{HEADER}}}\r\n{header})\r\n")).await?;
        }
        Ok(())
    }

    async fn pop3(&mut self, line: &str) -> io::Result<()> {
        let (verb, rest) = verb(line);
        match verb.as_str() {
            "CAPA" => self.say("+OK\r\nSASL XOAUTH2 OAUTHBEARER\r\nUIDL\r\nTOP\r\n.\r\n").await,
            "AUTH" => {
                let accepted = self.login(rest, "+ \r\n").await?;
                self.say(if accepted { "+OK\r\n" } else { "-ERR [AUTH]\r\n" }).await
            }
            _ => self.say("+OK\r\n").await,
        }
    }

    async fn smtp(&mut self, line: &str) -> io::Result<()> {
        let (verb, rest) = verb(line);
        match verb.as_str() {
            "EHLO" => self.say("250-bench\r\n250-PIPELINING\r\n250-SIZE\r\n250 AUTH XOAUTH2 OAUTHBEARER\r\n").await,
            "AUTH" => {
                let accepted = self.login(rest, "334 \r\n").await?;
                self.say(if accepted { "235 2.7.0 accepted\r\n" } else { "535 5.7.8 refused\r\n" }).await
            }
            "DATA" => {
                self.say("354 go ahead\r\n").await?;
                self.swallow().await?;
                self.say("250 2.0.0 swallowed\r\n").await
            }
            _ => self.say("250 2.0.0 fine\r\n").await,
        }
    }

    /// Reads the SASL response, with `go_ahead` if it did not come with the command. Returns whether it has the token.
    async fn login(&mut self, arguments: &str, go_ahead: &str) -> io::Result<bool> {
        let response = match arguments.split_once(' ') {
            Some((_, response)) => response.to_owned(),
            None => {
                self.say(go_ahead).await?;
                self.line().await?.unwrap_or_default()
            }
        };
        let bearer = format!("auth=Bearer {TOKEN}\x01");
        let response = BASE64_STANDARD.decode(response).unwrap_or_default();
        self.service.flights.store(self.stream.get_ref().get_ref().0.flights(), Ordering::Relaxed);
        Ok(response.windows(bearer.len()).any(|window| window == bearer.as_bytes()))
    }

    /// Reads a message up to its end. The client waits for our answer, so nothing follows the end.
    async fn swallow(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; 1 << 18];
        let mut kept = 0;
        loop {
            let length = kept + self.stream.read(&mut chunk[kept..]).await?;
            if length == kept {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if chunk[..length].ends_with(b"\r\n.\r\n") {
                return Ok(());
            }
            let tail = length.saturating_sub(4);
            chunk.copy_within(tail..length, 0);
            kept = length - tail;
        }
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await? {
            0 => Ok(None),
            _ => Ok(Some(line.trim_end().to_owned())),
        }
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await
    }
}

/// The command's verb in upper case, and what follows it.
fn verb(command: &str) -> (String, &str) {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    (verb.to_ascii_uppercase(), rest)
}
