//! What a person reads and types.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failed};
use crate::secret::Secret;

/// Prints a line. A closed pipe is the reader's choice.
pub fn say(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Prints what went wrong.
pub fn complain(message: impl Display) {
    let _closed = writeln!(std::io::stderr(), "postkey: {message}");
}

/// The standard input, line by line.
pub struct Input(BufReader<Stdin>);

impl Input {
    /// The standard input.
    pub fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()))
    }

    /// The next line without its end; None after the last.
    pub async fn line(&mut self) -> Option<Secret> {
        let mut line = Zeroizing::new(Vec::new());
        let count = self.0.read_until(b'\n', &mut line).await.ok()?;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        (count > 0).then(|| Secret::new(text.to_vec()))
    }

    /// A password: asked for on the terminal, unseen; or the next line, where the standard input is none.
    pub async fn password(&mut self, prompt: &str) -> Result<Secret, Failed> {
        let password = if std::io::stdin().is_terminal() {
            rpassword::prompt_password(prompt).ok().map(|typed| Secret::new(typed.into_bytes()))
        } else {
            self.line().await
        };
        let missing =
            || Failed::new(Exit::Data, "a password is needed, on the terminal or as a line of the standard input");
        password.filter(|password| !password.expose().is_empty()).ok_or_else(missing)
    }
}
