//! Token sets, and when they are due for a refresh.

use crate::clock::Moment;
use crate::secret::Token;

/// What an authorization server hands out (RFC 6749 section 5.1).
#[derive(Clone)]
pub struct TokenSet {
    /// Opens the mailbox until it expires.
    pub access: Token,
    /// Gets the next token set, where the server gave one.
    pub refresh: Option<Token>,
    /// The life of the access token.
    pub life: Life,
    /// What the tokens are good for, as the server says it; empty where it says nothing.
    pub scope: String,
}

/// The life of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Life {
    /// When it was issued.
    pub issued: Moment,
    /// When it ends.
    pub expires: Moment,
}

impl Life {
    /// Whether the token is good to start a session with.
    ///
    /// A session wants some life ahead: Exchange's high-volume servers refuse a token in its last 10 minutes, and Gmail
    /// ends the session with the token. So the margin is 10 minutes or a fifth of the life, whichever is more, and never
    /// more than half of it, or a token of 5 minutes would be refreshed at each login.
    pub fn is_fresh(&self, now: Moment) -> bool {
        let whole = self.expires.since(self.issued);
        let margin = (whole / 5).max(600).min(whole / 2);
        self.is_plausible(now) && now.after(margin) < self.expires
    }

    /// Whether the token still works, if only just: good enough while the authorization server cannot be reached.
    pub fn is_alive(&self, now: Moment) -> bool {
        // 30 seconds: the clocks of both sides differ, and the login itself takes time.
        self.is_plausible(now) && now.after(30) < self.expires
    }

    /// A clock that was set back makes every age a guess; 5 minutes is what servers tolerate themselves.
    fn is_plausible(&self, now: Moment) -> bool {
        self.issued.0 <= now.after(300).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last second at which a token of this life is fresh.
    fn fresh_for(seconds: u64) -> u64 {
        let life = Life { issued: Moment(1000), expires: Moment(1000 + seconds) };
        (0..=seconds).take_while(|age| life.is_fresh(Moment(1000 + age))).count() as u64
    }

    #[test]
    fn the_margin_grows_with_the_life() {
        assert_eq!(fresh_for(3600), 3600 - 720);
        assert_eq!(fresh_for(1800), 1800 - 600);
        assert_eq!(fresh_for(300), 300 - 150);
        assert_eq!(fresh_for(0), 0);
    }

    #[test]
    fn a_token_from_the_future_is_not_trusted() {
        let life = Life { issued: Moment(10_000), expires: Moment(13_600) };
        assert!(life.is_fresh(Moment(9_800)));
        assert!(!life.is_fresh(Moment(9_000)) && !life.is_alive(Moment(9_000)));
        assert!(life.is_alive(Moment(13_500)) && !life.is_alive(Moment(13_570)));
    }
}
