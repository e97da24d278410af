//! The meaning of a provider's refusal: its class decides first, then its code, then its words.
//!
//! The class is the form of a reply: SMTP's first digit (RFC 5321 section 4.2.1). Codes and words choose among the
//! verdicts that the class allows. So a 421 is never permanent, whatever its text says, and a 550 never passes by
//! itself. Only a limit can be in any class, because a session limit passes by itself even if a server words it as a
//! 5yz, and neither a new token nor a new password helps against it.

use super::rejection::{Rejection, Verdict};
use crate::wire::quote;
use Verdict::{Forbidden, Limit, Temporary, Token};

/// The class of a reply, given by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// SMTP's 4yz.
    Transient,
    /// SMTP's 5yz.
    Permanent,
    /// A refusal by IMAP or POP3, which have no classes, so that only codes and words count.
    Open,
}

impl Class {
    fn allows(self, verdict: Verdict) -> bool {
        match self {
            Self::Transient => matches!(verdict, Limit | Temporary),
            Self::Permanent => verdict != Temporary,
            Self::Open => true,
        }
    }
}

/// A server's refusal as it arrived.
pub struct RawRefusal<'a> {
    class: Class,
    /// A response code of IMAP or POP3, an enhanced status code of SMTP, or "".
    code: &'a str,
    /// The whole reply, including its code.
    said: &'a str,
    /// The verdict if neither code nor words are known.
    otherwise: Verdict,
}

impl<'a> RawRefusal<'a> {
    /// A refusal by IMAP or POP3, with the response code at the beginning of its text, if any.
    pub fn open(text: &'a str, otherwise: Verdict) -> Self {
        Self { class: Class::Open, code: bracketed(text), said: text, otherwise }
    }

    /// A refusal by SMTP. 535 concerns the credentials, and every other 5yz something else. The enhanced status code at
    /// the beginning of the text counts if it is of the reply's class (RFC 2034 section 4).
    pub fn smtp(said: &'a str) -> Self {
        let (class, otherwise) = match said.get(..3) {
            Some("535") => (Class::Permanent, Token),
            _ if said.starts_with('4') => (Class::Transient, Temporary),
            _ => (Class::Permanent, Forbidden),
        };
        let code = said.split(' ').nth(1).unwrap_or_default();
        let code = if code.get(..1) == said.get(..1) { code } else { "" };
        Self { class, code, said, otherwise }
    }

    /// Judges it by its code, or else by its words. The explanation of the words is included if it fits the verdict.
    pub fn judge(&self) -> Rejection {
        let (said, allowed) = (self.said.to_ascii_lowercase(), |verdict| self.class.allows(verdict));
        let known = |(code, verdict): &&(&str, Verdict)| code.eq_ignore_ascii_case(self.code) && allowed(*verdict);
        let by_code = CODES.iter().find(known).map(|(_, verdict)| *verdict);
        let mut rows = WORDS.iter().filter(|(words, ..)| words.split('|').any(|words| said.contains(words)));
        let by_words =
            |class: Class| rows.clone().map(|(_, verdict, _)| *verdict).find(|verdict| class.allows(*verdict));
        let verdict = match by_code {
            // Such a code is a separate class.
            Some(Temporary) => by_words(Class::Transient).unwrap_or(Temporary),
            Some(verdict) => verdict,
            None => by_words(self.class).unwrap_or(self.otherwise),
        };
        let fits =
            |(_, meant, clause): &&(&str, Verdict, &str)| !clause.is_empty() && meant.passes() == verdict.passes();
        let explanation = rows.find(fits).map(|(.., clause)| *clause);
        Rejection { verdict, said: quote(self.said), explanation, alerts: Vec::new() }
    }
}

