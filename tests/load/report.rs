//! The figures, each beside its limit: the rows of a Markdown table.

use std::io;

/// Prints figures as they come, and records whether all were right.
pub struct Report {
    wrong: usize,
    slack: f64,
}

impl Report {
    /// Begins the table. `slack` is how many times the time on a quiet machine something may take.
    pub fn begin(slack: f64) -> Self {
        println!("|       | {:58} | {:>10} | has to be |\n|---|---|---|---|", "part: figure", "is");
        Self { wrong: 0, slack }
    }

    /// A report for a part that runs beside this one.
    pub fn beside(&self) -> Self {
        Self { wrong: 0, slack: self.slack }
    }

    /// A time that may not be longer than `most` on a quiet machine.
    pub fn in_time(&mut self, what: &str, time: f64, most: f64, unit: &str) {
        self.at_most(what, time, most * self.slack, unit);
    }

    /// A figure that may not be above `most`.
    pub fn at_most(&mut self, what: &str, figure: f64, most: f64, unit: &str) {
        self.line(what, figure, figure <= most, &format!("at most {most} {unit}"));
    }

    /// A figure that may not be below `least`.
    pub fn at_least(&mut self, what: &str, figure: f64, least: f64, unit: &str) {
        self.line(what, figure, figure >= least, &format!("at least {least} {unit}"));
    }

    /// Something that is so or is not.
    pub fn so(&mut self, what: &str, is_so: bool) {
        self.line(what, f64::from(is_so), is_so, "so");
    }

    /// A figure without a limit.
    pub fn note(&mut self, what: &str, figure: f64, unit: &str) {
        self.line(what, figure, true, unit);
    }

    /// A part that failed.
    pub fn broken(&mut self, part: &str, error: &io::Error) {
        self.wrong += 1;
        println!("| WRONG | {part:58} | {error} | |");
    }

    /// Takes over whether something was wrong there.
    pub fn take(&mut self, other: Self) {
        self.wrong += other.wrong;
    }

    /// Whether nothing was wrong.
    pub fn is_fine(&self) -> bool {
        self.wrong == 0
    }

    fn line(&mut self, what: &str, figure: f64, right: bool, bound: &str) {
        self.wrong += usize::from(!right);
        println!("| {} | {what:58} | {figure:>10.1} | {bound} |", if right { "   ok" } else { "WRONG" });
    }
}
