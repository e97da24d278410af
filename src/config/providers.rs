//! The providers: the table that is compiled in, and `[provider.NAME]`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use toml::de::DeTable;
use url::{Host, Url};

use super::assertion::Bearer;
use super::client::Client;
use super::file::{flow, legacy};
use super::flow::Flow;
use super::provider::{Provider, Proxy};
use super::reader::{Disk, Report, Section};
use super::{endpoints, hosts, proxy, servers};
use crate::clock::Moment;
use crate::protocol::Mechanism;

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

/// Whose domain this is, in lower case.
pub fn of_domain<'a>(providers: &'a Providers, domain: &str) -> Option<&'a Provider> {
    let exact = providers.values().find(|provider| provider.has_domain(domain));
    exact.or_else(|| providers.values().find(|provider| provider.has_family_of(domain)))
}

/// Reads the file's providers into the compiled-in ones.
pub fn read(top: &mut Section<'_>) -> Providers {
    let proxy = proxy::read(top).flatten();
    let mut all = compiled_in();
    all.values_mut().for_each(|provider| provider.proxy.clone_from(&proxy));
    if let Some(table) = top.get("provider").and_then(|value| value.section()) {
        let own = read_table(&table, &all, proxy.as_ref());
        // A domain that the file gives to one provider is taken from the others.
        let is_free = |domain: &String| !own.values().any(|provider| provider.domains.contains(domain));
        all.values_mut().for_each(|provider| provider.domains.retain(is_free));
        all.extend(own);
    }
    all
}

/// The compiled-in table, read once; a test looks at its mistakes.
fn compiled_in() -> Providers {
    static READ: LazyLock<Providers> = LazyLock::new(|| {
        let (document, _) = DeTable::parse_recoverable(TABLE);
        let report = Report::new(Path::new("providers.toml"), TABLE, Disk::NONE);
        read_table(&Section::top(&report, document.get_ref()), &Providers::new(), None)
    });
    READ.clone()
}

/// Reads a table of providers. What it leaves out of one is taken from the one of the same name in `bases`; `proxy` is that of
/// all providers that say nothing else.
pub fn read_table(table: &Section<'_>, bases: &Providers, proxy: Option<&Proxy>) -> Providers {
    let mut read = Providers::new();
    for (name, value) in table.named() {
        let Some(mut section) = value.section() else { continue };
        let own_proxy = proxy::read(&mut section);
        let mut provider = provider(name, section, bases, &read);
        provider.proxy = own_proxy.unwrap_or_else(|| proxy.cloned());
        read.insert(name.to_owned(), provider);
    }
    read
}

/// Reads one provider. What has a mistake, which is noted, is replaced by anything.
fn provider(name: &str, mut section: Section<'_>, bases: &Providers, others: &Providers) -> Provider {
    let base = bases.get(name);
    let legacy = legacy(&mut section).or_else(|| Some(base?.legacy)).unwrap_or_default();
    let flow = flow(&mut section, legacy).or_else(|| Some(base?.flow)).unwrap_or_default();
    let issuer = endpoints::issuer(&mut section).or_else(|| base?.issuer.clone());
    let resource = section.text("resource").or_else(|| base?.resource.clone());
    let endpoints = endpoints::read(&mut section, base.map(|base| &base.endpoints));
    if base.is_none() {
        require(&section, flow, issuer.is_some(), resource.is_some());
    }
    let issuers = hosts::issuers(&endpoints, issuer.as_deref(), bases);
    let provider = Provider {
        name: name.to_owned(),
        domains: domains(&mut section, others).or_else(|| Some(base?.domains.clone())).unwrap_or_default(),
        mx: mx(&mut section).or_else(|| Some(base?.mx.clone())).unwrap_or_default(),
        flow,
        issuer,
        endpoints,
        scope: scope(&mut section).or_else(|| Some(base?.scope.clone())).unwrap_or_default(),
        authorization_parameters: parameters(&mut section)
            .or_else(|| Some(base?.authorization_parameters.clone()))
            .unwrap_or_default(),
        bearer: Bearer::read(&mut section).or_else(|| base?.bearer.clone()),
        resource,
        legacy,
        client: Client::read(&mut section, base.and_then(|base| base.client.as_ref())),
        redirect_uri: endpoints::redirect_uri(&mut section)
            .or_else(|| Some(base?.redirect_uri.clone()))
            .unwrap_or_else(on_loopback),
        redirect_listen: section
            .get("redirect_listen")
            .and_then(|value| value.parse(socket))
            .or_else(|| base?.redirect_listen),
        mechanisms: mechanisms(&mut section)
            .or_else(|| Some(base?.mechanisms.clone()))
            .unwrap_or_else(|| vec![Mechanism::OAuthBearer, Mechanism::XOAuth2]),
        proxy: None,
        ca_file: section.file("ca_file").or_else(|| base?.ca_file.clone()),
        client_expires: day(&mut section, "client_expires").or_else(|| base?.client_expires),
        refresh_token_life: days(&mut section, "refresh_token_life").or_else(|| base?.refresh_token_life),
        session_ends_with_token: flag(&mut section, "session_ends_with_token")
            .or_else(|| Some(base?.session_ends_with_token))
            .unwrap_or_default(),
        servers: servers::read(&mut section, base, &issuers),
        note: section.text("note").or_else(|| base?.note.clone()),
    };
    section.finish();
    provider
}