/// Response codes of IMAP (RFC 5530) and POP3 (RFC 2449, RFC 3206), and enhanced status codes of SMTP (RFC 3463).
///
/// Codes with several causes (ALERT, 4.7.0, 5.7.0) are not here, so that the words decide.
const CODES: &[(&str, Verdict)] = &[
    ("AUTHENTICATIONFAILED", Token),
    ("EXPIRED", Token),
    ("AUTHORIZATIONFAILED", Forbidden),
    ("CONTACTADMIN", Forbidden),
    ("NOPERM", Forbidden),
    ("PRIVACYREQUIRED", Forbidden),
    ("WEBALERT", Forbidden),
    ("LIMIT", Limit),
    ("INUSE", Limit),
    ("OVERQUOTA", Limit),
    ("THROTTLED", Limit),
    ("UNAVAILABLE", Temporary),
    ("SERVERBUG", Temporary),
    ("CORRUPTION", Temporary),
    ("CLIENTBUG", Temporary),
    ("AUTH", Token),
    ("SYS/PERM", Forbidden),
    ("SYS/TEMP", Temporary),
    ("IN-USE", Limit),
    ("LOGIN-DELAY", Limit),
    ("5.7.8", Token),
    ("5.7.3", Token),
    // Microsoft's high-volume service requires a longer remaining life of the token.
    ("5.5.127", Token),
    // Microsoft: disabled for the tenant or the mailbox, whatever the words after it.
    ("5.7.139", Forbidden),
    ("5.7.30", Forbidden),
    ("5.7.9", Forbidden),
    // Google: a person has to sign in with a browser first.
    ("5.7.14", Forbidden),
    ("4.5.3", Limit),
    ("4.7.28", Limit),
];

