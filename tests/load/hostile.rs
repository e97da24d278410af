//! A user without any password who wants to keep others out, with every connection before its login that costs much.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::client::{Stream, USER};
use crate::pki;
use crate::protocol::{Ports, Protocol};

/// How long a peer has to read nothing before it counts as one that never reads again.
const STALLED: Duration = Duration::from_millis(100);

/// How long to wait before another connection takes the place of a closed one.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest handshake that may remain incomplete, in octets (net/transport.rs).
const HANDSHAKE: usize = 6 * 1024 - 1;

/// What may be attacked besides the mail ports without TLS.
#[derive(Clone, Serialize, Deserialize)]
pub struct Targets {
    /// IMAP with TLS.
    tls: u16,
    metrics: u16,
    /// IMAP on a Unix socket.
    unix: PathBuf,
}

/// What one connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sends nothing.
    Silent,
    /// Begins a line and does not end it.
    HalfALine,
    /// Sends command after command, and reads no answer.
    Deaf,
    DeafUnix,
    /// Begins a TLS handshake and does not end it.
    HalfAHello,
    /// Sends nothing after the handshake.
    SilentTls,
    HalfALineTls,
    DeafTls,
    /// Begins a TLS record of the largest size after the handshake and does not end it.
    HalfARecord,
    /// Begins a request to an HTTP port and does not end it.
    HalfARequest,
    /// Tries a password, and waits for the answer.
    Guess,
    /// The same from another address each time, and then ends its own side.
    HalfClosedGuess,
    /// Logs in to an address that is not authorized yet.
    FirstLogin,
}

/// What a hostile user does at the same time, and how often.
const ALL: [(Act, usize); 13] = [
    (Act::Silent, 300),
    (Act::HalfALine, 100),
    (Act::Deaf, 100),
    (Act::DeafUnix, 100),
    (Act::HalfAHello, 200),
    (Act::SilentTls, 50),
    (Act::HalfALineTls, 50),
    (Act::DeafTls, 50),
    (Act::HalfARecord, 50),
    (Act::HalfARequest, 300),
    (Act::Guess, 2000),
    (Act::HalfClosedGuess, 200),
    (Act::FirstLogin, 50),
];

impl Targets {
    /// Free ports, and a socket's name in a folder of its own.
    pub fn choose(dir: &Path, name: &str) -> io::Result<Self> {
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [tls, metrics] = [&listeners[0], &listeners[1]].map(|listener| listener.local_addr().map(|own| own.port()));
        Ok(Self { tls: tls?, metrics: metrics?, unix: dir.join(format!("{name}.socket")) })
    }

    /// The keys in postkey's configuration for them, above its tables.
    pub fn top(&self) -> String {
        format!("metrics = \"127.0.0.1:{}\"\n", self.metrics)
    }

    /// The same below the tables.
    pub fn more(&self, dir: &Path) -> String {
        let (tls, unix) = (self.tls, &self.unix);
        let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
        format!(
            r#"[[listener]]
protocol = "imap"
address = ["127.0.0.1:{tls}"]
security = "tls"
certificate = {chain:?}
key = {key:?}
[[listener]]
protocol = "imap"
address = {unix:?}
mode = "0666"
[account."*@example.test"]
"#
        )
    }
}

/// A connection that does something until it is closed.
pub struct Held {
    stream: Pin<Box<dyn Stream>>,
    /// What it keeps sending without reading answers. If it is empty, it reads.
    says: Vec<u8>,
}

impl Held {
    fn silent(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::pin(stream), says: Vec::new() }
    }

    async fn saying(mut stream: impl Stream + Unpin + 'static, words: &[u8]) -> io::Result<Self> {
        // The peer may accept less, and close.
        let _late = timeout(STALLED, stream.write_all(words)).await;
        Ok(Self::silent(stream))
    }

    async fn deaf(mut stream: impl Stream + Unpin + 'static) -> io::Result<Self> {
        let says = b"a CAPABILITY\r\n".repeat(400);
        while let Ok(said) = timeout(STALLED, stream.write_all(&says)).await {
            said?;
        }
        Ok(Self { stream: Box::pin(stream), says })
    }

    /// Waits until the other side has closed it. Returns what it received.
    async fn closed(mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        // Both end with an error, or with the end of the connection.
        if self.says.is_empty() {
            let _reset = self.stream.read_to_end(&mut heard).await;
        } else {
            while self.stream.write_all(&self.says).await.is_ok() {}
        }
        heard
    }
}

