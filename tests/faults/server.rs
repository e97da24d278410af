//! Mail servers that behave correctly up to one point, and fail there.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::{self, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::certificates::{Authority, Flaw};
use crate::support::house::{House, without_spares};

/// The point at which a server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connect,
    Handshake,
    Greeting,
    Capabilities,
    StartTls,
    Auth,
    /// At the client's first line after the login.
    Relay,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Reset,
    Close,
    /// Reads everything, and sends nothing.
    Silence,
    /// Sends a byte every two seconds, and never a whole line.
    Drip,
    Garbage,
    /// Answers the handshake in this version of TLS, by its number in the protocol.
    OldTls(u8),
    Certificate(Flaw),
}

type Stream = BufReader<Box<dyn Both>>;

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// What the servers share.
struct Shared {
    security: Security,
    authority: Authority,
    wrong: Mutex<Option<(Stage, Fault)>>,
}

/// A server for each protocol; they end when this is dropped.
pub struct Servers {
    pub ports: [u16; 3],
    shared: Arc<Shared>,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Servers {
    pub async fn start(security: Security) -> Self {
        let shared = Arc::new(Shared { security, authority: Authority::new(), wrong: Mutex::default() });
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &shared.authority.pem).unwrap();
        let (mut ports, mut tasks) = ([0; 3], JoinSet::new());
        for protocol in Protocol::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports[protocol as usize] = listener.local_addr().unwrap().port();
            tasks.spawn(serve(Arc::clone(&shared), protocol, listener));
        }
        Self { ports, shared, folder, _tasks: tasks }
    }

    /// From now on new connections fail like this, or not at all.
    pub fn go_wrong(&self, how: Option<(Stage, Fault)>) {
        *self.shared.wrong.lock().unwrap() = how;
    }

    /// A house whose provider has these mail servers.
    pub async fn house(&self) -> House {
        let security = self.shared.security;
        let ca_file = self.folder.path().join("ca.pem");
        House::with(security, |config| with_ports(&without_spares(&config), &self.ports, security, Some(&ca_file)))
            .await
    }
}

/// The configuration with these mail servers.
pub fn with_ports(config: &str, ports: &[u16; 3], security: Security, ca: Option<&Path>) -> String {
    let (before, _) = config.split_once("\n[provider.own.imap]").expect("the mail servers stand at the end");
    let is_ca = |line: &&str| ca.is_some() && line.starts_with("ca_file");
    let mut config: String = before.lines().filter(|line| !is_ca(line)).map(|line| format!("{line}\n")).collect();
    if let Some(ca) = ca {
        config += &format!("ca_file = {ca:?}\n");
    }
    for (protocol, port) in Protocol::ALL.iter().zip(ports) {
        let (name, security) = (protocol.name(), security.name());
        config += &format!("[provider.own.{name}]\nhost = \"localhost\"\nport = {port}\nsecurity = \"{security}\"\n");
    }
    config
}

async fn serve(shared: Arc<Shared>, protocol: Protocol, listener: TcpListener) {
    let mut sessions = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let wrong = *shared.wrong.lock().unwrap();
        sessions.spawn(Session { shared: Arc::clone(&shared), protocol, wrong }.serve(socket));
        while sessions.try_join_next().is_some() {}
    }
}

struct Session {
    shared: Arc<Shared>,
    protocol: Protocol,
    wrong: Option<(Stage, Fault)>,
}

impl Session {
    async fn serve(self, socket: TcpStream) -> io::Result<()> {
        if matches!(self.wrong, Some((_, Fault::Reset))) {
            // Closing then resets the connection.
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        }
        let mut stream: Stream = BufReader::new(Box::new(socket));
        self.reach(Stage::Connect, &mut stream).await?;
        if self.shared.security == Security::Tls {
            stream = self.start_tls(stream).await?;
        }
        self.reach(Stage::Greeting, &mut stream).await?;
        self.say(&mut stream, ["* OK ready", "+OK ready", "220 ready"]).await?;
        self.talk(stream).await
    }

