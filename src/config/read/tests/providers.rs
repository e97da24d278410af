//! Providers: the compiled-in ones, changes to them, new ones, and proxies.

use std::path::Path;

use super::{bad, good, listed, parse, provider};
use crate::config::provider::{Endpoints, Providers, ProxyKind};
use crate::config::read::providers::{TABLE, read_table};
use crate::config::read::reader::{Disk, Report, Section};
use crate::protocol::{Mechanism, Protocol, Security};

#[test]
fn the_compiled_in_providers_have_no_mistake() {
    let (document, errors) = toml::de::DeTable::parse_recoverable(TABLE);
    let report = Report::new(Path::new("providers.toml"), TABLE, Disk::NONE);
    report.syntax(&errors);
    let read = read_table(&Section::top(&report, document.get_ref()), &Providers::new(), None);
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

/// Why the configuration refuses a host that would get bearers. None if it does not.
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
            why.contains(&format!("3:8: provider.google.imap.host: {other} is not a host of \"google\"")),
            "{other}: {why}"
        );
        assert_eq!(refused(&format!("{}trust_host = true\n", imap("", other))), None, "{other}");
    }
    let customer = "[provider.comcast.imap]\nhost = \"c-192-0-2-1.hsd1.comcast.net\"";
    assert!(refused(customer).unwrap().contains("is not a host of \"comcast\""), "the name of a customer's line");
}

#[test]
fn an_entry_of_another_name_cannot_take_a_providers_bearers_elsewhere() {
    let google = "[provider.x]\nauthorization_endpoint = \"https://a.test/\"\nscope = [\"mail\"]\nimap.host = \"imap.evil.test\"\n";
    for from_google in
        ["token_endpoint = \"https://oauth2.googleapis.com/token?x\"", "issuer = \"https://accounts.google.com\""]
    {
        let why = refused(&format!("{google}{from_google}\n")).unwrap();
        assert!(why.contains("imap.evil.test is not a host of \"google\""), "{why}");
    }
    assert_eq!(refused(&format!("{google}token_endpoint = \"https://b.test/\"\n")), None, "a server of the user's own");
    let tenant = "[provider.company]\nissuer = \"https://login.microsoftonline.com/0-0/v2.0\"\nscope = [\"x\"]\n\
                  imap.host = \"outlook.office365.com\"\n[provider.company.smtp]\nhost = \"smtp-hve.office365.com\"\n";
    assert_eq!(refused(tenant), None, "an entry for one tenant");
}

#[test]
fn an_issuer_is_enough_to_know_a_server() {
    let config = good(
        "[provider.x]\nissuer = \"https://login.own.test/mail\"\nscope = [\"mail\"]\nimap.host = \"imap.own.test\"\n",
    );
    assert_eq!(config.providers["x"].endpoints, Endpoints::default());
    for (issuer, why) in [
        ("http://login.own.test", "must begin with https:// (http:// only on this machine), and begins with http:"),
        ("login.own.test", "is not a URL (relative URL without a base); write it like \"https://auth.example.test\""),
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
    assert_eq!(name("ann@hotmail.fr"), Some("x"), "a full domain comes before a family");
    assert_eq!(name("ann@hotmail.de"), Some("outlook"));
    assert_eq!(name("ann@outlook.com.br"), Some("outlook"));
    assert_eq!(name("ann@live.example.edu"), None);
    assert_eq!(name("ann@live.com.example.edu"), None);
    assert_eq!(name("ann@yahoo.co.jp"), None);
    assert_eq!(name("gmail.com"), None);
}

#[test]
fn the_file_may_take_a_domain_from_a_compiled_in_provider_but_not_from_its_own() {
    let taken = provider("domains = [\"gmail.com\"]");
    assert_eq!(good(&taken).provider_for("ann@gmail.com").unwrap().name, "x");
    let twice = format!("{taken}{}", taken.replace("provider.x", "provider.y"));
    assert_eq!(bad(&twice), ["12:12: provider.y.domains: gmail.com is already a domain of \"x\"; remove it from one"]);
}

#[test]
fn a_provider_is_known_to_name_itself_in_responses() {
    let names_itself = |text: &str, provider: &str| good(text).providers[provider].names_itself;
    assert!(names_itself("", "google") && names_itself("", "fastmail") && !names_itself("", "microsoft"));
    let key = "authorization_response_iss_parameter_supported";
    assert!(!names_itself(&format!("[provider.google]\n{key} = false"), "google"));
    assert!(names_itself(&provider(&format!("{key} = true")), "x"));
}

#[test]
fn a_proxy_is_for_all_providers_that_name_no_other() {
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
    assert!(own.login.is_none(), "a login is only for its own proxy");
    for name in ["microsoft", "x"] {
        let common = proxy(name).unwrap();
        assert_eq!((common.kind, &*common.host, common.port), (ProxyKind::Socks5, "::1", 1080));
        assert!(common.login.as_ref().is_some_and(|(user, file)| user == "office" && file.ends_with("proxy.password")));
    }
    assert!(good("").providers["google"].proxy.is_none());
}

#[test]
fn an_impossible_proxy_is_a_mistake() {
    let form = "must be \"none\", or a proxy such as \"http://proxy.example.test:3128\" or \"socks5://127.0.0.1:1080\"";
    for proxy in ["https://p.test:1", "p.test:3128", "socks4://p.test:1", "http://p.test/path", "socks5:///", "http://"]
    {
        assert_eq!(bad(&format!("proxy = {proxy:?}")), [format!("1:9: proxy: {form}")]);
    }
    assert!(bad("proxy = \"http://office:secret@p.test:1\"")[0].contains("contains a login"));
    for (text, mistake) in [
        ("proxy_user = \"a\"", "1:14: proxy_user: has no effect without proxy; add proxy, or remove this"),
        ("proxy = \"http://p.test\"\nproxy_user = \"a\"", "1:1: proxy_password is missing; add it here"),
        ("proxy = \"http://p.test\"\nproxy_password = { file = \"f\" }", "1:1: proxy_user is missing; add it here"),
    ] {
        assert_eq!(bad(text), [mistake]);
    }
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

#[test]
fn the_name_for_ehlo_is_a_domain_and_only_for_smtp() {
    let table = |protocol: &str, name: &str| format!("[provider.google.{protocol}]\nehlo_name = {name:?}\n");
    let config = good(&table("smtp", "mail.example.test"));
    let smtp = &config.providers["google"].servers[&Protocol::Smtp];
    assert_eq!(smtp.ehlo_name.as_deref(), Some("mail.example.test"));
    for bad_name in ["OFFICE_PC", "[10.0.0.1]", "10.0.0.1", "a b", "mail.example.test.", ""] {
        assert_eq!(bad(&table("smtp", bad_name)).len(), 1, "{bad_name}");
    }
    assert_eq!(bad(&table("imap", "mail.example.test")).len(), 1);
}
