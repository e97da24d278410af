//! `postkey web`: the page on which a person sets accounts up.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::admin::{ask_daemon, ask_running};
use super::arguments::WebOptions;
use super::browser::{has_display, start_browser};
use super::serve::Program;
use super::terminal::{complain, say};
use crate::config::{Config, log_filter};
use crate::control::{self, ControlRequest};
use crate::exit::Failed;
use crate::net::systemd::Sockets;

/// How long a browser may take to start.
const START: Duration = Duration::from_secs(30);

/// Opens the page in the daemon, or closes it. If no daemon runs, this process is one until the page is closed.
pub async fn run(mut config: Config, file: Option<&Path>, sockets: Sockets, options: WebOptions) -> Result<(), Failed> {
    if options.stop {
        let was_open: bool = ask_running(&config, &ControlRequest::ClosePage).await?;
        say(if was_open { "The page is closed." } else { "No page was open." });
        return Ok(());
    }
    let request = || ControlRequest::OpenPage { users: options.users.clone() };
    let ask = async || ask_daemon::<String>(&config, &request()).await;
    let is_browsed = !options.no_browser && has_display();
    if let Some(link) = ask().await? {
        say(&link);
        // Another link for the browser, so that the one on the terminal is still good.
        if is_browsed && let Some(link) = ask().await? {
            browse(&link).await;
        }
        return Ok(());
    }
    // The terminal shows the link, and not every login.
    if config.log_file.is_none() {
        config.log = log_filter::of_level(LevelFilter::WARN);
    }
    let program = Program::start(config, None, file, sockets).await?;
    let ask = async || control::read::<String>(&program.daemon.answer(request()).await?);
    say(ask().await?);
    complain(
        "no daemon runs, so this command also serves mail programs, until the page is closed, has not been used for half \
         an hour, or you press Ctrl-C; to make it a service, run `systemctl --user enable --now postkey`",
    );
    let closed = program.daemon.page_closed();
    if is_browsed {
        let link = ask().await?;
        tokio::spawn(async move { browse(&link).await });
    }
    program.serve(closed).await
}

/// Opens a link in the user's browser. Its command line, which everybody can read, does not contain it.
async fn browse(link: &str) {
    let beginning = Url::parse(link).ok().and_then(|link| start_browser(&link));
    match beginning {
        // If no browser comes, the person can still open the link.
        Some(beginning) => drop(timeout(START, beginning.finish()).await),
        None => complain("cannot start a browser; open the link in one"),
    }
}
