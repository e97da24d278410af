//! Idle sessions, and sessions that come and go.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::Stage;
use crate::client::{Client, Way};
use crate::flood::flood;
use crate::postkey;
use crate::process::Process;
use crate::protocol::Protocol;
use crate::report::Report;

/// The number of clients that log in at a time.
const AT_ONCE: usize = 16;

/// One thread for each core, the main thread, and those that wait for the disk: they start when there is work, and end
/// ten seconds after it.
const THREADS: f64 = 8.0;

/// sled starts up to this many of its own, however many sessions there are.
const SLEDS: f64 = 8.0;

/// In a complete run, a flood runs during the second half of the time: a busy machine drops packets, and keepalive has
/// to cope with that.
pub async fn idle_and_flood(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let (dropped, given_up) = (dropped()?, given_up()?);
    let mut beside = report.beside();
    let flooded = async {
        sleep(stage.load.idle_for / 2).await;
        flood(stage, &mut beside).await
    };
    let (idled, flooded) = tokio::join!(idle(stage, report), flooded);
    report.take(beside);
    report.note("idle: packets that the system dropped meanwhile", (self::dropped()? - dropped) as f64, "packets");
    report.note("idle: connections that a timer gave up", (self::given_up()? - given_up) as f64, "ends");
    idled.and(flooded)
}

/// Packets that this machine has dropped because its internal queue was full: the second column of
/// `/proc/net/softnet_stat`, a line for each core.
fn dropped() -> io::Result<u64> {
    let table = std::fs::read_to_string("/proc/net/softnet_stat")?;
    let column = table.lines().filter_map(|line| line.split_whitespace().nth(1));
    Ok(column.filter_map(|number| u64::from_str_radix(number, 16).ok()).sum())
}

/// Connections of this machine that a timer has given up, `TCPAbortOnTimeout` in `/proc/net/netstat`.
fn given_up() -> io::Result<u64> {
    let table = std::fs::read_to_string("/proc/net/netstat")?;
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (lines.next().into_iter().flatten(), lines.next().into_iter().flatten());
    let found = names.zip(values).find(|(name, _)| *name == "TCPAbortOnTimeout");
    found.and_then(|(_, value)| value.parse().ok()).ok_or_else(|| io::Error::other("no TCPAbortOnTimeout"))
}

