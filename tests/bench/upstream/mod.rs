//! A provider that does as little as possible: three mail servers, a token endpoint, an authorization endpoint.

mod flights;
mod http;
mod mail;
pub mod noise;

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pki;
use crate::protocol::{Ports, Protocol};
use flights::Counted;

/// The one access token: as long as a large provider's.
pub const TOKEN: &str = concat!(
    "ya29.a0AfB_byC0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
);

/// The length in octets of the message that `FETCH` gets and of the one that clients send.
pub const MESSAGE: usize = 50_000_000;

/// Where the provider is.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Endpoints {
    /// TLS.
    pub mail: Ports,
    /// Without TLS, because this never leaves the machine.
    pub http: u16,
}

/// The provider, in a separate process.
pub struct Provider {
    process: Child,
    pub endpoints: Endpoints,
}

impl Provider {
    /// Starts it, and waits until it reports where it listens. Its tokens are valid for a day, so that no refresh falls into a
    /// measurement.
    pub fn start(dir: &Path) -> io::Result<Self> {
        Self::start_with(dir, 86_400)
    }

    /// The same with tokens that are valid for so many seconds.
    pub fn start_with(dir: &Path, expires_in: u32) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("upstream").arg(dir).arg(expires_in.to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut line)?;
        Ok(Self { process, endpoints: serde_json::from_str(&line)? })
    }

    /// Its process's id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The number of flights of the last accepted login.
    pub async fn flights(&self) -> io::Result<f64> {
        http::get(&format!("http://127.0.0.1:{}/flights", self.endpoints.http)).await?.parse().map_err(io::Error::other)
    }

    /// Makes each flight take this long from now on. TCP's own handshake stays as it is.
    pub async fn set_distance(&self, milliseconds: u64) -> io::Result<()> {
        http::get(&format!("http://127.0.0.1:{}/distance/{milliseconds}", self.endpoints.http)).await.map(drop)
    }

    /// Opens an authorization URL as a browser would, and follows it to the end.
    pub async fn visit(url: &str) -> io::Result<()> {
        http::get(url).await.map(drop)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the provider until standard input ends, which happens when the process that started it ends.
pub async fn serve(dir: &Path, expires_in: u32) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(pki::server(dir)?));
    let (flights, distance) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
    let message: Arc<[u8]> = message().into();
    let mut ports = Vec::new();
    for protocol in Protocol::ALL {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        ports.push(listener.local_addr()?.port());
        let service = mail::Service { protocol, message: message.clone(), flights: flights.clone() };
        tokio::spawn(accept(listener, acceptor.clone(), service, distance.clone()));
    }
    let [imap, pop3, smtp] = ports[..] else { unreachable!("there are three protocols") };
    let http = http::serve(flights, distance, expires_in).await?;
    println!("{}", serde_json::to_string(&Endpoints { mail: Ports { imap, pop3, smtp }, http })?);
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.map(drop)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: mail::Service, distance: Arc<AtomicU64>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, service, distance) = (acceptor.clone(), service.clone(), distance.clone());
        tokio::spawn(async move {
            socket.set_nodelay(true)?;
            let stream = acceptor.accept(Counted::new(socket, distance)).await?;
            service.session(stream).await
        });
    }
}

/// A message of [`MESSAGE`] octets: lines of 78, each ended by CRLF, none of which begins with a dot.
pub fn message() -> Vec<u8> {
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    let mut message: Vec<u8> = line.iter().copied().cycle().take(MESSAGE - 2).collect();
    message.extend_from_slice(b"\r\n");
    message
}
