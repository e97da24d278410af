//! What an examination has found, in words that may be shown to anybody.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::wire::without_tokens;

/// One thing that was looked at, and how it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub state: State,
    /// What was found and, of a problem, what to do: a clause without an end. No secret is in it.
    pub text: String,
    /// What kind of problem it is.
    pub exit: Option<Exit>,
}

/// How something is that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// In the way of a login.
    Problem,
    /// Not known, mostly because of another problem.
    Skipped,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(subject: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(subject, State::Ok, text, None)
    }

    /// Something that is in the way of a login.
    pub fn problem(subject: impl Into<String>, exit: Exit, text: impl AsRef<str>) -> Self {
        Self::new(subject, State::Problem, text, Some(exit))
    }

    /// Something that could not be looked at.
    pub fn skipped(subject: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(subject, State::Skipped, text, None)
    }

    fn new(subject: impl Into<String>, state: State, text: impl AsRef<str>, exit: Option<Exit>) -> Self {
        let text = without_tokens(text.as_ref().trim_end_matches(['.', ' ']));
        let text = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { subject: subject.into(), state, text, exit }
    }

    /// Whether it is in the way of a login.
    pub fn is_problem(&self) -> bool {
        self.state == State::Problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_token_is_left_out() {
        let token = "eyJ0eXAiOiJKV1Qi_-0123456789abcdefghijklmnop";
        let found = Finding::ok("x", format!("it says '{token}', {token}.{token} and\r\nmore."));
        assert_eq!(found.text, "it says '...', ....... and??more");
        let harmless = "client 01234567-89ab-cdef-0123-456789abcdef at /var/lib/postkey/state/and/so/on/for/a/while/x";
        assert_eq!(Finding::ok("x", harmless).text, harmless);
    }
}
