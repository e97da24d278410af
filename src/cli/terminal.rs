//! Input from and output to the terminal.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failed};
use crate::log::goes_to_journal;
use crate::secret::Secret;

/// Prints a line. It is not an error if the reader closes the pipe.
pub fn say(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Prints a text, by the user's pager if it goes to a terminal: `$PAGER`, or less. As in git, less shows a text that fits on
/// one screen without waiting for a key.
pub fn page(text: &str) {
    let is_shown = std::io::stdout().is_terminal() && by_pager(text).is_ok();
    if !is_shown {
        // It is not an error if the reader closes the pipe.
        let _closed = std::io::stdout().write_all(text.as_bytes());
    }
}

fn by_pager(text: &str) -> std::io::Result<()> {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    let mut words = pager.split_whitespace();
    let program = words.next().filter(|program| *program != "cat").ok_or(std::io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", "FRX");
    }
    let mut pager = command.spawn()?;
    if let Some(mut input) = pager.stdin.take() {
        // The user has seen enough.
        let _closed = input.write_all(text.as_bytes());
    }
    pager.wait().map(drop)
}

/// Prints why the command failed. In the journal the message is an error, sd-daemon(3), and the journal adds the program's
/// name.
pub fn fail(message: &str) {
    if goes_to_journal() {
        let lines: String = message.lines().map(|line| format!("<3>{line}\n")).collect();
        let _closed = std::io::stderr().write_all(lines.as_bytes());
    } else {
        complain(message);
    }
}

/// Prints an error or a warning to standard error.
pub fn complain(message: impl Display) {
    let _closed = writeln!(std::io::stderr(), "postkey: {message}");
}

/// Reads standard input line by line.
pub struct Input(BufReader<Stdin>);

impl Input {
    /// Starts to read standard input.
    pub fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()))
    }

    /// Returns the next line without its line end; None after the last.
    pub async fn line(&mut self) -> Option<Secret> {
        let mut line = Zeroizing::new(Vec::new());
        let count = self.0.read_until(b'\n', &mut line).await.ok()?;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        (count > 0).then(|| Secret::new(text.to_vec()))
    }

    /// Asks for a password or another secret without echo. Reads the next line if standard input is not a terminal.
    pub async fn password(&mut self, prompt: &str) -> Result<Secret, Failed> {
        let password = if std::io::stdin().is_terminal() {
            rpassword::prompt_password(prompt).ok().map(|typed| Secret::new(typed.into_bytes()))
        } else {
            self.line().await
        };
        let missing = || {
            let asked = prompt.trim_end();
            let advice = "type it on the terminal, or send it as a line of standard input";
            Failed::new(Exit::Data, format!("nothing was entered after {asked:?}; {advice}"))
        };
        password.filter(|password| !password.expose().is_empty()).ok_or_else(missing)
    }
}
