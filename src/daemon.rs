//! The daemon: opens the vault, binds the listeners, and serves until it is asked to stop.

mod capacity;
mod clients;
mod first_logins;
mod monitoring;
mod ports;
mod setup_page;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::broker::{Broker, open_vault};
use crate::certificates::ListenerCertificates;
use crate::clock::Clock;
use crate::config::{Config, Listening};
use crate::control::{self, Control, ControlReply, ControlRequest, DaemonRequests, PendingRequest};
use crate::exit::{Exit, Failed};
use crate::net::strangers::Strangers;
use crate::net::systemd::Sockets;
use crate::net::unix;
use crate::shutdown::ShutdownSender;
use crate::vault::Vault;
use crate::web::server::CONNECTIONS;
use capacity::Capacity;
use first_logins::FirstLoginPorts;
use monitoring::Monitoring;
use ports::Ports;

/// The longest time for a shutdown: longer than a refresh can take, and than sessions are given.
pub const STOP: Duration = Duration::from_secs(40);

/// How often to poll the vault while it proves that it works. Its writes take milliseconds.
const POLL: Duration = Duration::from_millis(20);

/// More commands than anybody sends at a time.
const COMMANDS: u32 = 1 << 16;

/// How long a shutdown waits for commands that are being answered, such as the one that closes the page of `postkey web` and so
/// ends the daemon. A command that needs the main loop no longer gets an answer.
const ANSWERED: Duration = Duration::from_secs(1);

/// A running daemon. It ends when it is dropped.
pub struct Daemon {
    control: Arc<Control>,
    requests: mpsc::Receiver<PendingRequest>,
    ports: Ports,
    certificates: Arc<ListenerCertificates>,
    monitoring: Monitoring,
    first_logins: FirstLoginPorts,
    /// The connections to the HTTP ports of both `monitoring` and `first_logins`.
    visitors: Arc<Strangers>,
    /// Whether the page in the browser is open.
    page_is_open: watch::Receiver<bool>,
    /// A command that is under way has one of these.
    commands: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// The name of each task, to report one that ends.
    task_names: HashMap<Id, &'static str>,
    shutdown: ShutdownSender,
}

/// An event that the daemon cannot handle itself.
pub enum DaemonEvent {
    Request(PendingRequest),
    /// The daemon cannot continue.
    Failed(Failed),
}

