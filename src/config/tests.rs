//! Configurations good and bad.

use std::collections::BTreeSet;
use std::path::Path;

use super::environment::Environment;
use super::mistake::Mistake;
use super::provider::{Endpoints, ProxyKind};
use super::reader::{Disk, Report, Section};
use super::{Config, Machine, providers};
use crate::protocol::{Mechanism, Protocol, Security};

const DEFAULT: &str = include_str!("../../config/postkey.toml");

fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let environment = Environment { home: Some("/home/ann".into()), ..Environment::default() };
    Config::parse(text, Path::new("/etc/postkey/postkey.toml"), &environment)
}

pub fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|mistakes| panic!("{text}\n{}", listed(&mistakes).join("\n")))
}

/// The mistakes as people see them, without the file's name.
pub fn bad(text: &str) -> Vec<String> {
    listed(&parse(text).expect_err(text))
}

fn listed(mistakes: &[Mistake]) -> Vec<String> {
    let shown = mistakes.iter().map(Mistake::to_string);
    shown.map(|line| line.replacen("/etc/postkey/postkey.toml:", "", 1)).collect()
}

/// A listener with further lines.
fn listener(lines: &str) -> String {
    format!("[[listener]]\nprotocol = \"imap\"\n{lines}\n")
}

/// A provider that is complete but for further lines.
fn provider(lines: &str) -> String {
    format!(
        "[provider.x]\nauthorization_endpoint = \"https://a.test/\"\ntoken_endpoint = \"https://a.test/t\"\n\
         scope = [\"mail\"]\nimap.host = \"imap.a.test\"\n{lines}\n"
    )
}

#[test]
fn the_compiled_in_providers_have_no_mistake() {
    let (document, errors) = toml::de::DeTable::parse_recoverable(providers::TABLE);
    let report = Report::new(Path::new("providers.toml"), providers::TABLE, Disk::NONE);
    report.syntax(&errors);
    let read = providers::read_table(&Section::top(&report, document.get_ref()), &providers::Providers::new(), None);
    assert_eq!(report.into_result(), Ok(vec![]));
    assert!(read.len() >= 12, "only {:?}", read.keys());
    for provider in read.values() {
        assert!(provider.client.is_none(), "{}", provider.name);
        assert!(provider.note.as_ref().is_some_and(|note| note.ends_with('.')), "{}", provider.name);
        assert_eq!(provider.endpoints.authorization.as_ref().unwrap().scheme(), "https");
        assert_eq!(provider.endpoints.token.as_ref().unwrap().scheme(), "https");
        assert!([Protocol::Imap, Protocol::Smtp].iter().all(|p| provider.servers.contains_key(p)), "{}", provider.name);
    }
}

#[test]
fn no_file_means_loopback_and_the_usual_places() {
    let config = good("");
    assert_eq!(config.state_dir, Path::new("/home/ann/.local/state/postkey"));
    assert_eq!(config.control_socket, Path::new("/home/ann/.local/state/postkey/control"));
    assert_eq!(config.log.to_string(), "postkey=info,warn");
    let addresses = config.listeners.iter().flat_map(|listener| &listener.addresses).map(ToString::to_string);
    let expected = ["127.0.0.1:1143", "[::1]:1143", "127.0.0.1:1110", "[::1]:1110", "127.0.0.1:1587", "[::1]:1587"];
    assert_eq!(addresses.collect::<Vec<_>>(), expected);
    assert!(config.listeners.iter().all(|listener| listener.security == Security::Clear));
}

#[test]
fn the_default_file_says_what_happens_without_one() {
    assert_eq!(format!("{:?}", good(DEFAULT)), format!("{:?}", good("")));
}

#[test]
fn the_default_file_has_no_mistake_with_its_examples_either() {
    let uncommented = DEFAULT.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if !example.starts_with(' ') => example,
        _ => line,
    });
    let config = good(&uncommented.collect::<Vec<_>>().join("\n"));
    assert_eq!(config.listeners.len(), 6);
    assert_eq!((config.accounts.len(), config.domains.len()), (2, 1));
    assert!(config.providers.contains_key("example"));
    assert_eq!(config.state_dir, Path::new("/var/lib/postkey"));
}

