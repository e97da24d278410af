//! Local ports: binding them, and accepting connections in spite of any error.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::warn;

use crate::mutex::lock;

/// The backlog of connections: a mail program opens 5 at once, and there may be many mail programs.
pub(super) const BACKLOG: u32 = 1024;

/// How long to wait when the system has no descriptors or memory left: long enough not to spin, short enough not to
/// matter.
const PAUSE: Duration = Duration::from_millis(100);

/// The number of spare descriptors, and so of clients that can be answered at the same time when no other is left.
const SPARES: usize = 4;

/// Binds a port. Port 0 means any free port.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds a port while an overlapping one is still open here and about to be closed, such as 127.0.0.1 beside all
/// addresses. Linux lets sockets of one user share a port if both agree (SO_REUSEPORT, socket(7)), even after the
/// option is taken back. That gives other processes of this user no new power: they could also kill this one and take
/// the port.
pub fn bind_beside(address: SocketAddr, open: &impl AsFd) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuseport(true)?;
    SockRef::from(open).set_reuse_port(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds a port beside an open one with this number that is about to be closed.
pub fn bind_over(address: SocketAddr, ending: &[&OwnedFd]) -> io::Result<TcpListener> {
    let is_in_the_way = |open: &&&OwnedFd| {
        let open = SockRef::from(**open).local_addr().ok().and_then(|open| open.as_socket());
        open.is_some_and(|open| open.port() == address.port() && open.is_ipv4() == address.is_ipv4())
    };
    match (bind(address), ending.iter().find(is_in_the_way)) {
        (Err(error), Some(open)) if error.kind() == io::ErrorKind::AddrInUse => bind_beside(address, open),
        (bound, _) => bound,
    }
}

/// Whether this machine does not have the address, such as ::1 without IPv6; see ip(7), ipv6(7).
pub fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until old connections leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // An IPv6 address is only for IPv6; the configuration names IPv4 addresses separately.
        SockRef::from(&socket).set_only_v6(true)?;
    }
    Ok(socket)
}

pub enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Its TCP address, if it has one, with the real port if any free one was requested.
    pub fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Duplicates the handle of the socket.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Accepts the next connection. Returns it with the peer's address, if it has one.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, peer)| (Socket::Tcp(socket), Some(peer))),
            Self::Unix(listener) => listener.accept().await.map(|(socket, _)| (Socket::Unix(socket), None)),
        }
    }

    /// Whether a connection from this address may be meant for this port: with `route_localnet` set, the kernel delivers
    /// foreign packets to loopback ports (CVE-2020-8558).
    pub fn admits(&self, peer: Option<SocketAddr>) -> bool {
        match (self, peer) {
            (Self::Tcp(listener), Some(peer)) => {
                let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
                !is_local || peer.ip().is_loopback()
            }
            _ => true,
        }
    }
}

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Sends a goodbye and closes, without waiting.
    pub fn close_with(self, goodbye: &[u8]) {
        let socket = match &self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        };
        // A socket that was just accepted has room for it, and a client that has gone misses nothing.
        let _gone = send(socket, goodbye, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let _gone = shutdown(socket, Shutdown::Write);
        // Closing a socket with unread bytes resets the connection, and the goodbye may be lost (tcp(7)).
        let _none = recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT);
    }
}

/// Spare descriptors, which all listeners share: a client that connects when no other is left gets an answer instead of
/// waiting.
#[derive(Clone, Default)]
pub struct Spares(Arc<Mutex<Vec<OwnedFd>>>);

impl Spares {
    /// Opens the missing descriptors. Returns whether all are open again; if not, the client that has just connected
    /// uses the missing one.
    fn fill(&self) -> bool {
        let mut kept = self.kept();
        while kept.len() < SPARES {
            match eventfd(0, EventfdFlags::CLOEXEC) {
                Ok(descriptor) => kept.push(descriptor),
                Err(_) => return false,
            }
        }
        true
    }

    /// Closes one. Returns whether there was one.
    fn give_up(&self) -> bool {
        self.kept().pop().is_some()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        lock(&self.0)
    }
}

/// A listening socket that can answer clients even when there is no descriptor for them.
pub struct Listener {
    socket: Bound,
    spares: Spares,
}

pub struct AcceptedSocket {
    pub socket: Socket,
    /// Its source address; none on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether it uses a spare descriptor; then answer it and close it before accepting the next one.
    pub is_surplus: bool,
}

impl Listener {
    pub fn new(socket: Bound, spares: Spares) -> Self {
        Self { socket, spares }
    }

    /// Waits for the next connection. Errors do not end a listener: it ignores those of a single connection, uses a
    /// spare descriptor if no other is left, and pauses if there are no spare ones either.
    pub async fn accept(&self) -> AcceptedSocket {
        loop {
            self.spares.fill();
            let mut accepted = self.socket.accept().await;
            if accepted.as_ref().is_err_and(is_out_of_descriptors) && self.spares.give_up() {
                // accept(2) fails like this even if no connection waits.
                let Ok(again) = timeout(Duration::ZERO, self.socket.accept()).await else { continue };
                accepted = again;
            }
            match accepted {
                Ok((socket, peer)) if self.socket.admits(peer) => {
                    return AcceptedSocket { socket, peer, is_surplus: !self.spares.fill() };
                }
                Ok((_, peer)) => {
                    let from = peer.map_or_else(|| "elsewhere".to_owned(), |peer| peer.to_string());
                    warn!(
                        peer = peer.map(display),
                        "connection from {from} to a loopback port closed: it comes from another machine"
                    );
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "cannot accept connections: {error}; trying again in {} ms", PAUSE.as_millis());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether this process, or the whole system, has no descriptors left; see accept(2).
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether the error concerns a connection that ended before it was accepted; see accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
