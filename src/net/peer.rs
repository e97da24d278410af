//! The other end of a connection: its address, its user if it is on this machine, and the source that limits
//! count.
//!
//! A Unix socket knows its peer's user (`SO_PEERCRED`, unix(7)). Loopback TCP has no access control of its own, but the
//! kernel tells anybody whose socket is at the other end (sock_diag(7)). A query takes about 10 microseconds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::debug;

use super::listen::Socket;
use crate::config::UNKNOWN_USER;

/// The first subordinate uid, and the number of them per user (`SUB_UID_MIN` and `SUB_UID_COUNT`, login.defs(5)).
const FIRST_SUB_USER: u32 = 100_000;
const SUB_USERS: u32 = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// None on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Known if the peer is on this machine and the kernel says so.
    pub user: Option<u32>,
    /// Whether a load balancer has passed the connection on. Then the client has no user, and is never local.
    pub is_forwarded: bool,
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
            // Whatever has become of the connection since.
            Socket::Unix(socket) => (None, socket.peer_cred().map(|peer| Some(peer.uid()))),
        };
        let user = user.unwrap_or_else(|error| {
            debug!(%error, "the kernel does not say whose connection this is");
            None
        });
        Ok(Self { address, user: user.filter(|user| *user != UNKNOWN_USER), is_forwarded: false })
    }

    /// The client at this address, for which a load balancer has connected. If the load balancer knows no address, its
    /// own one counts.
    pub fn behind(balancer: &Self, client: Option<SocketAddr>) -> Self {
        Self { address: client.or(balancer.address), user: None, is_forwarded: true }
    }

    /// Whether the peer is certainly on this machine. A loopback address that a load balancer names may be one of
    /// another machine.
    pub fn is_local(&self) -> bool {
        !self.is_forwarded && self.address.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

/// Where a connection comes from. Sources are distinguished only by what costs something, so that nobody gets a larger
/// share with addresses that are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    User(u32),
    /// A block of subordinate users, by its first one, all of which may belong to one user (subuid(5)).
    SubUsers(u32),
    /// This machine, if the kernel does not say whose connection it is. Every user has all of 127.0.0.0/8.
    ThisMachine,
    /// Another machine, by its IPv4 address.
    Address(Ipv4Addr),
    /// Other machines, by their IPv6 /64, the smallest network that anybody has.
    Network(Ipv6Addr),
    /// Other machines, by their IPv6 /48, the usual size for those with more than one network.
    Site(Ipv6Addr),
    Elsewhere,
}

impl Source {
    pub fn of(peer: &Peer) -> Self {
        match (peer.user, peer.address) {
            (Some(UNKNOWN_USER), _) | (None, None) => Self::ThisMachine,
            (Some(user), _) => Self::of_user(user),
            // A user of the load balancer's machine, which has all of 127.0.0.0/8 as well.
            (None, Some(address)) if peer.is_forwarded && address.ip().to_canonical().is_loopback() => {
                Self::Address(Ipv4Addr::LOCALHOST)
            }
            (None, Some(address)) => Self::of_address(address.ip()),
        }
    }

    pub const fn of_user(user: u32) -> Self {
        match user.checked_sub(FIRST_SUB_USER) {
            Some(beyond) => Self::SubUsers(user - beyond % SUB_USERS),
            None => Self::User(user),
        }
    }

    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::ThisMachine,
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => Self::Network(prefix(address, 64)),
        }
    }

    /// The next wider source. Users of this machine have none, because one does not count for another.
    pub fn wider(self) -> Option<Self> {
        match self {
            Self::Network(network) => Some(Self::Site(prefix(network, 48))),
            Self::Address(_) | Self::Site(_) => Some(Self::Elsewhere),
            Self::User(_) | Self::SubUsers(_) | Self::ThisMachine | Self::Elsewhere => None,
        }
    }

    /// This source and all wider ones.
    pub fn and_wider(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |source| source.wider())
    }
}

/// The first bits of an address.
fn prefix(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() >> (128 - bits) << (128 - bits))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::SubUsers(first) => write!(f, "users {first} to {}", first.saturating_add(SUB_USERS - 1)),
            Self::ThisMachine => f.write_str("this machine"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Network(network) => write!(f, "{network}/64"),
            Self::Site(network) => write!(f, "{network}/48"),
            Self::Elsewhere => f.write_str("other machines"),
        }
    }
}

/// The user whose browser has connected, as far as the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    User(u32),
    /// No user is known, because the connection comes from another machine or is closing.
    Nobody,
    /// The kernel cannot be asked; or another program forwards browsers, so its user means nothing.
    Unknown,
}

