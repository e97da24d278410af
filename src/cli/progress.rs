//! A bar that shows how far a long command is, on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The number of steps from which a command shows a bar instead of a line for each step.
const MANY: usize = 20;

/// The time between two updates, so that the terminal does not slow the command down.
const PACE: Duration = Duration::from_millis(100);

/// The width of the bar, in characters.
const WIDTH: usize = 30;

/// A bar on standard error. It is removed when this is dropped.
pub struct Progress {
    total: usize,
    done: usize,
    begun: Instant,
    /// None if there is no bar.
    shown: Option<Instant>,
}

impl Progress {
    /// Shows a bar for `total` steps if they are many and standard error is a terminal.
    pub fn new(total: usize) -> Self {
        let (begun, is_shown) = (Instant::now(), total > MANY && std::io::stderr().is_terminal());
        Self { total, done: 0, begun, shown: is_shown.then_some(begun) }
    }

    pub fn is_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Another step is done.
    pub fn step(&mut self) {
        self.done += 1;
        if self.shown.is_some_and(|at| at.elapsed() >= PACE) {
            self.shown = Some(Instant::now());
            let _closed = write!(std::io::stderr(), "\r\x1b[K{}", bar(self.done, self.total, self.begun.elapsed()));
        }
    }

    /// Removes the bar until the next step, so that other lines can be printed.
    pub fn hide(&self) {
        if self.is_shown() {
            let _closed = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}

/// As in `[######------------------------] 2000 of 10000, 40 s left`.
fn bar(done: usize, total: usize, elapsed: Duration) -> String {
    let full = (WIDTH * done).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
    let left = elapsed.as_secs_f64() / done.max(1) as f64 * total.saturating_sub(done) as f64;
    format!("[{}{}] {done} of {total}, {left:.0} s left", "#".repeat(full), "-".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_much_is_done_and_how_long_the_rest_takes() {
        let bar = |done, total| bar(done, total, Duration::from_secs(10));
        assert_eq!(bar(2000, 10_000), format!("[{}{}] 2000 of 10000, 40 s left", "#".repeat(6), "-".repeat(24)));
        assert_eq!(bar(10, 10), format!("[{}] 10 of 10, 0 s left", "#".repeat(30)));
        assert!(bar(0, 0).ends_with("0 of 0, 0 s left") && bar(0, 5).ends_with("50 s left"));
    }
}
