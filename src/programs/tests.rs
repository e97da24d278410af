use std::path::Path;

use super::*;
use crate::address::Address;
use crate::config::environment::Environment as Variables;
use crate::config::{Config, Listening};

fn account(security: Security, provider: &str) -> Served {
    let listener = |(protocol, port): (&Protocol, u16)| Listening {
        protocol: *protocol,
        address: Address::Tcp(([127, 0, 0, 1], port).into()),
        security,
    };
    let listeners = Protocol::ALL.iter().zip(1143..).map(listener).collect();
    let (address, provider) = ("ann+x@example.test".into(), Some(provider.into()));
    Served { address, provider, listeners, by_name: Vec::new(), authority: None }
}

/// Files that contain no password, or no user name.
const WITHOUT_SECRET: [&str; 2] = ["autoconfig", "autodiscover"];

fn program(name: &str) -> MailProgram {
    MailProgram::find(name).unwrap_or_else(|failed| panic!("{}", failed.message))
}

fn render(name: &str, user: &str, password: &str) -> Result<String, Failed> {
    program(name).render(&Served { address: user.into(), ..account(Security::Clear, "own") }, Some(password))
}

#[test]
fn every_program_has_settings_for_every_security() {
    for program in MailProgram::all() {
        let name = program.name;
        assert!(!program.title.is_empty() && !program.needs.is_empty(), "{name}");
        let mut securities = vec![Security::Clear, Security::StartTls, Security::Tls];
        securities.retain(|security| !(program.has_no_starttls() && *security == Security::StartTls));
        for security in securities {
            for provider in ["google", "own"] {
                let shown = program.render(&account(security, provider), Some("pa:s/1")).unwrap();
                assert!(shown.contains("127.0.0.1") && !shown.contains("{{"), "{name}: {shown}");
                assert!(
                    WITHOUT_SECRET.contains(&name)
                        || shown.contains("pa:s/1")
                        || shown.contains("pa%3As%2F1")
                        || shown.contains("pa\\x3as/1"),
                    "{name}: {shown}"
                );
                assert!(
                    name == "autoconfig"
                        || shown.contains("ann+x@example.test")
                        || shown.contains("ann%2Bx%40example.test"),
                    "{name}: {shown}"
                );
            }
        }
    }
}

#[test]
fn a_program_is_not_told_of_a_listener_that_is_not_there() {
    let mut account = account(Security::Clear, "own");
    account.listeners.retain(|listener| listener.protocol != Protocol::Smtp);
    assert_eq!(program("msmtp").render(&account, Some("x")).unwrap_err().exit, Exit::Config);
}

#[test]
fn every_file_of_a_program_is_in_the_table() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/programs");
    let mut files: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, PROGRAMS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

#[test]
fn a_typing_error_is_answered_with_the_nearest_name() {
    assert!(unknown("thunderbrid").contains("did you mean thunderbird?"));
}

