//! Compares what an access token allows with what each protocol needs. Pure.

use super::finding::Finding;
use crate::exit::Exit;
use crate::oauth::access_token::Claims;
use crate::protocol::Protocol;

/// Microsoft Graph as an audience: its name and its id.
const GRAPH: [&str; 2] = ["graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];

/// Microsoft's permissions: for a person who has signed in, and for an application.
const MICROSOFT: [(Protocol, &str, &str); 3] = [
    (Protocol::Imap, "IMAP.AccessAsUser.All", "IMAP.AccessAsApp"),
    (Protocol::Pop3, "POP.AccessAsUser.All", "POP.AccessAsApp"),
    (Protocol::Smtp, "SMTP.Send", "SMTP.SendAsApp"),
];

/// Google's one scope for all three protocols.
const GOOGLE: &str = "https://mail.google.com/";

/// Scopes that do not concern mail. Servers leave some of them out of their answers (OpenID Connect Core 1.0 sections
/// 5.4 and 11).
const NOT_MAIL: [&str; 5] = ["openid", "email", "profile", "offline_access", "address"];

/// The known properties of an access token.
pub struct Rights<'a> {
    /// The scopes that the configuration asks for.
    pub asked: &'a [String],
    /// `scope` of the token response; empty if it says nothing.
    pub granted: &'a str,
    /// The claims of the token, if it can be read.
    pub claims: Option<&'a Claims>,
    /// The protocols for which the provider has servers.
    pub protocols: &'a [Protocol],
    /// The protocols whose servers have just accepted this token, which counts more than the expected scope.
    pub accepted: &'a [Protocol],
}

