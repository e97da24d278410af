//! Kills and failing disks: strace strikes the real program at its system calls, in front of an authorization server
//! that rotates refresh tokens and ends any authorization whose refresh token is used twice.
//!
//!     crash POSTKEY [--soak] [TEXT]
//!
//! Without `--soak` it tests a sample, in a minute. TEXT selects what has it in its title: a story of the kills,
//! `order`, `disks` or `power`. Everything is on loopback and in temporary folders. The exit code is 1 if anything was
//! lost.

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod kill;
mod order;
mod power;
mod replay;
mod story;
mod trace;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::task::Poll;

use world::World;

/// How many points of each story are struck, in a sample and in a complete run.
const SAMPLE: usize = 6;
const WHOLE: usize = 48;

/// How often a random rest is left after each power cut, in a complete run.
const CUTS: u64 = 5;

/// The number of worlds that run at the same time.
const WORLDS: usize = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let (options, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let Some((binary, only)) = words.split_first() else {
        eprintln!("crash POSTKEY [--soak] [TEXT]");
        return ExitCode::FAILURE;
    };
    let most = if options.iter().any(|option| option == "--soak") { WHOLE } else { SAMPLE };
    match run(Path::new(binary), most, only.first().map(String::as_str)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("FAILED {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(binary: &Path, most: usize, only: Option<&str>) -> Result<bool, String> {
    let binary = binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()))?;
    let mut worlds = Vec::new();
    for _ in 0..WORLDS {
        worlds.push(World::create(&binary).await?);
    }
    let only = only.unwrap_or_default();
    let mut is_well = kill::run(&worlds, most, only).await?;
    if "order".contains(only) {
        is_well &= order::run(&worlds[0]).await?;
    }
    if "disks".contains(only) {
        is_well &= disk::run(&worlds, most * 2).await?;
    }
    if "power".contains(only) {
        is_well &= power::run(&worlds[0], (most == WHOLE).then_some(CUTS)).await?;
    }
    Ok(is_well)
}

/// Runs all of them at the same time, to their ends.
async fn all(works: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut works: Vec<_> = works.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        works.retain_mut(|work| work.as_mut().poll(context).is_pending());
        if works.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
