//! The providers: the compiled-in table, and `[provider.NAME]`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use toml::de::DeTable;
use url::Url;

use super::reader::{Disk, Report, Section};
use super::{assertion, client, endpoints, fields, proxy, servers};
use crate::config::flow::Flow;
use crate::config::provider::{Provider, Providers, ProxyConfig};
use crate::protocol::Mechanism;

/// The compiled-in table.
pub const TABLE: &str = include_str!("../../../config/providers.toml");

/// The same, parsed. A test checks it for mistakes.
static DOCUMENT: LazyLock<DeTable<'static>> = LazyLock::new(|| DeTable::parse_recoverable(TABLE).0.into_inner());

static COMPILED_IN: LazyLock<Providers> =
    LazyLock::new(|| read_table(&Section::top(&report(), &DOCUMENT), &Providers::new(), None));

/// Reads the file's providers. A provider gets the keys that it leaves out from the compiled-in one with its name.
pub fn read(top: &mut Section<'_>) -> Providers {
    let proxy = proxy::read(top).flatten();
    let mut all = COMPILED_IN.clone();
    all.values_mut().for_each(|provider| Arc::make_mut(provider).proxy.clone_from(&proxy));
    if let Some(table) = top.section("provider") {
        let own = read_table(&table.over(&report(), &DOCUMENT), &COMPILED_IN, proxy.as_ref());
        // If the file gives a domain to a provider, the compiled-in one loses it.
        let is_free = |domain: &String| !own.values().any(|provider| provider.domains.contains(domain));
        all.values_mut().for_each(|provider| Arc::make_mut(provider).domains.retain(is_free));
        all.extend(own);
    }
    all
}

/// How many refreshes may be under way at an authorization server at a time, if the configuration does not say. It takes one a
/// few tenths of a second to answer, so this is enough for a hundred thousand accounts whose tokens are valid for an hour.
const REFRESHES: usize = 16;

fn report() -> Report<'static> {
    Report::new(Path::new("providers.toml"), TABLE, Disk::NONE)
}

/// Reads a table of providers. `proxy` is the default of all. The bearers of `compiled_in` providers only go to their own
/// hosts.
pub fn read_table(table: &Section<'_>, compiled_in: &Providers, proxy: Option<&ProxyConfig>) -> Providers {
    let mut read = Providers::new();
    for (name, value) in table.named() {
        let Some(mut section) = value.section() else { continue };
        let own_proxy = proxy::read(&mut section);
        let mut provider = provider(name, section, compiled_in, &read);
        provider.proxy = own_proxy.unwrap_or_else(|| proxy.cloned());
        read.insert(name.to_owned(), Arc::new(provider));
    }
    read
}

/// Reads one provider. If a value has a mistake, that is recorded, and the result can have any value there.
fn provider(name: &str, mut section: Section<'_>, compiled_in: &Providers, others: &Providers) -> Provider {
    let legacy = fields::legacy(&mut section);
    let flow = fields::flow(&mut section, legacy).unwrap_or_default();
    let (issuer, resource) = (endpoints::issuer(&mut section), section.text("resource"));
    let endpoints = endpoints::read(&mut section);
    require(&section, flow, issuer.is_some(), resource.is_some());
    let issuers = servers::issuers(&endpoints, issuer.as_deref(), compiled_in);
    let provider = Provider {
        name: name.to_owned(),
        domains: domains(&mut section, others).unwrap_or_default(),
        mx: mx(&mut section).unwrap_or_default(),
        flow,
        issuer,
        names_itself: section.flag("authorization_response_iss_parameter_supported"),
        endpoints,
        scope: fields::scope(&mut section).unwrap_or_default(),
        refresh_scope: section.flag("refresh_scope"),
        first_refresh: section.get("first_refresh").and_then(|value| value.flag()).unwrap_or(true),
        authorization_parameters: fields::parameters(&mut section),
        bearer: assertion::read(&mut section),
        resource,
        legacy,
        client: client::read(&mut section),
        redirect_uri: endpoints::redirect_uri(&mut section).unwrap_or_else(on_loopback),
        redirect_listen: section.parse("redirect_listen", socket),
        mechanisms: mechanisms(&mut section).unwrap_or_else(|| vec![Mechanism::OAuthBearer, Mechanism::XOAuth2]),
        proxy: None,
        ca_file: section.file("ca_file"),
        client_expires: fields::client_expires(&mut section),
        refresh_token_life: days(&mut section, "refresh_token_life"),
        concurrent_refreshes: refreshes(&mut section).unwrap_or(REFRESHES),
        session_ends_with_token: section.flag("session_ends_with_token"),
        connections: fields::connections(&mut section),
        spare_connection: spare_connection(&mut section),
        servers: servers::read(&mut section, &issuers),
        note: section.text("note"),
    };
    section.finish();
    provider
}

