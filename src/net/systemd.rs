//! The service manager: takes over its sockets and notifies it. Without a service manager, all of this does nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::debug;

use crate::address::Address;
use crate::protocol::Protocol;

/// Listening sockets that the service manager has opened, sd_listen_fds(3). They stay open as long as the process
/// lives, so that a listener can be removed from the configuration and come back. The port belongs to the service
/// manager.
#[derive(Debug, Default)]
pub struct Sockets(Vec<PassedSocket>);
#[derive(Debug)]
struct PassedSocket {
    protocol: Protocol,
    address: SocketAddr,
    listener: TcpListener,
}

impl Sockets {
    /// Takes the sockets that the environment of this process describes. Call this before there are threads, because it
    /// removes the variables, so that no child process believes the sockets are its own.
    ///
    /// # Errors
    ///
    /// Fails if a socket's name (`FileDescriptorName=`) is not a protocol, or if it is not a TCP socket.
    pub fn of_process() -> Result<Self, String> {
        let mut passed = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        (0..passed.len())
            .map(|index| PassedSocket::new(&mut passed, index, names.next().unwrap_or_default()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The socket for a protocol at an address, if there is one.
    pub fn get(&self, protocol: Protocol, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        let socket = self.0.iter().find(|socket| (socket.protocol, socket.address) == (protocol, address))?;
        Some(socket.listener.try_clone())
    }

    /// Whether the service manager keeps all these addresses open for a protocol.
    pub fn keep_open(&self, protocol: Protocol, addresses: &[Address]) -> bool {
        let has =
            |wanted: SocketAddr| self.0.iter().any(|socket| (socket.protocol, socket.address) == (protocol, wanted));
        addresses.iter().all(|address| address.tcp().is_some_and(has))
    }

    /// The sockets that are not among these, as protocol and address.
    pub fn others(&self, wanted: &[(Protocol, SocketAddr)]) -> Vec<(Protocol, SocketAddr)> {
        let all = self.0.iter().map(|socket| (socket.protocol, socket.address));
        all.filter(|one| !wanted.contains(one)).collect()
    }
}

impl PassedSocket {
    fn new(passed: &mut ListenFd, index: usize, name: &str) -> Result<Self, String> {
        let Some(protocol) = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name) else {
            return Err(format!(
                "the service manager passes a socket named \"{name}\"; set FileDescriptorName=imap, pop3 or smtp in its unit"
            ));
        };
        let broken = |error| format!("cannot use the socket named {name} from the service manager: {error}");
        let listener =
            passed.take_tcp_listener(index).map_err(broken)?.ok_or_else(|| broken(io::ErrorKind::NotFound.into()))?;
        listener.set_nonblocking(true).map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?;
        Ok(Self { protocol, address, listener })
    }
}

/// Notifies that clients are served, with the state in one line.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Notifies that the configuration is being reloaded, until [`ready`].
pub fn reloading() {
    let reloading = NotifyState::Reloading;
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[reloading, now]),
        Err(_) => notify(&[reloading]),
    }
}

/// Notifies that sessions are being ended, which takes at most this long.
pub fn stopping(limit: Duration) {
    let limit = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::Stopping, NotifyState::Status("Stopping."), NotifyState::ExtendTimeoutUsec(limit)]);
}

/// Notifies the watchdog that everything works, with the state in one line.
pub fn alive(status: &str) {
    notify(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// The interval in which the watchdog expects [`alive`], if there is a watchdog.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "cannot notify the service manager");
    }
}