#[test]
fn the_default_file_shows_every_key_that_is_known() {
    let tables = [
        "",
        "[[listener]]\n",
        "[provider.x]\n",
        "[provider.x.assertion]\n",
        "[provider.x.imap]\n",
        "[provider.x.smtp]\n",
        "[account.\"a@b\"]\n",
    ];
    let mut keys = BTreeSet::new();
    for table in tables {
        let shown = bad(&format!("{table}zzzzzzzzzz = 1\n"));
        let known =
            shown.iter().find_map(|mistake| mistake.split_once("unknown key; known are ")).expect("a listing").1;
        keys.extend(known.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    assert!(keys.len() > 25, "only {keys:?}");
    for key in keys {
        let is_shown = |line: &str| {
            let line = line.trim_start_matches('#');
            let header = line.trim_matches(['[', ']']);
            line.starts_with(&format!("{key} =")) || line.starts_with('[') && header.split('.').any(|part| part == key)
        };
        assert!(DEFAULT.lines().any(is_shown), "{key} is not in config/postkey.toml");
    }
}

#[test]
fn the_examples_have_no_mistake() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3);
    for file in files {
        let config = good(&std::fs::read_to_string(&file).unwrap());
        let is_default = format!("{config:?}") == format!("{:?}", good(""));
        assert!(!is_default, "{} says nothing", file.display());
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (text, expected) in [
        ("lgo = \"info\"", r#"1:1: lgo: unknown key; did you mean "log"?"#),
        ("log = 3", "1:7: log: must be a text in quotes, and is of type integer"),
        ("log = \"inof\"", r#"1:7: log: "inof" is no level; did you mean "info"?"#),
        ("état = 1", "1:1: invalid unquoted key, expected letters, numbers, `-`, `_`"),
        ("state_dir = \"~/x\"", "1:13: state_dir: the shell's ~ is not understood here; write the whole path"),
        ("state_dir = \"\"", "1:13: state_dir: is empty; give it a value, or remove it"),
        ("log = \"a\\nb\"", "1:7: log: has a line break or another control character; remove it"),
        ("[listener]", "1:1: listener: may occur several times, so it stands in double brackets: [[listener]]"),
        ("listener = []", "1:12: listener: is empty; name at least one, or remove it"),
        ("[account.ann]", "1:1: account.ann: must be an address such as \"ann@example.test\""),
        (
            "[account.\"a@b\"]\nuser = true",
            "2:8: account.\"a@b\".user: must be a text in quotes, and is of type boolean",
        ),
        (
            "[account.\"a@b\"]\nprovider = \"gogle\"",
            "2:12: account.\"a@b\".provider: there is no provider \"gogle\"; did you mean \"google\"?",
        ),
        (
            "[account.\"a@b\"]\nclient_secret = \"s\"",
            "2:17: account.\"a@b\".client_secret: belongs to a client_id, and there is none; add client_id, or remove this",
        ),
        ("provider.google = 1", "1:19: provider.google: must be a table, and is of type integer"),
        ("[provider.google.imap]\nport = 0", "2:8: provider.google.imap.port: must be a port from 1 to 65535"),
        (
            "[provider.google.imap]\nport = \"993\"",
            "2:8: provider.google.imap.port: must be a number, and is of type string",
        ),
        (
            "[provider.google.imap]\nsecurity = \"none\"",
            "2:12: provider.google.imap.security: must be \"tls\" or \"starttls\", and is \"none\"",
        ),
        (
            "[provider.google.imap]\nhost = \"imap.gmail.com:993\"",
            "2:8: provider.google.imap.host: must be the name of a host, such as \"imap.example.test\"; \
             the port is a key of its own",
        ),
        (
            "[provider.google]\ntoken_endpoint = \"http://oauth2.example.test/\"",
            "2:18: provider.google.token_endpoint: must begin with https:// (http:// only on this machine), and begins with http:",
        ),
        (
            "[provider.google]\ntoken_endpoint = \"oauth2.example.test\"",
            "2:18: provider.google.token_endpoint: is no URL (relative URL without a base); \
             write it like \"https://auth.example.test/token\"",
        ),
        (
            "[provider.google]\ntoken_endpoint = \"https://a.test/#x\"",
            "2:18: provider.google.token_endpoint: an endpoint has no #fragment; remove it",
        ),
        (
            "[provider.google]\nmx = [\"a.*.test\"]",
            "2:7: provider.google.mx: must be a host such as \"mx.example.test\", or \"*.example.test\" for all below it",
        ),
        (
            "[provider.google]\nrefresh_token_life = 0",
            "2:22: provider.google.refresh_token_life: must be a number of days from 1 to 3650",
        ),
        (
            "[provider.google]\nredirect_listen = \"localhost:1\"",
            "2:19: provider.google.redirect_listen: must be an IP address and a port, such as \"127.0.0.1:8090\"",
        ),
        (
            "[provider.google]\nscope = \"mail openid\"",
            "2:9: provider.google.scope: is several scopes in one text; write a list, [\"one\", \"two\"]",
        ),
        (
            "[provider.google]\nmechanisms = [\"XOAUTH2\", \"PLAIN\"]",
            "2:26: provider.google.mechanisms: must be \"XOAUTH2\" or \"OAUTHBEARER\", and is \"PLAIN\"",
        ),
        (
            "[provider.google]\nauthorization_parameters.state = \"x\"",
            "2:34: provider.google.authorization_parameters.state: is set by postkey itself; remove it",
        ),
        (
            "[provider.google]\ndomains = [\"*.example.test\"]",
            "2:12: provider.google.domains: must be a domain such as \"example.test\", or \"example.*\" for all its endings",
        ),
    ] {
        assert_eq!(bad(text), [expected], "{text}");
    }
}

#[test]
fn a_listener_is_judged_for_what_it_exposes() {
    for (lines, expected) in [
        ("", "1:1: listener: address is missing; add it here"),
        (
            "address = 1143",
            "3:11: listener.address: must be a text in quotes, or a list of them, and is of type integer",
        ),
        ("address = \"127.0.0.1\"", "3:11: listener.address: the port is missing; write \"127.0.0.1:1143\""),
        (
            "address = [\"[::1]:1\", \"localhost:2\"]",
            "3:23: listener.address: must be an IP address and a port; write [\"127.0.0.1:2\", \"[::1]:2\"]",
        ),
        (
            "address = \"192.0.2.1:1\"",
            "3:11: listener.address: other machines can reach 192.0.2.1; if that is meant, set security = \"tls\" or \
             \"starttls\", and allow_remote = true; if not, listen on 127.0.0.1 and [::1]",
        ),
        (
            "address = \"[::]:1\"\nallow_remote = true",
            "3:11: listener.address: other machines can reach ::; if that is meant, set security = \"tls\" or \
             \"starttls\", for passwords would cross the network in the clear; if not, listen on 127.0.0.1 and [::1]",
        ),
        (
            "address = \"0.0.0.0:1\"\nsecurity = \"tls\"\ncertificate = \"c\"\nkey = \"k\"",
            "3:11: listener.address: other machines can reach 0.0.0.0; if that is meant, set allow_remote = true; \
             if not, listen on 127.0.0.1 and [::1]",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"tls\"\ncertificate = \"c\"",
            "1:1: listener: key is missing; add it here",
        ),
        (
            "address = \"127.0.0.1:1\"\nkey = \"k\"",
            "4:7: listener.key: is not used while security is \"none\"; set security to \"tls\" or \"starttls\", or remove this",
        ),
        (
            "address = \"127.0.0.1:1\"\nsecurity = \"ssl\"",
            "4:12: listener.security: must be \"none\", \"starttls\" or \"tls\", and is \"ssl\"",
        ),
        (
            "address = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "3:27: listener.address: 127.0.0.1:1 is taken by 127.0.0.1:1 in line 3; choose another port",
        ),
        (
            "address = \"127.0.0.1:1\"\naccount = \"ann@example.test\"",
            "4:11: listener.account: nothing is known of ann@example.test; \
             add [account.\"ann@example.test\"] with its provider",
        ),
        (
            "address = \"127.0.0.1:1\"\nprovider = \"outlook\"\naccount = \"ann@gmail.com\"",
            "5:11: listener.account: ann@gmail.com is at \"google\", not at \"outlook\"; correct one, or remove provider",
        ),
    ] {
        assert_eq!(bad(&listener(lines)), [expected], "{lines}");
    }
    assert_eq!(
        bad("[[listener]]\nprotocol = \"imaps\"\naddress = \"127.0.0.1:1\""),
        ["2:12: listener.protocol: must be \"imap\", \"pop3\" or \"smtp\", and is \"imaps\""]
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"log = info
stat_dir = "/var/lib/postkey"
[[listener]]
protocol = "imap"
address = 127.0.0.1:1143
[[listener]]
adress = "127.0.0.1:1143"
	security = "none
[provider.new]
client_id = 7
[account."Ann@Example.test"]
[account."ann@example.test"]
"#;
    let expected = [
        "1:7: is a text without quotes; write it in quotes",
        r#"2:1: stat_dir: unknown key; did you mean "state_dir"?"#,
        "5:16: is a text without quotes; write it in quotes",
        r#"7:1: listener.adress: unknown key; did you mean "address"?"#,
        "8:18: invalid basic string, expected `\"`",
        "10:13: provider.new.client_id: must be a text in quotes, and is of type integer",
        "12:1: account.\"ann@example.test\": occurs twice, for upper and lower case are the same; merge the two",
    ];
    assert_eq!(bad(text), expected);
}

proptest::proptest! {
    /// Any damage to a file is told, or leaves it good; nothing else happens.
    #[test]
    fn a_damaged_file_is_judged_like_any_other(from in 0..DEFAULT.len(), length in 0..40_usize, put in "[\\[\\]\"=#.,é\n0-9a-z]{0,6}") {
        let tail = DEFAULT.get(from + length..).unwrap_or_default();
        let text = format!("{}{put}{tail}", DEFAULT.get(..from).unwrap_or_default()).replace("\n#", "\n");
        for mistake in parse(&text).err().unwrap_or_default() {
            let position = mistake.position.expect("a place");
            let line = text.split('\n').nth(position.line - 1).expect("a line of the file");
            proptest::prop_assert!(position.column <= line.chars().count() + 1, "{mistake}");
        }
    }
}

#[test]
fn what_is_missing_is_told_where_the_syntax_is_right() {
    assert_eq!(
        bad("[[listener]]\n[provider.new]\nnote = \"x\"\n[provider.new.pop3]\nport = 1\n"),
        [
            "1:1: listener: protocol is missing; add it here",
            "1:1: listener: address is missing; add it here",
            "2:1: provider.new: authorization_endpoint is missing; add it here",
            "2:1: provider.new: token_endpoint is missing; add it here",
            "2:1: provider.new: scope is missing; add it here",
            "4:1: provider.new.pop3: host is missing; add it here",
        ]
    );
    let no_server = provider("").replace("imap.host", "note");
    assert_eq!(bad(&no_server), [r#"1:1: provider.x: has no mail server; add a table "imap", "pop3" or "smtp""#]);
}

#[test]
fn an_entry_changes_single_keys_of_a_compiled_in_provider() {
    let config = good("[provider.google]\nclient_id = \"mine\"\n[provider.google.smtp]\nsecurity = \"starttls\"\n");
    let google = &config.providers["google"];
    assert_eq!(google.client.as_ref().unwrap().id, "mine");
    assert_eq!(google.endpoints.token.as_ref().unwrap().as_str(), "https://oauth2.googleapis.com/token");
    assert_eq!(google.servers[&Protocol::Imap].port, 993);
    let smtp = &google.servers[&Protocol::Smtp];
    assert_eq!((smtp.host.as_str(), smtp.port, smtp.security), ("smtp.gmail.com", 587, Security::StartTls));
}

#[test]
fn a_new_provider_needs_little() {
    let config = good(&provider("").replace("https://a.test/t", "http://127.0.0.1:9/t"));
    let own = &config.providers["x"];
    assert_eq!(own.redirect_uri.as_str(), "http://127.0.0.1/");
    assert_eq!(own.mechanisms, [Mechanism::OAuthBearer, Mechanism::XOAuth2]);
    assert_eq!(own.servers[&Protocol::Imap].port, 993);
    assert_eq!(own.servers.len(), 1);
}

/// What the configuration says about a host that is to get bearers; None if it may.
fn refused(text: &str) -> Option<String> {
    parse(text).err().map(|mistakes| listed(&mistakes).join("\n"))
}

#[test]
fn a_bearer_goes_only_to_hosts_of_its_provider() {
    let imap = |entry: &str, host: &str| format!("{entry}\n[provider.google.imap]\nhost = \"{host}\"\n");
    for own in ["imap.gmail.com", "smtp-relay.gmail.com", "IMAP.Gmail.com"] {
        assert_eq!(refused(&imap("", own)), None, "{own}");
    }
    for other in [
        "imap.gmai1.com",
        "gmail.com.evil.test",
        "evilgmail.com",
        "gmail.com",
        "a.b.gmail.com",
        "127.0.0.1",
        "outlook.office365.com",
    ] {
        let why = refused(&imap("", other)).unwrap_or_default();
        assert!(
            why.contains(&format!("3:8: provider.google.imap.host: {other} is no host of \"google\"")),
            "{other}: {why}"
        );
        assert_eq!(refused(&format!("{}trust_host = true\n", imap("", other))), None, "{other}");
    }
    let customer = "[provider.comcast.imap]\nhost = \"c-192-0-2-1.hsd1.comcast.net\"";
    assert!(refused(customer).unwrap().contains("is no host of \"comcast\""), "a name that a customer has");
}

#[test]
fn an_entry_of_another_name_cannot_take_a_providers_bearers_elsewhere() {
    let google = "[provider.x]\nauthorization_endpoint = \"https://a.test/\"\nscope = [\"mail\"]\nimap.host = \"imap.evil.test\"\n";
    for from_google in
        ["token_endpoint = \"https://oauth2.googleapis.com/token?x\"", "issuer = \"https://accounts.google.com\""]
    {
        let why = refused(&format!("{google}{from_google}\n")).unwrap();
        assert!(why.contains("imap.evil.test is no host of \"google\""), "{why}");
    }
    assert_eq!(refused(&format!("{google}token_endpoint = \"https://b.test/\"\n")), None, "one's own word is enough");
    let tenant = "[provider.company]\nissuer = \"https://login.microsoftonline.com/0-0/v2.0\"\nscope = [\"x\"]\n\
                  imap.host = \"outlook.office365.com\"\n[provider.company.smtp]\nhost = \"smtp-hve.office365.com\"\n";
    assert_eq!(refused(tenant), None, "one tenant's entry");
}

#[test]
fn an_issuer_is_enough_to_know_a_server() {
    let config = good(
        "[provider.x]\nissuer = \"https://login.own.test/mail\"\nscope = [\"mail\"]\nimap.host = \"imap.own.test\"\n",
    );
    assert_eq!(config.providers["x"].endpoints, Endpoints::default());
    for (issuer, why) in [
        ("http://login.own.test", "must begin with https:// (http:// only on this machine), and begins with http:"),
        ("login.own.test", "is no URL (relative URL without a base); write it like \"https://auth.example.test\""),
        ("https://login.own.test?a", "an issuer has neither ?query nor #fragment; remove it"),
    ] {
        assert_eq!(
            bad(&format!("[provider.google]\nissuer = \"{issuer}\"")),
            [format!("2:10: provider.google.issuer: {why}")]
        );
    }
}

#[test]
fn an_address_finds_its_provider() {
    let entry = "[account.\"Ann@Company.test\"]\nprovider = \"microsoft\"\n[account.\"bob@gmail.com\"]\nuser = \"b\"\n";
    let config = good(&format!("{entry}{}", provider("domains = [\"Own.test\", \"hotmail.fr\"]")));
    let name = |address| config.provider_for(address).map(|provider| provider.name.as_str());
    assert_eq!(name("ann@gmail.com"), Some("google"));
    assert_eq!(name("bob@gmail.com"), Some("google"));
    assert_eq!(name("Ann@GMAIL.com"), Some("google"));
    assert_eq!(name("ann@company.TEST"), Some("microsoft"));
    assert_eq!(name("bob@company.test"), None);
    assert_eq!(name("ann@own.test"), Some("x"));
    assert_eq!(name("ann@hotmail.fr"), Some("x"), "a domain in full goes before a family");
    assert_eq!(name("ann@hotmail.de"), Some("outlook"));
    assert_eq!(name("ann@outlook.com.br"), Some("outlook"));
    assert_eq!(name("ann@live.example.edu"), None);
    assert_eq!(name("ann@live.com.example.edu"), None);
    assert_eq!(name("ann@yahoo.co.jp"), None);
    assert_eq!(name("gmail.com"), None);
}

#[test]
fn the_file_may_take_a_domain_from_a_compiled_in_provider_but_not_from_itself() {
    let taken = provider("domains = [\"gmail.com\"]");
    assert_eq!(good(&taken).provider_for("ann@gmail.com").unwrap().name, "x");
    let twice = format!("{taken}{}", taken.replace("provider.x", "provider.y"));
    assert_eq!(bad(&twice), ["12:12: provider.y.domains: gmail.com is a domain of \"x\" already; remove it from one"]);
}

#[test]
fn ports_may_repeat_where_they_are_free_ones_or_of_other_addresses() {
    let two = |first: &str, second: &str| {
        listener(&format!("address = \"{first}\"")) + &listener(&format!("address = \"{second}\""))
    };
    assert_eq!(good(&two("127.0.0.1:0", "127.0.0.1:0")).listeners.len(), 2);
    assert_eq!(good(&two("127.0.0.1:1", "[::1]:1")).listeners.len(), 2);
    assert_eq!(good(&two("127.0.0.1:1", "127.0.0.2:1")).listeners.len(), 2);
    let every = &bad(&two("0.0.0.0:1", "127.0.0.1:1"))[1];
    assert_eq!(every, "6:11: listener.address: 127.0.0.1:1 is taken by 0.0.0.0:1 in line 3; choose another port");
    assert_eq!(
        bad(&two("127.0.0.1:1", "127.0.0.1:1")),
        ["6:11: listener.address: 127.0.0.1:1 is taken by 127.0.0.1:1 in line 3; choose another port"]
    );
}

#[test]
fn who_is_known_to_name_itself_is_held_to_it() {
    let names_itself = |text: &str, provider: &str| good(text).providers[provider].names_itself;
    assert!(names_itself("", "google") && names_itself("", "fastmail") && !names_itself("", "microsoft"));
    let key = "authorization_response_iss_parameter_supported";
    assert!(!names_itself(&format!("[provider.google]\n{key} = false"), "google"));
    assert!(names_itself(&provider(&format!("{key} = true")), "x"));
}

#[test]
fn relative_paths_begin_at_the_folder_of_the_file() {
    let config = good(
        "state_dir = \"state\"\n[provider.google]\nclient_id = \"x\"\nclient_secret = { file = \"s\" }\nca_file = \"ca\"",
    );
    assert_eq!(config.state_dir, Path::new("/etc/postkey/state"));
    assert_eq!(config.control_socket, Path::new("/etc/postkey/state/control"));
    let secret = format!("{:?}", config.providers["google"].client.as_ref().unwrap().authentication);
    assert_eq!(secret, "Secret(SecretSource(/etc/postkey/s))");
    assert_eq!(config.providers["google"].ca_file.as_deref(), Some(Path::new("/etc/postkey/ca")));
}

#[test]
fn a_file_is_loaded_with_the_files_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkey.toml");
    let lines = "state_dir = \"s\"\n[provider.google]\nclient_id = \"x\"\nclient_secret.file = \"secret\"\n";
    std::fs::write(&file, lines).unwrap();
    let mistakes = Config::load(Some(&file)).unwrap_err();
    let expected = format!("{}:4:22: provider.google.client_secret.file: ", file.display());
    assert!(mistakes.len() == 1 && mistakes[0].to_string().starts_with(&expected), "{mistakes:?}");
    std::fs::write(folder.path().join("secret"), "s").unwrap();
    assert_eq!(Config::load(Some(&file)).unwrap().state_dir, folder.path().join("s"));
}

#[test]
fn a_file_that_was_named_has_to_be_there_and_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.toml");
    let told = |message: &str| format!("{}: {message}", file.display());
    let load = || Config::load(Some(&file)).unwrap_err()[0].to_string();
    assert_eq!(load(), told("there is no such file; correct the path, or leave it out to use the defaults"));
    std::fs::write(&file, b"log = \"\xff\"").unwrap();
    assert_eq!(load(), told("is no text in UTF-8; save it as UTF-8"));
}

/// A listener without a login, line by line; line 5 has the password.
fn without_login(lines: &str) -> String {
    format!("[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:25\"\n{lines}\n")
}

const PRINTER: &str = "password = { file = \"printer.password\" }";
const ANN: &str = "account = \"ann@gmail.com\"";
const ADDRESSES: &str = "allow_addresses = [\"192.0.2.7\", \"2001:db8::/64\"]";

#[test]
fn clients_without_a_login_are_named_and_send_as_one_account() {
    let lan = "address = \"192.0.2.1:25\"\nallow_remote = true";
    let text = without_login(&[PRINTER, ANN, ADDRESSES].join("\n"));
    let config = good(&text.replace("address = \"127.0.0.1:25\"", lan));
    let listener = &config.listeners[0];
    assert!(matches!(&listener.machine, Some(Machine::File(path)) if path.ends_with("printer.password")));
    let allowed = listener.allow_addresses.as_ref().unwrap();
    assert_eq!(allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.7/32", "2001:db8::/64"]);
    let credential = text.replace("file = \"printer.password\"", "credential = \"printer\"");
    assert!(matches!(&good(&credential).listeners[0].machine, Some(Machine::Credential(name)) if name == "printer"));
    // A password of theirs would cross the network, where they have one.
    let text = without_login(ADDRESSES).replace("address = \"127.0.0.1:25\"", lan);
    assert!(bad(&text)[0].contains("passwords would cross the network"));
}

#[test]
fn clients_without_a_login_are_refused_otherwise() {
    for (lines, mistake) in [
        (
            [PRINTER, ANN, ""],
            "without a login, clients are known by their addresses or users; add allow_addresses or allow_uids",
        ),
        ([PRINTER, ADDRESSES, ""], "clients without a login need one account that they send as; add account"),
        (
            ["password = \"secret\"", ANN, ADDRESSES],
            "must be in a file or in a credential of systemd; write { file = \"printer.password\" }",
        ),
    ] {
        assert_eq!(bad(&without_login(&lines.join("\n"))), [format!("4:12: listener.password: {mistake}")]);
    }
    let imap = without_login(&[PRINTER, ANN, ADDRESSES].join("\n")).replace("smtp", "imap");
    assert!(bad(&imap)[0].contains("lets clients in without a login, which is for sending mail only"));
    let climbing = "password = { credential = \"../printer\" }";
    assert!(
        bad(&without_login(&[climbing, ANN, ADDRESSES].join("\n")))[0]
            .contains("is the name of a credential, and no path")
    );
}

#[test]
fn clients_without_a_login_may_be_named_by_their_users() {
    let text = without_login(&[PRINTER, ANN, "allow_uids = [1000]"].join("\n"));
    assert!(good(&text).listeners[0].machine.is_some());
    assert!(good(&text.replace("127.0.0.1:25", "/run/postkey/smtp")).listeners[0].users.allow(Some(1000)));
    let lan = "address = \"192.0.2.1:25\"\nallow_remote = true";
    assert_eq!(
        bad(&text.replace("address = \"127.0.0.1:25\"", lan)),
        ["3:11: listener.address: users of other machines cannot be told; add allow_addresses, or listen on 127.0.0.1"]
    );
    let text = without_login(&[PRINTER, ANN, ADDRESSES].join("\n"));
    assert_eq!(
        bad(&text.replace("\"127.0.0.1:25\"", "[\"127.0.0.1:25\", \"/run/postkey/smtp\"]")),
        ["3:28: listener.address: clients of a Unix socket have no addresses; add allow_uids"]
    );
}

#[test]
fn a_listener_may_have_unix_sockets() {
    let both = "address = [\"/run/postkey/imap\", \"127.0.0.1:1\"]";
    let config = good(&listener(both));
    let addresses = config.listeners[0].addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((addresses.join(" "), config.listeners[0].mode), ("/run/postkey/imap 127.0.0.1:1".to_owned(), 0o600));
    assert_eq!(good(&listener(&format!("{both}\nmode = \"0660\""))).listeners[0].mode, 0o660);
    good(&listener(&format!("{both}\nallow_addresses = [\"127.0.0.1\"]")));
}

#[test]
fn a_unix_socket_that_cannot_be_is_a_mistake() {
    let long = "/".to_owned() + &"x".repeat(107);
    for (lines, mistake) in [
        ("address = \"run/imap\"", "3:11: listener.address: must be an IP address and a port, or the whole path"),
        (
            "address = \"/home/ann/.local/state/postkey/control\"",
            "3:11: listener.address: is the control socket; choose another path",
        ),
        (&*format!("address = {long:?}"), "3:11: listener.address: is longer than 107 bytes"),
        ("address = [\"/a\", \"/a\"]", "3:18: listener.address: /a is taken by /a in line 3; choose another path"),
        (
            "address = \"/a\"\nmode = \"0644\"",
            "4:8: listener.mode: must be \"0600\", \"0660\" or \"0666\", and is \"0644\"",
        ),
        (
            "address = \"127.0.0.1:1\"\nmode = \"0600\"",
            "4:8: listener.mode: is for Unix sockets, and this listener has none",
        ),
        (
            "address = \"/a\"\nallow_addresses = [\"127.0.0.1\"]",
            "4:19: listener.allow_addresses: clients of Unix sockets have no addresses",
        ),
        (
            "address = \"/a\"\nsecurity = \"tls\"\ncertificate = \"c\"\nkey = \"k\"",
            "3:11: listener.address: Unix sockets have no TLS",
        ),
    ] {
        let mistakes = bad(&listener(lines));
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(mistake), "{mistakes:?}\n{mistake}");
    }
}

#[test]
fn who_may_come_is_named_by_addresses_and_networks() {
    for (address, mistake) in [
        ("0.0.0.0/0", "is everybody; name the clients, or leave allow_addresses out where all may come"),
        ("192.0.2.7/24", "is one address of a network; write \"192.0.2.0/24\" for all of it"),
        ("printer", "must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\""),
        ("192.0.2.7:25", "must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\""),
    ] {
        let text = listener(&format!("address = \"127.0.0.1:1\"\nallow_addresses = [{address:?}]"));
        assert_eq!(bad(&text), [format!("4:20: listener.allow_addresses: {mistake}")]);
    }
    let nobody = listener("address = \"127.0.0.1:1\"\nallow_addresses = []");
    assert!(bad(&nobody)[0].contains("is empty"));
}

#[test]
fn a_proxy_is_for_all_providers_unless_one_says_otherwise() {
    let login = "proxy_user = \"office\"\nproxy_password = { file = \"proxy.password\" }";
    let config = good(&format!(
        "proxy = \"socks5://[::1]\"\n{login}\n[provider.google]\nproxy = \"none\"\n\
         [provider.fastmail]\nproxy = \"http://proxy.example.test:3128/\"\n{}",
        provider("")
    ));
    let proxy = |name: &str| config.providers[name].proxy.as_ref();
    assert!(proxy("google").is_none());
    let own = proxy("fastmail").unwrap();
    assert_eq!((own.kind, &*own.host, own.port), (ProxyKind::Http, "proxy.example.test", 3128));
    assert!(own.login.is_none(), "a login is not for another proxy");
    for name in ["microsoft", "x"] {
        let common = proxy(name).unwrap();
        assert_eq!((common.kind, &*common.host, common.port), (ProxyKind::Socks5, "::1", 1080));
        assert!(common.login.as_ref().is_some_and(|(user, file)| user == "office" && file.ends_with("proxy.password")));
    }
    assert!(good("").providers["google"].proxy.is_none());
}

#[test]
fn a_proxy_that_cannot_be_used_is_a_mistake() {
    let form = "must be \"none\", or a proxy such as \"http://proxy.example.test:3128\" or \"socks5://127.0.0.1:1080\"";
    for proxy in ["https://p.test:1", "p.test:3128", "socks4://p.test:1", "http://p.test/path", "socks5:///", "http://"]
    {
        assert_eq!(bad(&format!("proxy = {proxy:?}")), [format!("1:9: proxy: {form}")]);
    }
    assert!(bad("proxy = \"http://office:secret@p.test:1\"")[0].contains("has a login in it"));
    for (text, mistake) in [
        ("proxy_user = \"a\"", "1:14: proxy_user: belongs to a proxy, and there is none; add proxy, or remove this"),
        ("proxy = \"http://p.test\"\nproxy_user = \"a\"", "1:1: proxy_password is missing; add it here"),
        ("proxy = \"http://p.test\"\nproxy_password = { file = \"f\" }", "1:1: proxy_user is missing; add it here"),
    ] {
        assert_eq!(bad(text), [mistake]);
    }
}

#[test]
fn users_are_named_by_number_or_name() {
    let users = |value: &str| {
        let config = good(&format!("{}allow_uids = {value}\n", listener("address = \"127.0.0.1:1\"")));
        config.listeners[0].users.clone()
    };
    let both = users("[1000, \"root\"]");
    assert!(both.allow(Some(1000)) && both.allow(Some(0)) && !both.allow(Some(1)) && !both.allow(None));
    assert!(users("7").allow(Some(7)) && users("\"root\"").allow(Some(0)));
    let nobody_said = good(&listener("address = \"127.0.0.1:1\"")).listeners[0].users.clone();
    assert!(nobody_said.allow(None) && nobody_said.allow(Some(1)));
    let account = good("[account.\"ann@gmail.com\"]\nallow_uids = [1000]\n");
    assert!(!account.accounts["ann@gmail.com"].users.allow(Some(0)));
}

#[test]
fn users_that_nobody_can_be_are_mistakes() {
    for (value, words) in [
        ("[]", "is empty"),
        ("[-1]", "must be a user's number"),
        ("[4294967296]", "must be a user's number"),
        ("[65534]", "users that cannot be told apart"),
        ("[\"no such user\"]", "there is no user \"no such user\""),
        ("true", "must be a text in quotes, or a list"),
    ] {
        let told = bad(&format!("[account.\"ann@gmail.com\"]\nallow_uids = {value}\n"));
        assert!(told.len() == 1 && told[0].contains(words), "{value}: {told:?}");
    }
}

#[test]
fn a_secret_comes_from_one_place() {
    let read = |value: &str| good(&format!("[provider.google]\nclient_id = \"x\"\nclient_secret = {value}"));
    let place = |value: &str| format!("{:?}", read(value).providers["google"].client.as_ref().unwrap().authentication);
    for (value, expected) in [
        ("\"hush\"", "the configuration"),
        ("{ file = \"/s\" }", "/s"),
        ("{ command = [\"pass\", \"show\", \"x\"] }", "`pass show x`"),
        ("{ credential = \"google\" }", "the credential google"),
        ("{ environment = \"SECRET\" }", "$SECRET"),
    ] {
        assert_eq!(place(value), format!("Secret(SecretSource({expected}))"));
    }
    let mistakes = |value: &str| bad(&format!("[provider.google]\nclient_id = \"x\"\nclient_secret = {value}"));
    for (value, expected) in [
        ("{}", "names 0 places; a secret comes from one of \"file\", \"command\", \"credential\" or \"environment\""),
        ("{ file = \"/s\", environment = \"S\" }", "names 2 places"),
        ("{ credential = \"../x\" }", "is the name of a credential, and no path"),
        ("{ command = [] }", "is empty"),
        ("[\"a\"]", "must be a text in quotes"),
    ] {
        assert!(mistakes(value)[0].contains(expected), "{value}: {:?}", mistakes(value));
    }
}

#[test]
fn a_secret_in_a_file_for_everybody_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkey.toml");
    std::fs::write(&file, "state_dir = \"s\"\n[provider.google]\nclient_id = \"x\"\nclient_secret = \"hush\"\n")
        .unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        Config::load(Some(&file)).unwrap().warnings
    };
    assert_eq!(warnings(0o640), []);
    let told = warnings(0o644)[0].to_string();
    assert!(told.contains(":4:17: provider.google.client_secret: stands in a file that everybody can read"), "{told}");
    assert!(!told.contains("hush"));
}

#[test]
fn an_account_and_a_provider_name_their_grant() {
    let config = good("[provider.google]\nflow = \"jwt-bearer\"\n[account.\"a@b\"]\nflow = \"device-code\"");
    assert_eq!(config.providers["google"].flow.name(), "jwt-bearer");
    assert_eq!(config.providers["microsoft"].flow.name(), "authorization-code");
    assert_eq!(config.accounts["a@b"].flow.unwrap().name(), "device-code");
    let mistake = &bad("[provider.google]\nflow = \"implicit\"")[0];
    assert!(mistake.starts_with("2:8: provider.google.flow: must be \"authorization-code\", "), "{mistake}");
}

#[test]
fn a_client_shows_who_it_is_in_one_way() {
    let with = |lines: &str| format!("[provider.google]\nclient_id = \"x\"\n{lines}");
    for (lines, expected) in [
        ("client_secret = \"a\"\nclient_key = \"b\"", "client_key: is one of several ways to authenticate the client"),
        ("client_certificate = \"c\"", "client_certificate: belongs to a client_key, and there is none"),
        ("client_key = \"b\"\nclient_algorithm = \"HS256\"", "must be \"PS256\" or \"RS256\", and is \"HS256\""),
        ("service_account = \"a\"\nassertion = { issuer = \"i\", key = \"k\" }", "says what service_account says"),
        ("assertion = { issuer = \"i\" }", "provider.google.assertion: key is missing"),
        ("assertion = { issuer = \"i\", key = \"k\", lifetime = \"2h\" }", "must be a time from \"1m\" to \"1h\""),
        ("flow = \"password\"", "if there is no other way, add legacy = true"),
    ] {
        let mistakes = bad(&with(lines));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{lines}: {mistakes:?}");
    }
    let config = good(&with("client_key = \"b\"\nclient_certificate = \"c\"\nlegacy = true\nflow = \"password\""));
    assert!(config.warnings[0].message.starts_with("lets postkey keep a mailbox's own password"));
}

#[test]
fn the_device_endpoint_is_named_or_the_neighbour_of_authorize() {
    let endpoint = |provider: &str, lines: &str| {
        let config = good(&format!("[provider.{provider}]\n{lines}"));
        config.providers[provider].endpoints.device().map(String::from)
    };
    let microsoft = endpoint("microsoft", "").unwrap();
    assert!(microsoft.ends_with("/oauth2/v2.0/devicecode"), "{microsoft}");
    let own = "authorization_endpoint = \"https://a.test/t/authorize?x=1\"";
    assert_eq!(endpoint("google", own).unwrap(), "https://a.test/t/devicecode");
    let named = "device_authorization_endpoint = \"https://a.test/device\"";
    assert_eq!(endpoint("google", named).unwrap(), "https://a.test/device");
    assert_eq!(endpoint("google", "authorization_endpoint = \"https://a.test/auth\""), None);
}
