//! The mail program: logs in, and runs what is measured.

use std::io;
use std::pin::Pin;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::protocol::{Ports, Protocol};
use crate::upstream::TOKEN;

/// The account that everybody opens.
pub const USER: &str = "bench@example.test";

/// How to reach the mail servers by one of the ways that are compared.
#[derive(Clone)]
pub struct Way {
    pub ports: Ports,
    /// How to do TLS, if the client does it itself.
    pub tls: Option<TlsConnector>,
    /// The credentials; without them the client sends the bearer itself.
    pub password: Option<String>,
}

/// Anything to talk over.
pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A session that is logged in.
pub struct Client {
    stream: BufReader<Pin<Box<dyn Stream>>>,
    protocol: Protocol,
}

impl Way {
    /// Connects and logs in.
    pub async fn login(&self, protocol: Protocol) -> io::Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", self.ports.of(protocol))).await?;
        socket.set_nodelay(true)?;
        let stream: Pin<Box<dyn Stream>> = match &self.tls {
            Some(tls) => {
                Box::pin(tls.connect(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()), socket).await?)
            }
            None => Box::pin(socket),
        };
        let mut client = Client { stream: BufReader::with_capacity(1024, stream), protocol };
        client.line().await?;
        match &self.password {
            Some(password) => client.password(password).await?,
            None => client.bearer().await?,
        }
        Ok(client)
    }
}

impl Client {
    async fn password(&mut self, password: &str) -> io::Result<()> {
        match self.protocol {
            Protocol::Imap => self.expect(&format!("a LOGIN {USER} {password}"), "a OK").await,
            Protocol::Pop3 => {
                self.expect(&format!("USER {USER}"), "+OK").await?;
                self.expect(&format!("PASS {password}"), "+OK").await
            }
            Protocol::Smtp => {
                let response = BASE64_STANDARD.encode(format!("\0{USER}\0{password}"));
                self.expect("EHLO localhost", "250").await?;
                self.expect(&format!("AUTH PLAIN {response}"), "235").await
            }
        }
    }

    async fn bearer(&mut self) -> io::Result<()> {
        let response = BASE64_STANDARD.encode(format!("user={USER}\x01auth=Bearer {TOKEN}\x01\x01"));
        match self.protocol {
            Protocol::Imap => self.expect(&format!("a AUTHENTICATE XOAUTH2 {response}"), "a OK").await,
            Protocol::Pop3 => {
                // Too long for a POP3 command with the response in it (RFC 5034 section 4).
                self.expect("AUTH XOAUTH2", "+ ").await?;
                self.expect(&response, "+OK").await
            }
            Protocol::Smtp => {
                self.expect("EHLO localhost", "250").await?;
                self.expect(&format!("AUTH XOAUTH2 {response}"), "235").await
            }
        }
    }

    /// One command that does nothing, there and back.
    pub async fn noop(&mut self) -> io::Result<()> {
        match self.protocol {
            Protocol::Imap => self.expect("a NOOP", "a OK").await,
            Protocol::Pop3 => self.expect("NOOP", "+OK").await,
            Protocol::Smtp => self.expect("NOOP", "250").await,
        }
    }

    /// Fetches the message by IMAP. Returns its number of octets.
    pub async fn fetch(&mut self) -> io::Result<usize> {
        self.fetch_section("BODY[]").await
    }

    /// The same with a part of the message, as if it were a smaller one.
    pub async fn fetch_part(&mut self, octets: usize) -> io::Result<usize> {
        self.fetch_section(&format!("BODY[]<0.{octets}>")).await
    }

    /// Fetches the headers of this many messages by IMAP.
    pub async fn headers(&mut self, count: usize) -> io::Result<()> {
        self.expect(&format!("a FETCH 1:{count} BODY[HEADER]"), "a OK").await
    }

    async fn fetch_section(&mut self, section: &str) -> io::Result<usize> {
        self.send(&format!("a FETCH 1 {section}")).await?;
        let line = self.line().await?;
        let length = line.rsplit_once('{').and_then(|(_, length)| length.strip_suffix('}')?.parse().ok());
        let length: usize = length.ok_or_else(|| io::Error::other(format!("no literal announced: {line}")))?;
        let mut chunk = vec![0; 1 << 18];
        let mut left = length;
        while left > 0 {
            let wanted = left.min(chunk.len());
            match self.stream.read(&mut chunk[..wanted]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        self.answer("a OK").await.map(|()| length)
    }

    /// Sends `message` by SMTP.
    pub async fn upload(&mut self, message: &[u8]) -> io::Result<()> {
        self.expect(&format!("MAIL FROM:<{USER}>"), "250").await?;
        self.expect("RCPT TO:<ann@example.test>", "250").await?;
        self.expect("DATA", "354").await?;
        self.stream.write_all(message).await?;
        self.expect(".", "250").await
    }

    /// Makes the server send this much noise, and receives it, see [`crate::upstream::noise`].
    pub async fn noise(mut self, size: u64, seed: u64) -> io::Result<BufReader<Pin<Box<dyn Stream>>>> {
        let tag = if self.protocol == Protocol::Imap { "a " } else { "" };
        self.send(&format!("{tag}XNOISE {size} {seed}")).await?;
        Ok(self.stream)
    }

    async fn expect(&mut self, command: &str, answer: &str) -> io::Result<()> {
        self.send(command).await?;
        self.answer(answer).await
    }

    async fn send(&mut self, command: &str) -> io::Result<()> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    /// Reads up to the line that ends the answer to a command; it must begin with `expected`.
    async fn answer(&mut self, expected: &str) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let last = match self.protocol {
                Protocol::Imap => line.starts_with("a "),
                Protocol::Pop3 => true,
                Protocol::Smtp => line.as_bytes().get(3) != Some(&b'-'),
            };
            match last {
                false => {}
                true if line.starts_with(expected) => return Ok(()),
                true => return Err(io::Error::other(format!("\"{line}\" where \"{expected}\" was expected"))),
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")),
            _ => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }
}
