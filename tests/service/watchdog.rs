//! The watchdog's ping stops when the runtime, the vault or an accept loop hangs, and returns when it does.
//!
//! strace(1) makes them hang: it delays the system calls that each of them makes, in the program as it is shipped.

use std::fs::{self, DirEntry};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::manager::{Service, Start, house};
use crate::support::house::ANN;
use crate::support::process::Process;
use crate::support::skipped::skipped;

/// The limit that the service manager sets, in microseconds. Two pings fit into it.
const LIMIT: &str = "200000";

/// Ten limits.
const SILENCE: Duration = Duration::from_secs(2);

/// Delays system calls of a process for as long as it lives.
struct Hold {
    strace: Child,
    /// strace ends if nobody reads its output.
    _said: BufReader<ChildStderr>,
}

impl Hold {
    /// They are delayed when this returns. None if there is no strace.
    fn on(process: u32, calls: &str) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--output=/dev/null", &format!("--attach={process}")]);
        command.args([format!("--trace={calls}"), format!("--inject={calls}:delay_enter=60s")]);
        let Ok(mut strace) = command.stderr(Stdio::piped()).spawn() else {
            skipped("there is no strace");
            return None;
        };
        let (mut said, mut line) = (BufReader::new(strace.stderr.take().unwrap()), String::new());
        said.read_line(&mut line).unwrap();
        if !line.contains("attached") {
            skipped(&format!("strace cannot attach: {line}"));
            return None;
        }
        Some(Self { strace, _said: said })
    }
}

/// Lets the calls continue.
impl Drop for Hold {
    fn drop(&mut self) {
        let _ended = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _reaped = self.strace.wait();
    }
}

/// Stops a process, and waits until each of its threads has stopped, because a busy machine takes a while.
fn stop(process: &Process) {
    process.signal(Signal::STOP);
    let tasks = format!("/proc/{}/task", process.id());
    let has_stopped = |task: DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap();
        // Its state follows its name, which is in parentheses (proc(5)).
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    while !fs::read_dir(&tasks).unwrap().all(|task| has_stopped(task.unwrap())) {
        std::thread::yield_now();
    }
}

async fn service() -> Service {
    // Two threads, also on a machine with one core.
    let environment = [("WATCHDOG_USEC", LIMIT), ("TOKIO_WORKER_THREADS", "2")];
    let mut service =
        Service::start(house(|config| config).await, Start { environment: &environment, ..Start::default() }).await;
    service.hear("WATCHDOG=1");
    service
}

const COMPLAINT: &str = "the vault or a listener does not answer";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_loop_that_hangs_is_noticed() {
    let mut service = service().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(service.house.program(Protocol::Pop3, Security::Clear).await);
    }
    // All arrive at once: the thread that does what a session wants then serves all others, too. One session would not be
    // enough, because it may just not wait for its client yet. strace would let the threads continue between its own stops
    // and this one, so it comes last.
    stop(&service.process);
    let _client = TcpStream::connect(("127.0.0.1", service.house.port(Protocol::Pop3, Security::Tls))).await.unwrap();
    for session in &mut sessions {
        session.client.say("CAPA").await;
    }
    let hold = Hold::on(service.process.id(), "accept4");
    service.process.signal(Signal::CONT);
    let Some(hold) = hold else { return };
    service.process.hear_complaint(COMPLAINT);
    service.hear_silence(SILENCE);
    drop(hold);
    service.hear("WATCHDOG=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_hangs_is_noticed() {
    let mut service = service().await;
    let Some(hold) = Hold::on(service.process.id(), "fsync") else { return };
    let mut command = service.house.begin(&["password", "add", ANN, "printer"]);
    command.say(&service.house.password);
    service.process.hear_complaint(COMPLAINT);
    service.hear_silence(SILENCE);
    // Signals are still handled meanwhile.
    service.process.signal(Signal::HUP);
    service.hear("RELOADING=1");
    drop(hold);
    service.hear("WATCHDOG=1");
    assert_eq!(command.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_hangs_is_noticed() {
    let mut service = service().await;
    let Some(hold) = Hold::on(service.process.id(), "epoll_wait") else { return };
    service.hear_silence(SILENCE);
    drop(hold);
    service.hear("WATCHDOG=1");
}
