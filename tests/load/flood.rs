//! Clients that do not read while a gigabyte is sent to them.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Stage;
use crate::idle::running;
use crate::postkey;
use crate::protocol::Protocol;
use crate::report::Report;
use crate::upstream::noise;

/// The number of clients.
const CLIENTS: usize = 100;

/// The noise that they are sent.
const SEED: u64 = 9;

/// All of them stop reading until nothing moves any more, and then read to the end.
pub async fn flood(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let postkey = postkey::start_as(stage.dir, "flood", stage.provider, stage.program, Default::default()).await?;
    let process = running(&postkey.process)?;
    let size = stage.load.flood;
    let mut streams = Vec::new();
    for number in 0..CLIENTS {
        streams.push(postkey.way.login(Protocol::ALL[number % 3]).await?);
    }
    let empty = process.resident()?;
    let mut stalled = Vec::new();
    for client in streams {
        stalled.push(client.noise(size, SEED).await?);
    }
    sleep(Duration::from_secs(3)).await;
    let (still, held) = (process.settled_cpu().await?, process.resident()?);
    sleep(Duration::from_secs(2)).await;
    report.at_most("flood: CPU time while nobody reads", (process.cpu()? - still) * 50.0, 5.0, "%");
    report.at_most("flood: memory", (held - empty) / CLIENTS as f64, 256.0, "KiB a client that does not read");
    let (expected, mut reading) = (noise::hash(size, SEED), JoinSet::new());
    for mut stream in stalled {
        reading.spawn(async move {
            stream.shutdown().await?;
            noise::receive(stream, size, false).await
        });
    }
    let outcomes = reading.join_all().await;
    let whole = outcomes.iter().filter(|outcome| matches!(outcome, Ok((_, hash)) if *hash == expected)).count();
    report.note("flood: offered to each", size as f64 / 1048576.0, "MiB");
    report.all("flood: clients that got all of it in the end", whole, CLIENTS, "clients");
    Ok(())
}
