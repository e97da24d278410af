//! Good and bad configurations.

mod accounts;
mod clients;
mod connections;
mod database;
mod listeners;
mod providers;

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::mistake::Mistake;
use crate::protocol::Security;

const DEFAULT: &str = include_str!("../../../config/postkey.toml");

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

/// A complete provider with further lines.
fn provider(lines: &str) -> String {
    format!(
        "[provider.x]\nauthorization_endpoint = \"https://a.test/\"\ntoken_endpoint = \"https://a.test/t\"\n\
         scope = [\"mail\"]\nimap.host = \"imap.a.test\"\n{lines}\n"
    )
}

#[test]
fn without_a_file_the_defaults_apply() {
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
fn the_default_file_has_the_same_meaning_as_none() {
    assert_eq!(format!("{:?}", good(DEFAULT)), format!("{:?}", good("")));
}

#[test]
fn the_examples_in_the_default_file_have_no_mistake() {
    let uncommented = DEFAULT.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if !example.starts_with(' ') => example,
        _ => line,
    });
    let config = good(&uncommented.collect::<Vec<_>>().join("\n"));
    assert_eq!(config.listeners.len(), 7);
    assert_eq!((config.accounts.len(), config.domains.len()), (2, 1));
    assert!(config.providers.contains_key("example"));
    assert_eq!(config.state_dir, Path::new("/var/lib/postkey"));
}

#[test]
fn the_default_file_shows_every_known_key() {
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
    for known in ["lan-tls.toml", "own-server.toml", "port-per-provider.toml", "printer.toml"] {
        assert!(files.iter().any(|file| file.ends_with(known)), "{known} is gone");
    }
    for file in files {
        let config = good(&std::fs::read_to_string(&file).unwrap());
        let is_default = format!("{config:?}") == format!("{:?}", good(""));
        assert!(!is_default, "{} says nothing", file.display());
    }
}

