//! `postkey completions`: the script with which a shell completes postkey's command lines.

use std::io::Write as _;

use clap_complete::Shell;

use super::arguments::command;
use crate::exit::Failed;

/// Prints the script for `shell`. It is not an error if the reader closes the pipe.
pub fn run(shell: Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "postkey", &mut script);
    let _closed = std::io::stdout().write_all(&script);
    Ok(())
}
