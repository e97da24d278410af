//! The providers: the table that is compiled in, and `[provider.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;
use url::{Host, Url};

use super::assertion::Bearer;
use super::client::Client;
use super::file::{flow, legacy};
use super::flow::Flow;
use super::provider::{Provider, Server};
use super::reader::{Disk, Report, Section};
use super::words;
use crate::protocol::{Mechanism, Protocol, Security};

/// The table that is compiled in.
pub const TABLE: &str = include_str!("../../config/providers.toml");

/// The parameters of an authorization request that postkey sets itself.
const OWN_PARAMETERS: [&str; 9] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "login_hint",
    "nonce",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
];

/// The providers by name.
pub type Providers = BTreeMap<String, Provider>;

/// Reads the file's providers into the compiled-in ones.
pub fn read(top: &mut Section<'_>) -> Providers {
    let mut all = compiled_in();
    if let Some(table) = top.get("provider").and_then(|value| value.section()) {
        let own = read_table(&table, &all);
        // A domain that the file gives to one provider is taken from the others.
        let is_free = |domain: &String| !own.values().any(|provider| provider.domains.contains(domain));
        all.values_mut().for_each(|provider| provider.domains.retain(is_free));
        all.extend(own);
    }
    all
}

/// The compiled-in table; a test looks at its mistakes.
fn compiled_in() -> Providers {
    let (document, _) = DeTable::parse_recoverable(TABLE);
    let report = Report::new(Path::new("providers.toml"), TABLE, Disk::NONE);
    read_table(&Section::top(&report, document.get_ref()), &Providers::new())
}

/// Reads a table of providers. What it leaves out of one is taken from the one of the same name in `bases`.
pub fn read_table(table: &Section<'_>, bases: &Providers) -> Providers {
    let mut read = Providers::new();
    for (name, value) in table.named() {
        let Some(section) = value.section() else { continue };
        let provider = provider(name, section, bases.get(name), &read);
        read.insert(name.to_owned(), provider);
    }
    read
}

/// Reads one provider. What has a mistake, which is noted, is replaced by anything.
fn provider(name: &str, mut section: Section<'_>, base: Option<&Provider>, others: &Providers) -> Provider {
    let legacy = legacy(&mut section).or_else(|| Some(base?.legacy)).unwrap_or_default();
    let flow = flow(&mut section, legacy).or_else(|| Some(base?.flow)).unwrap_or_default();
    let resource = section.text("resource").or_else(|| base?.resource.clone());
    if base.is_none() {
        let browser = (flow == Flow::AuthorizationCode).then_some("authorization_endpoint");
        let scope = resource.is_none().then_some("scope");
        let keys: Vec<&str> = browser.into_iter().chain(["token_endpoint"]).chain(scope).collect();
        section.require(&keys);
    }
    let provider = Provider {
        name: name.to_owned(),
        domains: domains(&mut section, others).or_else(|| Some(base?.domains.clone())).unwrap_or_default(),
        flow,
        authorization_endpoint: url(&mut section, "authorization_endpoint", endpoint)
            .or_else(|| base?.authorization_endpoint.clone()),
        token_endpoint: url(&mut section, "token_endpoint", endpoint)
            .or_else(|| Some(base?.token_endpoint.clone()))
            .unwrap_or_else(on_loopback),
        issuer: section.text("issuer").or_else(|| base?.issuer.clone()),
        scope: scope(&mut section).or_else(|| Some(base?.scope.clone())).unwrap_or_default(),
        authorization_parameters: parameters(&mut section)
            .or_else(|| Some(base?.authorization_parameters.clone()))
            .unwrap_or_default(),
        device_authorization_endpoint: url(&mut section, "device_authorization_endpoint", endpoint)
            .or_else(|| base?.device_authorization_endpoint.clone()),
        bearer: Bearer::read(&mut section).or_else(|| base?.bearer.clone()),
        resource,
        legacy,
        client: Client::read(&mut section, base.and_then(|base| base.client.as_ref())),
        redirect_uri: url(&mut section, "redirect_uri", redirect_uri)
            .or_else(|| Some(base?.redirect_uri.clone()))
            .unwrap_or_else(on_loopback),
        mechanisms: mechanisms(&mut section)
            .or_else(|| Some(base?.mechanisms.clone()))
            .unwrap_or_else(|| vec![Mechanism::OAuthBearer, Mechanism::XOAuth2]),
        ca_file: section.file("ca_file").or_else(|| base?.ca_file.clone()),
        servers: servers(&mut section, base),
        note: section.text("note").or_else(|| base?.note.clone()),
    };
    section.finish();
    provider
}

/// Where the browser returns to if nothing else is said: this machine, at any free port.
fn on_loopback() -> Url {
    Url::parse("http://127.0.0.1/").expect("this constant is a URL")
}

