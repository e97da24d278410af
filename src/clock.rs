//! The time of day, which tests can set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in whole seconds since 1970. Wall clock: it goes on while the machine sleeps, as tokens' lives do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// This much later.
    pub const fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to here; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339, in UTC.
impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The year 9999 is the last that RFC 3339 can write.
        let seconds = self.0.min(253_402_300_799);
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).fmt(f)
    }
}

/// Tells the time.
#[derive(Clone)]
pub enum Clock {
    /// The machine's.
    System,
    /// One that stands still until a test moves it.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Moment {
        match self {
            Self::System => Moment(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())),
            Self::Manual(seconds) => Moment(seconds.load(Ordering::SeqCst)),
        }
    }
}
