//! When the system has no descriptors or no memory left.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::Stage;
use crate::client::{Client, Way};
use crate::idle::{open, running};
use crate::postkey::{self, Setup};
use crate::process::Process;
use crate::protocol::Protocol;
use crate::report::Report;
use crate::upstream::noise;

/// The answer to a client for which there is no descriptor: RFC 5530, RFC 3206, RFC 3463.
const NO_DESCRIPTOR: [&str; 3] = ["* BYE [UNAVAILABLE]", "-ERR [SYS/TEMP]", "421 4.3.2"];

/// The refusal of a login for which there is no session: RFC 5530, RFC 3206, RFC 4954.
const NO_SESSION: [&str; 3] = ["a NO [UNAVAILABLE]", "-ERR [SYS/TEMP]", "454 4.7.0"];

/// What each client that does not read is sent, in octets: more than fits in the sockets' buffers.
const FLOOD: u64 = 12 << 20;

/// More than can be admitted in these tests.
const MANY: usize = 20_000;

/// A daemon with 64 descriptors, and more clients than it can serve.
pub async fn descriptors(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let setup = Setup { under: &["prlimit", "--nofile=64"], ..Setup::default() };
    let postkey = postkey::start_as(stage.dir, "few", stage.provider, stage.program, setup).await?;
    let process = running(&postkey.process)?;
    let mut clients = fill(&postkey.way).await;
    report.at_least("64 descriptors: clients that are served", clients.len() as f64, 12.0, "clients");
    refused(&postkey.way, "64 descriptors", report).await;
    let mut late = Vec::new();
    for _ in 0..50 {
        late.push(TcpStream::connect(("127.0.0.1", postkey.way.ports.imap)).await?);
    }
    idle_cpu(process, "64 descriptors", report).await?;
    let lost = lost(&mut clients).await;
    report.none("64 descriptors: sessions that were lost", lost, "sessions");
    drop((clients, late));
    recovers(&postkey.way, "64 descriptors", report).await;
    Ok(())
}

/// A daemon with enough of them, until somebody lowers the limit: then accept(2) fails.
pub async fn exhausted(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let postkey = postkey::start_as(stage.dir, "none", stage.provider, stage.program, Setup::default()).await?;
    let process = running(&postkey.process)?;
    let mut clients = open(&postkey.way, 6).await?;
    let (id, all) = (Pid::from_raw(process.id().cast_signed()), getrlimit(Resource::Nofile));
    prlimit(id, Resource::Nofile, Rlimit { current: Some(process.descriptors()? as u64), ..all })?;
    // Some of these get the numbers that were free below the limit.
    let mut late = Vec::new();
    for _ in 0..50 {
        late.push(TcpStream::connect(("127.0.0.1", postkey.way.ports.imap)).await?);
    }
    told(&postkey.way, "exhausted", report).await;
    idle_cpu(process, "exhausted", report).await?;
    let lost = lost(&mut clients).await;
    report.none("exhausted: sessions that were lost", lost, "sessions");
    prlimit(id, Resource::Nofile, all)?;
    recovers(&postkey.way, "exhausted", report).await;
    Ok(())
}

/// A daemon with little address space, and as many clients as it accepts, some of which do not read.
pub async fn memory(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let setup = Setup { under: &["prlimit", "--as=1073741824"], ..Setup::default() };
    let postkey = postkey::start_as(stage.dir, "small", stage.provider, stage.program, setup).await?;
    let clients = fill(&postkey.way).await;
    let count = clients.len();
    report.at_least("1 GiB address space: clients that are served", count as f64, 500.0, "clients");
    refused(&postkey.way, "1 GiB address space", report).await;
    let mut clients = clients.into_iter();
    let mut stalled = Vec::new();
    // Not all, because the system's own buffers for so many sockets would be gigabytes.
    for client in clients.by_ref().take(100) {
        stalled.push(client.noise(FLOOD, 5).await?);
    }
    sleep(Duration::from_secs(3)).await;
    refused(&postkey.way, "1 GiB, some do not read", report).await;
    let (mut waiting, mut gone) = (clients.collect::<Vec<_>>(), 0);
    for stream in &mut stalled {
        gone += usize::from(!noise::receive(stream, FLOOD, false).await.is_ok_and(|(size, _)| size == FLOOD));
    }
    gone += lost(&mut waiting).await;
    report.none("1 GiB address space: sessions that were lost", gone, "sessions");
    drop(waiting);
    drop(stalled);
    recovers(&postkey.way, "1 GiB address space", report).await;
    Ok(())
}

/// Logs clients in until one is refused.
async fn fill(way: &Way) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..MANY {
        match way.login(Protocol::ALL[number % 3]).await {
            Ok(client) => clients.push(client),
            Err(_) => break,
        }
    }
    clients
}

/// Whether logins with each protocol are refused temporarily, and for no other reason, when all sessions are taken.
async fn refused(way: &Way, part: &str, report: &mut Report) {
    for protocol in Protocol::ALL {
        let mut is_refused = true;
        for _ in 0..20 {
            let met = timeout(Duration::from_secs(5), way.login(protocol)).await;
            let said = met.map(|login| login.map(drop).map_err(|error| error.to_string()));
            if !matches!(&said, Ok(Err(words)) if words.contains(NO_SESSION[protocol as usize])) {
                eprintln!("load: {part}: {protocol}: {said:?}");
                is_refused = false;
                break;
            }
        }
        report.so(&format!("{part}: {protocol} logins are refused for now"), is_refused);
    }
}

/// Whether clients of each protocol are told that there is no descriptor, and disconnected, however soon one follows
/// another.
async fn told(way: &Way, part: &str, report: &mut Report) {
    for protocol in Protocol::ALL {
        let mut is_told = true;
        for _ in 0..20 {
            let met = timeout(Duration::from_secs(5), meet(way, protocol)).await;
            if !matches!(&met, Ok(Ok(said)) if said.starts_with(NO_DESCRIPTOR[protocol as usize])) {
                eprintln!("load: {part}: {protocol}: {met:?}");
                is_told = false;
                break;
            }
        }
        report.so(&format!("{part}: {protocol} clients are told to try later"), is_told);
    }
}

/// What a server sends before it closes the connection.
async fn meet(way: &Way, protocol: Protocol) -> io::Result<String> {
    let mut said = String::new();
    TcpStream::connect(("127.0.0.1", way.ports.of(protocol))).await?.read_to_string(&mut said).await?;
    Ok(said)
}

async fn idle_cpu(process: &Process, part: &str, report: &mut Report) -> io::Result<()> {
    let (start, before) = (Instant::now(), process.settled_cpu().await?);
    sleep(Duration::from_secs(2)).await;
    let used = (process.cpu()? - before) / start.elapsed().as_secs_f64();
    report.at_most(&format!("{part}: CPU time"), used * 100.0, 5.0, "%");
    Ok(())
}

/// The number of them that get no answer any more.
async fn lost(clients: &mut [Client]) -> usize {
    let mut lost = 0;
    for client in clients {
        lost += usize::from(client.noop().await.is_err());
    }
    lost
}

/// The time until somebody is served again. A session whose client is gone waits a second for its provider
/// (docs/design/decisions/0009-half-close.md).
async fn recovers(way: &Way, part: &str, report: &mut Report) {
    let start = Instant::now();
    while way.login(Protocol::Imap).await.is_err() && start.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(10)).await;
    }
    report.in_time(&format!("{part}: time until somebody is served again"), start.elapsed().as_secs_f64(), 3.0, "s");
}