impl Act {
    /// Connects, and does it.
    pub async fn connect(self, targets: &Targets, ports: Ports, dir: &Path, number: usize) -> io::Result<Held> {
        let clear = ports.of(Protocol::ALL[number % 3]);
        match self {
            Self::Silent => connect(clear, number).await.map(Held::silent),
            Self::HalfALine => Held::saying(connect(ports.imap, number).await?, &line()).await,
            Self::Deaf => Held::deaf(connect(ports.imap, number).await?).await,
            Self::DeafUnix => Held::deaf(UnixStream::connect(&targets.unix).await?).await,
            Self::HalfAHello => Held::saying(connect(targets.tls, number).await?, &hello(HANDSHAKE)).await,
            Self::SilentTls => protect(targets, dir, number).await.map(Held::silent),
            Self::HalfALineTls => Held::saying(protect(targets, dir, number).await?, &line()).await,
            Self::DeafTls => Held::deaf(protect(targets, dir, number).await?).await,
            Self::HalfARecord => {
                let stream = protect(targets, dir, number).await?.into_inner().0;
                Held::saying(stream, &[&b"\x17\x03\x03\x40\x00"[..], &[0; 16_383]].concat()).await
            }
            Self::HalfARequest => {
                let header = format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {}", "x".repeat(12_000));
                Held::saying(connect(targets.metrics, number).await?, header.as_bytes()).await
            }
            Self::Guess | Self::HalfClosedGuess => {
                let guess = format!("a LOGIN {USER} \"guess {number}\"\r\n");
                let mut stream = connect(ports.imap, number).await?;
                stream.write_all(guess.as_bytes()).await?;
                if self == Self::HalfClosedGuess {
                    stream.shutdown().await?;
                }
                Ok(Held::silent(stream))
            }
            Self::FirstLogin => {
                let login = format!("a LOGIN stranger{}@example.test \"some password\"\r\n", number % 1000);
                Held::saying(connect(ports.imap, number).await?, login.as_bytes()).await
            }
        }
    }
}

/// Connects from one of the many loopback addresses of this machine.
async fn connect(port: u16, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let own = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + u32::try_from(number % 60_000).unwrap_or(0));
    socket.bind(SocketAddr::from((own, 0)))?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

async fn protect(
    targets: &Targets,
    dir: &Path,
    number: usize,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector: TlsConnector = pki::client(dir)?;
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    connector.connect(name, connect(targets.tls, number).await?).await
}

/// The beginning of a line that is just short enough that postkey waits for its end (RFC 9051 section 4).
fn line() -> Vec<u8> {
    let mut line = b"a LOGIN ".to_vec();
    line.resize(8192, b'x');
    line
}

/// This many octets of a hello that claims to have 64 KiB, in records of the largest size (RFC 8446 section 5.1).
fn hello(size: usize) -> Vec<u8> {
    let (mut bytes, mut message) = (Vec::new(), b"\x01\x00\xff\xf0\x03\x03".to_vec());
    message.resize(0xfff4, 0);
    for record in message.chunks(16_384) {
        bytes.extend(b"\x16\x03\x01");
        bytes.extend(u16::try_from(record.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(record);
    }
    bytes.truncate(size);
    bytes
}

/// Does all of it until standard input ends. Then prints the number of connections.
pub async fn be(targets: &str, ports: &str, dir: &Path) -> io::Result<bool> {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let (targets, ports): (Targets, Ports) = (serde_json::from_str(targets)?, serde_json::from_str(ports)?);
    for (act, copies) in ALL {
        for _ in 0..copies {
            let (targets, dir) = (targets.clone(), dir.to_owned());
            tokio::spawn(async move {
                loop {
                    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                    if let Ok(held) = act.connect(&targets, ports, &dir, number).await {
                        held.closed().await;
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    println!("{}", CONNECTIONS.load(Ordering::Relaxed));
    Ok(true)
}
