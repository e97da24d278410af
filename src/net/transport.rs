//! The transport of a connection: TCP, TLS or a Unix socket; and connecting to a provider.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::set_tcp_quickack;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::certificate::Flaw;
use super::listen::Socket;
use super::{dial, peer, proxy};
use crate::proxy::Proxy;
use crate::resolver::Resolver;
use crate::wire::quote;

/// How often to check whether a peer has gone, after it has sent something or has ended its side.
const LOOK: Duration = Duration::from_secs(1);

/// The most that a client may send before its TLS handshake ends, in bytes, not counting the last read: three times a
/// hello with post-quantum key shares. rustls would buffer up to 64 KiB of a hello that does not end.
const HANDSHAKE: usize = 6 * 1024;

/// The kernel's send buffer for a client before the login, in bytes. The default is up to 4 MiB, which count as our
/// control group's memory.
const UNSENT: u32 = 4096;

/// The send buffer of a Unix socket, in bytes, before the login (about the least that Linux allows) and after it.
const UNIX_BUFFERS: [usize; 2] = [4096, 128 * 1024];

/// A connection to a client or a provider.
pub enum Transport {
    Clear(TcpStream),
    /// A Unix socket, which has no TLS.
    Unix(UnixStream),
    /// TCP under TLS, in either role.
    Tls(Box<TlsStream<Bounded>>),
}

impl Transport {
    /// Takes over a socket, and sets the options for a mail session.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        // Dialogues are short lines, and the peer waits for each.
        socket.set_nodelay(true)?;
        // An IDLE session may be silent for half an hour, but NAT devices forget it after a few minutes, and we do not
        // want to wait longer than about 7 minutes for a peer that has vanished.
        let spread = spread(&socket)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(120 + spread))
            .with_interval(Duration::from_secs(20 + spread / 6))
            .with_retries(5);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        Ok(Self::Clear(socket))
    }

    /// Takes over the socket of a client that has not logged in.
    pub fn of_client(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(socket) => {
                SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
                Self::new(socket)
            }
            Socket::Unix(socket) => {
                SockRef::from(&socket).set_send_buffer_size(UNIX_BUFFERS[0])?;
                Ok(Self::Unix(socket))
            }
        }
    }

    /// Restores the kernel's send buffer for a client that has logged in.
    pub fn logged_in(&self) -> io::Result<()> {
        match self {
            // 0 is the system's own value.
            Self::Clear(_) | Self::Tls(_) => SockRef::from(&self.fd()).set_tcp_notsent_lowat(0),
            Self::Unix(socket) => SockRef::from(socket).set_send_buffer_size(UNIX_BUFFERS[1]),
        }
    }

    /// Connects to a server, at whichever of its addresses answers first; or through a proxy, which looks up the
    /// server.
    pub async fn dial(resolver: &Resolver, proxy: Option<&Proxy>, host: &str, port: u16) -> io::Result<Self> {
        Self::new(match proxy {
            Some(proxy) => proxy::connect(resolver, proxy, host, port).await?,
            None => dial::connect(resolver.lookup(host).await?, port).await?,
        })
    }

    /// Does the handshake as a client, and verifies that the server is `host`.
    pub async fn connect_tls(self, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut hello = Vec::new();
        let begin = |session: &mut ClientConnection| drop(session.write_tls(&mut hello));
        let socket = Bounded { socket: self.clear()?, left: usize::MAX };
        let mut handshake = TlsConnector::from(config).connect_with(name, socket, begin);
        if let Some(bounded) = handshake.get_mut() {
            bounded.socket.write_all(&hello).await?;
            answers_in_tls(&bounded.socket).await?;
        }
        let stream = handshake.await?;
        Ok(Self::Tls(Box::new(stream.into())))
    }

    /// Does the handshake as a server.
    ///
    /// # Errors
    ///
    /// Fails with `ConnectionAborted` if the peer leaves before its first byte. It only probed the port, and no
    /// handshake has failed.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        let socket = self.clear()?;
        if matches!(socket.peek(&mut [0]).await, Ok(0) | Err(_)) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut handshake = TlsAcceptor::from(config).accept(Bounded { socket, left: HANDSHAKE });
        let ended = poll_fn(|cx| match Pin::new(&mut handshake).poll(cx) {
            Poll::Pending if handshake.get_ref().is_some_and(|socket| socket.left == 0) => {
                Poll::Ready(Err(io::Error::other("the TLS handshake is too long")))
            }
            ended => ended,
        });
        let mut stream = ended.await?;
        stream.get_mut().0.left = usize::MAX;
        Ok(Self::Tls(Box::new(stream.into())))
    }

    /// The certificates that the peer sent, its own first; none without TLS.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Clear(_) | Self::Unix(_) => &[],
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
        }
    }

    /// Waits until the peer can no longer receive anything. A peer that has only ended its own side still can, and
    /// another machine does not tell us. Whatever has arrived stays unread, so this has to check now and then.
    pub async fn gone(&self) {
        while !(self.readiness().await.is_ok_and(|ready| ready.is_read_closed()) && self.has_hung_up()) {
            sleep(LOOK).await;
        }
    }

    /// Whether the peer's program has closed the connection completely, and not only its half. False if that is not
    /// known.
    pub fn has_hung_up(&self) -> bool {
        peer::has_hung_up(self.fd())
    }

    /// Makes the kernel acknowledge at once what arrives next. After we have sent something, Linux delays an
    /// acknowledgement by about 40 ms. During this time a peer with Nagle's algorithm holds back what it would send
    /// next, such as Postfix its banner after the TLS handshake. Sending resets this option, so set it before each
    /// read (tcp(7)).
    pub fn acknowledge_at_once(&self) {
        if !matches!(self, Self::Unix(_)) {
            // If this fails, it only costs time.
            let _late = set_tcp_quickack(self.fd(), true);
        }
    }

    /// Makes the system discard what the peer has not read when this is dropped, and reset the connection.
    pub fn abort(&self) {
        // Fails only if the connection has already ended.
        let _ended = SockRef::from(&self.fd()).set_linger(Some(Duration::ZERO));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Clear(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.socket.as_fd(),
        }
    }

    fn stream(&mut self) -> Pin<&mut dyn Stream> {
        match self {
            Self::Clear(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream),
        }
    }

    async fn readiness(&self) -> io::Result<Ready> {
        match self {
            Self::Clear(socket) => socket.ready(Interest::READABLE).await,
            Self::Unix(socket) => socket.ready(Interest::READABLE).await,
            Self::Tls(stream) => stream.get_ref().0.socket.ready(Interest::READABLE).await,
        }
    }

    fn clear(self) -> io::Result<TcpStream> {
        match self {
            Self::Clear(socket) => Ok(socket),
            Self::Unix(_) => Err(io::Error::other("a Unix socket has no TLS")),
            Self::Tls(_) => Err(io::Error::other("the connection already uses TLS")),
        }
    }
}

