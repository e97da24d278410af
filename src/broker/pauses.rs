//! How long a failed refresh counts for the logins that follow.

use std::time::Duration;

use crate::oauth::TemporaryCause;
use crate::random;

/// How long a failed refresh counts for the logins that follow: a mail program that is refused tries two more mechanisms at
/// once, and none of these tries should reach the authorization server.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The same if the refresh was not tried.
pub const POSTPONED: Duration = Duration::from_secs(1);

/// The same after many failures in a row: how long a person waits at most once the provider works again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that the server itself can ask for. People can bear an hour without mail.
pub const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// How long the last of so many failures in a row counts. Waiting does not spare a server that was not reached, and its return
/// should be noticed soon.
pub fn pause_after(cause: TemporaryCause, in_a_row: u32) -> Duration {
    let grown = FIRST_PAUSE.saturating_mul(1 << in_a_row.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    match cause {
        TemporaryCause::Unreachable => FIRST_PAUSE,
        TemporaryCause::Lasting(Some(asked)) => random::shortened(grown).max(asked.min(LONGEST_ASKED)),
        _ => random::shortened(grown),
    }
}
