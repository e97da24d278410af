//! The benchmark: compares postkey with a direct connection and with two TLS tunnels that know nothing of mail.
//!
//! Everything runs on this machine, so a time means little by itself, but a ratio means something. `tests/bench/run`
//! builds this program and starts it.
//!
//! - [`upstream`] is the provider, in a separate process;
//! - [`contestant`] starts what is compared, each in a separate process;
//! - [`client`] is the mail program; [`measure`] runs many of them, and [`table`] shows the results;
//! - [`floor`] is the least that a relay can cost;
//! - [`instructions`] counts instead of measuring time;
//! - [`accounts`] compares many accounts with one, and [`profile`] shows where a login's instructions go.

mod accounts;
#[allow(dead_code, reason = "tests/load shares it, and uses more of it")]
mod client;
mod contestant;
mod crowd;
mod floor;
mod instructions;
mod measure;
mod pki;
#[allow(dead_code, reason = "tests/load shares it, and uses more of it")]
mod postkey;
#[allow(dead_code, reason = "tests/load shares it, and uses more of it")]
mod process;
mod profile;
mod protocol;
mod table;
#[allow(dead_code, reason = "tests/load shares it, and uses more of it")]
mod upstream;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use contestant::Contestant;
use measure::{Load, Measure};
use table::Table;

#[derive(Parser)]
enum Args {
    /// Run the provider until standard input ends.
    Upstream {
        /// Where `ca.pem`, `chain.pem` and `key.pem` are.
        dir: PathBuf,
        /// How many seconds its tokens are valid.
        expires_in: u32,
    },
    /// Relay with as little work as possible.
    Floor {
        /// Where it listens.
        port: u16,
        direction: floor::Direction,
    },
    /// Count instructions, and compare them with a table.
    Instructions {
        /// An empty folder to work in.
        dir: PathBuf,
        /// postkey's program.
        #[arg(long)]
        postkey: PathBuf,
        /// The document with the table.
        #[arg(long)]
        table: PathBuf,
    },
    /// Measure what many accounts cost.
    Accounts {
        /// An empty folder to work in.
        dir: PathBuf,
        /// postkey's program.
        #[arg(long)]
        postkey: PathBuf,
        /// The numbers of accounts.
        #[arg(default_values_t = [1, 1000, 10_000])]
        sizes: Vec<usize>,
    },
    /// Show where the instructions of a login go.
    Profile {
        /// An empty folder to work in.
        dir: PathBuf,
        /// postkey's program, with line numbers.
        #[arg(long)]
        postkey: PathBuf,
        /// The numbers of accounts.
        #[arg(default_values_t = [1, 10_000])]
        sizes: Vec<usize>,
    },
    /// Measure.
    Load {
        /// An empty folder to work in.
        dir: PathBuf,
        /// postkey's program.
        #[arg(long)]
        postkey: PathBuf,
        /// A small load: about a minute.
        #[arg(long)]
        quick: bool,
        /// Only these contestants, such as `direct,postkey`.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Only measures whose name contains this, such as `logins`.
        #[arg(long, default_value = "")]
        measure: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only if a provider is already installed, and nothing ran before this.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let done = match Args::parse() {
        Args::Upstream { dir, expires_in } => upstream::serve(&dir, expires_in).await.map(|()| true),
        Args::Floor { port, direction } => floor::relay(port, direction).map(|()| true),
        Args::Instructions { dir, postkey, table } => tokio::select! {
            done = instructions::compare(&dir, &postkey, &table) => done,
            stopped = stop() => stopped.and(Err(io::Error::other("stopped by a signal"))),
        },
        Args::Accounts { dir, postkey, sizes } => tokio::select! {
            done = accounts::measure(&dir, &postkey, sizes) => done,
            stopped = stop() => stopped.and(Err(io::Error::other("stopped by a signal"))),
        },
        Args::Profile { dir, postkey, sizes } => tokio::select! {
            done = profile::measure(&dir, &postkey, sizes) => done.map(|()| true),
            stopped = stop() => stopped.and(Err(io::Error::other("stopped by a signal"))),
        },
        Args::Load { dir, postkey, quick, only, measure } => {
            let load = if quick { Load::QUICK } else { Load::FULL };
            tokio::select! {
                done = compare(&dir, &postkey, &load, &only, &measure) => done,
                stopped = stop() => stopped.and(Err(io::Error::other("stopped by a signal"))),
            }
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends when this program is asked to end, so that the processes it started end with it.
async fn stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}

/// Runs every measurement on every contestant and prints the table. Returns whether nothing failed.
async fn compare(
    dir: &std::path::Path,
    postkey: &std::path::Path,
    load: &Load,
    only: &[String],
    filter: &str,
) -> io::Result<bool> {
    let measures: Vec<_> = Measure::all().into_iter().filter(|measure| measure.to_string().contains(filter)).collect();
    pki::write(dir)?;
    let provider = upstream::Provider::start(dir)?;
    let (contestants, mut failed) = Contestant::start(dir, &provider, postkey, only).await;
    let mut table = Table::new(contestants.iter().map(|contestant| contestant.name));
    for round in 1..=load.rounds {
        for direction in [floor::Direction::Down, floor::Direction::Up] {
            let name = format!("floor of the relay, {direction}");
            if name.contains(filter) {
                // In the column of the one that has no proxy, and so no such figures.
                table.add(&name, "CPU s/GB", "direct", floor::measure(dir, direction).await?);
            }
        }
        for measure in measures.iter().filter(|measure| round == 1 || !measure.once()) {
            for contestant in &contestants {
                eprintln!("round {round} of {}: {measure}: {}", load.rounds, contestant.name);
                if let Err(error) = measure.run(contestant, &provider, load, &mut table).await {
                    eprintln!("bench: {measure}: {}: {error}", contestant.name);
                    failed = true;
                }
            }
        }
    }
    print!("{table}");
    Ok(!failed)
}