/// What each program reads is in tests/settings.rs; these are the rules of programs that cannot be run there.
#[test]
fn a_password_is_quoted_as_its_program_reads_it() {
    for (name, expected) in [
        ("aerc", "ann%40example.test:a%22b%5Cc%27d%23e%24f%25g%7Bh%7D%3B%20%C3%BC"),
        ("dotnet", r#""a\"b\\c'd#e$f%g{h}; \u00fc""#),
        ("java", r#""a\"b\\c'd#e$f%g{h}; \u00fc""#),
        ("exim", r"^a\x22b\x5cc'd#e\x24f%g\x7bh\x7d;\x20ü"),
    ] {
        let shown = render(name, "ann@example.test", "a\"b\\c'd#e$f%g{h}; ü").unwrap();
        assert!(shown.contains(expected), "{name}: {shown}");
    }
    assert!(render("exim", "ann@example.test", "a^b").unwrap().trim_end().ends_with("^ann@example.test^a^^b"));
}

#[test]
fn a_password_that_a_program_cannot_read_is_refused_with_a_way_out() {
    for (name, password, character) in [
        ("emacs", "a ü", 'ü'),
        ("emacs", "a'\" b", ' '),
        ("emacs", "'a\"", '\''),
        ("exim", "^a", '^'),
        ("getmail", "ü", 'ü'),
        ("getmail", " a", ' '),
        ("msmtp", "a\tb", '\t'),
        ("mutt", "a\u{1b}b", '\u{1b}'),
        ("offlineimap", "a ", ' '),
        ("postfix", "a{b", '{'),
        ("python", "ü", 'ü'),
        ("thunderbird", "a\tb", '\t'),
    ] {
        let failed = render(name, "ann@example.test", password).unwrap_err();
        assert_eq!(failed.exit, Exit::Data, "{name}");
        let advice = format!("`postkey password add ann@example.test {name}`");
        assert!(failed.message.contains(&format!("{character:?}")), "{}", failed.message);
        assert!(failed.message.contains(&advice), "{}", failed.message);
    }
}

#[test]
fn a_user_name_that_a_program_cannot_read_is_refused_with_a_way_out() {
    for (name, user) in [
        ("curl", "a:b@example.test"),
        ("msmtp", "a%u@example.test"),
        ("aerc", "a`b@example.test"),
        ("alpine", "a/b@example.test"),
    ] {
        let failed = render(name, user, "pass").unwrap_err();
        assert_eq!(failed.exit, Exit::Data, "{name}");
        assert!(failed.message.contains("alias to [account."), "{}", failed.message);
    }
}

#[test]
fn a_program_without_starttls_gets_another_listener_or_none() {
    let mut account = account(Security::StartTls, "own");
    let failed = program("getmail").render(&account, None).unwrap_err();
    assert!(failed.exit == Exit::Config && failed.message.contains("without STARTTLS"), "{}", failed.message);
    let address = Address::Tcp(([127, 0, 0, 1], 1993).into());
    account.listeners.push(Listening { protocol: Protocol::Imap, address, security: Security::Tls });
    let shown = program("getmail").render(&account, None).unwrap();
    assert!(shown.contains("SimpleIMAPSSLRetriever") && shown.contains("port = 1993"), "{shown}");
    assert!(program("offlineimap").render(&account, None).unwrap().contains("starttls = yes"));
}

#[test]
fn an_address_has_the_same_uuid_every_time_and_no_other_has_it() {
    let first = uuid("ann@example.test", "mail");
    assert_eq!(first, uuid("ann@example.test", "mail"));
    assert!(first != uuid("ben@example.test", "mail") && first != uuid("ann@example.test", "profile"));
    assert!(first.len() == 36 && first.as_bytes()[14] == b'8' && b"89AB".contains(&first.as_bytes()[19]), "{first}");
}

/// The part of the guide that has the settings of every program, with postkey's own ports.
fn guide() -> String {
    let variables = Variables { home: Some("/".into()), ..Variables::default() };
    let config =
        Config::parse("", Path::new("postkey.toml"), &variables).unwrap_or_else(|_| panic!("no configuration"));
    let account = Served::new(&config, config.listening(), "you@example.com", None);
    let section = |program: MailProgram| {
        let settings = program.render(&account, None).unwrap_or_else(|failed| panic!("{}", failed.message));
        let MailProgram { name, title, .. } = program;
        format!("### {title}\n\n`--for {name}`\n\n```\n{}\n```\n\n", settings.trim())
    };
    MailProgram::all().map(section).collect()
}

/// `POSTKEY_UPDATE=1 cargo test --lib programs::` writes it.
#[test]
fn the_guide_has_the_settings_of_every_program() {
    const BEGIN: &str = "<!-- from config/programs -->\n\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/mail-programs.md");
    let page = std::fs::read_to_string(file).unwrap();
    let (before, shown) = page.split_once(BEGIN).unwrap();
    if std::env::var_os("POSTKEY_UPDATE").is_some() {
        std::fs::write(file, format!("{before}{BEGIN}{}\n", guide().trim_end())).unwrap();
    } else {
        let hint = "run `POSTKEY_UPDATE=1 cargo test --lib programs::`";
        assert!(shown.trim_end() == guide().trim_end(), "the guide differs from config/programs; {hint}");
    }
}

#[test]
fn a_program_on_another_machine_is_told_of_a_listener_that_it_can_reach() {
    let mut account = account(Security::Clear, "own");
    for (protocol, port) in [(Protocol::Imap, 1993), (Protocol::Smtp, 1465)] {
        let address = Address::Tcp(([192, 0, 2, 1], port).into());
        account.listeners.push(Listening { protocol, address, security: Security::Tls });
    }
    let shown = |name: &str| program(name).render(&account, None).unwrap();
    for name in ["apple-profile", "autoconfig", "autodiscover", "thunderbird-android"] {
        assert!(shown(name).contains("192.0.2.1") && shown(name).contains("1993"), "{}", shown(name));
    }
    assert!(shown("scanner").contains("192.0.2.1") && shown("msmtp").contains("127.0.0.1"));
}

#[test]
fn a_program_checks_postkeys_own_certificate_by_name() {
    let served = |address: &str, certificate: &str| {
        let text = format!(
            "[[listener]]\nprotocol = \"imap\"\naddress = \"{address}\"\nsecurity = \"tls\"\nallow_remote = true\n{certificate}"
        );
        let variables = Variables { home: Some("/".into()), ..Variables::default() };
        let config = Config::parse(&text, Path::new("postkey.toml"), &variables);
        let config = config.unwrap_or_else(|mistakes| panic!("{}", mistakes[0].message));
        let served = Served::new(&config, config.listening(), "you@example.com", None);
        served.endpoint(Protocol::Imap, false).unwrap().0
    };
    let (own, files) = ("certificate = \"own\"\n", "certificate = \"c.pem\"\nkey = \"k.pem\"\n");
    for (address, host) in [("127.0.0.1", "localhost"), ("[::1]", "localhost"), ("127.0.0.2", "127.0.0.2")] {
        assert_eq!(served(&format!("{address}:1993"), own), host);
    }
    assert_eq!(served("192.168.1.5:1993", own), "192.168.1.5");
    assert_eq!(served("127.0.0.1:1993", files), "127.0.0.1", "nobody knows that certificate's names");
}

#[test]
fn a_profile_has_the_certificate_authority_if_there_is_one() {
    let with = Served { authority: Some(b"DER".to_vec()), ..account(Security::Tls, "own") };
    let root = "<string>com.apple.security.root</string>";
    let shown = program("apple-profile").render(&with, None).unwrap();
    assert!(shown.contains(root) && shown.contains("<data>REVS</data>"), "{shown}");
    assert!(!program("apple-profile").render(&account(Security::Tls, "own"), None).unwrap().contains(root));
}