impl Visitor {
    /// Looks at the other end of a connection.
    pub fn of(socket: &Socket) -> Self {
        let user = match socket {
            Socket::Tcp(socket) => user(socket),
            Socket::Unix(socket) => socket.peer_cred().map(|peer| Some(peer.uid())),
        };
        match user {
            Ok(Some(user)) => Self::User(user),
            Ok(None) => Self::Nobody,
            Err(error) => {
                debug!(%error, "the kernel does not say whose browser this is");
                Self::Unknown
            }
        }
    }

    /// Whether the visitor may be a user for whom `is_expected` is true. If the kernel cannot be asked, anybody may be.
    pub fn may_be(self, is_expected: impl FnOnce(u32) -> bool) -> bool {
        match self {
            Self::User(user) => is_expected(user),
            Self::Nobody => false,
            Self::Unknown => true,
        }
    }
}

/// The user whose socket is at the other end, even if it has closed its own side. None if it is on another machine, or
/// no program has it open any more.
///
/// # Errors
///
/// Fails if the kernel cannot be asked: it has no `sock_diag`, or this process may not use netlink.
fn user(socket: &TcpStream) -> io::Result<Option<u32>> {
    // Many kernels show a socket that no program has open as root's.
    let found = other_end(socket.local_addr()?, socket.peer_addr()?)?.filter(|other| other.inode != 0);
    Ok(found.map(|other| other.user).filter(|user| *user != UNKNOWN_USER))
}

/// Whether a connection comes from this machine, from whichever of its addresses, even if its program has ended. If the
/// kernel cannot be asked, only loopback addresses count.
pub fn is_from_here(socket: &Socket) -> bool {
    let Socket::Tcp(socket) = socket else { return true };
    let (Ok(ours), Ok(theirs)) = (socket.local_addr(), socket.peer_addr()) else { return true };
    theirs.ip().to_canonical().is_loopback() || other_end(ours, theirs).is_ok_and(|other| other.is_some())
}

/// Whether the program at the other end has closed its socket completely, and does not wait for an answer after a
/// half-close. False if that is not known: on another machine that has not reset the connection, or if the kernel does
/// not say.
pub fn has_hung_up(socket: impl AsFd) -> bool {
    // Both directions have ended (poll(2)). On a Unix socket nothing else has to be checked.
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    if poll(&mut polled, Some(&Timespec::default())).is_ok_and(|_| polled[0].revents().contains(PollFlags::HUP)) {
        return true;
    }
    let socket = SockRef::from(&socket);
    let [ours, theirs] = [socket.local_addr(), socket.peer_addr()].map(|address| address.ok()?.as_socket());
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs.ip().to_canonical().is_loopback() => {
            other_end(ours, theirs).is_ok_and(|other| other.is_none_or(|other| other.inode == 0))
        }
        _ => false,
    }
}

/// A socket as the kernel shows it.
struct Other {
    user: u32,
    /// Its inode; 0 if no program has it open any more.
    inode: u32,
}

