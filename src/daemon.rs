//! The daemon: opens the vault, binds the listeners, serves until it is told to stop.

mod first_logins;
mod monitoring;
mod ports;
mod room;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Control, Listening, Order};
use crate::exit::{Exit, Failed};
use crate::net::listen::{self, Arrival, Socket};
use crate::net::systemd::Sockets;
use crate::net::unix;
use crate::session::{self, Door};
use crate::stop::Stopping;
use crate::vault::Vault;
use first_logins::FirstLogins;
use monitoring::Monitoring;
use ports::{Message, Ports};
use room::most_sessions;

/// How long a stop takes at most: longer than a refresh can take, and than sessions are given.
pub const STOP: Duration = Duration::from_secs(40);

/// How often the vault is looked at that is to prove that it works. It writes for milliseconds.
const LOOK: Duration = Duration::from_millis(20);

/// A running daemon. It ends when it is dropped.
pub struct Daemon {
    control: Arc<Control>,
    orders: mpsc::Receiver<Order>,
    ports: Ports,
    monitoring: Monitoring,
    first_logins: FirstLogins,
    tasks: JoinSet<()>,
    stopping: Stopping,
}

/// What the daemon needs somebody for.
pub enum Event {
    /// A command asks for something that is not the daemon's alone.
    Order(Order),
    /// It cannot go on.
    Failed(Failed),
}

impl Daemon {
    /// Opens the vault and binds everything; when this returns, clients are served.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, Failed> {
        Self::start_with(config, clock, Sockets::default()).await
    }

    /// The same with sockets that the service manager hands over.
    pub async fn start_with(config: Config, clock: Clock, sockets: Sockets) -> Result<Self, Failed> {
        let vault = Vault::open_in_turn(&config.state_dir).await?;
        for address in vault.damaged() {
            tracing::error!(
                account = address,
                "the vault's record is damaged; `postkey forget` and `postkey authorize` it"
            );
        }
        let config = Arc::new(config);
        let broker = Arc::new(Broker::new(Arc::clone(&config), vault, clock));
        let stopping = Stopping::default();
        let mut ports = Ports::new(sockets, Arc::new(Semaphore::new(most_sessions())));
        let places = ports.prepare(&config.listeners, &broker, &stopping.listener())?;
        let mut monitoring = Monitoring::default();
        let watched = monitoring.prepare(config.metrics)?;
        let mut first_logins = FirstLogins::default();
        let sites = first_logins.prepare(&config)?;
        let socket = bind_control(&config.control_socket)?;
        monitoring.put(watched, &broker);
        first_logins.put(sites, &broker);
        let mut tasks = JoinSet::new();
        let [owner, teller, waiter] = [(); 3].map(|()| Arc::clone(&broker));
        tasks.spawn(async move { owner.keep_stable().await });
        tasks.spawn(async move { teller.serve_notices().await });
        tasks.spawn(async move { waiter.expire_first_logins().await });
        tasks.spawn(Arc::clone(&broker).keep_alive());
        tasks.spawn(Arc::clone(&broker).keep_told());
        let (control, orders) = Control::of_daemon(broker);
        let control = Arc::new(control);
        ports.put(places).await;
        control.set_listeners(ports.listening());
        tasks.spawn(accept_commands(Arc::clone(&control), socket));
        Ok(Self { control, orders, ports, monitoring, first_logins, tasks, stopping })
    }

    /// The ports that are open.
    pub fn listeners(&self) -> Vec<Listening> {
        self.ports.listening()
    }

    /// Goes by a new configuration, or stays with the old one as if nothing had been. Sessions go on; no port that both
    /// have is closed in between.
    ///
    /// # Errors
    ///
    /// What cannot be used, or takes a restart.
    pub async fn reload(&mut self, config: Config) -> Result<(), Failed> {
        let (before, broker) = (self.control.broker.config(), &self.control.broker);
        for (key, old, new) in [
            ("state_dir", &before.state_dir, &config.state_dir),
            ("control_socket", &before.control_socket, &config.control_socket),
        ] {
            if old != new {
                return Err(Failed::new(Exit::Config, format!("a change of {key} takes a restart")));
            }
        }
        let places = self.ports.prepare(&config.listeners, broker, &self.stopping.listener())?;
        let watched = self.monitoring.prepare(config.metrics)?;
        let sites = self.first_logins.prepare(&config)?;
        broker.reconfigure(config).await?;
        self.monitoring.put(watched, broker);
        self.first_logins.put(sites, broker);
        self.ports.put(places).await;
        self.control.set_listeners(self.ports.listening());
        Ok(())
    }

    /// Stops: no client is accepted any more, those who have not logged in are told, and what is under way may end, within
    /// limits. No refresh is cut off.
    pub async fn stop(&mut self) {
        self.stopping.say();
        self.ports.close().await;
        let ended = async { tokio::join!(self.stopping.all_gone(), self.control.broker.finish()) };
        if timeout(STOP, ended).await.is_err() {
            warn!("a session or a refresh did not end in time and is given up");
        }
        self.control.broker.write_last().await;
    }

    /// Serves until something comes up.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            Some(order) = self.orders.recv() => Event::Order(order),
            () = self.ports.ended() => Self::defect("a listener"),
            _ = self.tasks.join_next() => Self::defect("the control socket"),
        }
    }

    fn defect(what: &str) -> Event {
        Event::Failed(Failed::new(Exit::Software, format!("{what} has ended; this is a defect, see the log")))
    }

    /// Waits until the vault and every accept loop have shown that they work.
    pub fn prove(&self) -> impl Future<Output = ()> + Send + use<> {
        let (vault, pings) = (Arc::clone(self.control.broker.vault()), self.ports.pings());
        async move {
            while !is_free(&vault).await {
                tokio::time::sleep(LOOK).await;
            }
            pings.await;
        }
    }

    /// How things are, in a line.
    pub fn summary(&self) -> String {
        self.control.status().summary()
    }
}