impl Daemon {
    /// Opens the vault and binds everything, with the sockets that the service manager has passed. When this returns,
    /// clients are served.
    pub async fn start(config: Config, clock: Clock, sockets: Sockets) -> Result<Self, Failed> {
        let vault = open_vault(&config).await?;
        for address in vault.damaged() {
            tracing::error!(
                account = address,
                "the vault's record of {address} is damaged; run `postkey authorize {address}` to set it up again"
            );
        }
        let config = Arc::new(config);
        let certificates = Arc::new(ListenerCertificates::new(&config.state_dir, clock.clone()));
        let broker = Arc::new(Broker::new(Arc::clone(&config), vault, clock, false));
        let shutdown = ShutdownSender::default();
        let Capacity { sessions, strangers } = Capacity::of_this_process();
        let strangers = Strangers::new(strangers, sessions);
        let mut ports = Ports::new(sockets, Arc::clone(&strangers));
        let loaded = certificates.load(&config.listeners)?;
        let planned = ports.prepare(&config.listeners, &loaded, &broker, &shutdown.subscribe())?;
        let mut monitoring = Monitoring::default();
        let metrics = monitoring.prepare(config.metrics)?;
        let mut first_logins = FirstLoginPorts::default();
        let sites = first_logins.prepare(&config)?;
        let socket = bind_control(&config.control_socket)?;
        let visitors = Strangers::new(CONNECTIONS, 0);
        monitoring.put(metrics, &broker, &visitors);
        first_logins.put(sites, &broker.first_logins, &visitors);
        ports.put(planned).await;
        certificates.put(loaded);
        broker.metrics.certificates(certificates.expiries());
        let (control, DaemonRequests { program: requests, page }) = Control::of_daemon(Arc::clone(&broker));
        let (control, (is_open, page_is_open)) = (Arc::new(control), watch::channel(false));
        control.set_listeners(ports.listening());
        let commands = Arc::new(Semaphore::new(COMMANDS as usize));
        let (mut tasks, measured) = (JoinSet::new(), Arc::clone(&broker));
        let task_names = HashMap::from([
            (tasks.spawn(Arc::clone(&broker).keep_stable()).id(), "the vault's return to stable storage"),
            (tasks.spawn(Arc::clone(&broker).follow()).id(), "the changes by other replicas"),
            (tasks.spawn(Arc::clone(&broker).serve_notices()).id(), "the queue of notify_command"),
            (tasks.spawn(Arc::clone(&broker.first_logins).expire()).id(), "the expiry of first logins"),
            (tasks.spawn(Arc::clone(&broker).keep_alive()).id(), "the refresh ahead of expiry"),
            (tasks.spawn(broker.watch()).id(), "the check for notifications"),
            (
                tasks.spawn(watch_certificates(Arc::clone(&certificates), measured)).id(),
                "the check of the certificates",
            ),
            (tasks.spawn(async move { strangers.log_limit.log_suppressed().await }).id(), "the log limit"),
            (
                tasks.spawn(accept_commands(Arc::clone(&control), socket, Arc::clone(&commands))).id(),
                "the control socket",
            ),
            (tasks.spawn(setup_page::serve(Arc::clone(&control), page, is_open)).id(), "the page in the browser"),
        ]);
        Ok(Self {
            control,
            requests,
            ports,
            certificates,
            monitoring,
            first_logins,
            visitors,
            page_is_open,
            commands,
            tasks,
            task_names,
            shutdown,
        })
    }

    pub fn listeners(&self) -> Vec<Listening> {
        self.ports.listening()
    }

    /// Carries out a command in this process.
    pub async fn answer(&self, request: ControlRequest) -> ControlReply {
        self.control.answer(request).await
    }

    /// Waits until the page in the browser is closed.
    pub fn page_closed(&self) -> impl Future<Output = ()> + use<> {
        let mut is_open = self.page_is_open.clone();
        async move {
            // This fails only if the page's task has ended.
            let _closed = is_open.wait_for(|is_open| !is_open).await;
        }
    }

    /// Applies a new configuration completely, or keeps the old one. Sessions continue, and a port that both have stays
    /// open.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be used, or needs a restart.
    pub async fn reload(&mut self, config: Config) -> Result<(), Failed> {
        let (before, broker) = (self.control.broker.config(), &self.control.broker);
        for (key, old, new) in [
            ("state_dir", &before.state_dir, &config.state_dir),
            ("control_socket", &before.control_socket, &config.control_socket),
        ] {
            if old != new {
                return Err(Failed::new(Exit::Config, format!("a change of {key} needs a restart")));
            }
        }
        let database = |config: &Config| config.vault.as_ref().map(|database| format!("{database:?}"));
        if database(&before) != database(&config) {
            return Err(Failed::new(Exit::Config, "a change of [vault] needs a restart"));
        }
        let loaded = self.certificates.load(&config.listeners)?;
        let planned = self.ports.prepare(&config.listeners, &loaded, broker, &self.shutdown.subscribe())?;
        let metrics = self.monitoring.prepare(config.metrics)?;
        let sites = self.first_logins.prepare(&config)?;
        broker.reconfigure(config).await?;
        self.monitoring.put(metrics, broker, &self.visitors);
        self.first_logins.put(sites, &broker.first_logins, &self.visitors);
        self.ports.put(planned).await;
        self.certificates.put(loaded);
        broker.metrics.certificates(self.certificates.expiries());
        self.control.set_listeners(self.ports.listening());
        Ok(())
    }

