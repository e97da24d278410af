//! A disk that is full or fails, at each call with which the vault writes or reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::kill::spread;
use crate::trace::{self, Call, Point, Trace};
use crate::world::{ANN, Beginning, Daemon, World};

/// The calls that can fail on a full or failing disk.
const WRITES: [&str; 10] = [
    "openat",
    "write",
    "writev",
    "pwrite64",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "rename",
    "renameat2",
];

/// The calls that can fail on a disk that cannot be read.
const READS: [&str; 4] = ["openat", "read", "pread64", "getdents64"];

/// How soon a disk that works again has to be in use again.
const HEALED: Duration = Duration::from_secs(10);

/// When the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// As the daemon starts.
    Start,
    /// As a login brings a new refresh token.
    Refresh,
}

/// One way to fail.
#[derive(Clone)]
struct Fault {
    when: When,
    point: Point,
    error: &'static str,
    /// Once, or from there on.
    on: bool,
    /// Whether it is a call that only reads.
    reads: bool,
    paths: Vec<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { when, point, error, on, .. } = self;
        write!(f, "{when:?}, {error} at {point}{}", if *on { " and all later ones" } else { "" })
    }
}

/// Lets this many calls fail at each of both times, in every way. Returns whether all is well.
pub async fn run(worlds: &[World], most: usize) -> Result<bool, String> {
    println!("\nFailing disks");
    let [first, ..] = worlds else { return Err("no world".to_owned()) };
    let mut faults = VecDeque::new();
    for when in [When::Start, When::Refresh] {
        let (possible, chosen) = survey(first, when, most).await?;
        println!("  {when:?}: {possible} calls, {} ways to fail", chosen.len());
        faults.extend(chosen);
    }
    let (began, count) = (Instant::now(), faults.len());
    let (faults, failed) = (Mutex::new(faults), Mutex::new(Vec::new()));
    crate::all(worlds.iter().map(|world| work(world, &faults, &failed))).await;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("  {count} faults, {} FAILED, {:.1} a second", failed.len(), count as f64 / began.elapsed().as_secs_f64());
    for why in &failed {
        println!("  FAILED {}", why.replace('\n', "\n         | "));
    }
    Ok(failed.is_empty())
}

/// Records the calls with which the vault is written.
async fn survey(world: &World, when: When, most: usize) -> Result<(usize, Vec<Fault>), String> {
    let trace = Trace::watch(&world.path("trace"));
    begin(world, when).await?;
    let daemon = match when {
        When::Start => world.start(Some(&trace)).await?,
        When::Refresh => world.serve().await?,
    };
    if when == When::Refresh {
        let attached = trace.attach(daemon.pid().ok_or("the daemon has ended")?).await?;
        daemon.log_in(ANN, &world.main).await?;
        // What is written after the answer.
        sleep(Duration::from_millis(200)).await;
        attached.detach().await?;
    }
    daemon.kill().await?;
    let state = format!("{}/", world.state_dir().display());
    let touches = |call: &Call| call.files(&state).iter().any(|file| !file.ends_with("/control"));
    let calls: Vec<Call> = trace.calls().await.into_iter().filter(touches).collect();
    let paths: BTreeSet<String> = calls.iter().flat_map(|call| call.files(&state)).collect();
    let paths: Vec<String> = paths.into_iter().collect();
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (point, call) in trace::points(&calls) {
        let way = |(error, on), reads| Fault { when, point: point.clone(), error, on, reads, paths: paths.clone() };
        let creates = call.text.contains("O_CREAT");
        if call.is(&WRITES) && (call.name != "openat" || creates) {
            writes.extend(
                [("ENOSPC", false), ("ENOSPC", true), ("EIO", false), ("EIO", true)].map(|how| way(how, false)),
            );
        } else if call.is(&READS) {
            reads.extend([("EIO", false), ("EIO", true)].map(|how| way(how, true)));
        }
    }
    let possible = writes.len() / 4 + reads.len() / 2;
    Ok((possible, spread(writes, most).into_iter().chain(spread(reads, most)).collect()))
}

