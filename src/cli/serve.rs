//! `postkey` without a command: the daemon in the foreground.

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::exit::{Exit, Failed};

pub async fn run(config: Config) -> Result<(), Failed> {
    start_log(&config.log)?;
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
