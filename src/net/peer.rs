//! Who is at the other end of a connection: its address, and its user if it is on this machine.
//!
//! A Unix socket knows its peer's user (`SO_PEERCRED`, unix(7)). Loopback TCP has no access control of its own, but the
//! kernel tells anybody whose socket is at the other end (sock_diag(7)). A query takes about 10 microseconds.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use tokio::net::{TcpStream, UnixStream};
use tracing::debug;

use super::listen::Socket;
use crate::config::users::UNKNOWN_USER;

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; None on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Its user, if it is on this machine and the kernel says so.
    pub user: Option<u32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.user) {
            (Some(address), _) => address.ip().to_canonical().fmt(f),
            (None, Some(user)) => write!(f, "user {user} on a Unix socket"),
            (None, None) => f.write_str("a Unix socket"),
        }
    }
}

impl Peer {
    /// Looks at the other end of a connection.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        let (address, user) = match socket {
            Socket::Tcp(socket) => (Some(socket.peer_addr()?), user(socket)),
            Socket::Unix(socket) => (None, unix_user(socket)),
        };
        let user = user.unwrap_or_else(|error| {
            debug!(%error, "the kernel does not say whose connection this is");
            None
        });
        Ok(Self { address, user })
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

/// The user whose browser has connected, as far as the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// A user of this machine.
    User(u32),
    /// No user is known, because the connection comes from another machine or is closing.
    Nobody,
    /// The kernel cannot be asked; or another program forwards browsers, so its user means nothing.
    Untold,
}

impl Visitor {
    /// Looks at the other end of a connection.
    pub fn of(socket: &TcpStream) -> Self {
        match user(socket) {
            Ok(Some(user)) => Self::User(user),
            Ok(None) => Self::Nobody,
            Err(error) => {
                debug!(%error, "the kernel does not say whose browser this is");
                Self::Untold
            }
        }
    }

    /// Whether the visitor may be a user for whom `holds` is true. If the kernel cannot be asked, anybody may be.
    pub fn may_be(self, is_expected: impl FnOnce(u32) -> bool) -> bool {
        match self {
            Self::User(user) => is_expected(user),
            Self::Nobody => false,
            Self::Untold => true,
        }
    }
}

/// The user who connected to a Unix socket, whatever has become of the connection since.
fn unix_user(socket: &UnixStream) -> io::Result<Option<u32>> {
    Ok(Some(socket.peer_cred()?.uid()).filter(|user| *user != UNKNOWN_USER))
}

/// The user whose socket is at the other end, even if it has closed its own side. None if it is on another machine, or
/// no program has it open any more.
///
/// # Errors
///
/// Fails if the kernel cannot be asked: it has no `sock_diag`, or this process may not use netlink.
pub fn user(socket: &TcpStream) -> io::Result<Option<u32>> {
    // Many kernels show a socket that no program has open as root's.
    let found = other_end(socket)?.filter(|other| other.inode != 0);
    Ok(found.map(|other| other.user).filter(|user| *user != UNKNOWN_USER))
}

/// Whether the program at the other end has closed its socket completely, and does not wait for an answer after a
/// half-close. False if that is not known: on another machine that has not reset the connection, or if the kernel does
/// not say.
pub fn has_hung_up(socket: &TcpStream) -> bool {
    let is_here = socket.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    has_failed(socket) || (is_here && other_end(socket).is_ok_and(|other| other.is_none_or(|other| other.inode == 0)))
}

/// The same for a Unix socket, whose kernel state shows what the other end has done.
pub fn has_hung_up_unix(socket: &UnixStream) -> bool {
    has_failed(socket)
}

/// Whether both directions have ended (poll(2)).
fn has_failed(socket: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::empty())];
    let answered = poll(&mut asked, Some(&Timespec::default()));
    answered.is_ok() && asked.iter().any(|asked| asked.revents().contains(PollFlags::HUP))
}

/// A socket as the kernel shows it.
struct Other {
    user: u32,
    /// Its inode; 0 if no program has it open any more.
    inode: u32,
}

/// The socket at the other end of a connection, if it is on this machine.
fn other_end(socket: &TcpStream) -> io::Result<Option<Other>> {
    let (ours, theirs) = (socket.local_addr()?, socket.peer_addr()?);
    let question = question(canonical(theirs), canonical(ours));
    let netlink =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    send(&netlink, &question, SendFlags::empty())?;
    // The kernel answers before send(2) returns.
    let mut answer = [0; 1024];
    let (length, _) = recv(&netlink, &mut answer, RecvFlags::DONTWAIT)?;
    read(answer.get(..length).unwrap_or_default(), theirs.port(), ours.port())
}

/// Converts the mapped address of an IPv4 connection to an IPv6 socket, because the other end uses IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `SOCK_DIAG_BY_FAMILY`, in queries and answers.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`, netlink(7).
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const TCP: u8 = 6;
/// `AF_INET` and `AF_INET6`, which here have one byte.
const INET: u8 = 2;
const INET6: u8 = 10;

