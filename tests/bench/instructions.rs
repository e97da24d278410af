//! Counts the instructions of one login, one refresh and one relayed megabyte with valgrind's callgrind. Unlike times, they
//! are the same on a busy machine, so a change that makes any of them dearer is seen at once.
//!
//! The daemon runs twice, with little and with more to do. What both runs need, such as the start and the first check of the
//! password, is not in the difference.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::client::Way;
use crate::contestant::Contestant;
use crate::pki;
use crate::postkey::{Setup, start_as};
use crate::protocol::Protocol;
use crate::upstream::{self, MESSAGE, Provider};

/// How far a count may be from the one in the document, in percent.
const TOLERANCE: f64 = 5.0;

/// The validity of a token in seconds. A login that comes a second later gets a new one.
const SHORT: u32 = 1;

#[derive(Clone, Copy)]
enum Work {
    Login(Protocol),
    LoginWithRefresh,
    Fetch,
    Upload,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::Login(Protocol::Imap),
        Self::Login(Protocol::Pop3),
        Self::Login(Protocol::Smtp),
        Self::LoginWithRefresh,
        Self::Fetch,
        Self::Upload,
    ];

    fn name(self) -> String {
        match self {
            Self::Login(protocol) => format!("one {protocol} login"),
            Self::LoginWithRefresh => "one IMAP login with a refresh".to_owned(),
            Self::Fetch => "one MB of a FETCH".to_owned(),
            Self::Upload => "one MB of a DATA".to_owned(),
        }
    }

    /// How often to do it in the two runs, and how many of the named units that is each time.
    const fn counts(self) -> ([u32; 2], f64) {
        match self {
            Self::Login(_) => ([50, 650], 1.0),
            Self::LoginWithRefresh => ([2, 42], 1.0),
            Self::Fetch | Self::Upload => ([1, 5], MESSAGE as f64 / 1e6),
        }
    }

    async fn run(self, way: &Way, times: u32) -> io::Result<()> {
        match self {
            Self::Login(protocol) => {
                for _ in 0..times {
                    way.login(protocol).await?;
                }
            }
            Self::LoginWithRefresh => {
                for _ in 0..times {
                    sleep(Duration::from_secs(SHORT.into())).await;
                    way.login(Protocol::Imap).await?;
                }
            }
            Self::Fetch => {
                let mut client = way.login(Protocol::Imap).await?;
                for _ in 0..times {
                    client.fetch().await?;
                }
            }
            Self::Upload => {
                let mut client = way.login(Protocol::Smtp).await?;
                for _ in 0..times {
                    client.upload(&upstream::message()).await?;
                }
            }
        }
        Ok(())
    }
}

/// Counts all of them, side by side, and prints the table. Returns whether each count is as `document` says.
pub async fn compare(dir: &Path, postkey: &Path, document: &Path) -> io::Result<bool> {
    let document = fs::read_to_string(document)?;
    let counting = Work::ALL.map(|work| {
        tokio::spawn(judged(dir.join(work.name()), postkey.to_owned(), work, known(&document, &work.name())))
    });
    println!("| instructions of | thousands |\n|---|---|");
    let mut all_as_known = true;
    for (work, counted) in Work::ALL.into_iter().zip(counting) {
        let (thousands, as_known) = counted.await??;
        println!("| {} | {thousands:.0} |", work.name());
        if !as_known {
            eprintln!("{}: this is not what the document says", work.name());
            all_as_known = false;
        }
    }
    Ok(all_as_known)
}

/// Counts the thousands of instructions of one unit, and compares them with the `known` ones. A count that differs is taken once
/// more, because a few chance wake-ups make some percent.
async fn judged(dir: PathBuf, postkey: PathBuf, work: Work, known: Option<f64>) -> io::Result<(f64, bool)> {
    fs::create_dir(&dir)?;
    pki::write(&dir)?;
    let provider = match work {
        Work::LoginWithRefresh => Provider::start_with(&dir, SHORT)?,
        _ => Provider::start(&dir)?,
    };
    let mut thousands = 0.0;
    for _ in 0..2 {
        thousands = difference(&dir, &provider, &postkey, work).await?;
        if known.is_some_and(|known| ((thousands - known) / known * 100.0).abs() <= TOLERANCE) {
            return Ok((thousands, true));
        }
    }
    Ok((thousands, false))
}

async fn difference(dir: &Path, provider: &Provider, postkey: &Path, work: Work) -> io::Result<f64> {
    let ([little, more], units) = work.counts();
    let before = count(dir, provider, postkey, work, little).await?;
    let after = count(dir, provider, postkey, work, more).await?;
    Ok((after - before) / f64::from(more - little) / units / 1000.0)
}

/// The count in the document's row of this name.
fn known(document: &str, name: &str) -> Option<f64> {
    let mut cells = document.lines().find(|line| line.starts_with(&format!("| {name} |")))?.split('|');
    cells.nth(2)?.trim().replace(',', "").parse().ok()
}

/// How many instructions the daemon executes from its start to its end, if it does this so many times.
async fn count(dir: &Path, provider: &Provider, postkey: &Path, work: Work, times: u32) -> io::Result<f64> {
    let (home, profile) = (dir.join("counted"), dir.join("counted/state/callgrind"));
    let out = format!("--callgrind-out-file={}", profile.display());
    // With one worker the threads wake each other less often by chance.
    let under = ["env", "TOKIO_WORKER_THREADS=1", "valgrind", "--quiet", "--tool=callgrind", &out];
    let Contestant { way, process, .. } =
        start_as(dir, "counted", provider, postkey, Setup { under: &under, ..Setup::default() }).await?;
    work.run(&way, times).await?;
    if let Some(process) = process {
        process.stop().await?;
    }
    let profile = fs::read_to_string(profile)?;
    fs::remove_dir_all(home)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.ok_or_else(|| io::Error::other("callgrind has counted nothing"))?;
    total.trim().parse().map_err(io::Error::other)
}