/// The socket at the other end of a connection, if it is on this machine.
fn other_end(ours: SocketAddr, theirs: SocketAddr) -> io::Result<Option<Other>> {
    let query = query(canonical(theirs), canonical(ours));
    let netlink =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    send(&netlink, &query, SendFlags::empty())?;
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
fn query(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
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
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Reads a `nlmsghdr` followed by an `inet_diag_msg` or an error code. None if there is no such socket.
fn read(answer: &[u8], source_port: u16, destination_port: u16) -> io::Result<Option<Other>> {
    match u16::from_ne_bytes(field(answer, 4)?) {
        BY_FAMILY => {}
        ERROR => {
            let code = i32::from_ne_bytes(field(answer, 16)?);
            let is_absent = code == -Errno::NOENT.raw_os_error();
            return if is_absent { Ok(None) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    let ports = (field(answer, 20)?, field(answer, 22)?);
    let [user, inode] = [field(answer, 80)?, field(answer, 84)?].map(u32::from_ne_bytes);
    // If there is no such connection, the kernel may show a listener on this port.
    let is_it = ports == (source_port.to_be_bytes(), destination_port.to_be_bytes());
    Ok(is_it.then_some(Other { user, inode }))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let field = bytes.get(at..at + N).and_then(|field| field.try_into().ok());
    field.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, UnixStream};

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
    async fn a_unix_socket_has_a_user_and_no_address() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        let peer = Peer::of(&Socket::Unix(server)).unwrap();
        let user = Some(rustix::process::geteuid().as_raw());
        assert_eq!(peer, Peer { address: None, user, is_forwarded: false });
        assert!(peer.is_local());
    }

    #[tokio::test]
    async fn a_client_behind_a_load_balancer_is_never_local() {
        let (_client, server) = connected(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        let socket = Socket::Tcp(server);
        let balancer = Peer::of(&socket).unwrap();
        assert!(balancer.is_local() && balancer.user.is_some() && is_from_here(&socket));
        for named in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "192.0.2.7:1", ""] {
            let client = Peer::behind(&balancer, named.parse().ok());
            assert!(!client.is_local() && client.user.is_none(), "{named}");
            assert_eq!(client.address, named.parse().ok().or(balancer.address));
            assert_eq!(Source::of(&client).wider(), Some(Source::Elsewhere), "{named}");
        }
    }

    #[tokio::test]
    async fn a_program_that_has_closed_its_connection_was_on_this_machine() {
        let (client, server) = connected(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        let (ours, theirs) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        drop(client);
        assert_eq!(user(&server).unwrap(), None);
        assert!(other_end(ours, theirs).unwrap().is_some(), "the kernel still has its socket");
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

    /// The kernel shows a closed socket as root's. If that counted, a client could become root by hanging up.
    #[tokio::test]
    async fn a_closed_connection_has_no_user_and_a_half_closed_one_has() {
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
        assert!(!has_hung_up(&server), "it may wait for an answer");
        drop(client);
        assert!(has_hung_up(&server));
    }

    /// For a port scanner, the kernel shows a listener in place of a connection that is gone.
    #[test]
    fn only_the_answer_to_our_question_counts() {
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

    fn source(address: &str, user: Option<u32>) -> Source {
        Source::of(&Peer { address: address.parse().ok(), user, is_forwarded: false })
    }

    #[test]
    fn a_user_is_one_source_over_tcp_and_unix_sockets() {
        assert_eq!(source("", Some(7)), source("127.0.0.1:1", Some(7)));
        assert_ne!(source("", Some(7)), source("", Some(8)));
        assert_ne!(source("", None), source("", Some(7)));
    }

    #[test]
    fn all_loopback_addresses_are_one_source() {
        for address in ["127.0.0.1:1", "127.255.3.4:2", "[::1]:3", "[::ffff:127.9.9.9]:4", ""] {
            assert_eq!(source(address, None), Source::ThisMachine, "{address}");
            assert_eq!(source(address, Some(UNKNOWN_USER)), Source::ThisMachine, "{address}");
        }
        assert_eq!(source("128.0.0.1:1", None), Source::Address("128.0.0.1".parse().unwrap()));
    }

    #[test]
    fn subordinate_users_of_one_user_are_one_source() {
        assert_eq!(source("", Some(100_000)), source("", Some(165_535)));
        assert_ne!(source("", Some(165_535)), source("", Some(165_536)));
        assert_ne!(source("", Some(99_999)), source("", Some(99_998)));
        assert_eq!(Source::of_user(u32::MAX).to_string(), "users 4294936224 to 4294967295");
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_has_wider_ones() {
        let one = source("[2001:db8::1]:1", None);
        assert_eq!(one, source("[2001:db8::ffff:0:0:2]:9", None));
        let next = source("[2001:db8:0:1::1]:1", None);
        assert_ne!(one, next);
        assert_eq!(one.wider(), next.wider());
        assert_ne!(one.wider(), source("[2001:db8:1::1]:1", None).wider());
        assert_eq!(source("[::ffff:192.0.2.1]:1", None), source("192.0.2.1:7", None));
        let all: Vec<_> = next.and_wider().map(|source| source.to_string()).collect();
        assert_eq!(all, ["2001:db8:0:1::/64", "2001:db8::/48", "other machines"]);
        assert_eq!(source("192.0.2.1:7", None).and_wider().last(), Some(Source::Elsewhere));
        assert_eq!(source("", Some(7)).and_wider().count(), 1);
    }

    /// sock_diag(7): one byte for the family, and ports and addresses in network order, whatever the machine's.
    #[test]
    fn a_query_has_the_layout_that_the_kernel_expects() {
        for (source, destination, family) in [("127.0.0.1:258", "127.0.0.1:772", 2), ("[::1]:258", "[::1]:772", 10)] {
            let bytes = query(source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(bytes.len(), 72);
            assert_eq!(bytes[16..20], [family, TCP, 0, 0]);
            assert_eq!(bytes[24..28], [1, 2, 3, 4], "ports");
        }
    }

    /// Prints what the query costs a login.
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn what_a_query_costs() {
        let (_client, server) = connected(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..10_000 {
            assert!(user(&server).unwrap().is_some());
        }
        println!("{:?} a query", begun.elapsed() / 10_000);
    }
}
