//! The open ports: bound or taken over, told a new configuration, closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use super::accept_clients;
use crate::address::Address;
use crate::broker::Broker;
use crate::config::Listener;
use crate::control::Listening;
use crate::exit::{Exit, Failed};
use crate::net::listen::Bound;
use crate::net::spares::Spares;
use crate::net::systemd::Sockets;
use crate::net::unix::{self, SocketFile};
use crate::net::{listen, tls};
use crate::protocol::Protocol;
use crate::session::Door;
use crate::stop::Stop;
use crate::vault::machine::credentials;

/// What an accept loop is told.
pub enum Message {
    /// Who comes from now on, comes by this door.
    Door(Arc<Door>),
    /// Show that you are alive.
    Ping(oneshot::Sender<()>),
}

/// All open ports, and how to open another one.
pub struct Ports {
    open: Vec<Port>,
    tasks: JoinSet<()>,
    sockets: Sockets,
    sessions: Arc<Semaphore>,
    spares: Spares,
}

/// An open port and its accept loop.
struct Port {
    /// As the configuration has it: port 0 is a free one.
    configured: Address,
    listening: Listening,
    messages: mpsc::Sender<Message>,
    task: AbortHandle,
    /// Of a Unix socket: goes when the port is closed.
    file: Option<SocketFile>,
}

/// A port as it is to be, ready to be put in place.
pub struct Place {
    door: Arc<Door>,
    configured: Address,
    mode: u32,
    how: How,
}

/// How it comes about.
enum How {
    /// It is the open one with this index.
    Kept(usize),
    /// It has been bound.
    Bound(Bound, Option<SocketFile>),
}

impl Ports {
    /// No port yet. Sessions hold a permit each.
    pub fn new(sockets: Sockets, sessions: Arc<Semaphore>) -> Self {
        Self { open: Vec::new(), tasks: JoinSet::new(), sockets, sessions, spares: Spares::default() }
    }

    /// What is open.
    pub fn listening(&self) -> Vec<Listening> {
        self.open.iter().map(|port| port.listening.clone()).collect()
    }

    /// Reads the certificates, and binds what is not open yet. Nothing else has changed if this fails.
    pub fn prepare(&self, listeners: &[Listener], broker: &Arc<Broker>, stop: &Stop) -> Result<Vec<Place>, Failed> {
        self.refuse_surplus(listeners)?;
        let mut free: Vec<(usize, &Port)> = self.open.iter().enumerate().collect();
        let mut places = Vec::new();
        for listener in listeners {
            let (door, mode) = (door(listener, broker, stop)?, listener.mode);
            for configured in &listener.addresses {
                let found = free.iter().position(|(_, port)| port.is(configured, &door));
                let how = match found {
                    Some(at) => How::Kept(free.swap_remove(at).0),
                    None => {
                        let (bound, file) = self.bind(configured, listener)?;
                        How::Bound(bound, file)
                    }
                };
                places.push(Place { door: Arc::clone(&door), configured: configured.clone(), mode, how });
            }
        }
        Ok(places)
    }

    /// Puts ports in place, and closes all others. A port that stays open is never closed in between.
    pub async fn put(&mut self, places: Vec<Place>) {
        let mut before: Vec<Option<Port>> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for place in places {
            let kept = match &place.how {
                How::Kept(index) => before.get_mut(*index).and_then(Option::take),
                How::Bound(..) => None,
            };
            let port = match (kept, place.how) {
                (Some(port), _) => port.with_door(place.door, place.mode).await,
                (None, How::Bound(listener, file)) => self.serve(listener, file, place.configured, place.door),
                (None, How::Kept(_)) => continue,
            };
            self.open.push(port);
        }
        for port in before.into_iter().flatten() {
            info!(protocol = port.listening.protocol, address = %port.listening.address, "closed");
            port.task.abort();
        }
    }

    /// Closes all of them; when this returns, they are closed.
    pub async fn close(&mut self) {
        self.open.clear();
        self.tasks.shutdown().await;
    }

