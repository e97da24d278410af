//! A mistake in a configuration file: where it is, and what to do about it.

use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The path as the user named it.
    pub file: PathBuf,
    /// `None` if it concerns the file as a whole.
    pub position: Option<Position>,
    /// The key with the tables around it, such as `provider.google.imap.host`. Empty if it does not concern a key.
    pub key: String,
    /// The mistake, and what to do.
    pub message: String,
}

/// A position in a file, as editors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Position {
    /// The position of the byte at `offset`, or of the end if there is no such byte.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Self { line: before.matches('\n').count() + 1, column }
    }
}

/// `postkey.toml:12:3: listener.adress: unknown key; did you mean "address"?`
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}
