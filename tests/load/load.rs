//! Load on postkey: thousands of sessions, churn, clients that do not read or send nothing, and limits of the system.
//!
//! `tests/run` builds this program and runs it for about half a minute, `tests/run --soak` with everything. The
//! provider is the benchmark's, in a separate process, and so is each postkey, so that `/proc` shows what postkey alone
//! uses.

mod before;
#[path = "../bench/client.rs"]
#[allow(dead_code, reason = "the benchmark measures more")]
mod client;
#[path = "../bench/contestant.rs"]
#[allow(dead_code, reason = "the benchmark measures more")]
mod contestant;
mod deadline;
mod flood;
mod hostile;
mod idle;
mod limits;
#[path = "../bench/pki.rs"]
mod pki;
#[path = "../bench/postkey.rs"]
#[allow(dead_code, reason = "the benchmark measures more")]
mod postkey;
#[path = "../bench/process.rs"]
#[allow(dead_code, reason = "the benchmark measures more")]
mod process;
#[path = "../bench/protocol.rs"]
mod protocol;
mod relay;
mod report;
mod strangers;
#[path = "../bench/upstream/mod.rs"]
#[allow(dead_code, reason = "the benchmark measures more")]
mod upstream;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use report::Report;

#[derive(Parser)]
enum Args {
    /// Run the provider until standard input ends.
    Upstream {
        /// Where `ca.pem`, `chain.pem` and `key.pem` are.
        dir: PathBuf,
        /// How many seconds its tokens are valid.
        expires_in: u32,
    },
    /// Be the hostile user until standard input ends.
    Hostile {
        /// Where `ca.pem` is.
        dir: PathBuf,
        /// What to attack, as JSON.
        targets: String,
        /// The mail ports, as JSON.
        ports: String,
    },
    /// Put postkey under load.
    Run {
        /// postkey's program.
        #[arg(long)]
        postkey: PathBuf,
        /// Everything, at full length: about half an hour.
        #[arg(long)]
        soak: bool,
        /// Only these parts, such as `idle,flood`.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
}

/// How much of everything.
pub struct Load {
    /// The number of idle sessions; fewer if there are not enough descriptors.
    pub idle: usize,
    /// For how long.
    pub idle_for: Duration,
    /// Whether the flood runs in the second half of that time instead of separately.
    pub beside: bool,
    /// For how long 200 clients a second connect and disconnect.
    pub churn_for: Duration,
    /// What each client that does not read is sent, in octets.
    pub flood: u64,
    /// What the relay moves in each direction in one session, in octets.
    pub relay: u64,
    /// Clients that send nothing, and clients that send little; none if there is no time to wait for their end.
    pub silent: usize,
    pub slow: usize,
    /// For how long a hostile user is active.
    pub hostile_for: Duration,
    /// How many times the time on a quiet machine something may take. The figures for the documents allow no more;
    /// elsewhere others use the machine too, and only a hang is a failure.
    pub slack: f64,
}

impl Load {
    const SHORT: Self = Self {
        idle: 1000,
        idle_for: Duration::from_secs(4),
        beside: false,
        churn_for: Duration::from_secs(5),
        flood: 12 << 20,
        relay: 64 << 20,
        silent: 0,
        slow: 0,
        hostile_for: Duration::from_secs(12),
        slack: 10.0,
    };
    const SOAK: Self = Self {
        idle: 10_000,
        idle_for: Duration::from_secs(600),
        beside: true,
        churn_for: Duration::from_secs(120),
        flood: 1 << 30,
        relay: 1 << 30,
        silent: 9500,
        slow: 1000,
        hostile_for: Duration::from_secs(120),
        slack: 1.0,
    };
}

/// What every part needs.
pub struct Stage<'a> {
    pub dir: &'a Path,
    pub provider: &'a upstream::Provider,
    pub program: &'a Path,
    pub load: &'a Load,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only if a provider is already installed, and nothing ran before this.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let done = match Args::parse() {
        Args::Upstream { dir, expires_in } => upstream::serve(&dir, expires_in).await.map(|()| true),
        Args::Hostile { dir, targets, ports } => hostile::be(&targets, &ports, &dir).await,
        Args::Run { postkey, soak, only } => run(&postkey, if soak { &Load::SOAK } else { &Load::SHORT }, &only).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parts one after another, each with a new postkey. Returns whether all figures were right.
async fn run(program: &Path, load: &Load, only: &[String]) -> io::Result<bool> {
    let dir = tempfile::tempdir()?;
    pki::write(dir.path())?;
    let provider = upstream::Provider::start(dir.path())?;
    let stage = Stage { dir: dir.path(), provider: &provider, program, load };
    let mut report = Report::begin(load.slack);
    for part in [
        "idle",
        "churn",
        "flood",
        "relay",
        "silent",
        "slow",
        "before",
        "strangers",
        "descriptors",
        "exhausted",
        "memory",
    ] {
        if !only.is_empty() && !only.iter().any(|name| name == part) {
            continue;
        }
        let mut tried = report.beside();
        try_part(part, &stage, &mut tried, only.is_empty()).await;
        if tried.may_be_chance() {
            println!("|       | {part}: again, because chance can have made that |  |  |");
            tried = report.beside();
            forget_homes(dir.path())?;
            try_part(part, &stage, &mut tried, only.is_empty()).await;
        }
        report.take(tried);
    }
    Ok(report.end())
}

/// Runs one part. `all` says whether the others are run as well.
async fn try_part(part: &str, stage: &Stage<'_>, report: &mut Report, all: bool) {
    let outcome = match part {
        "idle" if stage.load.beside => idle::idle_and_flood(stage, report).await,
        "idle" => idle::idle(stage, report).await,
        "churn" => idle::churn(stage, report).await,
        "flood" if stage.load.beside && all => Ok(()),
        "flood" => flood::flood(stage, report).await,
        "relay" => relay::relay(stage, report).await,
        "silent" => deadline::silent(stage, report).await,
        "slow" => deadline::slow(stage, report).await,
        "before" => before::before(stage, report).await,
        "strangers" => strangers::strangers(stage, report).await,
        "descriptors" => limits::descriptors(stage, report).await,
        "exhausted" => limits::exhausted(stage, report).await,
        _ => limits::memory(stage, report).await,
    };
    if let Err(error) = outcome {
        report.broken(part, &error);
    }
}

/// Removes the folders of the postkeys that have ended.
fn forget_homes(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}