async fn begin(world: &World, when: When) -> Result<(), String> {
    world.begin(if when == When::Start { Beginning::Ready } else { Beginning::Expired }).await
}

async fn work(world: &World, faults: &Mutex<VecDeque<Fault>>, failed: &Mutex<Vec<String>>) {
    loop {
        let Some(fault) = faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return };
        if let Err(why) = strike(world, &fault).await {
            let why = format!("{fault}: {why}\n{}", world.log());
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        }
    }
}

/// The login works while the disk does not. Later nothing is missing, even after a kill.
async fn strike(world: &World, fault: &Fault) -> Result<(), String> {
    let Fault { when, point, error, on, reads, paths } = fault;
    let trace = Trace::fail(&world.path("trace"), point, *on, error, paths);
    begin(world, *when).await?;
    let before = sizes(&world.state_dir());
    if *when == When::Start {
        let daemon = world.start(Some(&trace)).await?;
        if daemon.port == 0 && *reads {
            return check_refusal(world, &before).await;
        }
        daemon.log_in(ANN, &world.main).await.map_err(|reply| format!("on a failing disk: {reply}"))?;
        daemon.kill().await?;
    } else {
        let daemon = world.serve().await?;
        let attached = trace.attach(daemon.pid().ok_or("the daemon has ended")?).await?;
        for _ in 0..2 {
            daemon.log_in(ANN, &world.main).await.map_err(|reply| format!("on a failing disk: {reply}"))?;
        }
        world.ben_logs_in(&daemon).await?;
        attached.detach().await?;
        wait_until_healed(world).await?;
        daemon.kill().await?;
    }
    check_sizes(&before, &sizes(&world.state_dir()))?;
    check_restart(world).await
}

/// A daemon that cannot read its vault may refuse to start, if it says why and changes nothing.
async fn check_refusal(world: &World, before: &BTreeMap<String, u64>) -> Result<(), String> {
    let log = world.log();
    if !log.contains("cannot be read or written: ") || !log.contains(&world.state_dir().display().to_string()) {
        return Err("it does not start, and does not say which file it cannot read".to_owned());
    }
    check_sizes(before, &sizes(&world.state_dir()))?;
    check_restart(world).await
}

/// As after any kill, the vault has the refresh token that the server accepts next.
async fn check_restart(world: &World) -> Result<(), String> {
    world.provider.revoke_access_tokens();
    let daemon: Daemon = world.serve().await?;
    daemon.log_in(ANN, &world.main).await.map_err(|reply| format!("lost: {reply}"))?;
    world.ben_logs_in(&daemon).await?;
    daemon.kill().await?;
    if world.provider.memory().has_ended(ANN) { Err("a refresh token was used twice".to_owned()) } else { Ok(()) }
}

async fn wait_until_healed(world: &World) -> Result<(), String> {
    let deadline = Instant::now() + HEALED;
    loop {
        let status = serde_json::to_value(world.status().await?).map_err(|error| error.to_string())?;
        if status["degraded"].is_null() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("still degraded: {}", status["degraded"]));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The files of the vault and their sizes.
fn sizes(folder: &Path) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, about) = (entry.path(), entry.metadata());
        match about {
            Ok(about) if about.is_dir() => sizes.extend(self::sizes(&path)),
            Ok(about) => drop(sizes.insert(path.display().to_string(), about.len())),
            Err(_) => {}
        }
    }
    sizes
}

/// Sled's log has not become shorter, unless it was set aside as it was. What is replaced as a whole may be shorter,
/// but not empty.
fn check_sizes(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Result<(), String> {
    let logs = after.iter().filter(|(name, _)| name.ends_with("/db"));
    let longest = logs.map(|(_, size)| *size).max().unwrap_or(0);
    for (name, size) in before {
        let now = after.get(name).copied().unwrap_or(0);
        let is_log = name.ends_with("/db");
        let is_copy = name.contains("/copies/") && !name.ends_with("/%draft");
        if is_log && longest < *size || (is_log || is_copy) && now == 0 {
            return Err(format!("{name} had {size} bytes and has {now}; after all: {after:?}"));
        }
    }
    Ok(())
}
