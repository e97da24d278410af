//! `postkey completions`: what a shell runs to complete postkey's command lines.

use std::io::Write as _;

use clap_complete::Shell;

use crate::exit::Failed;

/// Prints the script for `shell`. A closed pipe is the reader's choice.
pub fn run(shell: Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "postkey", &mut script);
    let _closed = std::io::stdout().write_all(&script);
    Ok(())
}
