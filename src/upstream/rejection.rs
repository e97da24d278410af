//! A provider's refusal of a login, and what else ends a dialogue with its server.

use crate::wire::Redactor;

/// The meaning of a provider's refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token is not accepted; a new one may be.
    Token,
    /// Too many connections, logins or bytes.
    Limit,
    /// The server has a temporary problem.
    Temporary,
    /// The protocol or the mailbox is disabled for this account; a person or an administrator has to act.
    Forbidden,
}

impl Verdict {
    /// Whether it passes by itself, so that waiting is enough.
    pub const fn passes(self) -> bool {
        matches!(self, Self::Limit | Self::Temporary)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub verdict: Verdict,
    /// The provider's own words, printable.
    pub said: String,
    /// Their meaning and what to do, if that is known: a clause.
    pub explanation: Option<&'static str>,
    /// Alerts for the person (RFC 3501 section 7.1), as in `Acceptance::alerts`.
    pub alerts: Vec<String>,
}

impl Rejection {
    /// Removes the secrets that were sent from what the server says.
    pub fn without_secrets(self, sent: &Redactor) -> Self {
        let alerts = self.alerts.iter().map(|alert| sent.redact(alert)).collect();
        Self { said: sent.redact(&self.said), alerts, ..self }
    }

    /// Whether the server may mean the token although it reports a temporary problem. With 421, which ends the session,
    /// it does not (RFC 5321 section 3.8).
    pub fn may_mean_the_token(&self) -> bool {
        self.verdict == Verdict::Temporary && !self.said.starts_with("421")
    }

    /// The provider's words, followed by what they mean, if that is known. Long words are cut for that, because the
    /// person needs the meaning, and the log has all words.
    pub fn explained(&self) -> String {
        const MOST: usize = 160;
        match self.explanation {
            Some(explanation) if self.said.len() > MOST => {
                format!("{}...; {explanation}.", self.said.get(..MOST).unwrap_or_default())
            }
            Some(explanation) => format!("{}; {explanation}.", self.said.trim_end_matches(['.', ' '])),
            None => self.said.clone(),
        }
    }
}

/// Why a dialogue cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server refuses or ends the connection. The verdict is never [`Verdict::Token`].
    Refused(Rejection),
    /// STARTTLS was chosen and the server does not offer it, or does not know it.
    NoStartTls,
    /// The server supports STARTTLS but does not start it now.
    StartTlsLater,
    /// The server claims that we are already logged in, which is impossible (IMAP PREAUTH).
    PreAuth,
    /// The server offers none of the allowed mechanisms, or accepts none any more; with its offer or its words.
    NoMechanism(String),
    /// The server violated its protocol, in this way.
    Protocol(&'static str),
}

/// Writes what the server does, as the predicate of a sentence.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(rejection) => {
                let what = match rejection.verdict {
                    Verdict::Limit => "is rate-limiting this account",
                    Verdict::Temporary => "is not available",
                    Verdict::Token | Verdict::Forbidden => "refuses the connection",
                };
                write!(f, "{what}: {}", rejection.explained())
            }
            Self::NoStartTls => f.write_str("does not offer STARTTLS, so nothing was sent to it."),
            Self::StartTlsLater => f.write_str("cannot start TLS now, so nothing was sent to it; try later."),
            Self::PreAuth => {
                f.write_str("claims that we are already logged in; somebody may intercept the connection.")
            }
            Self::NoMechanism(offered) => {
                write!(f, "offers no OAuth mechanism that the configuration allows; it offers: {offered}")
            }
            Self::Protocol(what) => write!(f, "violates its protocol: {what}"),
        }
    }
}

/// The pause in milliseconds that Exchange asks for in the text of its refusal: "Suggested Backoff Time: 30000
/// milliseconds".
pub fn backoff(said: &str) -> Option<u64> {
    let said = said.to_ascii_lowercase();
    let (_, rest) = said.split_once("suggested backoff time:")?;
    let rest = rest.trim_start();
    let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let factor = match unit.trim_start() {
        unit if unit.starts_with("sec") || unit.starts_with("s.") => 1000,
        unit if unit.starts_with("min") => 60_000,
        _ => 1,
    };
    // A number with too many digits is a long time.
    (!number.is_empty()).then(|| number.parse().unwrap_or(u64::MAX).saturating_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_to_make_room_for_their_meaning() {
        let explained = |said: &str| {
            let (verdict, alerts) = (Verdict::Limit, Vec::new());
            Rejection { verdict, said: said.to_owned(), explanation: Some("close some"), alerts }.explained()
        };
        let fits = "x".repeat(160);
        assert_eq!(explained("Too many. "), "Too many; close some.");
        assert_eq!(explained(&fits), format!("{fits}; close some."));
        assert_eq!(explained(&format!("{fits}x")), format!("{fits}...; close some."));
    }

    #[test]
    fn a_pause_is_a_number_and_its_unit() {
        let seconds = |said| backoff(said).map(|milliseconds| milliseconds / 1000);
        assert_eq!(seconds("BAD Request is throttled. Suggested Backoff Time: 30000 milliseconds"), Some(30));
        assert_eq!(seconds("SUGGESTED BACKOFF TIME:90000"), Some(90));
        assert_eq!(seconds("Suggested Backoff Time: 45 seconds"), Some(45));
        assert_eq!(seconds("Suggested Backoff Time: 2 minutes."), Some(120));
        assert_eq!(seconds("Suggested Backoff Time: 99999999999999999999999 milliseconds"), Some(u64::MAX / 1000));
        for said in ["Suggested Backoff Time: soon", "Suggested Backoff Time: ", "Request is throttled.", ""] {
            assert_eq!(seconds(said), None, "{said}");
        }
    }
}
