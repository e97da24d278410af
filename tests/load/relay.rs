//! Noise in both directions at once, in pieces of every size, with slow readers and half-closes, for each protocol,
//! without TLS and with it.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::Stage;
use crate::client::Way;
use crate::postkey::{self, Setup};
use crate::protocol::Protocol;
use crate::report::Report;
use crate::upstream::noise;

/// Each protocol, with clients without TLS and with TLS. The provider always has TLS.
pub async fn relay(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let clear = postkey::start_as(stage.dir, "clear", stage.provider, stage.program, Setup::default()).await?;
    let setup = Setup { tls: true, ..Setup::default() };
    let tls = postkey::start_as(stage.dir, "tls", stage.provider, stage.program, setup).await?;
    for (postkey, security) in [(clear, "in clear"), (tls, "under TLS")] {
        for protocol in Protocol::ALL {
            let (size, start) = (stage.load.relay, Instant::now());
            exchange(&postkey.way, protocol, size).await?;
            let what = format!("relay: {protocol} {security}, both ways, bit for bit");
            report.note(
                &what,
                size as f64 / 1048576.0,
                &format!("MiB each way, {:.1} s", start.elapsed().as_secs_f64()),
            );
        }
    }
    Ok(())
}

/// Fails unless both sides get what the other has sent. We end first, so the rest comes over a half-closed connection.
async fn exchange(way: &Way, protocol: Protocol, size: u64) -> io::Result<()> {
    let stream = way.login(protocol).await?.noise(size, 11).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = async {
        noise::send(&mut writer, size, 12).await?;
        writer.shutdown().await
    };
    let received = async {
        let received = noise::receive(&mut reader, size, true).await?;
        let mut behind = Vec::new();
        reader.read_to_end(&mut behind).await?;
        Ok((received, behind))
    };
    let ((), ((count, hash), behind)) = tokio::try_join!(sent, received)?;
    if (count, hash) != (size, noise::hash(size, 11)) {
        return Err(io::Error::other(format!("{protocol}: what came down is not what was sent")));
    }
    if behind != noise::hash(size, 12) {
        return Err(io::Error::other(format!("{protocol}: what went up is not what was sent")));
    }
    Ok(())
}
