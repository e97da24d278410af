//! Local ports: binding them, and accepting from them whatever happens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::warn;

/// Connections that may wait for us to accept them: a mail program opens 5 at once, and there may be many of them.
const BACKLOG: u32 = 1024;

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

/// The next connection. Errors do not end a listener: those of a single connection are passed over, and when the system
/// has run out of something it is given a moment.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) if may_come(listener, peer) => return (socket, peer),
            Ok((_, peer)) => warn!(%peer, "a connection from elsewhere reached a loopback port and was closed"),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// With `route_localnet` set, the kernel delivers foreign packets to loopback ports (CVE-2020-8558).
fn may_come(listener: &TcpListener, peer: SocketAddr) -> bool {
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    !is_local || peer.ip().is_loopback()
}

/// Errors that tell of a connection that was gone before it was accepted, accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
