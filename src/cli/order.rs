//! `postkey reload`, `postkey log` and `postkey metrics`: for the running daemon alone.

use super::hand::ask_daemon;
use super::terminal::say;
use crate::config::Config;
use crate::control::{Reply, Request};
use crate::exit::{Exit, Failed};

pub async fn reload(config: &Config) -> Result<(), Failed> {
    ask(config, Request::Reload).await?;
    say("The configuration has been read anew.");
    Ok(())
}

pub async fn log(config: &Config, filter: String) -> Result<(), Failed> {
    ask(config, Request::Log(filter)).await.map(drop)
}

pub async fn metrics(config: &Config) -> Result<(), Failed> {
    match ask(config, Request::Metrics).await? {
        Reply::Metrics(text) => say(text.trim_end()),
        _ => return Err(Failed::new(Exit::Software, "the daemon's answer is of another kind; restart it")),
    }
    Ok(())
}

async fn ask(config: &Config, request: Request) -> Result<Reply, Failed> {
    match ask_daemon(config, &request).await? {
        Some(Reply::Failed(failed)) => Err(failed),
        Some(reply) => Ok(reply),
        None => Err(Failed::new(Exit::Unavailable, "no daemon runs; `postkey` starts it")),
    }
}
