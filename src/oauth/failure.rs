//! Why there is no token.

use std::fmt;
use std::time::Duration;

use crate::exit::Exit;

/// Why there is no token, by who has to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody: it passes by itself.
    Temporary(TemporaryCause, String),
    /// The authorization has ended, and a person has to sign in again.
    Ended(String),
    /// An administrator at the provider has to allow or correct something.
    Forbidden(String),
    /// The client registration or a setting is wrong: whoever set up postkey has to correct it.
    Misconfigured(String),
}

/// A problem that passes by itself, by what can be done meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporaryCause {
    /// The server was not reached, so another request costs it nothing.
    Unreachable,
    /// The request was sent, and its answer did not arrive whole. The server may have issued tokens.
    Lost,
    /// The server has a problem of its own, which may be short.
    Faulty,
    /// A request soon is useless: something else answers, or the server wants a pause, of this length if it said one.
    Lasting(Option<Duration>),
    /// The server refuses with 400 or 401 and without an OAuth error. That may pass. But some servers answer a dead refresh
    /// token so, and then it never does: see `UNEXPLAINED` in `broker/state.rs`.
    Unexplained,
}

impl Failure {
    /// The label in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Temporary(..) => "temporary",
            Self::Ended(_) => "ended",
            Self::Forbidden(_) => "forbidden",
            Self::Misconfigured(_) => "misconfigured",
        }
    }

    /// The exit code of a command that fails with it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Temporary(..) => Exit::Temporary,
            Self::Ended(_) | Self::Forbidden(_) => Exit::NoPermission,
            Self::Misconfigured(_) => Exit::Config,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Temporary(_, text) | Self::Ended(text) | Self::Forbidden(text) | Self::Misconfigured(text)) = self;
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_name_in_the_guide_to_monitoring() {
        let guide = include_str!("../../docs/guide/monitoring.md");
        let row = guide.lines().find(|line| line.contains("`postkey_refreshes_total`")).unwrap();
        for (kind, name) in [
            (Failure::Temporary(TemporaryCause::Lost, String::new()), "temporary"),
            (Failure::Ended(String::new()), "ended"),
            (Failure::Forbidden(String::new()), "forbidden"),
            (Failure::Misconfigured(String::new()), "misconfigured"),
        ] {
            assert_eq!(kind.name(), name);
            assert!(row.contains(&format!("`{name}`")), "{name}");
        }
    }
}
