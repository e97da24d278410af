//! `postkey` without a command: runs the daemon in the foreground, and reacts to signals and commands.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::check;
use crate::clock::Clock;
use crate::config::Config;
use crate::confine::Confined;
use crate::control::{ControlRequest, PendingRequest, reply};
use crate::daemon::{Daemon, DaemonEvent, STOP};
use crate::exit::{Exit, Failed};
use crate::log::Log;
use crate::net::systemd::{self, Sockets};

/// How often to send the state to the service manager, unless its watchdog needs it more often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Serves until it is asked to stop. `file` is the configuration file from the command line.
pub async fn run(
    config: Config,
    confined: Option<Confined>,
    file: Option<&Path>,
    sockets: Sockets,
) -> Result<(), Failed> {
    Program::start(config, confined, file, sockets).await?.serve(std::future::pending()).await
}

/// The daemon, and everything else that a reload changes.
pub struct Program<'a> {
    pub daemon: Daemon,
    log: Log,
    confined: Option<Confined>,
    file: Option<&'a Path>,
    signals: Signals,
}

impl<'a> Program<'a> {
    /// Starts the daemon. When this returns, clients are served.
    pub async fn start(
        config: Config,
        confined: Option<Confined>,
        file: Option<&'a Path>,
        sockets: Sockets,
    ) -> Result<Self, Failed> {
        let log = Log::start(&config)?;
        if let Some(confined) = &confined {
            confined.log();
        }
        log_panics();
        log_warnings(&config);
        if rustix::process::geteuid().is_root() {
            warn!(
                "postkey runs as root but needs no root privileges; run it as a separate user, as its systemd unit does"
            );
        }
        let signals =
            Signals::new().map_err(|error| Failed::new(Exit::Os, format!("cannot receive signals: {error}")))?;
        let daemon = Daemon::start(config, Clock::System, sockets).await?;
        systemd::ready(&daemon.summary());
        Ok(Self { daemon, log, confined, file, signals })
    }

    /// Serves until it is asked to stop, or `end` is reached.
    pub async fn serve(mut self, end: impl Future<Output = ()>) -> Result<(), Failed> {
        let mut heartbeat = heartbeat();
        tokio::pin!(end);
        loop {
            tokio::select! {
                event = self.daemon.next() => match event {
                    DaemonEvent::Request(request) => self.answer(request).await,
                    DaemonEvent::Failed(failed) => return Err(failed),
                },
                action = self.signals.next() => match action {
                    SignalAction::Reload => drop(self.reload().await),
                    SignalAction::End => break,
                },
                _ = heartbeat.tick() => self.beat(heartbeat.period()),
                () = &mut end => break,
            }
        }
        systemd::stopping(STOP + Duration::from_secs(5));
        info!("stopping; a second signal stops at once");
        tokio::select! {
            () = self.daemon.stop() => info!("stopped"),
            () = self.signals.end() => warn!("stopped without waiting"),
        }
        Ok(())
    }

    async fn answer(&mut self, PendingRequest { request, outcome }: PendingRequest) {
        let result = match request {
            ControlRequest::Reload => self.reload().await,
            ControlRequest::Log(filter) => self.log.set_filter(&filter),
            _ => Err(Failed::new(Exit::Software, "the daemon cannot handle this request")),
        };
        // The client may have disconnected.
        let _gone = outcome.send(result.and_then(reply));
    }

    /// Reads the configuration again. If it has a mistake, nothing changes.
    async fn reload(&mut self) -> Result<(), Failed> {
        systemd::reloading();
        let result = self.try_reload().await;
        match &result {
            Ok(()) => info!("configuration reloaded"),
            Err(failed) => {
                // Each mistake is on a separate line.
                let why = failed.message.replace('\n', "; ");
                error!(why, "configuration not reloaded, the old one stays in use: {why}");
            }
        }
        systemd::ready(&self.daemon.summary());
        result
    }

    async fn try_reload(&mut self) -> Result<(), Failed> {
        let config = check::load(self.file)?;
        if let Some(confined) = &self.confined {
            confined.check(&config)?;
        }
        let log = Log::prepare(&config)?;
        log_warnings(&config);
        self.daemon.reload(config).await?;
        self.log.put(log);
        Ok(())
    }

    /// Sends the state to the service manager, once the vault and the listeners have proved that they work. Otherwise
    /// its watchdog acts. Signals and commands do not wait for the proof.
    fn beat(&self, period: Duration) {
        let (proof, summary) = (self.daemon.prove(), self.daemon.summary());
        tokio::spawn(async move {
            match timeout(period, proof).await {
                Ok(()) => systemd::alive(&summary),
                Err(_) => {
                    error!(
                        "the vault or a listener does not answer; no watchdog signal is sent to the service manager"
                    );
                }
            }
        });
    }
}

/// Logs the configuration's warnings: settings that work but should be changed.
fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        warn!("{warning}");
    }
}

/// Half the watchdog's interval, as sd_watchdog_enabled(3) recommends.
fn heartbeat() -> Interval {
    let period = systemd::watchdog().map_or(HEARTBEAT, |limit| limit / 2).max(Duration::from_millis(1));
    let mut heartbeat = interval(period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

enum SignalAction {
    Reload,
    End,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup? })
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::End,
            _ = self.interrupt.recv() => SignalAction::End,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    /// Waits for a signal to stop.
    async fn end(&mut self) {
        while !matches!(self.next().await, SignalAction::End) {}
    }
}

/// Logs a panic, which is a defect and ends only its session or task. The log has its place but not its message,
/// because that may quote input, for example a password.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "a defect at {place} ended a session or task; please report it");
    }));
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, read_to_string};

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        let mut file = tempfile::tempfile().unwrap();
        let log = tracing_subscriber::fmt().with_writer(file.try_clone().unwrap()).with_ansi(false).finish();
        let before = std::panic::take_hook();
        super::log_panics();
        let panicked = tracing::subscriber::with_default(log, || std::panic::catch_unwind(|| panic!("correct horse")));
        std::panic::set_hook(before);
        file.rewind().unwrap();
        let lines = read_to_string(file).unwrap();
        assert!(panicked.is_err() && lines.contains("serve.rs:") && !lines.contains("horse"), "{lines}");
    }
}
