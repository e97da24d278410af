//! Notifies a person: runs the configured command, with the notification in its environment.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tracing::{debug, info, warn};
use url::Url;

use crate::process_group::{self, ProcessGroup};
use crate::wire::printable;

/// How long a run may take, for example to send a mail or to ask a distant server. Then it is killed.
const RUN: Duration = Duration::from_secs(30);

/// The number of notices that can wait: more than there usually are accounts. Any others are only logged.
const WAITING: usize = 1000;

/// The most output to read, in bytes.
const OUTPUT: u64 = 16 * 1024;

/// The kind of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeEvent {
    /// Nothing more happens for this account until a person acts.
    PersonNeeded,
    /// A person is no longer needed.
    Settled,
    /// Something expires soon that a person can renew.
    EndsSoon,
}

impl NoticeEvent {
    pub const fn name(self) -> &'static str {
        match self {
            Self::PersonNeeded => "person-needed",
            Self::Settled => "settled",
            Self::EndsSoon => "ends-soon",
        }
    }
}

/// A notice for a person.
#[derive(Clone, Debug)]
pub struct Notice {
    pub event: NoticeEvent,
    /// The account's address; empty if the notice concerns all accounts of a provider.
    pub account: String,
    /// A line that says what has happened, and what to do.
    pub reason: String,
    /// The page to visit, if there is one.
    pub url: Option<Url>,
}

/// Runs the command for one notice at a time, in the background.
pub struct Notifier {
    queue: mpsc::Sender<(Vec<String>, Notice)>,
    waiting: Mutex<mpsc::Receiver<(Vec<String>, Notice)>>,
}

impl Default for Notifier {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self { queue, waiting: Mutex::new(waiting) }
    }
}

impl Notifier {
    /// Queues a run of `command`, a program and its arguments, with this notice. Without a command, the notice is only
    /// logged.
    pub fn tell(&self, command: &[String], notice: Notice) {
        info!(
            account = notice.account,
            event = notice.event.name(),
            reason = notice.reason,
            "notice {} for {}: {}",
            notice.event.name(),
            if notice.account.is_empty() { "all accounts" } else { &notice.account },
            notice.reason
        );
        if !command.is_empty() && self.queue.try_send((command.to_vec(), notice)).is_err() {
            warn!("notify_command not run for the last notice: {WAITING} others wait for it");
        }
    }

    /// Runs the queued commands. Never ends.
    pub async fn serve(&self) {
        let mut waiting = self.waiting.lock().await;
        while let Some((command, notice)) = waiting.recv().await {
            let account = &notice.account;
            match run(&command, &notice).await {
                Ok(Some(status)) if status.success() => debug!(account, "notify_command ran for {account}"),
                Ok(Some(status)) => warn!(account, %status, "notify_command failed for {account}: {status}"),
                Ok(None) => {
                    warn!(account, "notify_command killed for {account}: it took longer than {} s", RUN.as_secs())
                }
                Err(error) => warn!(account, %error, "cannot run notify_command for {account}: {error}"),
            }
        }
    }
}

/// Runs the command to its end; None if it was killed after its time limit. Its output goes to the log.
async fn run(command: &[String], notice: &Notice) -> io::Result<Option<ExitStatus>> {
    let (mut child, group, output) = start(command, notice)?;
    let (ended, ()) = match timeout(RUN, async { tokio::join!(child.wait(), log(output)) }).await {
        Ok(ended) => ended,
        Err(_) => {
            group.kill();
            child.wait().await?;
            return Ok(None);
        }
    };
    ended.map(Some)
}

/// Starts the command, with its output in a pipe.
fn start(command: &[String], notice: &Notice) -> io::Result<(Child, ProcessGroup, pipe::Receiver)> {
    let mut command = process_group::command(command)?;
    let (reader, writer) = io::pipe()?;
    command
        .env("POSTKEY_EVENT", notice.event.name())
        .env("POSTKEY_ACCOUNT", &notice.account)
        .env("POSTKEY_REASON", &notice.reason)
        .env("POSTKEY_URL", notice.url.as_ref().map_or("", Url::as_str))
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let (child, group) = process_group::start(&mut command)?;
    Ok((child, group, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

async fn log(output: pipe::Receiver) {
    let mut lines = BufReader::new(output.take(OUTPUT)).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let said = printable(&String::from_utf8_lossy(&line));
        info!(said, "notify_command says: {said}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use tokio::time::Instant;

    fn notice(event: NoticeEvent) -> Notice {
        let url = Url::parse("https://auth.example.test/?a=1").ok();
        Notice { event, account: "ann@example.test".into(), reason: "it's $(over); sign in".into(), url }
    }

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn the_command_gets_the_notice_in_its_environment_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("environment");
        let command = shell(&format!("env >{}", file.display()));
        assert!(run(&command, &notice(NoticeEvent::PersonNeeded)).await.unwrap().unwrap().success());
        let environment = std::fs::read_to_string(file).unwrap();
        for line in [
            "POSTKEY_EVENT=person-needed",
            "POSTKEY_ACCOUNT=ann@example.test",
            "POSTKEY_REASON=it's $(over); sign in",
            "POSTKEY_URL=https://auth.example.test/?a=1",
        ] {
            assert!(environment.lines().any(|one| one == line), "{line} is not in\n{environment}");
        }
        // The shell adds two or three of its own; cargo's are not passed on.
        assert!(!environment.contains("CARGO"), "{environment}");
    }

    #[tokio::test]
    async fn commands_run_one_at_a_time_and_in_order_even_after_a_failure() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("events");
        let (notifier, done) = (Notifier::default(), file.display());
        let script = format!("mkdir {0}.lock && echo $POSTKEY_EVENT >>{0} && rmdir {0}.lock; exit 3", done);
        notifier.tell(&["/nowhere/at/all".to_owned()], notice(NoticeEvent::Settled));
        for event in [NoticeEvent::PersonNeeded, NoticeEvent::Settled, NoticeEvent::EndsSoon] {
            notifier.tell(&shell(&script), notice(event));
        }
        notifier.tell(&[], notice(NoticeEvent::Settled));
        let events = || std::fs::read_to_string(&file).unwrap_or_default();
        let all = async {
            while events().lines().count() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = notifier.serve() => panic!("it never ends"),
            () = all => {}
        }
        assert_eq!(events(), "person-needed\nsettled\nends-soon\n");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_its_children() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("pid");
        let begun = Instant::now();
        let command = shell(&format!("sleep 1000 & echo $! >{}; wait", file.display()));
        let notice = notice(NoticeEvent::EndsSoon);
        let running = run(&command, &notice);
        let time = async {
            while std::fs::read_to_string(&file).unwrap_or_default().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::pause();
            tokio::time::advance(RUN).await;
            tokio::time::resume();
        };
        let (ended, ()) = tokio::join!(running, time);
        assert!(ended.unwrap().is_none() && begun.elapsed() >= RUN);
        let child = std::fs::read_to_string(file).unwrap();
        let file = format!("/proc/{}/stat", child.trim());
        // The kill takes a moment, and init may not collect the process at once.
        let is_dead = || std::fs::read_to_string(&file).map_or(true, |state| state.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_dead() {
            assert!(Instant::now() < deadline, "it is still running");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
