//! How many connections of an account a provider allows.

use super::{bad, good};
use crate::protocol::Protocol;

#[test]
fn an_account_overrides_its_provider_and_a_file_overrides_the_table() {
    let of = |text: &str, provider: &str| {
        let config = good(text);
        let provider = config.providers.get(provider).unwrap();
        Protocol::ALL.map(|protocol| config.connections("ann@a.test", provider, protocol))
    };
    assert_eq!(of("", "google"), [Some(15), None, None]);
    assert_eq!(of("", "microsoft"), [None, None, Some(3)]);
    assert_eq!(of("[provider.google]\nconnections.smtp = 2\n", "google"), [Some(15), None, Some(2)]);
    assert_eq!(of("[provider.google]\nconnections = \"none\"\n", "google"), [None; 3]);
    let account = "[account.\"ann@a.test\"]\nprovider = \"google\"\nconnections = { imap = \"none\", pop3 = 4 }\n";
    assert_eq!(of(account, "google"), [None, Some(4), None]);
    let domain = "[account.\"*@a.test\"]\nprovider = \"google\"\nconnections = 7\n";
    assert_eq!(of(domain, "google"), [Some(7); 3]);
}

#[test]
fn a_limit_is_a_number() {
    for (value, words) in [
        ("0", "must be a number of connections from 1 to 10000, or \"none\""),
        ("\"some\"", "must be a number of connections from 1 to 10000, or \"none\""),
        ("{ imao = 3 }", "unknown key; did you mean \"imap\"?"),
    ] {
        let mistakes = bad(&format!("[provider.google]\nconnections = {value}\n"));
        assert!(mistakes.iter().any(|mistake| mistake.contains(words)), "{value}: {mistakes:?}");
    }
}
