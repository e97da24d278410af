//! What providers' answers to a login mean beyond their own words: what is wrong where, and what to do about it.
//!
//! One answer often has several causes; then the sentence names them, the most frequent first. Where a provider's words say
//! all there is to say they are not here.

/// Words of providers, in lower case, and what they mean: a clause without an end. The first that is found counts.
const EXPLANATIONS: &[(&str, &str)] = &[
    (
        "authenticated but not connected",
        "the token is good, but this mailbox is not open to whoever signed in, or the protocol is switched off for it: check \
         who signed in and the mailbox's permissions, and switch the protocol on in the mailbox's settings",
    ),
    (
        "smtpclientauthentication is disabled for the tenant",
        "SMTP AUTH is switched off for the whole organization: its administrator switches it on, for the organization or for \
         this mailbox alone (SmtpClientAuthenticationDisabled)",
    ),
    (
        "smtpclientauthentication is disabled for the mailbox",
        "SMTP AUTH is switched off for this mailbox: its administrator switches \"Authenticated SMTP\" on in the mailbox's \
         e-mail apps",
    ),
    ("smtpclientauthentication is disabled", "SMTP AUTH is switched off: the mailbox's administrator switches it on"),
    (
        "security defaults",
        "the organization's security defaults forbid this login: its administrator has to allow SMTP AUTH",
    ),
    (
        "did not meet the criteria",
        "a policy of the organization (Conditional Access, authentication policy) forbids this login: its administrator has \
         to allow it",
    ),
    (
        "basic authentication is",
        "the provider has taken this login for one with a password: the mailbox or the organization does not allow OAuth here",
    ),
    (
        "5.7.139",
        "the organization or the mailbox does not allow this login by SMTP: its administrator has to switch SMTP AUTH on",
    ),
    (
        "5.7.3 authentication unsuccessful",
        "the token is not for SMTP, or not for this mailbox: the scope SMTP.Send is missing, somebody else signed in, or SMTP \
         is switched off for the mailbox",
    ),
    (
        "token will expire soon",
        "the high-volume service wants a token with ten minutes of life left, and the tenant gives shorter ones: its \
         administrator has to lengthen the life of access tokens",
    ),
    (
        "authenticate failed",
        "the token is not for IMAP, or not for this mailbox: its scope or audience is wrong, somebody else signed in, the \
         address is an alias (set user to the primary one), or IMAP is switched off for the mailbox",
    ),
    (
        "unknown user name or bad password",
        "the token is not for POP, or not for this mailbox, or POP is switched off: switch it on in the mailbox's settings, \
         and check who signed in",
    ),
    ("backoff time", "the provider throttles this mailbox: wait, and let programs keep fewer connections open"),
    ("throttled", "the provider throttles this mailbox: wait, and let programs keep fewer connections open"),
    (
        "too many simultaneous connections",
        "every program and every folder that it watches is a connection: close some, or let programs use fewer",
    ),
    (
        "concurrent connections limit",
        "the mailbox sends over too many connections at a time: let programs use fewer, and wait",
    ),
    ("submission rate", "the mailbox sends more than the provider takes in a minute: send more slowly"),
    (
        "bandwidth limits",
        "the mailbox has moved more than the provider allows in a day: wait a day, and fetch less at once",
    ),
    (
        "too many login attempts",
        "the provider has closed logins for a while: stop programs that try again and again, and wait",
    ),
    (
        "too many bad auth attempts",
        "the provider has closed logins for a while: stop programs that try again and again, and wait",
    ),
    ("rate limit", "the provider has had too many logins: wait, and let programs look for mail less often"),
    (
        "imap access is disabled for your domain",
        "the organization has switched IMAP off: its administrator switches it on in the admin console",
    ),
    (
        "not allowed for this account",
        "the account may not use this protocol, as those of children may not: whoever administers it decides",
    ),
    (
        "not enabled for imap",
        "IMAP is switched off for the mailbox: switch it on in its settings, or ask the organization's administrator",
    ),
    (
        "not enabled for pop",
        "POP is switched off for the mailbox: switch it on in its settings, or ask the organization's administrator",
    ),
    (
        "imap is disabled",
        "the token is not good for this mailbox, or IMAP is switched off in its settings: the provider does not tell which",
    ),
    (
        "via your web browser",
        "the provider wants to see the person: sign in to the mailbox in a browser once, and confirm what it asks",
    ),
    (
        "web login required",
        "the provider wants to see the person: sign in to the mailbox in a browser once, and confirm what it asks",
    ),
    (
        "webalert",
        "the provider wants to see the person: sign in to the mailbox in a browser once, and confirm what it asks",
    ),
    (
        "application-specific password",
        "the provider has taken this login for one with a password: the account does not allow OAuth to this client",
    ),
    (
        "application password",
        "the provider wants a password of its own making for mail programs, and no OAuth from clients that it has not approved",
    ),
    (
        "accesstokenexpired",
        "the provider ends sessions when their token expires: log in again, as mail programs do by themselves",
    ),
    (
        "username and password not accepted",
        "the token is not for this mailbox, or its scope is not the mail scope: check who signed in, and the scope",
    ),
    ("invalid credentials", "the token is not for this mailbox, or not for mail: check who signed in, and the scope"),
];

