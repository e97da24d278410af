//! Limits what the log says about strangers: enough to see what they do, but too little to fill a disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::Source;

/// The period over which lines are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// A wider source may have this many times as many lines.
const WIDER: u32 = 10;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTopic {
    /// A login was refused, or a connection rejected.
    Refusal,
    /// A TLS handshake failed, or a client used TLS on a port without it.
    Tls,
}

impl LogTopic {
    /// The number of lines per minute for one source.
    const fn most(self) -> u32 {
        match self {
            Self::Refusal => 10,
            Self::Tls => 1,
        }
    }
}

/// Counts the lines of this minute.
#[derive(Default)]
pub struct LogLimit(Mutex<HashMap<(Source, LogTopic), Counted>>);

/// The line counts of a source and of its wider sources.
#[derive(Default)]
struct Counted {
    told: u32,
    /// The number of suppressed lines.
    untold: u64,
}

impl LogLimit {
    /// Whether one more line about this source may be logged. Suppressed lines are counted.
    pub fn may_log(&self, source: Source, topic: LogTopic) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut most, mut full) = (topic.most(), None);
        for source in source.and_wider() {
            if counts.get(&(source, topic)).is_some_and(|counted| counted.told >= most) {
                full = Some(source);
            }
            most *= WIDER;
        }
        match full {
            // Count for the widest source only, so that many sources do not need a counter each.
            Some(full) => counts.entry((full, topic)).or_default().untold += 1,
            None => source.and_wider().for_each(|source| counts.entry((source, topic)).or_default().told += 1),
        }
        full.is_none()
    }

    /// Logs at the end of each minute how many lines were suppressed. Never ends.
    pub async fn tell_counts(&self) {
        loop {
            sleep(MINUTE).await;
            let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
            for ((source, topic), counted) in counts {
                if counted.untold > 0 {
                    let (what, count) = (topic.name(), counted.untold);
                    info!(%source, count, "{count} more {what} from {source} within a minute are not logged one by one");
                }
            }
        }
    }
}

impl LogTopic {
    const fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusals",
            Self::Tls => "failed TLS handshakes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MALLORY: Source = Source::User(1234);

    fn told(log_limit: &LogLimit, sources: impl Iterator<Item = Source>, topic: LogTopic) -> usize {
        sources.filter(|source| log_limit.may_log(*source, topic)).count()
    }

    fn untold(log_limit: &LogLimit, source: Source) -> u64 {
        log_limit.0.lock().unwrap().get(&(source, LogTopic::Refusal)).map_or(0, |counted| counted.untold)
    }

    #[test]
    fn ten_refusals_a_minute_are_told_of_a_source_and_the_others_counted() {
        let log_limit = LogLimit::default();
        assert_eq!(told(&log_limit, std::iter::repeat_n(MALLORY, 1000), LogTopic::Refusal), 10);
        assert_eq!(untold(&log_limit, MALLORY), 990);
        assert_eq!(told(&log_limit, std::iter::repeat_n(MALLORY, 1000), LogTopic::Tls), 1);
        assert_eq!(told(&log_limit, std::iter::once(Source::User(1)), LogTopic::Refusal), 1, "others are told of");
    }

    #[test]
    fn a_thousand_addresses_do_not_make_a_thousand_times_as_many_lines() {
        let log_limit = LogLimit::default();
        let addresses = || (0..10_000).map(|number| Source::Address(std::net::Ipv4Addr::from_bits(number)));
        assert_eq!(told(&log_limit, addresses(), LogTopic::Refusal), 100);
        assert_eq!(untold(&log_limit, Source::Elsewhere), 9900);
        assert!(log_limit.0.lock().unwrap().len() <= 101, "nothing is kept of those who are not told of");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_minute_begins_anew() {
        let log_limit = LogLimit::default();
        told(&log_limit, std::iter::repeat_n(MALLORY, 11), LogTopic::Refusal);
        let _never = tokio::time::timeout(MINUTE + Duration::from_secs(1), log_limit.tell_counts()).await;
        assert!(log_limit.may_log(MALLORY, LogTopic::Refusal));
    }
}
