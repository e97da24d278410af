//! The service manager: the sockets that it hands over, and what it is told. Without one, all of this does nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::debug;

use crate::protocol::Protocol;

/// Listening sockets that the service manager has opened, sd_listen_fds(3). They are kept as long as the process lives,
/// so that a listener that is taken out of the configuration can come back: the port stays the service manager's.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Socket>);

/// One of them.
#[derive(Debug)]
struct Socket {
    protocol: Protocol,
    address: SocketAddr,
    listener: TcpListener,
}

impl Sockets {
    /// Takes what the environment of this process tells of. To be called before there are threads, for the environment is
    /// changed: no child is to believe that the sockets are its own.
    ///
    /// # Errors
    ///
    /// A socket whose name (`FileDescriptorName=`) is none of the protocols', or that is no TCP socket.
    pub fn of_process() -> Result<Self, String> {
        let mut passed = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        (0..passed.len())
            .map(|index| Socket::new(&mut passed, index, names.next().unwrap_or_default()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The socket for a protocol at an address, if there is one.
    pub fn get(&self, protocol: Protocol, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        let socket = self.0.iter().find(|socket| (socket.protocol, socket.address) == (protocol, address))?;
        Some(socket.listener.try_clone())
    }

    /// Those that are not among these, as protocol and address.
    pub fn others(&self, wanted: &[(Protocol, SocketAddr)]) -> Vec<(Protocol, SocketAddr)> {
        let all = self.0.iter().map(|socket| (socket.protocol, socket.address));
        all.filter(|one| !wanted.contains(one)).collect()
    }
}

impl Socket {
    fn new(passed: &mut ListenFd, index: usize, name: &str) -> Result<Self, String> {
        let Some(protocol) = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name) else {
            return Err(format!(
                "the service manager hands over a socket named \"{name}\"; its unit needs FileDescriptorName=imap, pop3 or smtp"
            ));
        };
        let broken = |error| format!("the socket named {name} from the service manager cannot be used: {error}");
        let listener =
            passed.take_tcp_listener(index).map_err(broken)?.ok_or_else(|| broken(io::ErrorKind::NotFound.into()))?;
        listener.set_nonblocking(true).map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?;
        Ok(Self { protocol, address, listener })
    }
}

/// Clients are served, and how things are, in one line.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read anew; ends with [`ready`].
pub fn reloading() {
    let reloading = NotifyState::Reloading;
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[reloading, now]),
        Err(_) => tell(&[reloading]),
    }
}

/// Sessions are being ended, which takes this long at most.
pub fn stopping(limit: Duration) {
    let limit = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status("Stopping."), NotifyState::ExtendTimeoutUsec(limit)]);
}

/// Everything works, and how things are, in one line.
pub fn alive(status: &str) {
    tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// How long the service manager waits for [`alive`], if it does.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}