/// What a provider's answer means, and what to do; None where its own words are all there is.
pub fn explain(said: &str) -> Option<&'static str> {
    let said = said.to_ascii_lowercase();
    EXPLANATIONS.iter().find(|(words, _)| said.contains(words)).map(|(_, explanation)| *explanation)
}

/// A provider's answer, and behind it what it means where that is known.
pub fn explained(said: &str) -> String {
    match explain(said) {
        Some(explanation) => format!("{}; {explanation}.", said.trim_end_matches(['.', ' '])),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as providers give them, and what their explanation has to name.
    const ANSWERS: [(&str, &str); 29] = [
        ("BAD User is authenticated but not connected.", "not open to whoever signed in"),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit x",
            "whole",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit x",
            "e-mail apps",
        ),
        ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", "for one with a password"),
        (
            "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy.",
            "defaults",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated",
            "Conditional",
        ),
        ("535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", "switch SMTP AUTH on"),
        ("535 5.7.3 Authentication unsuccessful [HOST.EXAMPLE.TEST 2026-01-01T00:00:00.000Z 08DE]", "SMTP.Send"),
        ("550 5.7.30 Basic authentication is not supported for Client Submission.", "with a password"),
        ("501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon", "ten minutes"),
        ("NO AUTHENTICATE failed.", "scope or audience"),
        ("-ERR Logon failure: unknown user name or bad password.", "POP is switched off"),
        ("-ERR Authentication failure: unknown user name or bad password.", "POP is switched off"),
        ("BAD Request is throttled. Suggested Backoff Time: 30000 milliseconds", "throttles"),
        ("NO [ALERT] Too many simultaneous connections. (Failure)", "every folder"),
        ("432 4.3.2 STOREDRV.ClientSubmit; Concurrent connections limit exceeded", "fewer"),
        ("421 4.4.2 Message submission rate for this client has exceeded the configured limit", "slowly"),
        ("NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)", "a day"),
        ("454 4.7.0 Too many login attempts, please try again later.", "closed logins"),
        ("535 5.7.0 (#AUTH005) Too many bad auth attempts.", "closed logins"),
        ("NO [LIMIT] AUTHENTICATE Rate limit hit", "too many logins"),
        (
            "NO [ALERT] IMAP access is disabled for your domain. Please contact your domain administrator",
            "admin console",
        ),
        ("NO [ALERT] IMAP access is not allowed for this account.", "children"),
        (
            "NO [ALERT] Your account is not enabled for IMAP use. Please visit your Gmail settings page",
            "IMAP is switched off",
        ),
        ("-ERR [SYS/PERM] Your account is not enabled for POP access.", "POP is switched off"),
        ("NO [AUTHENTICATIONFAILED] AUTHENTICATE invalid credentials or IMAP is disabled", "does not tell which"),
        ("NO [ALERT] Please log in via your web browser: https://example.test/", "in a browser"),
        ("NO [WEBALERT https://example.test/] Web login required.", "in a browser"),
        ("NO [AUTHENTICATIONFAILED] Application password is REQUIRED", "of its own making"),
    ];

    #[test]
    fn every_known_answer_is_explained() {
        for (said, words) in ANSWERS {
            let explanation = explain(said).unwrap_or_else(|| panic!("{said} is not explained"));
            assert!(explanation.contains(words), "{said}: {explanation}");
        }
    }

    #[test]
    fn every_explanation_can_be_reached_and_fits_into_a_sentence() {
        for (words, explanation) in EXPLANATIONS {
            assert_eq!(explain(&words.to_uppercase()), Some(*explanation), "{words} is hidden by one before it");
            assert!(!explanation.ends_with('.') && explanation.len() < 300, "{explanation}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_explained() {
        for said in ["NO [AUTHENTICATIONFAILED] Authentication failed.", "-ERR [SYS/TEMP] Try later.", ""] {
            assert_eq!(explain(said), None, "{said}");
        }
    }
}
