//! Who is at the other end of a connection, down to the user where that is on this machine.
//!
//! Loopback TCP has no access control of its own, but the kernel knows whose socket is at the other end, and tells everybody
//! who asks (sock_diag(7)). A question and its answer take some 10 microseconds.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use tokio::net::TcpStream;
use tracing::debug;

use crate::config::users::UNKNOWN_USER;

/// What came over a connection, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its user, where that is on this machine and the kernel tells.
    pub user: Option<u32>,
}

impl Peer {
    /// Looks at the other end of a connection.
    pub fn of(socket: &TcpStream) -> io::Result<Self> {
        let address = socket.peer_addr()?;
        let user = user(socket).unwrap_or_else(|error| {
            debug!(%error, "the kernel does not tell whose connection this is");
            None
        });
        Ok(Self { address, user })
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The user whose socket is at the other end. None if that is on another machine, or has begun to close: the kernel does not
/// know any more then whose it was.
///
/// # Errors
///
/// The kernel cannot be asked: it has no `sock_diag`, or this process may not use netlink.
pub fn user(socket: &TcpStream) -> io::Result<Option<u32>> {
    let (ours, theirs) = (socket.local_addr()?, socket.peer_addr()?);
    let question = question(canonical(theirs), canonical(ours));
    let netlink =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    send(&netlink, &question, SendFlags::empty())?;
    // The kernel has answered by the time that it has taken the question.
    let mut answer = [0; 1024];
    let (length, _) = recv(&netlink, &mut answer, RecvFlags::DONTWAIT)?;
    Ok(read(answer.get(..length).unwrap_or_default(), theirs.port(), ours.port())?.filter(|user| *user != UNKNOWN_USER))
}

/// An IPv4 connection to an IPv6 socket is one of IPv4 at the other end.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `SOCK_DIAG_BY_FAMILY`, for questions and answers alike.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`, netlink(7).
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const TCP: u8 = 6;
/// `TCP_ESTABLISHED`. In all later states the socket may have no owner any more, and is shown as root's.
const ESTABLISHED: u8 = 1;

/// A `nlmsghdr` and an `inet_diag_req_v2`: which socket at `source` is connected to `destination`? Numbers are in the
/// machine's order, but for addresses and ports.
fn question(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 72;
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend([BY_FAMILY.to_ne_bytes(), REQUEST.to_ne_bytes()].concat());
    // Sequence number and port: the kernel's answer to the only question is not to be mistaken for another.
    bytes.extend([0; 8]);
    // No extensions, and a socket in any state.
    bytes.extend([family.as_raw().to_ne_bytes().first().copied().unwrap_or_default(), TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
    bytes.extend([octets(source.ip()), octets(destination.ip())].concat());
    // Any interface, and no cookie.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes
}

/// An address in the 16 bytes that are for either kind.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Reads a `nlmsghdr` with an `inet_diag_msg` or an error code behind it. None if it tells of no such socket.
fn read(answer: &[u8], source_port: u16, destination_port: u16) -> io::Result<Option<u32>> {
    let odd = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = u16::from_ne_bytes(field(answer, 4).ok_or_else(odd)?);
    match kind {
        BY_FAMILY => {}
        ERROR => {
            let code = i32::from_ne_bytes(field(answer, 16).ok_or_else(odd)?);
            let is_absent = code == -Errno::NOENT.raw_os_error();
            return if is_absent { Ok(None) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
        }
        _ => return Err(odd()),
    }
    let [state] = field(answer, 17).ok_or_else(odd)?;
    let ports = (field(answer, 20).ok_or_else(odd)?, field(answer, 22).ok_or_else(odd)?);
    let user = u32::from_ne_bytes(field(answer, 80).ok_or_else(odd)?);
    // Where there is no such connection, the kernel may show a listener of this port.
    let is_it = ports == (source_port.to_be_bytes(), destination_port.to_be_bytes()) && state == ESTABLISHED;
    Ok(is_it.then_some(user))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    async fn connected(ip: IpAddr) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((ip, 0)).await.ok()?;
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Some((client, listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn both_ends_of_a_connection_in_this_process_are_its_users() {
        let own = rustix::process::geteuid().as_raw();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let Some((client, server)) = connected(ip).await else { continue };
            assert_eq!(user(&server).unwrap(), Some(own), "{ip}");
            assert_eq!(user(&client).unwrap(), Some(own), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_client_of_ipv4_is_found_behind_a_socket_for_both() {
        let Ok(listener) = TcpListener::bind("[::]:0").await else { return };
        let address = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let _client = TcpStream::connect(address).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        assert!(server.peer_addr().unwrap().is_ipv6() && user(&server).unwrap().is_some());
    }

    /// The kernel shows what has begun to close as root's; who is allowed because of that would only have to hang up.
    #[tokio::test]
    async fn a_connection_that_closes_is_nobodys() {
        let (mut client, server) = connected(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        client.write_all(b"a LOGIN ann wrong\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(user(&server).unwrap(), None);
        drop(client);
        assert_eq!(user(&server).unwrap(), None);
    }

    /// Port scanners and the like: whatever is there says nothing of a connection that is not.
    #[test]
    fn an_answer_is_only_taken_for_what_was_asked() {
        let mut answer = [0; 88];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[17] = ESTABLISHED;
        answer[20..24].copy_from_slice(&[0, 1, 0, 2]);
        answer[80] = 7;
        assert_eq!(read(&answer, 1, 2).unwrap(), Some(u32::from_ne_bytes([7, 0, 0, 0])));
        assert_eq!(read(&answer, 1, 3).unwrap(), None);
        for state in [0, 5, 6, 8, 10] {
            answer[17] = state;
            assert_eq!(read(&answer, 1, 2).unwrap(), None);
        }
        assert!(read(&answer[..83], 1, 2).is_err() && read(&[], 1, 2).is_err());
    }

    /// Printed for those who want to know what a login pays; nothing is asserted of it.
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn what_a_question_costs() {
        let (_client, server) = connected(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..10_000 {
            assert!(user(&server).unwrap().is_some());
        }
        println!("{:?} a question", begun.elapsed() / 10_000);
    }
}