/// What a new provider has to have; an issuer's metadata tell its endpoints.
fn require(section: &Section<'_>, flow: Flow, has_issuer: bool, has_resource: bool) {
    let browser = (flow == Flow::AuthorizationCode && !has_issuer).then_some("authorization_endpoint");
    let token = (!has_issuer).then_some("token_endpoint");
    let scope = (!has_resource).then_some("scope");
    section.require(&browser.into_iter().chain(token).chain(scope).collect::<Vec<_>>());
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as \"127.0.0.1:8090\"".to_owned())
}

fn flag(section: &mut Section<'_>, key: &'static str) -> Option<bool> {
    section.get(key)?.flag()
}

/// The beginning of a day, in UTC.
pub fn day(section: &mut Section<'_>, key: &'static str) -> Option<Moment> {
    section.get(key)?.parse(|text| {
        let refusal = "must be a day such as \"2027-01-31\"".to_owned();
        let time = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).map_err(|_| refusal.clone())?;
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| refusal)?;
        Ok(Moment(since.as_secs()))
    })
}

fn days(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    let day = Duration::from_secs(24 * 3600);
    section.get(key)?.whole("a number of days from 1 to 3650", 1..=3650).map(|days| day * days)
}

/// Where the browser returns to if nothing else is said: this machine, at any free port.
fn on_loopback() -> Url {
    #[expect(clippy::expect_used, reason = "nothing from outside is in it")]
    Url::parse("http://127.0.0.1/").expect("this constant is a URL")
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

/// Names of mail exchangers.
fn mx(section: &mut Section<'_>) -> Option<Vec<String>> {
    let one = |text: &str| {
        let (below, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
        let pattern = host_name(name).map(|name| format!("{below}{name}"));
        pattern.ok_or_else(|| {
            "must be a host such as \"mx.example.test\", or \"*.example.test\" for all below it".to_owned()
        })
    };
    Some(section.get("mx")?.list().iter().filter_map(|value| value.parse(one)).collect())
}

/// A host's name in lower case, international ones in their ASCII form.
pub fn host_name(text: &str) -> Option<String> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !name.contains('*') => Some(name),
        _ => None,
    }
}

/// The scopes, where there are any.
pub fn scope(section: &mut Section<'_>) -> Option<Vec<String>> {
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

/// What an authorization request has beside the standard parameters.
pub fn parameters(section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for (name, value) in section.get("authorization_parameters")?.section()?.named() {
        if OWN_PARAMETERS.contains(&name) {
            value.mistake("is set by postkey itself; remove it");
        }
        parameters.extend(value.text().map(|text| (name.to_owned(), text.to_owned())));
    }
    Some(parameters)
}