    /// Waits until an accept loop has ended that was not meant to, which none does by itself.
    pub async fn ended(&mut self) {
        while let Some(end) = self.tasks.join_next().await {
            if !end.is_err_and(|error| error.is_cancelled()) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits until every accept loop that there is now has shown that it is alive.
    pub fn pings(&self) -> impl Future<Output = ()> + Send + use<> {
        let loops: Vec<_> = self.open.iter().map(|port| port.messages.clone()).collect();
        async move {
            for messages in loops {
                ping(&messages).await;
            }
        }
    }

    fn serve(&mut self, listener: Bound, file: Option<SocketFile>, configured: Address, door: Arc<Door>) -> Port {
        let address = listener.port().map_or_else(|| configured.clone(), Address::Tcp);
        let listening = Listening::new(door.protocol, address, door.security);
        info!(protocol = listening.protocol, address = %listening.address, security = listening.security, "listening");
        let (messages, heard) = mpsc::channel(8);
        let task = self.tasks.spawn(accept_clients(
            listen::Listener::new(listener, self.spares.clone()),
            door,
            heard,
            Arc::clone(&self.sessions),
        ));
        Port { configured, listening, messages, task, file }
    }

    fn bind(&self, address: &Address, listener: &Listener) -> Result<(Bound, Option<SocketFile>), Failed> {
        let bound = match address {
            Address::Tcp(port) => self.bind_tcp(*port, listener.protocol).map(|bound| (Bound::Tcp(bound), None)),
            Address::Unix(path) => {
                unix::bind(path, listener.mode).and_then(|bound| Ok((Bound::Unix(bound), Some(SocketFile::of(path)?))))
            }
        };
        bound.map_err(|error| {
            let question = match address {
                Address::Tcp(_) => "is another postkey running, or another program on this port?",
                Address::Unix(_) => {
                    "its folder has to be there and writable; one that is new to postkey takes a restart"
                }
            };
            let message = format!("cannot listen on {address} for {}: {error}; {question}", listener.protocol);
            Failed::new(Exit::Os, message)
        })
    }

    fn bind_tcp(&self, address: SocketAddr, protocol: Protocol) -> io::Result<TcpListener> {
        let handed = self.sockets.get(protocol, address).map(|socket| socket.and_then(TcpListener::from_std));
        handed.unwrap_or_else(|| listen::bind(address))
    }

    /// What is served is what the configuration says: who else may come, TLS and certificates all stand there, and only for
    /// addresses that were judged there.
    fn refuse_surplus(&self, listeners: &[Listener]) -> Result<(), Failed> {
        let addresses = |listener: &Listener| {
            let protocol = listener.protocol;
            listener
                .addresses
                .iter()
                .filter_map(Address::tcp)
                .map(move |address| (protocol, address))
                .collect::<Vec<_>>()
        };
        let wanted: Vec<_> = listeners.iter().flat_map(addresses).collect();
        match self.sockets.others(&wanted).first() {
            None => Ok(()),
            Some((protocol, address)) => Err(Failed::new(
                Exit::Config,
                format!(
                    "the service manager hands over {address} for {protocol}, which no [[listener]] has; \
                     add the address there, or remove it from the socket unit"
                ),
            )),
        }
    }
}

impl Port {
    /// Whether this port will do for this address. A free port is one of its protocol.
    fn is(&self, configured: &Address, door: &Door) -> bool {
        let alike = self.listening.protocol == door.protocol.name() && self.listening.security == door.security.name();
        self.configured == *configured && (alike || configured.tcp().is_none_or(|address| address.port() != 0))
    }

    /// When this returns, who comes comes by the new door.
    async fn with_door(mut self, door: Arc<Door>, mode: u32) -> Self {
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.allow(mode)) {
            warn!(%error, address = %self.listening.address, "the socket's mode cannot be changed");
        }
        self.listening = Listening::new(door.protocol, self.listening.address, door.security);
        // A loop that has ended is noticed by `Ports::ended`.
        let _ended = self.messages.send(Message::Door(door)).await;
        ping(&self.messages).await;
        self
    }
}

/// Waits until an accept loop has heard all that it was told so far.
async fn ping(messages: &mpsc::Sender<Message>) {
    let (pong, heard) = oneshot::channel();
    if messages.send(Message::Ping(pong)).await.is_ok() {
        let _ended = heard.await;
    }
}

/// What the sessions of a listener share.
fn door(listener: &Listener, broker: &Arc<Broker>, stop: &Stop) -> Result<Arc<Door>, Failed> {
    let own = listener.machine.as_ref().map(|from| credentials(listener.account.as_deref().unwrap_or_default(), from));
    let tls = listener.certificate.as_ref().map(|files| tls::server_config(&files.chain, &files.key));
    Ok(Arc::new(Door {
        protocol: listener.protocol,
        security: listener.security,
        tls: tls.transpose().map_err(|error| Failed::new(Exit::Config, error))?,
        provider: listener.provider.clone(),
        account: listener.account.clone(),
        allow_addresses: listener.allow_addresses.clone(),
        own: own.transpose().map_err(|error| Failed::new(Exit::Config, error))?,
        users: listener.users.clone(),
        host: "localhost".to_owned(),
        broker: Arc::clone(broker),
        stop: stop.clone(),
    }))
}