/// Waits for a free thread, though on it for nobody: where the disk hangs, one thread that waits for it is enough.
async fn is_free(vault: &Arc<Vault>) -> bool {
    let vault = Arc::clone(vault);
    tokio::task::spawn_blocking(move || vault.is_free()).await.unwrap_or_default()
}

fn bind_control(path: &Path) -> Result<UnixListener, Failed> {
    unix::bind(path, 0o600).map_err(|error| {
        Failed::new(Exit::Os, format!("the control socket {} cannot be made: {error}", path.display()))
    })
}

/// Accepts clients for ever. Those for whom there is no room are told so, one at a time.
async fn accept_clients(
    listener: listen::Listener,
    mut door: Arc<Door>,
    mut messages: mpsc::Receiver<Message>,
    sessions: Arc<Semaphore>,
) {
    loop {
        let Arrival { socket, peer, is_surplus } = tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(Message::Door(new)) => { door = new; continue }
                Some(Message::Ping(pong)) => { let _late = pong.send(()); continue }
                None => return,
            },
            arrival = listener.accept() => arrival,
        };
        let span = info_span!(
            "session",
            protocol = door.protocol.name(),
            security = door.security.name(),
            peer = peer.map(display)
        );
        if !door.is_open_to(peer.map(|peer| peer.ip())) {
            warn!(parent: &span, "turned away: this listener's allow_addresses does not name the client's address");
            continue;
        }
        let permit = Arc::clone(&sessions).try_acquire_owned().ok().filter(|_| !is_surplus);
        let Some(permit) = permit else {
            warn!(parent: &span, "turned away: descriptors or memory do not suffice for another session");
            // It does not matter whether the client has heard it.
            let _ = session::turn_away(socket, &door).instrument(span).await;
            continue;
        };
        let door = Arc::clone(&door);
        let session = async move {
            serve_client(socket, &door).await;
            drop(permit);
        };
        tokio::spawn(session.instrument(span));
    }
}

async fn serve_client(socket: Socket, door: &Door) {
    let (begun, mut measured) = (Instant::now(), door.broker.metrics().session(door.protocol));
    let (end, result) = session::serve(socket, door).await;
    let (up, down, seconds) = (end.relayed.up, end.relayed.down, begun.elapsed().as_secs());
    (measured.up, measured.down) = (up, down);
    drop(measured);
    match (end.account, result) {
        (Some(account), Ok(())) => info!(account, up, down, seconds, "session ended"),
        (Some(account), Err(error)) => info!(account, up, down, seconds, %error, "session broken off"),
        (None, Ok(())) => debug!(seconds, "left without a login"),
        (None, Err(error)) => debug!(seconds, %error, "broken off before the login"),
    }
}

/// The last parameter goes first: once the vault is let go of, nobody listens on the socket any more.
async fn accept_commands(control: Arc<Control>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(control::serve(stream, Arc::clone(&control)))),
            Err(error) => {
                debug!(%error, "the control socket did not get its command");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