/// Requires the keys of a new provider. With an issuer, its metadata have the endpoints.
fn require(section: &Section<'_>, flow: Flow, has_issuer: bool, has_resource: bool) {
    let browser = (flow == Flow::AuthorizationCode && !has_issuer).then_some("authorization_endpoint");
    let token = (!has_issuer).then_some("token_endpoint");
    let scope = (!has_resource).then_some("scope");
    section.require(&browser.into_iter().chain(token).chain(scope).collect::<Vec<_>>());
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as \"127.0.0.1:8090\"".to_owned())
}

fn days(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    let day = Duration::from_secs(24 * 3600);
    section.get(key)?.whole("a number of days from 1 to 3650", 1..=3650).map(|days| day * days)
}

/// Most servers wait longer than the default for a login: RFC 5321 section 4.5.3.2.7 wants five minutes, and Dovecot gives three.
fn spare_connection(section: &mut Section<'_>) -> Option<Duration> {
    let seconds = section.get("spare_connection");
    let seconds = seconds.map_or(Some(30), |value| value.whole("a number of seconds from 0 to 300", 0..=300));
    seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
}

fn refreshes(section: &mut Section<'_>) -> Option<usize> {
    section.get("concurrent_refreshes")?.whole("a number from 1 to 1000", 1..=1000).map(|most| most as usize)
}

/// The default redirect URI: this machine, with any free port.
fn on_loopback() -> Url {
    #[expect(clippy::expect_used, reason = "it contains nothing from outside")]
    Url::parse("http://127.0.0.1/").expect("this constant is a URL")
}

fn domains(section: &mut Section<'_>, others: &Providers) -> Option<Vec<String>> {
    section.list("domains", |value| {
        let domain = value.parse(domain)?;
        if let Some(other) = others.values().find(|other| other.has_domain(&domain)) {
            value.mistake(format!("{domain} is already a domain of \"{}\"; remove it from one", other.name));
        }
        Some(domain)
    })
}

fn domain(text: &str) -> Result<String, String> {
    let (name, ending) = text.strip_suffix(".*").map_or((text, ""), |name| (name, ".*"));
    let domain = fields::host_name(name).map(|name| format!("{name}{ending}"));
    domain.ok_or_else(|| "must be a domain such as \"example.test\", or \"example.*\" for all its endings".to_owned())
}

fn mx(section: &mut Section<'_>) -> Option<Vec<String>> {
    let one = |text: &str| {
        let (below, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
        let pattern = fields::host_name(name).map(|name| format!("{below}{name}"));
        pattern.ok_or_else(|| {
            "must be a host such as \"mx.example.test\", or \"*.example.test\" for all names below it".to_owned()
        })
    };
    section.list("mx", |value| value.parse(one))
}

fn mechanisms(section: &mut Section<'_>) -> Option<Vec<Mechanism>> {
    let choices = [Mechanism::XOAuth2, Mechanism::OAuthBearer].map(|mechanism| (mechanism.name(), mechanism));
    section.list("mechanisms", |value| value.choice(&choices))
}
