//! What the tests measure: how long an answer takes, and which sockets and tasks exist.

use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::support::house::{ANN, House, skip, until};

/// How each protocol says that a login may be tried later, in the order of [`Protocol::ALL`].
pub const TRY_LATER: [&str; 3] = ["a NO [UNAVAILABLE] ", "-ERR [SYS/TEMP] ", "454 4.7.0 "];
/// How it says that a person has to act first.
pub const ACT: [&str; 3] = ["a NO [ALERT] ", "-ERR [SYS/PERM] ", "535 5.7.8 "];

/// Advances all timers by a second every few milliseconds until this is done. Returns its result, and the seconds that
/// it took. What has to be done meanwhile takes its real time, so a few seconds are this machine's.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, u64) {
    let mut work = pin!(work);
    for seconds in 0..3600 {
        let real = Duration::from_millis(if seconds == 0 { 200 } else { 5 });
        if let Ok(value) = tokio::time::timeout(real, &mut work).await {
            return (value, seconds);
        }
        skip(Duration::from_secs(1)).await;
    }
    panic!("it takes more than an hour");
}

/// A mail program that has sent its login and waits without a limit.
pub struct Waiting {
    stream: BufReader<Box<dyn AsyncRead + Unpin>>,
    pub protocol: Protocol,
}

/// Sends a login and does not wait for its answer.
pub async fn begin_login(house: &House, protocol: Protocol) -> Waiting {
    let mut program = house.program(protocol, Security::Clear).await;
    let verb = ["a AUTHENTICATE", "AUTH", "AUTH"][protocol as usize];
    let message = BASE64_STANDARD.encode(format!("\0{ANN}\0{}", house.password));
    program.client.say(&format!("{verb} PLAIN {message}")).await;
    Waiting { stream: BufReader::new(Box::new(Box::pin(program.client.into_stream()))), protocol }
}

/// The same with each protocol.
pub async fn begin_logins(house: &House) -> Vec<Waiting> {
    let mut logins = Vec::new();
    for protocol in Protocol::ALL {
        logins.push(begin_login(house, protocol).await);
    }
    logins
}

impl Waiting {
    /// The answer, however long it takes.
    pub async fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("a connection that is alive");
        line
    }
}

/// Waits until all are answered, each in the words of its protocol. Returns how many seconds that took.
pub async fn answered(logins: &mut [Waiting], words: [&str; 3], what: &str) -> u64 {
    let answers = async {
        for login in &mut *logins {
            let reply = login.answer().await;
            assert!(reply.starts_with(words[login.protocol as usize]), "{what}: {reply}");
        }
    };
    timed(answers).await.1
}

/// The sockets that a process has and that have one of these ports at either end, except listeners.
pub fn sockets(ports: &[u16]) -> usize {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|file| std::fs::read_to_string(file).unwrap());
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    let counts = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // proc(5): 1 and 2 are the ends, 3 is the state, where 0A is a listener, and 9 is the inode, 0 once it is
        // closed.
        let ends = [port(fields[1]), port(fields[2])];
        fields[3] != "0A" && fields[9] != "0" && ends.iter().any(|end| ports.contains(end))
    };
    tables.iter().flat_map(|table| table.lines().skip(1)).filter(counts).count()
}

/// What exists before something happens, and has to exist again afterwards.
pub struct Belongings {
    ports: Vec<u16>,
    sockets: usize,
    tasks: usize,
}

impl Belongings {
    /// The tasks of this test's runtime, and the sockets at postkey's listeners and at these ports.
    pub fn of(house: &House, ports: &[u16]) -> Self {
        let listeners = Protocol::ALL.map(|protocol| house.port(protocol, Security::Clear));
        let ports = [&listeners, ports].concat();
        Self { sockets: sockets(&ports), tasks: tasks(), ports }
    }

    /// Waits until nothing more is left. Fails if that does not happen.
    pub async fn are_all(&self, what: &str) {
        until(&format!("{what}: no socket left behind"), async || sockets(&self.ports) <= self.sockets).await;
        until(&format!("{what}: no task left behind"), async || tasks() <= self.tasks).await;
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