#[test]
fn every_mistake_is_reported_with_its_position() {
    for (text, expected) in [
        ("lgo = \"info\"", r#"1:1: lgo: unknown key; did you mean "log"?"#),
        ("log = 3", "1:7: log: must be a text in quotes, and is of type integer"),
        ("log = \"inof\"", r#"1:7: log: "inof" is not a level; did you mean "info"?"#),
        ("état = 1", "1:1: invalid unquoted key, expected letters, numbers, `-`, `_`"),
        ("state_dir = \"~/x\"", "1:13: state_dir: ~ is not expanded here; write the whole path"),
        ("state_dir = \"\"", "1:13: state_dir: is empty; give it a value, or remove it"),
        ("log = \"a\\nb\"", "1:7: log: has a line break or another control character; remove it"),
        ("[listener]", "1:1: listener: can occur several times, so write it in double brackets: [[listener]]"),
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
            "2:17: account.\"a@b\".client_secret: has no effect without client_id; add client_id, or remove this",
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
             write a port to the key port",
        ),
        (
            "[provider.google]\ntoken_endpoint = \"http://oauth2.example.test/\"",
            "2:18: provider.google.token_endpoint: must begin with https:// (http:// only on this machine), and begins with http:",
        ),
        (
            "[provider.google]\ntoken_endpoint = \"oauth2.example.test\"",
            "2:18: provider.google.token_endpoint: is not a URL (relative URL without a base); \
             write it like \"https://auth.example.test/token\"",
        ),
        (
            "[provider.google]\ntoken_endpoint = \"https://a.test/#x\"",
            "2:18: provider.google.token_endpoint: an endpoint has no #fragment; remove it",
        ),
        (
            "[provider.google]\nmx = [\"a.*.test\"]",
            "2:7: provider.google.mx: must be a host such as \"mx.example.test\", or \"*.example.test\" for all names below it",
        ),
        (
            "[provider.google]\nrefresh_token_life = 0",
            "2:22: provider.google.refresh_token_life: must be a number of days from 1 to 3650",
        ),
        (
            "[provider.google]\nspare_connection = 301",
            "2:20: provider.google.spare_connection: must be a number of seconds from 0 to 300",
        ),
        (
            "[provider.google]\nconcurrent_refreshes = 0",
            "2:24: provider.google.concurrent_refreshes: must be a number from 1 to 1000",
        ),
        (
            "[provider.google]\nredirect_listen = \"localhost:1\"",
            "2:19: provider.google.redirect_listen: must be an IP address and a port, such as \"127.0.0.1:8090\"",
        ),
        (
            "[provider.google]\nscope = \"mail openid\"",
            "2:9: provider.google.scope: has several scopes in one text; write a list, [\"one\", \"two\"]",
        ),
        (
            "[provider.google]\nmechanisms = [\"XOAUTH2\", \"PLAIN\"]",
            "2:26: provider.google.mechanisms: must be \"XOAUTH2\" or \"OAUTHBEARER\", and is \"PLAIN\"",
        ),
        (
            "[provider.google]\nauthorization_parameters.state = \"x\"",
            "2:34: provider.google.authorization_parameters.state: is a parameter that postkey sets itself; remove it",
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
fn all_mistakes_are_reported_at_once() {
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
        "12:1: account.\"ann@example.test\": occurs twice, because upper and lower case make no difference; merge the two",
    ];
    assert_eq!(bad(text), expected);
}

proptest::proptest! {
    /// A damaged file is either good or has mistakes with positions in it.
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
fn missing_keys_are_reported_if_the_syntax_is_right() {
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
fn a_control_socket_whose_path_is_too_long_is_a_mistake() {
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    good(&format!("control_socket = {:?}", path(107)));
    let mistake = "1:18: control_socket: is longer than 107 bytes, the maximum for a Unix socket; shorten it";
    assert_eq!(bad(&format!("control_socket = {:?}", path(108))), [mistake]);
    // A relative path is in the folder of the file, and its bytes count, not its letters.
    let folder = "/etc/postkey/".len();
    good(&format!("control_socket = {:?}", "x".repeat(107 - folder)));
    for path in ["x".repeat(108 - folder), "ä".repeat((108 - folder).div_ceil(2))] {
        assert_eq!(bad(&format!("control_socket = {path:?}")), [mistake]);
    }
    // By default it is in the state folder.
    let state = |length: usize| path(length - "/control".len());
    good(&format!("state_dir = {:?}", state(107)));
    let mistakes = bad(&format!("state_dir = {:?}", state(108)));
    assert!(mistakes.len() == 1 && mistakes[0].contains("set control_socket to a shorter path"), "{mistakes:?}");
    good(&format!("state_dir = {:?}\ncontrol_socket = \"/run/postkey\"", state(108)));
}

#[test]
fn a_file_is_only_loaded_with_the_files_that_it_names() {
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
fn a_named_file_must_exist_and_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.toml");
    let expected = |message: &str| format!("{}: {message}", file.display());
    let load = || Config::load(Some(&file)).unwrap_err()[0].to_string();
    assert_eq!(load(), expected("there is no such file; correct the path, or omit it to use the defaults"));
    std::fs::write(&file, b"log = \"\xff\"").unwrap();
    assert_eq!(load(), expected("is not UTF-8 text; save it as UTF-8"));
}

#[test]
fn two_providers_of_domains_share_a_port_for_browsers_only_if_they_have_one_redirect_uri() {
    let text = |google: &str, outlook: &str| {
        format!(
            "[provider.google]\nclient_id = \"a\"\n{google}\n[provider.outlook]\nclient_id = \"b\"\n{outlook}\n\
             [account.\"*@one.test\"]\nprovider = \"google\"\n[account.\"*@two.test\"]\nprovider = \"outlook\"\n"
        )
    };
    let uri = |uri: &str| format!("redirect_uri = \"{uri}\"\n");
    let at = |listen: &str| format!("redirect_listen = \"{listen}\"\n");
    let public = uri("https://mail.example.test/");
    for (google, outlook) in [
        (String::new(), String::new()),
        (uri("http://127.0.0.1:8090/"), uri("http://127.0.0.1:8090/")),
        (uri("http://127.0.0.1:8090/"), uri("http://127.0.0.1:8091/")),
        (public.clone() + &at("127.0.0.1:8090"), uri("https://other.example.test/") + &at("127.0.0.1:8091")),
        (public.clone() + &at("127.0.0.1:8090"), public.clone() + &at("[::1]:8090")),
    ] {
        good(&text(&google, &outlook));
    }
    for (google, outlook) in [
        (uri("http://127.0.0.1:8090/"), uri("http://127.0.0.1:8090/back")),
        (uri("http://127.0.0.1:8090/"), uri("http://localhost:8090/")),
        (uri("http://127.0.0.1:8090/"), public.clone() + &at("[::1]:8090")),
        (public.clone() + &at("127.0.0.1:8090"), uri("https://other.example.test/") + &at("127.0.0.1:8090")),
        (public.clone() + &at("127.0.0.1:8090"), public.clone() + &at("0.0.0.0:8090")),
    ] {
        let errors = bad(&text(&google, &outlook));
        assert!(
            errors[0].contains("the providers google and outlook wait for browsers at the same port"),
            "{errors:?}"
        );
    }
    // Without the second domain, only `postkey authorize` waits there.
    let both = text(&uri("http://127.0.0.1:8090/"), &uri("http://127.0.0.1:8090/back"));
    good(both.split("[account.\"*@two").next().unwrap());
}
