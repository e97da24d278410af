//! The daemon: opens the vault, binds the listeners, serves until it is told to stop.

mod room;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{Config, Listener};
use crate::control::{self, Control, Listening};
use crate::exit::{Exit, Failed};
use crate::net::listen::{self, Arrival};
use crate::net::tls;
use crate::session::{self, Door};
use crate::vault::Vault;
use room::most_sessions;

/// How long a stop waits for a refresh; longer than one can take.
const STOP: Duration = Duration::from_secs(40);

/// A running daemon. It ends when it is dropped.
pub struct Daemon {
    control: Arc<Control>,
    tasks: JoinSet<()>,
}

impl Daemon {
    /// Opens the vault and binds everything; when this returns, clients are served.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, Failed> {
        let vault = Vault::open_in_turn(&config.state_dir).await?;
        for address in vault.damaged() {
            tracing::error!(
                account = address,
                "the vault's record is damaged; `postkey forget` and `postkey authorize` it"
            );
        }
        let config = Arc::new(config);
        let broker = Arc::new(Broker::new(Arc::clone(&config), vault, clock));
        let bound = config.listeners.iter().map(|listener| bind(listener, &broker));
        let bound: Vec<(TcpListener, Arc<Door>, Listening)> =
            bound.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let socket = bind_control(&config.control_socket)?;
        let listeners = bound.iter().map(|(_, _, listening)| listening.clone()).collect();
        let mut tasks = JoinSet::new();
        let owner = Arc::clone(&broker);
        tasks.spawn(async move { owner.keep_stable().await });
        let control = Arc::new(Control { broker, listeners });
        let sessions = Arc::new(Semaphore::new(most_sessions()));
        for (listener, door, listening) in bound {
            info!(protocol = listening.protocol, address = %listening.address, security = listening.security, "listening");
            tasks.spawn(accept_clients(listen::Listener::new(listener), door, Arc::clone(&sessions)));
        }
        tasks.spawn(accept_commands(socket, Arc::clone(&control)));
        Ok(Self { control, tasks })
    }

    /// The ports that are open.
    pub fn listeners(&self) -> &[Listening] {
        &self.control.listeners
    }

    /// Stops: no refresh is cut off.
    pub async fn stop(self) {
        if timeout(STOP, self.control.broker.finish()).await.is_err() {
            warn!("a refresh did not end in time and is given up");
        }
    }

    /// Serves until an accept loop ends, which none does by itself.
    pub async fn run(&mut self) -> Failed {
        self.tasks.join_next().await;
        Failed::new(Exit::Software, "a listener has ended; this is a defect, see the log")
    }
}

/// Binds a listener's addresses.
fn bind(listener: &Listener, broker: &Arc<Broker>) -> Result<Vec<(TcpListener, Arc<Door>, Listening)>, Failed> {
    let tls = match &listener.certificate {
        Some(files) => {
            Some(tls::server_config(&files.chain, &files.key).map_err(|error| Failed::new(Exit::Config, error))?)
        }
        None => None,
    };
    let door = Arc::new(Door {
        protocol: listener.protocol,
        security: listener.security,
        tls,
        provider: listener.provider.clone(),
        account: listener.account.clone(),
        host: "localhost".to_owned(),
        broker: Arc::clone(broker),
    });
    let bind = |&address| {
        let failed = |error| {
            let message = format!(
                "cannot listen on {address} for {}: {error}; is another postkey running, or another program on this port?",
                listener.protocol
            );
            Failed::new(Exit::Os, message)
        };
        let socket = listen::bind(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok((socket, Arc::clone(&door), Listening::new(listener.protocol, address, listener.security)))
    };
    listener.addresses.iter().map(bind).collect()
}

fn bind_control(path: &Path) -> Result<UnixListener, Failed> {
    control::bind(path).map_err(|error| {
        Failed::new(Exit::Os, format!("the control socket {} cannot be made: {error}", path.display()))
    })
}

/// Accepts clients for ever. Those for whom there is no room are told so, one at a time.
async fn accept_clients(mut listener: listen::Listener, door: Arc<Door>, sessions: Arc<Semaphore>) {
    loop {
        let Arrival { socket, peer, is_surplus } = listener.accept().await;
        let span = info_span!("session", protocol = door.protocol.name(), %peer);
        let permit = Arc::clone(&sessions).try_acquire_owned().ok().filter(|_| !is_surplus);
        let Some(permit) = permit else {
            warn!(parent: &span, "turned away: descriptors or memory do not suffice for another session");
            // It does not matter whether the client has heard it.
            let _ = session::turn_away(socket, &door).instrument(span).await;
            continue;
        };
        let door = Arc::clone(&door);
        let session = async move {
            serve_client(socket, peer, &door).await;
            drop(permit);
        };
        tokio::spawn(session.instrument(span));
    }
}

async fn serve_client(socket: TcpStream, peer: SocketAddr, door: &Door) {
    let (end, result) = session::serve(socket, peer, door).await;
    let (up, down) = (end.relayed.up, end.relayed.down);
    match (end.account, result) {
        (Some(account), Ok(())) => info!(account, up, down, "session ended"),
        (Some(account), Err(error)) => info!(account, up, down, %error, "session broken off"),
        (None, Ok(())) => debug!("left without a login"),
        (None, Err(error)) => debug!(%error, "broken off before the login"),
    }
}

async fn accept_commands(listener: UnixListener, control: Arc<Control>) {
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