/// Checks that the server answers in TLS (RFC 8446 section 5.1), before the handshake reads the answer.
async fn answers_in_tls(socket: &TcpStream) -> io::Result<()> {
    let mut bytes = [0; 100];
    let count = socket.peek(&mut bytes).await?;
    let answer = bytes.get(..count).unwrap_or_default();
    match answer.first() {
        Some(byte) if !(20..=24).contains(byte) => {
            let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
            Err(io::Error::other(Flaw::NotTls(quote(&String::from_utf8_lossy(line)))))
        }
        _ => Ok(()),
    }
}

/// Spreads keepalive by up to 120 seconds, by the socket's ports. Otherwise thousands of sessions that began together
/// would be probed together, and Linux drops more than a thousand packets at once (`net.core.netdev_max_backlog`), the
/// same ones each time.
fn spread(socket: &TcpStream) -> io::Result<u64> {
    let ports = u64::from(socket.local_addr()?.port()) + u64::from(socket.peer_addr()?.port());
    Ok(ports % 121)
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream().poll_shutdown(cx)
    }
}

/// A socket below TLS whose peer can send only a bounded amount until it is trusted. TLS reads ahead until a record or
/// a handshake message is complete; with this it buffers at most the bound and one more read.
pub struct Bounded {
    socket: TcpStream,
    /// The bytes that the peer may still send. At 0 nothing arrives any more, and nobody is woken.
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if own.left == 0 {
            // This is not an error: TLS reads beyond the end of its handshake if more has arrived, and what the peer
            // sends early does not make a complete handshake too long.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut own.socket).poll_read(cx, buf))?;
        // The last read may contain more than the handshake, so it may exceed the bound.
        own.left = own.left.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::tcp_quickack;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    /// How many bytes can be sent to a peer that does not read.
    async fn taken(transport: &mut Transport) -> usize {
        let mut taken = 0;
        while let Ok(count) = timeout(Duration::from_millis(200), transport.write(&[b'x'; 2048])).await {
            taken += count.unwrap();
        }
        taken
    }

    #[tokio::test]
    async fn the_kernel_keeps_little_for_a_client_that_does_not_read_until_it_has_logged_in() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(16_384).unwrap();
        let _client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, unix) = UnixStream::pair().unwrap();
        for (socket, most) in
            [(Socket::Tcp(listener.accept().await.unwrap().0), 64 * 1024), (Socket::Unix(unix), 16_384)]
        {
            let mut transport = Transport::of_client(socket).unwrap();
            let before = taken(&mut transport).await;
            assert!(before <= most, "{before}");
            transport.logged_in().unwrap();
            let more = taken(&mut transport).await;
            assert!(more >= 2 * most, "{more}");
        }
        other.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn acknowledgements_are_sent_at_once_again_after_we_have_sent_something() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut transport = Transport::new(socket).unwrap();
        let is_immediate = |transport: &Transport| {
            let Transport::Clear(socket) = transport else { panic!() };
            tcp_quickack(socket).unwrap()
        };
        for _ in 0..5 {
            server.write_all(b"250 ok\r\n").await.unwrap();
            transport.read_exact(&mut [0; 8]).await.unwrap();
            transport.write_all(b"NOOP\r\n").await.unwrap();
            server.read_exact(&mut [0; 6]).await.unwrap();
        }
        assert!(!is_immediate(&transport), "Linux delays acknowledgements");
        transport.acknowledge_at_once();
        assert!(is_immediate(&transport));
    }
}