/// Words of providers, in lower case and separated by `|`; what they mean; and what is wrong and what to do. The first
/// matching row that the class allows counts.
///
/// The last part is a clause without a full stop. If an answer has several causes, it names them, the most frequent
/// first. It is "" if there is nothing to add to the provider's words.
const WORDS: &[(&str, Verdict, &str)] = &[
    (
        "authenticated but not connected",
        Forbidden,
        "the token is valid, but this mailbox is not open to whoever signed in, or the protocol is disabled for it: \
         check who signed in and the mailbox's permissions, and enable the protocol in the mailbox's settings",
    ),
    (
        "smtpclientauthentication is disabled for the tenant",
        Forbidden,
        "SMTP AUTH is disabled for the whole organization: its administrator has to enable it, for the organization \
         or for this mailbox only (SmtpClientAuthenticationDisabled)",
    ),
    (
        "smtpclientauthentication is disabled for the mailbox",
        Forbidden,
        "SMTP AUTH is disabled for this mailbox: its administrator has to enable \"Authenticated SMTP\" in the \
         mailbox's e-mail apps",
    ),
    (
        "smtpclientauthentication is disabled",
        Forbidden,
        "SMTP AUTH is disabled: the mailbox's administrator has to enable it",
    ),
    (
        "security defaults",
        Forbidden,
        "the organization's security defaults forbid this login: its administrator has to allow SMTP AUTH",
    ),
    (
        "did not meet the criteria",
        Forbidden,
        "a policy of the organization (Conditional Access, authentication policy) forbids this login: its \
         administrator has to allow it",
    ),
    (
        "basic authentication is|application-specific password",
        Forbidden,
        "the provider treated this login as a password login: the mailbox or the organization does not allow OAuth \
         here",
    ),
    (
        "5.7.139",
        Forbidden,
        "the organization or the mailbox does not allow this login by SMTP: its administrator has to enable SMTP AUTH",
    ),
    (
        "5.7.3 authentication unsuccessful",
        Token,
        "the token is not for SMTP, or not for this mailbox: the scope SMTP.Send is missing, somebody else signed in, \
         or SMTP is disabled for the mailbox",
    ),
    (
        "token will expire soon",
        Token,
        "the high-volume service requires a token with ten minutes of life left, but the tenant issues shorter ones: \
         its administrator has to lengthen the life of access tokens",
    ),
    (
        "authenticate failed",
        Token,
        "the token is not for IMAP, or not for this mailbox: its scope or audience is wrong, somebody else signed in, \
         the address is an alias (set user to the primary one), or IMAP is disabled for the mailbox",
    ),
    (
        "unknown user name or bad password",
        Token,
        "the token is not for POP, or not for this mailbox, or POP is disabled: enable it in the mailbox's settings, \
         and check who signed in",
    ),
    // Limits of sessions, logins and bytes, in the words of many servers. They come before other reasons for a refusal,
    // because a server that counts connections also names the user.
    (
        "backoff time|throttl",
        Limit,
        "the provider throttles this mailbox: wait, and let programs open fewer connections",
    ),
    (
        "too many login|too many bad auth|too many fail|too many auth",
        Limit,
        "the provider has blocked logins for a while: stop programs that keep trying, and wait",
    ),
    (
        "concurrent connection",
        Limit,
        "the mailbox sends over too many connections at a time: let programs use fewer, and wait",
    ),
    (
        "simultaneous|maximum number of connections|maximum number of sessions|maximum connections|max connections|\
         too many connections|too many sessions|connection limit|connections limit|session limit",
        Limit,
        "every program and every folder that it watches needs a connection: close some, or let programs use fewer",
    ),
    ("submission rate", Limit, "the mailbox sends more than the provider accepts in a minute: send more slowly"),
    (
        "bandwidth limit",
        Limit,
        "the mailbox has moved more than the provider allows in a day: wait a day, and fetch less at once",
    ),
    ("rate limit", Limit, "the provider counts too many logins: wait, and let programs look for mail less often"),
    (
        "too many|ratelimit|rate-limit|too frequent|maximum number|limit exceeded|limit reached|quota exceeded|\
         has exceeded",
        Limit,
        "",
    ),
    (
        "in use by another|already in use|already locked|lock busy|for mailbox lock|lock maildrop|lock mailbox|\
         waiting for lock",
        Limit,
        "another session has this mailbox open: close it, or wait until it ends",
    ),
    (
        "imap access is disabled for your domain",
        Forbidden,
        "the organization has disabled IMAP: its administrator has to enable it in the admin console",
    ),
    (
        "not allowed for this account",
        Forbidden,
        "the account may not use this protocol, for example because it belongs to a child: ask whoever administers it",
    ),
    (
        "credentials or imap is disabled",
        Token,
        "the token is not valid for this mailbox, or IMAP is disabled in its settings: the provider does not say which",
    ),
    (
        "not enabled for imap|imap is disabled",
        Forbidden,
        "IMAP is disabled for the mailbox: enable it in the mailbox's settings, or ask the organization's \
         administrator",
    ),
    (
        "not enabled for pop|pop3 is disabled",
        Forbidden,
        "POP is disabled for the mailbox: enable it in the mailbox's settings, or ask the organization's administrator",
    ),
    ("not enabled for", Forbidden, ""),
    ("temporarily", Temporary, ""),
    ("is disabled|is locked|been locked|suspended|is not allowed|not supported", Forbidden, ""),
    (
        "via your web browser|web login required|webalert",
        Forbidden,
        "the provider wants the owner to act: sign in to the mailbox in a browser once, and confirm what it asks",
    ),
    (
        "application password",
        Forbidden,
        "the provider requires one of its own app passwords, because it accepts OAuth only from clients that it has \
         approved",
    ),
    (
        "accesstokenexpired",
        Token,
        "the provider ends sessions when their token expires: mail programs log in again by themselves",
    ),
    (
        "username and password not accepted",
        Token,
        "the token is not for this mailbox, or its scope is not the mail scope: check who signed in, and the scope",
    ),
    (
        "invalid credentials",
        Token,
        "the token is not for this mailbox, or not for mail: check who signed in, and the scope",
    ),
    (
        "temporary|try again later|try later|unavailable|system error|server error|internal error|command error|\
         protocol error|connection is closed|connection closed",
        Temporary,
        "",
    ),
];