/// Writes a `nlmsghdr` and an `inet_diag_req_v2`: which socket at `source` is connected to `destination`? Numbers are
/// in the machine's byte order, except addresses and ports.
fn question(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 72;
    let family = if source.is_ipv4() { INET } else { INET6 };
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend([BY_FAMILY.to_ne_bytes(), REQUEST.to_ne_bytes()].concat());
    // Sequence number and port are 0, because there is only one query and its answer cannot be confused.
    bytes.extend([0; 8]);
    // No extensions, and a socket in any state.
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
    bytes.extend([octets(source.ip()), octets(destination.ip())].concat());
    // Any interface, and no cookie.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([0xff; 8]);
    bytes
}

/// An address in the 16 bytes that are used for both families.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Reads a `nlmsghdr` followed by an `inet_diag_msg` or an error code. None if there is no such socket.
fn read(answer: &[u8], source_port: u16, destination_port: u16) -> io::Result<Option<Other>> {
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
    let ports = (field(answer, 20).ok_or_else(odd)?, field(answer, 22).ok_or_else(odd)?);
    let [user, inode] = [field(answer, 80), field(answer, 84)].map(|field| field.map(u32::from_ne_bytes));
    let (user, inode) = (user.ok_or_else(odd)?, inode.ok_or_else(odd)?);
    // If there is no such connection, the kernel may show a listener on this port.
    let is_it = ports == (source_port.to_be_bytes(), destination_port.to_be_bytes());
    Ok(is_it.then_some(Other { user, inode }))
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
            let Some((client, server)) = connected(ip).await else {
                crate::skipped::skipped("this machine has no IPv6");
                continue;
            };
            assert_eq!(user(&server).unwrap(), Some(own), "{ip}");
            assert_eq!(user(&client).unwrap(), Some(own), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_tells_its_user_and_no_address() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        let peer = Peer::of(&Socket::Unix(server)).unwrap();
        assert_eq!(peer, Peer { address: None, user: Some(rustix::process::geteuid().as_raw()) });
        assert!(peer.is_local());
    }

    #[tokio::test]
    async fn a_client_of_ipv4_is_found_behind_a_socket_for_both() {
        let Ok(listener) = TcpListener::bind("[::]:0").await else {
            crate::skipped::skipped("this machine has no IPv6");
            return;
        };
        let address = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let _client = TcpStream::connect(address).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        assert!(server.peer_addr().unwrap().is_ipv6() && user(&server).unwrap().is_some());
    }

    /// The kernel shows what is closed as root's; somebody who is allowed because of that would only have to hang up.
    #[tokio::test]
    async fn a_closed_connection_is_nobodys_and_one_that_only_ended_its_side_is_its_users() {
        let own = rustix::process::geteuid().as_raw();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let Some((mut client, server)) = connected(ip).await else { continue };
            client.write_all(b"a LOGIN ann wrong\r\n").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(user(&server).unwrap(), Some(own));
            drop(client);
            assert_eq!(user(&server).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_half_closed_socket_has_not_been_hung_up() {
        let (mut client, server) = connected(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        assert!(!has_hung_up(&server));
        client.shutdown().await.unwrap();
        assert!(!has_hung_up(&server), "it may wait for an answer");
        drop(client);
        assert!(has_hung_up(&server));

        let (mut client, server) = UnixStream::pair().unwrap();
        client.shutdown().await.unwrap();
        assert!(!has_hung_up_unix(&server), "it may wait for an answer");
        drop(client);
        assert!(has_hung_up_unix(&server));
    }

    /// Port scanners and the like: whatever is there says nothing of a connection that is not.
    #[test]
    fn an_answer_is_only_taken_for_what_was_asked() {
        let mut answer = [0; 88];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[20..24].copy_from_slice(&[0, 1, 0, 2]);
        answer[80..84].copy_from_slice(&7_u32.to_ne_bytes());
        answer[84..].copy_from_slice(&8_u32.to_ne_bytes());
        let other = read(&answer, 1, 2).unwrap().unwrap();
        assert_eq!((other.user, other.inode), (7, 8));
        assert!(read(&answer, 1, 3).unwrap().is_none());
        assert!(read(&answer[..87], 1, 2).is_err() && read(&[], 1, 2).is_err());
    }

    /// sock_diag(7): one byte for the family, and ports and addresses in network order, whatever the machine's.
    #[test]
    fn a_question_has_its_bytes_where_the_kernel_looks() {
        for (source, destination, family) in [("127.0.0.1:258", "127.0.0.1:772", 2), ("[::1]:258", "[::1]:772", 10)] {
            let bytes = question(source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(bytes.len(), 72);
            assert_eq!(bytes[16..20], [family, TCP, 0, 0]);
            assert_eq!(bytes[24..28], [1, 2, 3, 4], "ports");
        }
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
