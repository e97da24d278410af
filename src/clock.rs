//! The time of day, which tests can set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970, by the wall clock, because tokens also expire while the machine sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    pub const fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// The seconds since `earlier`; 0 if that is later.
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

#[derive(Clone)]
pub enum Clock {
    System,
    /// Stands still until a test moves it.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub fn now(&self) -> Moment {
        match self {
            Self::System => Moment(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())),
            Self::Manual(seconds) => Moment(seconds.load(Ordering::SeqCst)),
        }
    }
}
