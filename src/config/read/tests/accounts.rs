//! Accounts, shared mailboxes and domains.

use super::{bad, good};
use crate::config::{Config, Relations};
use crate::protocol::Protocol;

fn users(config: &Config, address: &str) -> [String; 3] {
    Protocol::ALL.map(|protocol| config.user_of(address, protocol))
}

#[test]
fn a_shared_mailbox_is_read_as_itself_and_sends_as_its_delegate() {
    let config = good("[account.\"Office@a.test\"]\ndelegate = \"Ann@a.test\"\n");
    assert_eq!(config.owner_of("office@a.test"), "ann@a.test");
    assert_eq!(config.owner_of("ann@a.test"), "ann@a.test");
    assert_eq!(Relations::of(&config).shared_with("ann@a.test"), ["office@a.test"]);
    assert_eq!(users(&config, "office@a.test"), ["office@a.test", "office@a.test", "ann@a.test"]);
    let config = good(
        "[account.\"office@a.test\"]\ndelegate = \"ann@gmail.com\"\nuser.imap = \"o\"\n[account.\"ann@gmail.com\"]\nuser = \"annie\"\n",
    );
    assert_eq!(users(&config, "office@a.test"), ["o", "office@a.test", "annie"]);
    assert_eq!(users(&config, "ann@gmail.com"), ["annie"; 3]);
    assert_eq!(config.provider_for("office@a.test").unwrap().name, "google", "the token comes from the delegate");
}

#[test]
fn a_login_name_stands_for_its_account_in_any_case() {
    let config = good("[account.\"ann@a.test\"]\naliases = [\"Scanner\", \"ann@b.test\"]\n");
    for name in ["scanner", "SCANNER", "Ann@B.test", "ANN@a.test"] {
        assert_eq!(config.address_of(name), "ann@a.test");
    }
    assert_eq!(config.address_of("Ben@a.test"), "ben@a.test");
}

#[test]
fn an_entry_applies_to_every_spelling_of_its_account() {
    let config = good(
        "[account.\"Ann.B@googlemail.com\"]\nuser = \"annie\"\naliases = [\"a.n.n.b@gmail.com\", \"zoë@x.test\"]\n\
         [account.\"*@BÜCHER.example\"]\nprovider = \"google\"\n\
         [account.\"office@xn--bcher-kva.example\"]\ndelegate = \"annb@gmail.com\"\n",
    );
    for name in ["annb@gmail.com", "ANN.B+x@gmail.com", "Ann <annb@googlemail.com>", "ZOE\u{308}@x.test"] {
        assert_eq!(config.address_of(name), "ann.b@googlemail.com", "{name}");
    }
    assert_eq!(users(&config, "annb@gmail.com"), ["annie"; 3]);
    assert_eq!(config.owner_of("Office@bücher.example"), "annb@gmail.com");
    assert_eq!(Relations::of(&config).shared_with("ann.b@googlemail.com"), ["office@xn--bcher-kva.example"]);
    assert_eq!(Relations::of(&config).aliases_of("annb@gmail.com"), ["a.n.n.b@gmail.com", "zoë@x.test"]);
    for address in ["ben@bücher.example", "ben@xn--bcher-kva.example", "ben@bu\u{308}cher.example"] {
        assert!(config.domain_of(address).is_some(), "{address}");
        assert_eq!(config.provider_for(address).unwrap().name, "google");
    }
}

#[test]
fn two_entries_for_one_mailbox_are_kept_apart_with_a_warning() {
    let config =
        good("[account.\"ann.b@gmail.com\"]\nuser = \"one\"\n[account.\"annb@gmail.com\"]\nuser = \"other\"\n");
    assert_eq!(users(&config, "ann.b@gmail.com"), ["one"; 3]);
    assert_eq!(users(&config, "annb@gmail.com"), ["other"; 3]);
    assert_eq!(config.address_of("AnnB@gmail.com"), "annb@gmail.com");
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(warning.message.starts_with("is the same mailbox as ann.b@gmail.com"), "{}", warning.message);
}

