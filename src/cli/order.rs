//! `postkey reload`, `postkey log` and `postkey metrics`, which need a running daemon.

use super::admin::ask_running;
use super::terminal::say;
use crate::config::Config;
use crate::control::ControlRequest;
use crate::exit::Failed;

pub async fn reload(config: &Config) -> Result<(), Failed> {
    ask_running::<()>(config, &ControlRequest::Reload).await?;
    say("Configuration reloaded.");
    Ok(())
}

pub async fn log(config: &Config, filter: String) -> Result<(), Failed> {
    ask_running(config, &ControlRequest::Log(filter)).await
}

pub async fn metrics(config: &Config) -> Result<(), Failed> {
    say(ask_running::<String>(config, &ControlRequest::Metrics).await?.trim_end());
    Ok(())
}
