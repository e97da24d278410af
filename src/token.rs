//! Token sets, and when to refresh them.

use crate::clock::Moment;
use crate::secret::Token;

/// The tokens that an authorization server issues (RFC 6749 section 5.1).
#[derive(Clone)]
pub struct TokenSet {
    /// Opens the mailbox until it expires.
    pub access: Token,
    /// Gets the next token set, if the server issued one.
    pub refresh: Option<Token>,
    pub life: Life,
    /// The granted scope; empty if the server did not say it.
    pub scope: String,
}

/// The life of an access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Life {
    pub issued: Moment,
    pub expires: Moment,
}

/// The purpose of a token, which decides how much of its life it must have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// For a login.
    Login,
    /// For a login whose session ends with the token, so it should last.
    Session,
}

impl Use {
    /// The seconds that must be left of a life of `whole` seconds.
    ///
    /// Exchange's high-volume servers refuse a token in its last 10 minutes. So the margin is the larger of 10 minutes and a fifth
    /// of the life, but at most half of it, because otherwise a token of 5 minutes would be refreshed at each login.
    fn margin(self, whole: u64) -> u64 {
        match self {
            Self::Login => (whole / 5).max(600).min(whole / 2),
            Self::Session => whole / 2,
        }
    }
}

impl Life {
    /// Whether the token is valid for long enough.
    pub fn is_fresh(&self, wanted: Use, now: Moment) -> bool {
        self.has_left(wanted.margin(self.whole()), now)
    }

    /// Whether to get a new token: a twentieth to three twentieths of the life before this one is no longer fresh, so that the
    /// next login need not wait. `share`, from 0 to 255, decides when, so that tokens that were issued together are not all
    /// due together.
    pub fn is_due(&self, wanted: Use, share: u8, now: Moment) -> bool {
        let ahead = self.whole() / 20 + self.whole() / 10 * u64::from(share) / 255;
        !self.has_left(wanted.margin(self.whole()) + ahead, now)
    }

    fn whole(&self) -> u64 {
        self.expires.since(self.issued)
    }

    fn has_left(&self, seconds: u64, now: Moment) -> bool {
        self.is_plausible(now) && now.after(seconds) < self.expires
    }

    /// Whether the token still works, which is enough while the authorization server cannot be reached.
    pub fn is_alive(&self, now: Moment) -> bool {
        // 30 seconds, because the clocks of both sides differ, and the login itself takes time.
        self.has_left(30, now)
    }

    /// If the clock was set back, the age is unknown. Servers tolerate 5 minutes.
    fn is_plausible(&self, now: Moment) -> bool {
        self.issued.0 <= now.after(300).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many seconds of its life this is true of a token.
    fn holds_for(seconds: u64, holds: impl Fn(&Life, Moment) -> bool) -> u64 {
        let life = Life { issued: Moment(1000), expires: Moment(1000 + seconds) };
        (0..=seconds).take_while(|age| holds(&life, Moment(1000 + age))).count() as u64
    }

    #[test]
    fn the_margin_grows_with_the_life() {
        let fresh_for = |seconds| holds_for(seconds, |life, now| life.is_fresh(Use::Login, now));
        assert_eq!(fresh_for(3600), 3600 - 720);
        assert_eq!(fresh_for(1800), 1800 - 600);
        assert_eq!(fresh_for(300), 300 - 150);
        assert_eq!(fresh_for(0), 0);
        assert_eq!(holds_for(3600, |life, now| life.is_fresh(Use::Session, now)), 1800);
    }

    #[test]
    fn a_token_is_due_before_it_is_stale() {
        for seconds in [100, 300, 3600, 86400, 366 * 86400] {
            for wanted in [Use::Login, Use::Session] {
                let fresh = holds_for(seconds, |life, now| life.is_fresh(wanted, now));
                let left = |share| holds_for(seconds, |life, now| !life.is_due(wanted, share, now));
                let (first, last) = (left(255), left(0));
                assert!(last < fresh && first >= seconds / 3, "{first} to {last} of {fresh} s, of {seconds}");
                assert!(last - first >= seconds / 12, "spread over {} s of {seconds}", last - first);
            }
        }
    }

    #[test]
    fn a_token_from_the_future_is_not_trusted() {
        let life = Life { issued: Moment(10_000), expires: Moment(13_600) };
        assert!(life.is_fresh(Use::Login, Moment(9_800)));
        assert!(!life.is_fresh(Use::Login, Moment(9_000)) && !life.is_alive(Moment(9_000)));
        assert!(life.is_alive(Moment(13_500)) && !life.is_alive(Moment(13_570)));
    }
}
