//! When an authorization server that failed is asked again: soon while a client waits for it, and then not for a while; or not
//! before a person has acted.

use std::time::Duration;

use tokio::time::Instant;

use crate::oauth::TemporaryCause;
use crate::random;

/// Requests for one refresh, at most.
const TRIES: u32 = 3;

/// A try begun later than this could not help the client that waits: it has half a minute, and its login takes time, too.
const SOON: Duration = Duration::from_secs(5);

/// The pause before the second try; it doubles before the third.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a failure stands for those who ask next: a mail program that is refused tries two more mechanisms at once, and
/// none of these tries should reach the authorization server.
const FIRST: Duration = Duration::from_secs(5);

/// How long it stands at most after many failures in a row. A person who waits for the provider to come back waits no
/// longer than this.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// How long it stands at most where the server itself says how long. An hour without mail is what a person would bear.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The tries of one refresh.
pub(super) struct Tries {
    begun: Instant,
    made: u32,
    lost: bool,
}

impl Tries {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), made: 0, lost: false }
    }

    /// The pause before the next try; None if that would be one too many.
    ///
    /// A refresh whose answer was lost is tried once more with the same token, and at once. The server may have spent that
    /// token; but then it is the only one that we have, and the servers that forgive a second use do so for seconds.
    pub(super) fn pause(&mut self, trouble: TemporaryCause) -> Option<Duration> {
        self.made += 1;
        match trouble {
            TemporaryCause::Lasting(_) | TemporaryCause::Unexplained => None,
            TemporaryCause::Lost => (!std::mem::replace(&mut self.lost, true)).then_some(Duration::ZERO),
            TemporaryCause::Unreachable | TemporaryCause::Faulty => {
                let soon = self.made < TRIES && self.begun.elapsed() < SOON;
                soon.then(|| shortened(PAUSE * self.made))
            }
        }
    }
}

/// How long the last of so many failures in a row stands. A server that is not reached is not spared by waiting, and its
/// return should be noticed soon.
pub(super) fn stands(trouble: TemporaryCause, in_a_row: u32) -> Duration {
    let grown = FIRST.saturating_mul(1 << in_a_row.saturating_sub(1).min(10)).min(LONGEST);
    match trouble {
        TemporaryCause::Unreachable => FIRST,
        TemporaryCause::Lasting(Some(asked)) => shortened(grown).max(asked.min(LONGEST_ASKED)),
        TemporaryCause::Lasting(None) | TemporaryCause::Lost | TemporaryCause::Faulty | TemporaryCause::Unexplained => {
            shortened(grown)
        }
    }
}

/// Up to a quarter less, so that many postkeys do not come back at the same moment.
pub(super) fn shortened(time: Duration) -> Duration {
    let [byte] = random::bytes::<1>();
    time - time * u32::from(byte) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(troubles: &[TemporaryCause]) -> usize {
        let mut tries = Tries::begin();
        troubles.iter().map_while(|trouble| tries.pause(*trouble)).count()
    }

    #[tokio::test]
    async fn a_refresh_is_tried_a_few_times() {
        use TemporaryCause::{Faulty, Lasting, Lost, Unreachable};
        assert_eq!(pauses(&[Faulty; 9]), 2);
        assert_eq!(pauses(&[Unreachable; 9]), 2);
        assert_eq!(pauses(&[Lost; 9]), 1, "a lost answer is asked for once more");
        assert_eq!(pauses(&[Lost, Faulty, Faulty]), 2);
        assert_eq!(pauses(&[Lasting(None); 9]), 0);
    }

    #[test]
    fn a_pause_is_shorter_by_some_part_of_a_quarter() {
        let time = Duration::from_secs(100);
        let pauses: Vec<Duration> = (0..1000).map(|_| shortened(time)).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(Duration::from_secs(75) <= *least && *most <= time, "{least:?} to {most:?}");
        assert!(*least < Duration::from_secs(80) && Duration::from_secs(95) < *most, "{least:?} to {most:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_before_a_try_doubles() {
        let mut tries = Tries::begin();
        for longest in [PAUSE, PAUSE * 2] {
            let pause = tries.pause(TemporaryCause::Faulty).unwrap();
            assert!((longest * 3 / 4..=longest).contains(&pause), "{pause:?}");
        }
        assert_eq!(tries.pause(TemporaryCause::Faulty), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_tried_when_it_cannot_help_any_more() {
        let mut tries = Tries::begin();
        tokio::time::advance(SOON).await;
        assert_eq!(tries.pause(TemporaryCause::Unreachable), None);
        assert_eq!(Tries { lost: false, ..tries }.pause(TemporaryCause::Lost), Some(Duration::ZERO));
    }

    #[test]
    fn failures_stand_longer_and_longer() {
        let between = |trouble, in_a_row, from, to| {
            let stands = stands(trouble, in_a_row).as_secs_f64();
            assert!((from..=to).contains(&stands), "{trouble:?} for the {in_a_row}th time stands {stands} s");
        };
        for trouble in [TemporaryCause::Faulty, TemporaryCause::Lost, TemporaryCause::Lasting(None)] {
            between(trouble, 1, 3.75, 5.0);
            between(trouble, 2, 7.5, 10.0);
            between(trouble, 5, 45.0, 60.0);
            between(trouble, u32::MAX, 45.0, 60.0);
        }
        between(TemporaryCause::Unreachable, 100, 5.0, 5.0);
        between(TemporaryCause::Lasting(Some(Duration::from_secs(1))), 1, 3.75, 5.0);
        between(TemporaryCause::Lasting(Some(Duration::from_secs(120))), 1, 120.0, 120.0);
        between(TemporaryCause::Lasting(Some(Duration::MAX)), 1, 3600.0, 3600.0);
    }
}
