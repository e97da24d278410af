//! Clients that connect and do not log in: they send nothing, or a byte now and then.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::Stage;
use crate::idle::running;
use crate::postkey;
use crate::process::entries;
use crate::protocol::Protocol;
use crate::report::Report;

/// After this time, nobody may be connected any more.
const PATIENCE: Duration = Duration::from_secs(90);

/// They send nothing: each costs a descriptor and nothing at the provider, and is disconnected after a minute.
pub async fn silent(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    if stage.load.silent == 0 {
        return Ok(());
    }
    let postkey = postkey::start_as(stage.dir, "silent", stage.provider, stage.program, Default::default()).await?;
    let process = running(&postkey.process)?;
    postkey.way.login(Protocol::Imap).await?;
    sleep(Duration::from_secs(1)).await;
    let before = (process.descriptors()?, entries(stage.provider.id(), "fd")?);
    let mut waiting = JoinSet::new();
    for number in 0..stage.load.silent {
        let stream = TcpStream::connect(("127.0.0.1", postkey.way.ports.of(Protocol::ALL[number % 3]))).await?;
        let start = Instant::now();
        waiting.spawn(async move { end(stream, start).await });
    }
    sleep(Duration::from_secs(3)).await;
    let after = (process.descriptors()?, entries(stage.provider.id(), "fd")?);
    let count = stage.load.silent as f64;
    report.at_most("silent: descriptors", (after.0 - before.0) as f64 / count, 1.0, "a client");
    report.none("silent: connections to the provider", after.1.saturating_sub(before.1), "connections");
    let start = Instant::now();
    postkey.way.login(Protocol::Imap).await?;
    report.in_time("silent: another's login", start.elapsed().as_secs_f64() * 1e3, 200.0, "ms");
    closed("silent", waiting, 55.0..=65.0, report).await
}

/// They send a byte every five seconds, which does not extend the deadline.
pub async fn slow(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    if stage.load.slow == 0 {
        return Ok(());
    }
    let postkey = postkey::start_as(stage.dir, "slow", stage.provider, stage.program, Default::default()).await?;
    let mut waiting = JoinSet::new();
    for number in 0..stage.load.slow {
        let stream = TcpStream::connect(("127.0.0.1", postkey.way.ports.of(Protocol::ALL[number % 3]))).await?;
        let start = Instant::now();
        waiting.spawn(async move {
            let (reader, mut writer) = tokio::io::split(stream);
            let mut tick = interval(Duration::from_secs(5));
            let drip = async {
                loop {
                    tick.tick().await;
                    if writer.write_all(b"A").await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                time = end(reader, start) => time,
                () = drip => None,
            }
        });
    }
    closed("slow", waiting, 0.0..=65.0, report).await
}

/// When the server has ended this connection, if it did.
async fn end(mut stream: impl AsyncReadExt + Unpin, start: Instant) -> Option<Duration> {
    let mut rest = Vec::new();
    // A reset is an end as well, because we were still sending.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    read.ok().map(|_| start.elapsed())
}

async fn closed(
    part: &str,
    waiting: JoinSet<Option<Duration>>,
    when: RangeInclusive<f64>,
    report: &mut Report,
) -> io::Result<()> {
    let (count, times) = (waiting.len(), waiting.join_all().await);
    let mut times: Vec<f64> = times.into_iter().flatten().map(|time| time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    report.all(&format!("{part}: clients that were sent away"), times.len(), count, "clients");
    let (first, last) = (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    report.at_least(&format!("{part}: the first of them after"), first, *when.start(), "s");
    report.at_most(&format!("{part}: the last of them after"), last, *when.end(), "s");
    Ok(())
}