/// The word in brackets at the beginning of a text: an IMAP or POP3 response code. "" if there is none.
pub fn bracketed(text: &str) -> &str {
    let code = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    code.and_then(|(code, _)| code.split(' ').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(said: &str) -> Rejection {
        RawRefusal::smtp(said).judge()
    }

    #[test]
    fn words_decide_if_the_code_does_not() {
        for (said, verdict) in [
            ("[ALERT] Too many simultaneous connections. (Failure)", Limit),
            ("[ALERT] Your account is not enabled for IMAP use.", Forbidden),
            ("[ALERT] IMAP access is disabled for your domain.", Forbidden),
            ("[ALERT] IMAP access is not allowed for this account.", Forbidden),
            ("[ALERT] Please log in via your web browser: https://example.test/", Forbidden),
            ("[ALERT] Application-specific password required", Forbidden),
            ("[ALERT] Invalid credentials", Token),
            ("User is authenticated but not connected.", Forbidden),
            ("Basic authentication is disabled.", Forbidden),
            ("Request is throttled. Suggested Backoff Time: 30000 milliseconds", Limit),
            ("Server Unavailable. 15", Temporary),
            ("Protocol error. Connection is closed. 10", Temporary),
            ("AUTHENTICATE failed.", Token),
            ("[AUTHENTICATIONFAILED] invalid credentials or IMAP is disabled", Token),
            ("[authenticationfailed] no", Token),
        ] {
            assert_eq!(RawRefusal::open(said, Token).judge().verdict, verdict, "{said}");
        }
        assert_eq!(RawRefusal::open("no", Temporary).judge().verdict, Temporary);
    }

    #[test]
    fn a_session_limit_needs_no_code() {
        for said in [
            "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
            "Too many simultaneous connections",
            "Too many connections from your host",
            "[SYS/TEMP] Too many sessions open",
            "[UNAVAILABLE] Maximum number of sessions reached",
            "Concurrent connections limit exceeded",
            "Login rate limit exceeded, slow down",
            "User has exceeded its quota of logins",
            "maildrop already locked",
            "Unable to lock maildrop: mailbox is in use by another session",
        ] {
            assert_eq!(RawRefusal::open(said, Token).judge().verdict, Limit, "{said}");
        }
        for said in [
            "421 4.7.0 Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
            "421 too many connections",
            "535 5.7.0 (#AUTH005) Too many bad auth attempts.",
            "554 5.7.1 too many concurrent connections from your address",
            "454 4.7.0 Too many login attempts, please try again later.",
        ] {
            assert_eq!(smtp(said).verdict, Limit, "{said}");
        }
    }

    #[test]
    fn the_class_of_a_reply_counts_before_its_words() {
        for (said, verdict) in [
            ("421 4.7.66 TLS 1.0 and 1.1 are not supported.", Temporary),
            ("454 4.7.0 This feature is disabled", Temporary),
            ("451 5.7.139 the codes contradict each other", Temporary),
            ("454 4.7.0 Cannot authenticate due to a temporary system problem", Temporary),
            ("454 5.7.8 invalid credentials", Temporary),
            ("421 4.7.0 login is not allowed now", Temporary),
            ("550 5.7.501 Service unavailable, Access denied", Forbidden),
            ("554 5.7.1 Service unavailable; temporary block", Forbidden),
            ("550 4.3.2 the codes contradict each other", Forbidden),
            ("535 5.7.8 temporary server error, try again later", Token),
            ("535 server unavailable", Token),
            ("535 5.7.8 too many characters in the response", Token),
        ] {
            assert_eq!(smtp(said).verdict, verdict, "{said}");
        }
    }

    #[test]
    fn a_response_code_counts_before_the_words() {
        for (said, verdict) in [
            ("[UNAVAILABLE] Authentication is not supported now", Temporary),
            ("[AUTHENTICATIONFAILED] server unavailable", Token),
            ("[CONTACTADMIN] try again later", Forbidden),
            ("[SYS/PERM] temporarily disabled", Forbidden),
            ("[SYS/TEMP] account is disabled", Temporary),
            ("[SYS/TEMP] temporarily suspended", Temporary),
            ("[AUTH] try again later", Token),
            ("[IN-USE] unavailable", Limit),
            ("[LOGIN-DELAY] is not allowed", Limit),
            ("[EXPIRED] try again later", Token),
        ] {
            assert_eq!(RawRefusal::open(said, Token).judge().verdict, verdict, "{said}");
        }
    }

    /// Answers of providers, and a word that each explanation must contain.
    const ANSWERS: [(&str, &str); 30] = [
        ("BAD User is authenticated but not connected.", "not open to whoever signed in"),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit x",
            "whole",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit x",
            "e-mail apps",
        ),
        ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", "as a password login"),
        (
            "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy.",
            "defaults",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated",
            "Conditional",
        ),
        ("535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", "enable SMTP AUTH"),
        ("535 5.7.3 Authentication unsuccessful [HOST.EXAMPLE.TEST 2026-01-01T00:00:00.000Z 08DE]", "SMTP.Send"),
        ("550 5.7.30 Basic authentication is not supported for Client Submission.", "as a password login"),
        ("501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon", "ten minutes"),
        ("AUTHENTICATE failed.", "scope or audience"),
        ("Logon failure: unknown user name or bad password.", "POP is disabled"),
        ("Authentication failure: unknown user name or bad password.", "POP is disabled"),
        ("Request is throttled. Suggested Backoff Time: 30000 milliseconds", "throttles"),
        ("[ALERT] Too many simultaneous connections. (Failure)", "every folder"),
        ("432 4.3.2 STOREDRV.ClientSubmit; Concurrent connections limit exceeded", "fewer"),
        ("421 4.4.2 Message submission rate for this client has exceeded the configured limit", "slowly"),
        ("[OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)", "a day"),
        ("454 4.7.0 Too many login attempts, please try again later.", "blocked logins"),
        ("535 5.7.0 (#AUTH005) Too many bad auth attempts.", "blocked logins"),
        ("[LIMIT] AUTHENTICATE Rate limit hit", "too many logins"),
        ("[ALERT] IMAP access is disabled for your domain. Please contact your domain administrator", "admin console"),
        ("[ALERT] IMAP access is not allowed for this account.", "child"),
        ("[ALERT] Your account is not enabled for IMAP use. Please visit your Gmail settings page", "IMAP is disabled"),
        ("[SYS/PERM] Your account is not enabled for POP access.", "POP is disabled"),
        ("[AUTHENTICATIONFAILED] AUTHENTICATE invalid credentials or IMAP is disabled", "does not say which"),
        ("[ALERT] Please log in via your web browser: https://example.test/", "in a browser"),
        ("[WEBALERT https://example.test/] Web login required.", "in a browser"),
        ("[AUTHENTICATIONFAILED] Application password is REQUIRED", "its own app passwords"),
        ("Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)", "close some"),
    ];

    #[test]
    fn every_known_answer_is_explained() {
        for (said, words) in ANSWERS {
            let is_smtp = said.starts_with(['4', '5']);
            let rejection = if is_smtp { smtp(said) } else { RawRefusal::open(said, Token).judge() };
            let explanation = rejection.explanation.unwrap_or_else(|| panic!("{said} is not explained"));
            assert!(explanation.contains(words), "{said}: {explanation}");
        }
    }

    #[test]
    fn every_row_can_be_reached_and_its_sentence_fits() {
        let all = || WORDS.iter().flat_map(|(words, ..)| words.split('|'));
        for words in all() {
            let found = all().find(|other| words.contains(other));
            assert_eq!(found, Some(words), "{words} is hidden by one before it");
            assert_ne!(RawRefusal::open(words, Token).judge().explanation, Some(""), "{words} is explained by nothing");
        }
        for (.., clause) in WORDS {
            assert!(!clause.ends_with('.') && clause.len() < 300, "{clause}");
        }
    }

    #[test]
    fn unknown_words_are_not_explained() {
        for said in ["[AUTHENTICATIONFAILED] Authentication failed.", "[SYS/TEMP] Try later.", ""] {
            let rejection = RawRefusal::open(said, Token).judge();
            assert_eq!((rejection.explanation, rejection.explained()), (None, said.to_owned()));
        }
    }

    #[test]
    fn a_sentence_that_contradicts_the_verdict_is_left_out() {
        assert_eq!(RawRefusal::open("[UNAVAILABLE] invalid credentials", Token).judge().explanation, None);
        assert_eq!(smtp("421 4.7.0 basic authentication is disabled").explanation, None);
    }

    #[test]
    fn a_code_is_one_word_in_brackets_at_the_beginning() {
        assert_eq!(bracketed("[LIMIT] x"), "LIMIT");
        assert_eq!(bracketed("[WEBALERT https://example.test/] x"), "WEBALERT");
        assert_eq!(bracketed("ready. [aG9zdA==]"), "");
        assert_eq!(bracketed("[LIMIT x"), "");
    }
}
