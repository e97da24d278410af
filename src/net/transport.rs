//! A connection's bytes, over TCP, TLS or a Unix socket; and how we reach a provider.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::listen::Socket;
use super::{dial, proxy};
use crate::proxy::Proxy;
use crate::resolver::Resolver;

/// How often to look whether a peer has gone from which something has arrived.
const LOOK: Duration = Duration::from_millis(100);

/// A connection to a client or a provider.
pub enum Transport {
    /// TCP in clear.
    Clear(TcpStream),
    /// A Unix socket, which has no TLS.
    Unix(UnixStream),
    /// TCP under TLS, in either role.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Takes a socket over, with the options that a mail session wants.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        // Dialogues are short lines, each waited for.
        socket.set_nodelay(true)?;
        // An IDLE session may be silent for half an hour; NAT devices forget after a few minutes, and a peer that has
        // vanished should not be waited for longer than about 7 minutes.
        let spread = spread(&socket)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(120 + spread))
            .with_interval(Duration::from_secs(20 + spread / 6))
            .with_retries(5);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        Ok(Self::Clear(socket))
    }

    /// Takes a client's socket over.
    pub fn of_client(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(socket) => Self::new(socket),
            Socket::Unix(socket) => Ok(Self::Unix(socket)),
        }
    }

    /// Connects to a server, at whichever of its addresses answers first; or through a proxy, which looks the server up.
    pub async fn dial(resolver: &Resolver, proxy: Option<&Proxy>, host: &str, port: u16) -> io::Result<Self> {
        Self::new(match proxy {
            Some(proxy) => proxy::connect(resolver, proxy, host, port).await?,
            None => dial::connect(resolver.lookup(host).await?, port).await?,
        })
    }

    /// Does the handshake as a client, and verifies that the server is `host`.
    pub async fn connect_tls(self, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, self.clear()?).await?;
        Ok(Self::Tls(Box::new(stream.into())))
    }

    /// Does the handshake as a server.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        let stream = TlsAcceptor::from(config).accept(self.clear()?).await?;
        Ok(Self::Tls(Box::new(stream.into())))
    }

    /// The certificates that the peer has shown, its own first; none in clear.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Clear(_) | Self::Unix(_) => &[],
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
        }
    }

    /// Waits until the peer has ended its side. What has arrived stays where it is, so this has to look now and then.
    pub async fn gone(&self) {
        while !self.readiness().await.is_ok_and(|ready| ready.is_read_closed()) {
            sleep(LOOK).await;
        }
    }

    async fn readiness(&self) -> io::Result<Ready> {
        match self {
            Self::Clear(socket) => socket.ready(Interest::READABLE).await,
            Self::Unix(socket) => socket.ready(Interest::READABLE).await,
            Self::Tls(stream) => stream.get_ref().0.ready(Interest::READABLE).await,
        }
    }

    fn clear(self) -> io::Result<TcpStream> {
        match self {
            Self::Clear(socket) => Ok(socket),
            Self::Unix(_) => Err(io::Error::other("a Unix socket has no TLS")),
            Self::Tls(_) => Err(io::Error::other("the connection is under TLS already")),
        }
    }
}

/// Up to 120 seconds, by the socket's ports. Thousands of sessions that began together would else be probed together, and
/// Linux drops what is more than a thousand packets at once (`net.core.netdev_max_backlog`), the same ones each time.
fn spread(socket: &TcpStream) -> io::Result<u64> {
    let ports = u64::from(socket.local_addr()?.port()) + u64::from(socket.peer_addr()?.port());
    Ok(ports % 121)
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
