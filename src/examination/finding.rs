//! The findings of an examination, in words without secrets.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::wire::without_tokens;

/// One thing that was checked, with the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub subject: String,
    pub state: FindingState,
    /// What was found and, for a problem, what to do: a clause without a full stop. It contains no secrets.
    pub text: String,
    /// The kind of problem.
    pub exit: Option<Exit>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    Ok,
    /// It prevents a login.
    Problem,
    /// It is not known, usually because of another problem.
    Skipped,
}

impl FindingState {
    /// The word in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Skipped => "skipped",
        }
    }
}

const ALL_WELL: &str = "Everything works from here to the mailbox. If a mail program fails, check its server, port, user \
                        name and password.";

const NO_LOGIN: &str = "No problem was found. Without an app password, the tokens and the logins were not checked.";

/// The first problem, because the later ones depend on it.
pub fn likely_cause(findings: &[Finding]) -> Option<&Finding> {
    let problem = findings.iter().find(|finding| finding.is_problem());
    problem.or_else(|| findings.iter().find(|finding| finding.is_blocked()))
}

/// The last sentence of a report.
pub fn conclusion(findings: &[Finding]) -> String {
    let is_authorization = |finding: &Finding| finding.subject == "authorization" && finding.state == FindingState::Ok;
    match likely_cause(findings) {
        Some(problem) => format!("The likely cause is the {}: {}.", problem.subject, problem.text),
        None if findings.iter().any(is_authorization) => ALL_WELL.to_owned(),
        None => NO_LOGIN.to_owned(),
    }
}

impl Finding {
    /// Creates a finding for something that works.
    pub fn ok(subject: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(subject, FindingState::Ok, text, None)
    }

    /// Creates a finding for something that prevents a login.
    pub fn problem(subject: impl Into<String>, exit: Exit, text: impl AsRef<str>) -> Self {
        Self::new(subject, FindingState::Problem, text, Some(exit))
    }

    /// Creates a finding for something that could not be checked because of another problem, so that it does not count
    /// as well.
    pub fn blocked(subject: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(subject, FindingState::Skipped, text, Some(Exit::Unavailable))
    }

    /// Creates a finding for something that was skipped, or that is not known.
    pub fn skipped(subject: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self::new(subject, FindingState::Skipped, text, None)
    }

    fn new(subject: impl Into<String>, state: FindingState, text: impl AsRef<str>, exit: Option<Exit>) -> Self {
        let text = without_tokens(text.as_ref().trim_end_matches(['.', ' ']));
        let text = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { subject: subject.into(), state, text, exit }
    }

    /// Whether another problem prevented the check, so that the state is not known.
    pub fn is_blocked(&self) -> bool {
        self.state == FindingState::Skipped && self.exit.is_some()
    }

    /// Whether it prevents a login.
    pub fn is_problem(&self) -> bool {
        self.state == FindingState::Problem
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