#[test]
fn an_accounts_own_entry_comes_before_that_of_its_domain() {
    let config = good(
        "[account.\"*@A.test\"]\nprovider = \"google\"\nuser = \"*@b.test\"\nscope = [\"x\"]\nclient_id = \"all\"\n\
         [account.\"ann@a.test\"]\nuser.smtp = \"annie\"\nclient_id = \"ann\"\n",
    );
    assert_eq!(users(&config, "ben@a.test"), ["ben@b.test"; 3]);
    assert_eq!(users(&config, "ann@a.test"), ["ann@b.test", "ann@b.test", "annie"]);
    assert_eq!(config.provider_for("ann@a.test").unwrap().name, "google");
    assert_eq!(config.account("ann@a.test").scope.as_deref().unwrap(), ["x"]);
    assert!(config.provider_for("ann@sub.a.test").is_none(), "another domain");
    let allow = |more: &str| {
        let config = good(&format!("[account.\"*@gmail.com\"]\n{more}"));
        config.domain_of("ann@gmail.com").unwrap().allow_remote
    };
    assert!(!allow("") && allow("allow_remote = true"));
}

#[test]
fn clashing_names_and_impossible_delegates_are_mistakes() {
    let [ann, ben] = ["[account.\"ann@a\"]\n", "[account.\"ben@a\"]\n"];
    for (text, expected) in [
        (
            format!("{ann}aliases = [\"a\"]\n{ben}aliases = [\"A\"]"),
            "4:12: account.\"ben@a\".aliases: a is already an alias in line 2",
        ),
        (format!("{ann}aliases = [\"Ben@a\"]\n{ben}"), "2:12: account.\"ann@a\".aliases: ben@a is an account itself"),
        (format!("{ann}aliases = [\"Ann@A\"]"), "2:12: account.\"ann@a\".aliases: ann@a is an account itself"),
        (format!("{ann}aliases = [\"a b\"]"), "2:12: account.\"ann@a\".aliases: must be a user name such as"),
        (format!("{ann}aliases = [\"*@b\"]"), "2:12: account.\"ann@a\".aliases: must be a user name such as"),
        (
            "[account.\"annb@gmail.com\"]\naliases = [\"x\"]\n[account.\"c@a\"]\naliases = [\"ann.b@gmail.com\"]"
                .to_owned(),
            "4:12: account.\"c@a\".aliases: ann.b@gmail.com is an account itself",
        ),
        (
            format!("{ann}aliases = [\"x.y@gmail.com\"]\n{ben}aliases = [\"xy@gmail.com\"]"),
            "4:12: account.\"ben@a\".aliases: xy@gmail.com is already an alias in line 2",
        ),
        (
            format!("{ann}delegate = \"Ann@a\""),
            "2:12: account.\"ann@a\".delegate: an account cannot be its own delegate",
        ),
        (format!("{ann}delegate = \"ben\""), "2:12: account.\"ann@a\".delegate: must be an address"),
        (format!("{ann}delegate = \"*@a\""), "2:12: account.\"ann@a\".delegate: must be an address"),
        (
            format!("{ann}delegate = \"ben@a\"\n{ben}delegate = \"c@a\""),
            "2:12: account.\"ann@a\".delegate: ben@a itself has a delegate",
        ),
        (
            format!("{ann}delegate = \"b@b\"\n{ben}aliases = [\"b@b\"]"),
            "2:12: account.\"ann@a\".delegate: b@b is an alias",
        ),
        (format!("{ann}delegate = \"b@b\"\nscope = [\"x\"]"), "3:9: account.\"ann@a\".scope: comes from the delegate"),
        (
            format!("{ann}delegate = \"b@b\"\nprovider = \"google\""),
            "3:12: account.\"ann@a\".provider: comes from the delegate",
        ),
        (
            format!("{ann}user = {{ imao = \"x\" }}"),
            "2:10: account.\"ann@a\".user.imao: unknown key; did you mean \"imap\"?",
        ),
        (format!("{ann}scope = \"a b\""), "2:9: account.\"ann@a\".scope: has several scopes in one text"),
        (format!("{ann}allow_remote = true"), "2:1: account.\"ann@a\".allow_remote: unknown key"),
        ("[account.\"*@\"]".to_owned(), "1:1: account.\"*@\": must be a domain after"),
        ("[account.\"*@a b\"]".to_owned(), "1:1: account.\"*@a b\": must be a domain after"),
        ("[account.\"*@a.test\"]".to_owned(), "1:1: account.\"*@a.test\": no provider has this domain; add provider"),
        (
            "[account.\"*@gmail.com\"]\naliases = [\"a\"]".to_owned(),
            "2:11: account.\"*@gmail.com\".aliases: is for single accounts; write it in [account.\"ann@gmail.com\"]",
        ),
        (
            "[account.\"*@gmail.com\"]\n[account.\"*@GMAIL.com\"]".to_owned(),
            "1:1: account.\"*@gmail.com\": occurs twice",
        ),
    ] {
        let mistakes = bad(&text);
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(expected), "{text}\n{mistakes:#?}\n{expected}");
    }
}