/// All are silent while some of them, in turn, send a NOOP. In the end everybody does.
pub async fn idle(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let postkey = postkey::start(stage.dir, stage.provider, stage.program).await?;
    let process = running(&postkey.process)?;
    for protocol in Protocol::ALL {
        postkey.way.login(protocol).await?;
    }
    let (count, empty) = (stage.load.idle.min(most_sessions()), process.resident()?);
    let mut clients = open(&postkey.way, count).await?;
    let mut times = Vec::new();
    let (mut lost, end) = (0, Instant::now() + stage.load.idle_for);
    // Beside a flood, the times are those of a busy machine.
    let quiet = if stage.load.beside { end - stage.load.idle_for / 2 } else { end };
    let mut tick = interval(Duration::from_millis(100));
    for turn in (0..count).cycle().step_by(97) {
        tick.tick().await;
        let start = Instant::now();
        lost += usize::from(clients[turn].noop().await.is_err());
        if start < quiet {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        if Instant::now() > end {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    let threads = process.threads()?;
    for client in &mut clients {
        lost += usize::from(client.noop().await.is_err());
    }
    report.all("idle: sessions, two descriptors each", count, stage.load.idle.min(9900), "sessions");
    report.none("idle: sessions that were lost", lost, "sessions");
    report.at_most("idle: memory", (process.resident()? - empty) / count as f64, 32.0, "KiB a session");
    count_threads("idle", &threads, report);
    report.note("idle: sampled NOOPs", times.len() as f64, "commands");
    report.in_time("idle: NOOP, 99th percentile", times[times.len() * 99 / 100], 50.0, "ms");
    let before_the_end = process.descriptors()?;
    drop(clients);
    let after = process.settled_descriptors(40, Duration::from_secs(10)).await?;
    report.at_least("idle: descriptors that were given back", (before_the_end - after) as f64, (2 * count) as f64, "");
    // The allocator has it for the next ones.
    report.note("idle: memory that stays afterwards", (process.resident()? - empty) / count as f64, "KiB a session");
    Ok(())
}

/// How long clients come and go until memory is compared. Within some fifteen seconds the allocator has taken one or two pieces
/// of 0.9 MB for its threads, each 4 % of all memory; after that it stays the same for minutes.
const ROUND: Duration = Duration::from_secs(4);

/// How many such rounds at most. Memory that still grows then is a leak, and what follows shows it.
const ROUNDS: u32 = 8;

/// Clients log in, send a command and disconnect, 200 a second.
pub async fn churn(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let postkey = postkey::start_as(stage.dir, "churn", stage.provider, stage.program, Default::default()).await?;
    let process = running(&postkey.process)?;
    // What the first clients leave is not a leak: caches, allocator, threads.
    let (mut resident, mut settled) = (process.resident()?, 0);
    for _ in 0..ROUNDS {
        come_and_go(&postkey.way, ROUND).await?;
        sleep(Duration::from_secs(1)).await;
        let before = std::mem::replace(&mut resident, process.resident()?);
        settled = if resident <= before * 1.005 { settled + 1 } else { 0 };
        if settled == 2 {
            break;
        }
    }
    let descriptors = process.descriptors()?;
    let (came, failed, elapsed) = come_and_go(&postkey.way, stage.load.churn_for).await?;
    // Not only until there are two more: those would belong to the last client, which has just disconnected.
    let after = process.settled_descriptors(descriptors, Duration::from_secs(5)).await?;
    report.at_a_rate("churn: clients", came as f64 / elapsed.as_secs_f64(), 190.0);
    report.none("churn: clients that were not served", failed, "clients");
    report.at_most("churn: descriptors more than before", after as f64 - descriptors as f64, 2.0, "descriptors");
    report.at_most("churn: memory more than before", (process.resident()? / resident - 1.0) * 100.0, 5.0, "%");
    count_threads("churn", &process.threads()?, report);
    Ok(())
}

fn count_threads(part: &str, threads: &[String], report: &mut Report) {
    let sleds = threads.iter().filter(|name| name.starts_with("sled")).count();
    report.at_most(&format!("{part}: threads"), (threads.len() - sleds) as f64, THREADS, "threads");
    report.at_most(&format!("{part}: sled's threads"), sleds as f64, SLEDS, "threads");
}

/// How many connected, how many of them failed, and how long it took.
async fn come_and_go(way: &Way, time: Duration) -> io::Result<(usize, usize, Duration)> {
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut clients) = (Instant::now(), JoinSet::new());
    for protocol in Protocol::ALL.into_iter().cycle() {
        tick.tick().await;
        let way = way.clone();
        clients.spawn(async move { way.login(protocol).await?.noop().await });
        if start.elapsed() > time {
            break;
        }
    }
    let outcomes = clients.join_all().await;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err());
    Ok((outcomes.len(), failed.inspect(|error| eprintln!("load: {error:?}")).count(), start.elapsed()))
}

/// The process, which postkey has.
pub fn running(process: &Option<Process>) -> io::Result<&Process> {
    process.as_ref().ok_or_else(|| io::Error::other("postkey has no process"))
}

/// Logs this many clients in, with all protocols.
pub async fn open(way: &Way, count: usize) -> io::Result<Vec<Client>> {
    let mut opening = JoinSet::new();
    for first in 0..AT_ONCE {
        let way = way.clone();
        opening.spawn(async move {
            let mut clients = Vec::new();
            for number in (first..count).step_by(AT_ONCE) {
                clients.push(way.login(Protocol::ALL[number % 3]).await?);
            }
            io::Result::Ok(clients)
        });
    }
    let opened = opening.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?;
    Ok(opened.into_iter().flatten().collect())
}

/// As many as postkey can have here. Each takes two descriptors, and a hundred are reserved.
fn most_sessions() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(100) / 2
}