    /// Answers lines until the client disconnects.
    async fn talk(&self, mut stream: Stream) -> io::Result<()> {
        let mut logged_in = false;
        loop {
            let line = line(&mut stream).await?;
            let (tag, command) = match self.protocol {
                Protocol::Imap => line.split_once(' ').unwrap_or_default(),
                Protocol::Pop3 | Protocol::Smtp => ("", &*line),
            };
            let yes = [&*format!("{tag} OK yes"), "+OK yes", "235 yes"];
            match command.split(' ').next().unwrap_or_default() {
                _ if logged_in => {
                    self.reach(Stage::Relay, &mut stream).await?;
                    self.say(&mut stream, [&*line; 3]).await?;
                }
                "CAPABILITY" | "CAPA" | "EHLO" => {
                    self.reach(Stage::Capabilities, &mut stream).await?;
                    let imap = format!("* CAPABILITY IMAP4rev1 STARTTLS SASL-IR AUTH=XOAUTH2\r\n{tag} OK yes");
                    let list =
                        [&*imap, "+OK\r\nSTLS\r\nSASL XOAUTH2\r\n.", "250-me\r\n250-STARTTLS\r\n250 AUTH XOAUTH2"];
                    self.say(&mut stream, list).await?;
                }
                "STARTTLS" | "STLS" => {
                    self.reach(Stage::StartTls, &mut stream).await?;
                    self.say(&mut stream, [yes[0], yes[1], "220 yes"]).await?;
                    stream = self.start_tls(stream).await?;
                }
                _ => {
                    self.reach(Stage::Auth, &mut stream).await?;
                    if command.split(' ').count() < 3 {
                        self.say(&mut stream, ["+ ", "+ ", "334 "]).await?;
                        self::line(&mut stream).await?;
                    }
                    self.say(&mut stream, yes).await?;
                    logged_in = true;
                }
            }
        }
    }

    async fn say(&self, stream: &mut Stream, words: [&str; 3]) -> io::Result<()> {
        stream.write_all(format!("{}\r\n", words[self.protocol as usize]).as_bytes()).await?;
        stream.flush().await
    }

    async fn start_tls(&self, mut stream: Stream) -> io::Result<Stream> {
        stream.fill_buf().await?;
        self.reach(Stage::Handshake, &mut stream).await?;
        let flaw = match self.wrong {
            Some((Stage::Handshake, Fault::Certificate(flaw))) => Some(flaw),
            _ => None,
        };
        let stream = self.shared.authority.acceptor(flaw).accept(stream).await?;
        Ok(BufReader::new(Box::new(stream)))
    }

    /// Fails, if this is the point. An error ends the session.
    async fn reach(&self, stage: Stage, stream: &mut Stream) -> io::Result<()> {
        let Some((_, fault)) = self.wrong.filter(|(at, _)| *at == stage) else { return Ok(()) };
        match fault {
            Fault::Certificate(_) => return Ok(()),
            Fault::Reset | Fault::Close => {}
            Fault::Silence => drain(stream).await?,
            Fault::Drip => loop {
                stream.write_all(if stage == Stage::Handshake { b"\x16" } else { b"+" }).await?;
                stream.flush().await?;
                if let Ok(left) = timeout(Duration::from_secs(2), drain(stream)).await {
                    return left;
                }
            },
            Fault::Garbage => {
                stream
                    .write_all(b"\xff\x00\x80garbage\r\n\x16\x03garbage\r\n\r\n\x1b[31m garbage \xf0\x9f\r\n")
                    .await?;
                stream.flush().await?;
                drain(stream).await?;
            }
            Fault::OldTls(version) => {
                stream.write_all(&server_hello(version)).await?;
                stream.flush().await?;
                drain(stream).await?;
            }
        }
        Err(io::ErrorKind::Other.into())
    }
}

/// Reads until the client disconnects.
async fn drain(stream: &mut Stream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).await.map(drop)
}

/// The next line without its end.
async fn line(stream: &mut Stream) -> io::Result<String> {
    let mut line = String::new();
    match stream.take(64 * 1024).read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// The answer of a server with TLS 1.0 (version 1) or 1.1 (version 2) to whatever it was offered (RFC 4346 section
/// 7.4.1.3).
fn server_hello(version: u8) -> Vec<u8> {
    let mut hello = vec![22, 3, version, 0, 42, 2, 0, 0, 38, 3, version];
    hello.extend([7; 32]);
    // No session id, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    hello.extend([0, 0, 47, 0]);
    hello
}