impl Rights<'_> {
    pub fn audience(&self) -> Finding {
        const SUBJECT: &str = "token's audience";
        let Some(claims) = self.claims else {
            return Finding::skipped(SUBJECT, "only the provider can read the access token");
        };
        if self.accepted.is_empty() && GRAPH.iter().any(|graph| claims.audience.contains(graph)) {
            let text = "this token is for Graph, not for Outlook: the scopes in the configuration lack the \
                        https://outlook.office.com/ prefix; correct scope, and authorize the account again";
            return Finding::problem(SUBJECT, Exit::Config, text);
        }
        Finding::ok(SUBJECT, format!("the access token says that it is {claims}"))
    }

    /// Checks that the token's scope covers what mail needs.
    pub fn scope(&self) -> Finding {
        const SUBJECT: &str = "token's scope";
        let has = self.has();
        if has.is_empty() {
            return Finding::ok(
                SUBJECT,
                "the authorization server does not list it, so everything requested is granted",
            );
        }
        match self.lacks(&has) {
            lacks if lacks.is_empty() => Finding::ok(SUBJECT, has.join(" ")),
            lacks => match lacks.iter().copied().filter(|lack| !self.is_refuted(lack)).collect::<Vec<_>>() {
                needed if needed.is_empty() => {
                    let lacks: Vec<&str> = lacks.iter().map(|(_, scope)| *scope).collect();
                    let text = format!("{}; the logins work without {}", has.join(" "), lacks.join(" and "));
                    Finding::ok(SUBJECT, text)
                }
                needed => Finding::problem(SUBJECT, Exit::Config, self.missing(&needed, &has)),
            },
        }
    }

    /// Whether a successful login has shown that this scope is not needed.
    fn is_refuted(&self, (protocol, _): &(Option<Protocol>, &str)) -> bool {
        match protocol {
            Some(protocol) => self.accepted.contains(protocol),
            None => self.protocols.iter().all(|protocol| self.accepted.contains(protocol)),
        }
    }

    /// The scopes of the token. The token's own claims come before the token response.
    fn has(&self) -> Vec<&str> {
        let own: Vec<&str> = self.claims.iter().flat_map(|claims| claims.rights()).collect();
        if own.is_empty() { self.granted.split_whitespace().collect() } else { own }
    }

    /// The missing scope, and which protocol needs it; None if all of them do.
    fn lacks<'s>(&'s self, has: &[&str]) -> Vec<(Option<Protocol>, &'s str)> {
        let is_there = |scope: &str| has.iter().any(|one| one.eq_ignore_ascii_case(scope));
        if self.is_microsofts(has) {
            let is_there = |right: &str| has.iter().any(|one| last(one).eq_ignore_ascii_case(right));
            let needed = MICROSOFT.iter().filter(|(protocol, ..)| self.protocols.contains(protocol));
            let lacking = needed.filter(|(_, person, application)| !is_there(person) && !is_there(application));
            return lacking.map(|(protocol, person, _)| (Some(*protocol), *person)).collect();
        }
        let wanted = self.asked.iter().map(String::as_str).filter(|scope| !NOT_MAIL.contains(scope));
        let mut lacking: Vec<_> = wanted.filter(|scope| !is_there(scope)).map(|scope| (None, scope)).collect();
        let is_googles = self.words(has).any(|scope| scope.contains("googleapis.com/"));
        if is_googles && !is_there(GOOGLE) && !lacking.iter().any(|(_, scope)| *scope == GOOGLE) {
            lacking.push((None, GOOGLE));
        }
        lacking
    }

    fn is_microsofts(&self, has: &[&str]) -> bool {
        let is_known = |word: &str| MICROSOFT.iter().any(|(_, person, app)| [*person, *app].contains(&last(word)));
        self.words(has).any(|word| is_known(word) || word.contains("outlook.office") || word.contains(GRAPH[0]))
    }

    fn words<'s>(&'s self, has: &'s [&str]) -> impl Iterator<Item = &'s str> {
        self.asked.iter().map(String::as_str).chain(has.iter().copied())
    }

    fn missing(&self, lacks: &[(Option<Protocol>, &str)], has: &[&str]) -> String {
        let lack = |(protocol, scope): &(Option<Protocol>, &str)| match protocol {
            Some(protocol) => format!("{scope} is missing, so {protocol} will be refused"),
            None => format!("{scope} is missing, so mail will be refused"),
        };
        let asked = |scope: &str| self.asked.iter().any(|one| one == scope || last(one) == scope);
        let remedy = match lacks.iter().all(|(_, scope)| asked(scope)) {
            true => {
                "authorize the account again, and consent to everything that the page asks for; an administrator may have to allow it"
            }
            false => "add it to scope in the configuration, and authorize the account again",
        };
        let lacks: Vec<String> = lacks.iter().map(lack).collect();
        format!("{}: {remedy} (the token has {})", lacks.join(", "), has.join(" "))
    }
}

