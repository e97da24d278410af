//! The open ports: binds them or takes them over, applies a new configuration, and closes them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use super::clients::{self, Message};
use crate::address::Address;
use crate::broker::Broker;
use crate::certificates::Loaded;
use crate::config::{ListenerConfig, Listening};
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::net::listen;
use crate::net::listen::{Bound, Spares};
use crate::net::strangers::Strangers;
use crate::net::systemd::Sockets;
use crate::net::unix::{self, SocketFile};
use crate::protocol::Protocol;
use crate::session::ListenerPolicy;
use crate::shutdown::Shutdown;
use crate::vault::listener_password::credentials;

/// All open ports, and everything that is needed to open another one.
pub struct Ports {
    open: Vec<OpenPort>,
    tasks: JoinSet<()>,
    sockets: Sockets,
    strangers: Arc<Strangers>,
    spares: Spares,
}

/// An open port and its accept loop.
struct OpenPort {
    /// The address from the configuration, where port 0 means any free one.
    configured: Address,
    listening: Listening,
    messages: mpsc::Sender<Message>,
    task: AbortHandle,
    /// Another handle of the accept loop's socket.
    handle: Option<OwnedFd>,
    /// The file of a Unix socket, which is removed when the port is closed.
    file: Option<SocketFile>,
}

/// A port that is ready but not served yet.
pub struct PlannedPort {
    policy: Arc<ListenerPolicy>,
    configured: Address,
    mode: u32,
    opening: Opening,
}

/// The source of a port's socket.
enum Opening {
    /// The open port with this index.
    Kept(usize),
    Bound(Bound, Option<SocketFile>),
}

impl Ports {
    /// Starts without ports. Connections to them count among `strangers` until the login.
    pub fn new(sockets: Sockets, strangers: Arc<Strangers>) -> Self {
        Self { open: Vec::new(), tasks: JoinSet::new(), sockets, strangers, spares: Spares::default() }
    }

    pub fn listening(&self) -> Vec<Listening> {
        self.open.iter().map(|port| port.listening.clone()).collect()
    }

    /// Binds the ports that are not open yet. If this fails, nothing else has changed.
    pub fn prepare(
        &self,
        listeners: &[ListenerConfig],
        certificates: &Loaded,
        broker: &Arc<Broker>,
        shutdown: &Shutdown,
    ) -> Result<Vec<PlannedPort>, Failed> {
        self.refuse_surplus(listeners)?;
        let mut free: Vec<(usize, &OpenPort)> = self.open.iter().enumerate().collect();
        let mut planned = Vec::new();
        for listener in listeners {
            let (policy, mode) = (self.policy(listener, certificates, broker, shutdown)?, listener.mode);
            let (before, mut missing) = (planned.len(), Vec::new());
            for configured in &listener.addresses {
                let found = free.iter().position(|(_, port)| port.is(configured, &policy));
                let opening = match found {
                    Some(at) => Opening::Kept(free.swap_remove(at).0),
                    None => match self.bind(configured, listener, listeners) {
                        Ok((bound, file)) => Opening::Bound(bound, file),
                        Err(error) if is_missing_loopback(configured, &error) => {
                            missing.push((configured, error));
                            continue;
                        }
                        Err(error) => return Err(cannot_listen(configured, listener, &error)),
                    },
                };
                let (policy, configured) = (Arc::clone(&policy), configured.clone());
                planned.push(PlannedPort { policy, configured, mode, opening });
            }
            check_missing(listener, &missing, planned.len() > before)?;
        }
        Ok(planned)
    }

    /// Creates the policy that the sessions of a listener share.
    fn policy(
        &self,
        listener: &ListenerConfig,
        certificates: &Loaded,
        broker: &Arc<Broker>,
        shutdown: &Shutdown,
    ) -> Result<Arc<ListenerPolicy>, Failed> {
        let own =
            listener.password.as_ref().map(|from| credentials(listener.account.as_deref().unwrap_or_default(), from));
        Ok(Arc::new(ListenerPolicy {
            protocol: listener.protocol,
            security: listener.security,
            tls: listener.certificate.as_ref().and_then(|certificate| certificates.tls(certificate)),
            provider: listener.provider.clone(),
            account: listener.account.as_deref().map(Name::typed),
            allow_addresses: listener.allow_addresses.clone(),
            balancers: listener.balancers.clone(),
            own: own.transpose().map_err(|error| Failed::new(Exit::Config, error))?,
            users: listener.users.clone(),
            port_stays_open: self.sockets.keep_open(listener.protocol, &listener.addresses),
            host: "localhost".to_owned(),
            broker: Arc::clone(broker),
            shutdown: shutdown.clone(),
            promised: Mutex::default(),
        }))
    }

