//! What a connection before its login costs if it does whatever makes postkey keep the most for it.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use crate::Stage;
use crate::hostile::{Act, Targets};
use crate::idle::running;
use crate::postkey::{self, Setup};
use crate::report::Report;

/// The number of each kind: fewer than one source may have.
const COUNT: usize = 200;

/// As many connections to an HTTP port as one source may have.
const BROWSERS: usize = 16;

/// What each may cost in KiB: without TLS, where we keep a line at most, and where a library keeps a TLS record of 16
/// KiB or an HTTP header until it is complete.
const LINE: f64 = 16.0;
const RECORD: f64 = 36.0;

/// Each kind separately, with a fresh postkey, because memory that was used before would be used again.
pub async fn before(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    for (home, act, most) in [
        ("before-silent", Act::Silent, LINE),
        ("before-half-a-line", Act::HalfALine, LINE),
        ("before-deaf", Act::Deaf, LINE),
        ("before-deaf-unix", Act::DeafUnix, LINE),
        ("before-hello", Act::HalfAHello, RECORD),
        ("before-tls", Act::SilentTls, LINE),
        ("before-tls-half-a-line", Act::HalfALineTls, RECORD),
        ("before-tls-deaf", Act::DeafTls, RECORD),
        ("before-tls-half-a-record", Act::HalfARecord, RECORD),
        ("before-http", Act::HalfARequest, RECORD),
    ] {
        let targets = Targets::choose(stage.dir, home)?;
        let setup = Setup { top: &targets.top(), more: &targets.more(stage.dir), ..Setup::default() };
        let postkey = postkey::start_as(stage.dir, home, stage.provider, stage.program, setup).await?;
        let process = running(&postkey.process)?;
        drop(act.connect(&targets, postkey.way.ports, stage.dir, 0).await?);
        sleep(Duration::from_millis(300)).await;
        let (before, descriptors) = (process.resident()?, process.descriptors()?);
        let count = if act == Act::HalfARequest { BROWSERS } else { COUNT };
        let mut held = Vec::new();
        for number in 0..count {
            held.push(act.connect(&targets, postkey.way.ports, stage.dir, number).await?);
        }
        sleep(Duration::from_secs(1)).await;
        let name = home.trim_start_matches("before-");
        let each = (process.resident()? - before) / count as f64;
        let open = process.descriptors()?.saturating_sub(descriptors);
        report.all(&format!("before login: {name}, connections"), open, count, "connections");
        report.at_most(&format!("before login: {name}"), each, most, "KiB each");
        drop(held);
    }
    Ok(())
}