/// A permission without the resource in front of it.
fn last(scope: &str) -> &str {
    scope.rsplit('/').next().unwrap_or(scope)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(asked: &[&str], granted: &str, claims: Option<serde_json::Value>) -> [Finding; 2] {
        let (asked, claims): (Vec<_>, _) =
            (asked.iter().map(|scope| (*scope).to_owned()).collect(), claims.as_ref().map(Claims::of));
        let rights =
            Rights { asked: &asked, granted, claims: claims.as_ref(), protocols: &Protocol::ALL, accepted: &[] };
        [rights.audience(), rights.scope()]
    }

    const OUTLOOK: [&str; 4] = [
        "https://outlook.office.com/IMAP.AccessAsUser.All",
        "https://outlook.office.com/POP.AccessAsUser.All",
        "https://outlook.office.com/SMTP.Send",
        "offline_access",
    ];

    #[test]
    fn a_missing_scope_is_named_with_its_consequence() {
        let bare = ["IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"];
        let without_smtp = "IMAP.AccessAsUser.All POP.AccessAsUser.All";
        let (all, app) = (bare.join(" "), "IMAP.AccessAsApp POP.AccessAsApp SMTP.SendAsApp");
        let outlook = "https://outlook.office.com";
        for (asked, granted, claims, words) in [
            (&["mail", "openid"][..], "mail", None, None),
            (&["mail", "openid"], "", None, None),
            (&["mail", "openid"], "openid", None, Some("mail is missing, so mail will be refused: authorize")),
            (&OUTLOOK, &OUTLOOK[..3].join(" "), None, None),
            (&OUTLOOK, &OUTLOOK[..2].join(" "), None, Some("SMTP.Send is missing, so SMTP will be refused: authorize")),
            (&OUTLOOK, OUTLOOK[2], Some(json!({"aud": outlook, "scp": all})), None),
            (&OUTLOOK, &all, Some(json!({"aud": outlook, "scp": without_smtp})), Some("SMTP.Send is missing")),
            (&[OUTLOOK[0]], OUTLOOK[0], None, Some("POP.AccessAsUser.All is missing, so POP3 will be refused")),
            (&[OUTLOOK[0]], OUTLOOK[0], None, Some("add it to scope in the configuration")),
            (
                &["https://outlook.office365.com/.default"],
                "",
                Some(json!({"roles": app.split(' ').collect::<Vec<_>>()})),
                None,
            ),
            (
                &["https://outlook.office365.com/.default"],
                "",
                Some(json!({"roles": ["IMAP.AccessAsApp"]})),
                Some("SMTP.Send is"),
            ),
            (&[GOOGLE], GOOGLE, None, None),
            (
                &["https://www.googleapis.com/auth/gmail.readonly"],
                "https://www.googleapis.com/auth/gmail.readonly",
                None,
                Some("https://mail.google.com/ is missing, so mail will be refused: add it"),
            ),
            (
                &[GOOGLE, "openid"],
                "openid",
                None,
                Some("https://mail.google.com/ is missing, so mail will be refused: authorize"),
            ),
        ] {
            let [_, scope] = found(asked, granted, claims);
            assert_eq!(scope.is_problem(), words.is_some(), "{asked:?} {granted:?}: {}", scope.text);
            assert!(scope.text.contains(words.unwrap_or_default()), "{}", scope.text);
        }
    }

    #[test]
    fn a_successful_login_counts_more_than_a_missing_scope() {
        let of = |asked: &[&str], granted: &str, accepted: &[Protocol]| {
            let asked: Vec<_> = asked.iter().map(|scope| (*scope).to_owned()).collect();
            Rights { asked: &asked, granted, claims: None, protocols: &Protocol::ALL, accepted }.scope()
        };
        let found = of(&["mail", "openid"], "openid", &Protocol::ALL);
        assert!(!found.is_problem() && found.text.contains("work without mail"), "{}", found.text);
        assert!(of(&["mail", "openid"], "openid", &[Protocol::Imap]).is_problem());
        let without_smtp = OUTLOOK[..2].join(" ");
        assert!(of(&OUTLOOK, &without_smtp, &[Protocol::Imap, Protocol::Pop3]).is_problem());
        assert!(!of(&OUTLOOK, &without_smtp, &[Protocol::Smtp]).is_problem());
    }

    #[test]
    fn a_token_for_graph_is_not_one_for_outlook() {
        for (audience, is_problem) in [
            ("https://graph.microsoft.com", true),
            ("00000003-0000-0000-c000-000000000000", true),
            ("https://outlook.office.com", false),
            ("https://outlook.office365.com/", false),
        ] {
            let [found, _] = found(&OUTLOOK, "", Some(json!({"aud": audience, "tid": "t", "upn": "ann@example.test"})));
            assert_eq!(found.is_problem(), is_problem, "{}", found.text);
            let words = if is_problem { "for Graph, not for Outlook" } else { "of tenant t, for ann@example.test" };
            assert!(found.text.contains(words), "{}", found.text);
        }
        assert!(!found(&OUTLOOK, "", None)[0].is_problem());
    }
}
