//! `postkey` without a command: the daemon in the foreground, and what it is told by signals and commands.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::confine::Confined;
use crate::control::{Order, Request};
use crate::daemon::{Daemon, Event, STOP};
use crate::exit::{Exit, Failed};
use crate::log::Log;
use crate::net::systemd::{self, Sockets};

/// How often the service manager is told how things are, where it has no watchdog that wants it more often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Serves until it is told to stop. `file` is the configuration file that was named.
pub async fn run(
    config: Config,
    confined: Option<&Confined>,
    file: Option<&Path>,
    sockets: Sockets,
) -> Result<(), Failed> {
    let log = Log::start(&config)?;
    confined.inspect(|confined| confined.tell());
    log_panics();
    log_warnings(&config);
    let mut signals =
        Signals::new().map_err(|error| Failed::new(Exit::Os, format!("signals cannot be received: {error}")))?;
    let daemon = Daemon::start_with(config, Clock::System, sockets).await?;
    systemd::ready(&daemon.summary());
    let mut program = Program { daemon, log, file };
    let mut heartbeat = heartbeat();
    loop {
        tokio::select! {
            event = program.daemon.next() => match event {
                Event::Order(order) => program.obey(order).await,
                Event::Failed(failed) => return Err(failed),
            },
            wish = signals.next() => match wish {
                Wish::Reload => drop(program.reload().await),
                Wish::End => break,
            },
            _ = heartbeat.tick() => program.beat(heartbeat.period()),
        }
    }
    systemd::stopping(STOP + Duration::from_secs(5));
    info!("stopping; a second signal does not wait");
    tokio::select! {
        () = program.daemon.stop() => info!("stopped"),
        () = signals.end() => warn!("stopped without waiting"),
    }
    Ok(())
}

/// The daemon, and what only the whole program can change.
struct Program<'a> {
    daemon: Daemon,
    log: Log,
    file: Option<&'a Path>,
}

impl Program<'_> {
    async fn obey(&mut self, Order { request, outcome }: Order) {
        let result = match request {
            Request::Reload => self.reload().await,
            Request::Log(filter) => self.log.set_filter(&filter),
            _ => Err(Failed::new(Exit::Software, "this is no order")),
        };
        // Who has asked may be gone.
        let _gone = outcome.send(result);
    }

    /// Reads the configuration anew; where it has a mistake, everything stays as it was.
    async fn reload(&mut self) -> Result<(), Failed> {
        systemd::reloading();
        let result = self.try_reload().await;
        match &result {
            Ok(()) => info!("the configuration has been read anew"),
            Err(failed) => error!(why = failed.message, "the configuration is not changed"),
        }
        systemd::ready(&self.daemon.summary());
        result
    }

    async fn try_reload(&mut self) -> Result<(), Failed> {
        let config = super::load(self.file)?;
        let log = Log::prepare(&config)?;
        log_warnings(&config);
        self.daemon.reload(config).await?;
        self.log.put(log);
        Ok(())
    }

    /// Tells the service manager how things are, unless something that has to work does not: then its watchdog will act.
    /// Signals and commands are not held up by that.
    fn beat(&self, period: Duration) {
        let (proof, summary) = (self.daemon.prove(), self.daemon.summary());
        tokio::spawn(async move {
            match timeout(period, proof).await {
                Ok(()) => systemd::alive(&summary),
                Err(_) => {
                    error!("the vault or a listener does not answer; the service manager is not told that all is well");
                }
            }
        });
    }
}

/// Says what of the configuration can be used, and should not be.
fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        warn!("{warning}");
    }
}

/// Twice as often as the watchdog wants it, sd_watchdog_enabled(3).
fn heartbeat() -> Interval {
    let period = systemd::watchdog().map_or(HEARTBEAT, |limit| limit / 2).max(Duration::from_millis(1));
    let mut heartbeat = interval(period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// What a signal asks for.
enum Wish {
    Reload,
    End,
}

/// The signals that ask for something.
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

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for one that asks for the end.
    async fn end(&mut self) {
        while !matches!(self.next().await, Wish::End) {}
    }
}

/// A panic is a defect, and it ends the one session or task that it happens in. Where it happened is logged, its message is
/// not: that may quote what was being read, a password for example.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "a defect has ended this session or task; please report it");
    }));
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_words() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let before = std::panic::take_hook();
        super::log_panics();
        let panicked = tracing::subscriber::with_default(log, || std::panic::catch_unwind(|| panic!("correct horse")));
        std::panic::set_hook(before);
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(panicked.is_err() && lines.contains("serve.rs:") && !lines.contains("horse"), "{lines}");
    }
}
