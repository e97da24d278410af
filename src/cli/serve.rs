//! `postkey` without a command: the daemon in the foreground.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::exit::{Exit, Failed};

pub async fn run(config: Config) -> Result<(), Failed> {
    start_log(&config.log)?;
    log_panics();
    let failed = |error| Failed::new(Exit::Os, format!("signals cannot be received: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut daemon = Daemon::start(config, Clock::System).await?;
    tokio::select! {
        failed = daemon.run() => return Err(failed),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    daemon.stop().await;
    info!("stopped");
    Ok(())
}

/// Logs to the standard error. A bare level is for postkey alone: libraries say little that helps at their lower levels.
fn start_log(log: &str) -> Result<(), Failed> {
    let is_level = !log.contains(['=', ',']);
    let directives = if is_level { format!("warn,postkey={log}") } else { log.to_owned() };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failed::new(Exit::Config, format!("log = \"{log}\" is not understood: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
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