fn url(section: &mut Section<'_>, key: &'static str, judge: fn(Url) -> Result<Url, String>) -> Option<Url> {
    section.get(key)?.parse(|text| {
        let refusal = |error| format!("is no URL ({error}); write it like \"https://auth.example.test/token\"");
        Url::parse(text).map_err(refusal).and_then(judge)
    })
}

/// RFC 6749 section 3: TLS, and no fragment.
fn endpoint(url: Url) -> Result<Url, String> {
    if url.fragment().is_some() {
        return Err("an endpoint has no #fragment; remove it".to_owned());
    }
    redirect_uri(url)
}

/// Https, or http that does not leave this machine.
fn redirect_uri(url: Url) -> Result<Url, String> {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        scheme => Err(format!("must begin with https:// (http:// only on this machine), and begins with {scheme}:")),
    }
}

fn domains(section: &mut Section<'_>, others: &Providers) -> Option<Vec<String>> {
    let value = section.get("domains")?;
    let mut domains = Vec::new();
    for value in value.list() {
        let Some(domain) = value.parse(domain) else { continue };
        if let Some(other) = others.values().find(|other| other.has_domain(&domain)) {
            value.mistake(format!("{domain} is a domain of \"{}\" already; remove it from one", other.name));
        }
        domains.push(domain);
    }
    Some(domains)
}

fn domain(text: &str) -> Result<String, String> {
    let (name, ending) = text.strip_suffix(".*").map_or((text, ""), |name| (name, ".*"));
    let domain = host_name(name).map(|name| format!("{name}{ending}"));
    domain.ok_or_else(|| "must be a domain such as \"example.test\", or \"example.*\" for all its endings".to_owned())
}

/// A host's name in lower case, international ones in their ASCII form.
fn host_name(text: &str) -> Option<String> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !name.contains('*') => Some(name),
        _ => None,
    }
}

fn scope(section: &mut Section<'_>) -> Option<Vec<String>> {
    // RFC 6749 section 3.3 separates scopes by spaces.
    let one = |text: &str| match text.contains(char::is_whitespace) {
        true => Err("is several scopes in one text; write a list, [\"one\", \"two\"]".to_owned()),
        false => Ok(text.to_owned()),
    };
    Some(section.get("scope")?.list().iter().filter_map(|value| value.parse(one)).collect())
}

fn mechanisms(section: &mut Section<'_>) -> Option<Vec<Mechanism>> {
    let choices = [Mechanism::XOAuth2, Mechanism::OAuthBearer].map(|mechanism| (mechanism.name(), mechanism));
    Some(section.get("mechanisms")?.list().iter().filter_map(|value| value.choice(&choices)).collect())
}

fn parameters(section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (name, value) in section.get("authorization_parameters")?.section()?.named() {
        if OWN_PARAMETERS.contains(&name) {
            value.mistake("is set by postkey itself; remove it");
        }
        parameters.extend(value.text().map(|text| (name.to_owned(), text.to_owned())));
    }
    Some(parameters)
}

fn servers(section: &mut Section<'_>, base: Option<&Provider>) -> BTreeMap<Protocol, Server> {
    let mut servers = base.map(|base| base.servers.clone()).unwrap_or_default();
    for protocol in Protocol::ALL {
        if let Some(own) = section.get(protocol.name()).and_then(|value| value.section()) {
            let server = server(own, protocol, servers.get(&protocol));
            servers.insert(protocol, server);
        }
    }
    if servers.is_empty() {
        let names = Protocol::ALL.map(Protocol::name);
        section.absence(format!("has no mail server; add a table {}", words::listing(&names, "or")));
    }
    servers
}

fn server(mut section: Section<'_>, protocol: Protocol, base: Option<&Server>) -> Server {
    if base.is_none() {
        section.require(&["host"]);
    }
    let choices = [Security::Tls, Security::StartTls].map(|security| (security.name(), security));
    let host = section.get("host").and_then(|value| value.parse(host)).or_else(|| Some(base?.host.clone()));
    let security = section.get("security").and_then(|value| value.choice(&choices)).or_else(|| Some(base?.security));
    let security = security.unwrap_or(Security::Tls);
    let usual = base.filter(|base| base.security == security).map_or(usual_port(protocol, security), |base| base.port);
    let port = section.get("port").and_then(|value| value.port()).unwrap_or(usual);
    section.finish();
    Server { host: host.unwrap_or_default(), port, security }
}

fn host(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(ip.to_string());
    }
    let refusal = "must be the name of a host, such as \"imap.example.test\"; the port is a key of its own";
    host_name(text).ok_or_else(|| refusal.to_owned())
}

/// RFC 8314 section 3 and, for STARTTLS, the protocols' own ports.
const fn usual_port(protocol: Protocol, security: Security) -> u16 {
    match (protocol, security) {
        (Protocol::Imap, Security::Tls) => 993,
        (Protocol::Imap, _) => 143,
        (Protocol::Pop3, Security::Tls) => 995,
        (Protocol::Pop3, _) => 110,
        (Protocol::Smtp, Security::Tls) => 465,
        (Protocol::Smtp, _) => 587,
    }
}
