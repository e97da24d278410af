//! The figures, each beside its limit: the rows of a Markdown table.

use std::io;

/// Prints figures as they come, and keeps those that were wrong.
pub struct Report {
    wrong: Vec<Wrong>,
    slack: f64,
}

/// A figure that was not as it has to be.
struct Wrong {
    line: String,
    /// Whether chance can make it so: memory, CPU time and rates, on a machine that others use too.
    by_chance: bool,
}

impl Report {
    /// Begins the table. `slack` is how many times the time on a quiet machine something may take.
    pub fn begin(slack: f64) -> Self {
        println!("|       | {:58} | {:>10} | has to be |\n|---|---|---|---|", "part: figure", "is");
        Self { wrong: Vec::new(), slack }
    }

    /// A report for a part that runs beside this one, or that may be tried again.
    pub fn beside(&self) -> Self {
        Self { wrong: Vec::new(), slack: self.slack }
    }

    /// A time that may not be longer than `most` on a quiet machine.
    pub fn in_time(&mut self, what: &str, time: f64, most: f64, unit: &str) {
        self.at_most(what, time, most * self.slack, unit);
    }

    /// A figure that may not be above `most`. Chance has a part in it.
    pub fn at_most(&mut self, what: &str, figure: f64, most: f64, unit: &str) {
        self.line(what, figure, figure <= most, &format!("at most {most} {unit}"), true);
    }

    /// A figure that may not be below `least`. Chance has a part in it.
    pub fn at_least(&mut self, what: &str, figure: f64, least: f64, unit: &str) {
        self.line(what, figure, figure >= least, &format!("at least {least} {unit}"), true);
    }

    /// A rate that may not be below `least` on a quiet machine.
    pub fn at_a_rate(&mut self, what: &str, rate: f64, least: f64) {
        self.at_least(what, rate, least / self.slack, "a second");
    }

    /// A number of mishaps, none of which may happen.
    pub fn none(&mut self, what: &str, count: usize, unit: &str) {
        self.line(what, count as f64, count == 0, &format!("at most 0 {unit}"), false);
    }

    /// A number of which none may be missing.
    pub fn all(&mut self, what: &str, count: usize, all: usize, unit: &str) {
        self.line(what, count as f64, count >= all, &format!("at least {all} {unit}"), false);
    }

    /// Something that is so or is not.
    pub fn so(&mut self, what: &str, is_so: bool) {
        self.line(what, f64::from(is_so), is_so, "so", false);
    }

    /// A figure without a limit.
    pub fn note(&mut self, what: &str, figure: f64, unit: &str) {
        self.line(what, figure, true, unit, true);
    }

    /// A part that failed.
    pub fn broken(&mut self, part: &str, error: &io::Error) {
        self.record(format!("| WRONG | {part:58} | {error} | |"), false);
    }

    /// Takes over what was wrong there.
    pub fn take(&mut self, other: Self) {
        self.wrong.extend(other.wrong);
    }

    /// Whether something was wrong, and nothing that cannot be chance. Such a part is tried again: what is really wrong
    /// is wrong twice.
    pub fn may_be_chance(&self) -> bool {
        !self.wrong.is_empty() && self.wrong.iter().all(|wrong| wrong.by_chance)
    }

    /// Repeats what was wrong, because the table is long. Returns whether nothing was.
    pub fn end(self) -> bool {
        if !self.wrong.is_empty() {
            println!("\n{} wrong:", self.wrong.len());
        }
        for wrong in &self.wrong {
            println!("{}", wrong.line);
        }
        self.wrong.is_empty()
    }

    fn line(&mut self, what: &str, figure: f64, right: bool, bound: &str, by_chance: bool) {
        let rest = format!("| {what:58} | {figure:>10.1} | {bound} |");
        match right {
            true => println!("|    ok {rest}"),
            false => self.record(format!("| WRONG {rest}"), by_chance),
        }
    }

    fn record(&mut self, line: String, by_chance: bool) {
        println!("{line}");
        self.wrong.push(Wrong { line, by_chance });
    }
}