    /// Opens the planned ports, and closes all others. A port that is open already stays open.
    pub async fn put(&mut self, planned: Vec<PlannedPort>) {
        let mut before: Vec<Option<OpenPort>> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for PlannedPort { policy, configured, mode, opening } in planned {
            let port = match opening {
                Opening::Bound(listener, file) => self.serve(listener, file, configured, policy),
                Opening::Kept(index) => match before.get_mut(index).and_then(Option::take) {
                    Some(port) => port.with_policy(policy, mode).await,
                    None => continue,
                },
            };
            self.open.push(port);
        }
        for port in before.into_iter().flatten() {
            let Listening { protocol, address, .. } = &port.listening;
            info!(protocol = protocol.name(), %address, "no longer listening on {address} for {protocol}");
            port.task.abort();
        }
    }

    /// Closes all ports. When this returns, they are closed.
    pub async fn close(&mut self) {
        self.open.clear();
        self.tasks.shutdown().await;
    }

    /// Waits until an accept loop ends unexpectedly.
    pub async fn ended(&mut self) {
        while let Some(end) = self.tasks.join_next().await {
            if !end.is_err_and(|error| error.is_cancelled()) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits until every current accept loop has proved that it works.
    pub fn pings(&self) -> impl Future<Output = ()> + Send + use<> {
        let loops: Vec<_> = self.open.iter().map(|port| port.messages.clone()).collect();
        async move {
            for messages in loops {
                ping(&messages).await;
            }
        }
    }

    fn serve(
        &mut self,
        listener: Bound,
        file: Option<SocketFile>,
        configured: Address,
        policy: Arc<ListenerPolicy>,
    ) -> OpenPort {
        let address = listener.port().map_or_else(|| configured.clone(), Address::Tcp);
        let handle = listener.handle().ok();
        let listening = Listening { protocol: policy.protocol, address, security: policy.security };
        let Listening { protocol, security, .. } = listening;
        info!(
            protocol = protocol.name(),
            address = %listening.address,
            security = security.name(),
            "listening on {} for {protocol} with {security}",
            listening.address
        );
        let (messages, receiver) = mpsc::channel(8);
        let task = self.tasks.spawn(clients::accept(
            listen::Listener::new(listener, self.spares.clone()),
            policy,
            receiver,
            Arc::clone(&self.strangers),
        ));
        OpenPort { configured, listening, messages, task, handle, file }
    }

    fn bind(
        &self,
        address: &Address,
        listener: &ListenerConfig,
        wanted: &[ListenerConfig],
    ) -> io::Result<(Bound, Option<SocketFile>)> {
        match address {
            Address::Tcp(port) => Ok((Bound::Tcp(self.bind_tcp(*port, listener.protocol, wanted)?), None)),
            Address::Unix(path) => Ok((Bound::Unix(unix::bind(path, listener.mode)?), Some(SocketFile::of(path)?))),
        }
    }

    fn bind_tcp(&self, address: SocketAddr, protocol: Protocol, wanted: &[ListenerConfig]) -> io::Result<TcpListener> {
        if let Some(socket) = self.sockets.get(protocol, address) {
            return socket.and_then(TcpListener::from_std);
        }
        match (listen::bind(address), self.closing_port_at(address, wanted)) {
            (Err(error), Some(open)) if error.kind() == io::ErrorKind::AddrInUse => listen::bind_beside(address, open),
            (bound, _) => bound,
        }
    }

    /// An open port that occupies this address but will be closed. So a port can be widened from 127.0.0.1 to all
    /// addresses, or narrowed.
    fn closing_port_at(&self, address: SocketAddr, wanted: &[ListenerConfig]) -> Option<&OwnedFd> {
        let is_wanted = |open: &Address| wanted.iter().any(|listener| listener.addresses.contains(open));
        let overlaps = |open: SocketAddr| {
            let is_wide = open.ip().is_unspecified() || address.ip().is_unspecified();
            open.port() == address.port() && open.is_ipv4() == address.is_ipv4() && is_wide
        };
        let mut closing = self.open.iter().filter(|port| !is_wanted(&port.configured));
        closing.find(|port| port.listening.address.tcp().is_some_and(overlaps))?.handle.as_ref()
    }

    /// Refuses sockets of the service manager that the configuration does not name, because only the configuration has
    /// TLS, certificates and permissions.
    fn refuse_surplus(&self, listeners: &[ListenerConfig]) -> Result<(), Failed> {
        let wanted: Vec<_> = listeners
            .iter()
            .flat_map(|listener| listener.addresses.iter().map(|address| (listener.protocol, address)))
            .filter_map(|(protocol, address)| Some((protocol, address.tcp()?)))
            .collect();
        match self.sockets.others(&wanted).first() {
            None => Ok(()),
            Some((protocol, address)) => Err(Failed::new(
                Exit::Config,
                format!(
                    "the service manager passes {address} for {protocol}, but no [[listener]] has it; \
                     add the address there, or remove it from the socket unit (`systemctl disable --now postkey-{}.socket`)",
                    protocol.name()
                ),
            )),
        }
    }
}

impl OpenPort {
    /// Whether this port serves this address. For any free port, the protocol decides.
    fn is(&self, configured: &Address, policy: &ListenerPolicy) -> bool {
        let alike = self.listening.protocol == policy.protocol && self.listening.security == policy.security;
        self.configured == *configured && (alike || configured.tcp().is_none_or(|address| address.port() != 0))
    }

    /// Applies a new policy. When this returns, new connections use it.
    async fn with_policy(mut self, policy: Arc<ListenerPolicy>, mode: u32) -> Self {
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.set_mode(mode)) {
            let address = &self.listening.address;
            warn!(%address, %error, "cannot change the mode of the socket {address}: {error}");
        }
        (self.listening.protocol, self.listening.security) = (policy.protocol, policy.security);
        // `Ports::ended` notices a loop that has ended.
        let _ended = self.messages.send(Message::Policy(policy)).await;
        ping(&self.messages).await;
        self
    }
}

/// Waits until an accept loop has handled all messages so far.
async fn ping(messages: &mpsc::Sender<Message>) {
    let (pong, answer) = oneshot::channel();
    if messages.send(Message::Ping(pong)).await.is_ok() {
        let _ended = answer.await;
    }
}

/// Whether a loopback address cannot be bound because this machine lacks IPv4 or IPv6.
fn is_missing_loopback(address: &Address, error: &io::Error) -> bool {
    address.tcp().is_some_and(|address| address.ip().is_loopback()) && listen::is_missing(error)
}

/// A listener serves on those of its addresses that this machine has. It needs at least one.
fn check_missing(listener: &ListenerConfig, missing: &[(&Address, io::Error)], is_served: bool) -> Result<(), Failed> {
    for (address, error) in missing {
        if !is_served {
            return Err(cannot_listen(address, listener, error));
        }
        let (protocol, reason) =
            (listener.protocol.name(), "this machine does not have the address; IPv6 may be disabled");
        info!(protocol, %address, %error, "not listening on {address} for {}: {error}; {reason}", listener.protocol);
    }
    Ok(())
}

fn cannot_listen(address: &Address, listener: &ListenerConfig, error: &io::Error) -> Failed {
    let advice = match address {
        Address::Unix(_) => "its folder must exist and be writable; a new folder needs a restart of postkey",
        Address::Tcp(_) if listen::is_missing(error) => {
            "this machine does not have that address; correct it, or configure the address before postkey starts"
        }
        Address::Tcp(_) if error.kind() == io::ErrorKind::PermissionDenied => {
            "only root can open ports below 1024; let systemd open it (postkey-*.socket), or choose a higher one"
        }
        Address::Tcp(_) => "check whether another postkey or another program uses this port",
    };
    Failed::new(Exit::Os, format!("cannot listen on {address} for {}: {error}; {advice}", listener.protocol))
}
