//! What a provider's no means: two tables, the codes that standards define before the words that providers use.

use super::{Rejection, Verdict};
use crate::wire::quote;
use Verdict::{Forbidden, Limit, Temporary, Token};

/// Response codes of IMAP (RFC 5530) and POP3 (RFC 2449, RFC 3206), and enhanced status codes of SMTP (RFC 3463).
///
/// Codes that different causes share (ALERT, 4.7.0, 5.7.0) are not here: the words decide.
const CODES: &[(&str, Verdict)] = &[
    ("AUTHENTICATIONFAILED", Token),
    ("EXPIRED", Token),
    ("AUTHORIZATIONFAILED", Forbidden),
    ("CONTACTADMIN", Forbidden),
    ("PRIVACYREQUIRED", Forbidden),
    ("WEBALERT", Forbidden),
    ("LIMIT", Limit),
    ("INUSE", Limit),
    ("OVERQUOTA", Limit),
    ("THROTTLED", Limit),
    ("UNAVAILABLE", Temporary),
    ("SERVERBUG", Temporary),
    ("AUTH", Token),
    ("SYS/PERM", Forbidden),
    ("SYS/TEMP", Temporary),
    ("IN-USE", Limit),
    ("LOGIN-DELAY", Limit),
    ("5.7.8", Token),
    ("5.7.3", Token),
    // Microsoft's high-volume service wants more time left on the token.
    ("5.5.127", Token),
    // Microsoft: switched off for the tenant or the mailbox, whatever the words after it.
    ("5.7.139", Forbidden),
    ("5.7.30", Forbidden),
    ("5.7.9", Forbidden),
    // Google: a person has to log in with a browser first.
    ("5.7.14", Forbidden),
    ("4.3.2", Limit),
    ("4.4.2", Limit),
    ("4.5.3", Limit),
];

/// Words of providers, in lower case; the first that is found counts.
const WORDS: &[(&str, Verdict)] = &[
    ("authenticated but not connected", Forbidden),
    ("not enabled for", Forbidden),
    ("is disabled", Forbidden),
    ("is not allowed", Forbidden),
    ("not supported", Forbidden),
    ("your web browser", Forbidden),
    ("web login required", Forbidden),
    ("application-specific password", Forbidden),
    ("application password", Forbidden),
    ("too many", Limit),
    ("throttled", Limit),
    ("rate limit", Limit),
    ("connections limit", Limit),
    ("bandwidth limit", Limit),
    ("temporary", Temporary),
    ("try again later", Temporary),
    ("unavailable", Temporary),
    ("system error", Temporary),
    ("server error", Temporary),
    ("command error", Temporary),
    ("protocol error", Temporary),
];

/// Judges a no by its code, else by its words, else as `otherwise`.
pub(super) fn judge(code: &str, said: &str, otherwise: Verdict) -> Rejection {
    let lower = said.to_ascii_lowercase();
    let by_code = CODES.iter().find(|(known, _)| code.eq_ignore_ascii_case(known));
    let verdict = by_code.or_else(|| WORDS.iter().find(|(words, _)| lower.contains(words)));
    Rejection { verdict: verdict.map_or(otherwise, |&(_, verdict)| verdict), said: quote(said) }
}

/// The word in the brackets with which a text begins: an IMAP or POP3 response code. "" where there is none.
pub(super) fn bracketed(text: &str) -> &str {
    let code = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    code.and_then(|(code, _)| code.split(' ').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_judged_where_the_code_says_too_little() {
        for (code, said, verdict) in [
            ("ALERT", "[ALERT] Too many simultaneous connections. (Failure)", Limit),
            ("ALERT", "[ALERT] Your account is not enabled for IMAP use.", Forbidden),
            ("ALERT", "[ALERT] IMAP access is disabled for your domain.", Forbidden),
            ("ALERT", "[ALERT] IMAP access is not allowed for this account.", Forbidden),
            ("ALERT", "[ALERT] Please log in via your web browser: https://example.test/", Forbidden),
            ("ALERT", "[ALERT] Application-specific password required", Forbidden),
            ("ALERT", "[ALERT] Invalid credentials", Token),
            ("", "User is authenticated but not connected.", Forbidden),
            ("", "Basic authentication is disabled.", Forbidden),
            ("", "Request is throttled. Suggested Backoff Time: 30000 milliseconds", Limit),
            ("", "Server Unavailable. 15", Temporary),
            ("", "Protocol error. Connection is closed. 10", Temporary),
            ("", "AUTHENTICATE failed.", Token),
            ("5.7.0", "535 5.7.0 (#AUTH005) Too many bad auth attempts.", Limit),
            ("4.7.0", "454 4.7.0 Cannot authenticate due to a temporary system problem", Temporary),
            ("AUTHENTICATIONFAILED", "[AUTHENTICATIONFAILED] invalid credentials or IMAP is disabled", Token),
            ("authenticationfailed", "[authenticationfailed] no", Token),
        ] {
            assert_eq!(judge(code, said, Token).verdict, verdict, "{said}");
        }
        assert_eq!(judge("", "no", Temporary).verdict, Temporary);
    }

    #[test]
    fn a_code_is_one_word_in_brackets_at_the_beginning() {
        assert_eq!(bracketed("[LIMIT] x"), "LIMIT");
        assert_eq!(bracketed("[WEBALERT https://example.test/] x"), "WEBALERT");
        assert_eq!(bracketed("ready. [aG9zdA==]"), "");
        assert_eq!(bracketed("[LIMIT x"), "");
    }

    #[test]
    fn what_could_be_a_token_is_not_repeated() {
        let message = "dXNlcj1hbm5A".repeat(20);
        assert_eq!(quote(&format!("Unknown command '{message}='\u{7}")), "Unknown command '...'?");
        assert_eq!(quote(&format!("what is {message}")), "what is ...");
        let harmless =
            "see https://example.test/ [LO2P265CA0001.GBRP265.PROD.OUTLOOK.COM 2026-11-01T00:00:00.000Z 08DE1B]";
        assert_eq!(quote(harmless), harmless);
    }
}