    /// Stops: accepts no more clients, notifies those that have not logged in, and waits, within limits, for sessions
    /// and refreshes to end.
    pub async fn stop(&mut self) {
        self.shutdown.send();
        self.ports.close().await;
        let broker = &self.control.broker;
        let ended =
            async { tokio::join!(self.shutdown.all_gone(), broker.refresher.finish(), broker.first_logins.end()) };
        if timeout(STOP, ended).await.is_err() {
            warn!("a session or a refresh did not end within {} s of the shutdown and is cut off", STOP.as_secs());
        }
        // This fails if one takes longer.
        let _answered = timeout(ANSWERED, self.commands.acquire_many(COMMANDS)).await;
        self.control.broker.write_last().await;
    }

    /// Serves until there is an event for the caller.
    pub async fn next(&mut self) -> DaemonEvent {
        tokio::select! {
            Some(request) = self.requests.recv() => DaemonEvent::Request(request),
            () = self.ports.ended() => Self::defect("a listener"),
            Some(ended) = self.tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                Self::defect(self.task_names.get(&id).copied().unwrap_or("a task"))
            }
        }
    }

    fn defect(what: &str) -> DaemonEvent {
        DaemonEvent::Failed(Failed::new(
            Exit::Software,
            format!("{what} has ended unexpectedly; this is a defect of postkey, please report it with its log"),
        ))
    }

    /// Waits until the vault and every accept loop have proved that they work.
    pub fn prove(&self) -> impl Future<Output = ()> + Send + use<> {
        let (vault, pings) = (Arc::clone(&self.control.broker.context.vault), self.ports.pings());
        async move {
            while !is_free(&vault).await {
                tokio::time::sleep(POLL).await;
            }
            pings.await;
        }
    }

    /// The state of the daemon in one line.
    pub fn summary(&self) -> String {
        self.control.broker.census().summary()
    }
}

/// Keeps the listeners' certificates up to date, and the metrics about them.
async fn watch_certificates(certificates: Arc<ListenerCertificates>, broker: Arc<Broker>) {
    certificates.watch(|expiries| broker.metrics.certificates(expiries)).await;
}

/// Waits for the vault on a blocking thread, but never on two at once: if the disk hangs, one blocked thread is enough.
async fn is_free(vault: &Arc<Vault>) -> bool {
    let vault = Arc::clone(vault);
    tokio::task::spawn_blocking(move || vault.is_free()).await.unwrap_or_default()
}

fn bind_control(path: &Path) -> Result<UnixListener, Failed> {
    unix::bind(path, 0o600)
        .map_err(|error| Failed::new(Exit::Os, format!("cannot create the control socket {}: {error}", path.display())))
}

/// The last parameter is dropped first, so the socket is closed before the vault.
async fn accept_commands(control: Arc<Control>, listener: UnixListener, commands: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (control, under_way) = (Arc::clone(&control), Arc::clone(&commands).try_acquire_owned());
                tokio::spawn(async move {
                    control::serve(stream, control).await;
                    drop(under_way);
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a connection to the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::Environment;

    #[tokio::test]
    async fn a_task_that_ends_is_reported_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let text = "state_dir = \"state\"\n[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:0\"\n";
        let config = Config::parse(text, &dir.path().join("postkey.toml"), &Environment::default()).unwrap();
        let mut daemon = Daemon::start(config, Clock::System, Sockets::default())
            .await
            .unwrap_or_else(|failed| panic!("{}", failed.message));
        let names: std::collections::BTreeSet<&str> = daemon.task_names.values().copied().collect();
        assert_eq!(names.len(), daemon.tasks.len(), "names are unique");
        let task = daemon.tasks.spawn(async {});
        daemon.task_names.insert(task.id(), "the task of a test");
        match daemon.next().await {
            DaemonEvent::Failed(failed) => {
                assert!(failed.message.starts_with("the task of a test has ended"), "{}", failed.message)
            }
            DaemonEvent::Request(_) => panic!("there was no request"),
        }
    }
}
