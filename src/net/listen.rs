//! Local ports: binding them, and accepting from them whatever happens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::warn;

use super::spares::Spares;

/// Connections that may wait for us to accept them: a mail program opens 5 at once, and there may be many of them.
pub(super) const BACKLOG: u32 = 1024;

/// How long to wait when the system has no descriptor or memory left: long enough not to spin, short enough not to matter.
const BREATH: Duration = Duration::from_millis(100);

/// Binds a port. Port 0 is a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // An IPv6 address is for IPv6 alone; IPv4 has addresses of its own in the configuration.
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket that listens.
pub enum Bound {
    /// On a TCP port.
    Tcp(TcpListener),
    /// On a Unix socket.
    Unix(UnixListener),
}

impl Bound {
    /// Its TCP address, where it has one: the real one where any free port was asked for.
    pub fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The next connection, and where it comes from, where that has an address.
    async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, peer)| (Socket::Tcp(socket), Some(peer))),
            Self::Unix(listener) => listener.accept().await.map(|(socket, _)| (Socket::Unix(socket), None)),
        }
    }

    /// With `route_localnet` set, the kernel delivers foreign packets to loopback ports (CVE-2020-8558).
    fn lets_in(&self, peer: Option<SocketAddr>) -> bool {
        match (self, peer) {
            (Self::Tcp(listener), Some(peer)) => {
                let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
                !is_local || peer.ip().is_loopback()
            }
            _ => true,
        }
    }
}

/// A client's connection.
pub enum Socket {
    /// To a TCP port.
    Tcp(TcpStream),
    /// To a Unix socket.
    Unix(UnixStream),
}

/// A socket that listens, and tells clients when there is no descriptor for them.
pub struct Listener {
    socket: Bound,
    spares: Spares,
}

/// A connection that has come.
pub struct Arrival {
    /// The connection.
    pub socket: Socket,
    /// Where it comes from; none on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether it has a spare descriptor: it should be told so and closed before the next one is accepted.
    pub is_surplus: bool,
}

impl Listener {
    /// Takes over a socket.
    pub fn new(socket: Bound, spares: Spares) -> Self {
        Self { socket, spares }
    }

    /// The next connection. Errors do not end a listener: those of a single connection are passed over, the spare
    /// descriptors are for the case that no other is left, and when they are gone too, the system is given a moment.
    pub async fn accept(&self) -> Arrival {
        loop {
            self.spares.fill();
            let mut accepted = self.socket.accept().await;
            if accepted.as_ref().is_err_and(is_out_of_descriptors) && self.spares.give_up() {
                // accept(2) fails like this even when nobody waits.
                let Ok(again) = timeout(Duration::ZERO, self.socket.accept()).await else { continue };
                accepted = again;
            }
            match accepted {
                Ok((socket, peer)) if self.socket.lets_in(peer) => {
                    return Arrival { socket, peer, is_surplus: !self.spares.fill() };
                }
                Ok((_, peer)) => warn!(
                    peer = peer.map(display),
                    "a connection from elsewhere reached a loopback port and was closed"
                ),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

/// Of this process, or of the whole system, accept(2).
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].into_iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Errors that tell of a connection that was gone before it was accepted, accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
