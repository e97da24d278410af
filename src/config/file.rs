//! The shape of the file: its top level, and the accounts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use tracing_subscriber::filter::LevelFilter;

use super::environment::Environment;
use super::flow::Flow;
use super::mistake::Mistake;
use super::providers::{self, Providers};
use super::reader::{Disk, Report, Section, Value};
use super::{Config, LogFormat, accounts, listeners, log_filter, words};

/// Reads a file that contains `text`; `disk` judges it, and the files that it names.
pub fn read(file: &Path, text: &str, environment: &Environment, disk: Disk) -> Result<Config, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let report = Report::new(file, text, disk);
    report.syntax(&errors);
    let config = top(Section::top(&report, document.get_ref()), environment);
    report.into_result().map(|warnings| Config { warnings, ..config })
}

/// Reads everything. Where a value has a mistake, which is noted, anything may stand in the result.
fn top(mut section: Section<'_>, environment: &Environment) -> Config {
    let state_dir = state_dir(&mut section, environment);
    let control_socket = section.get("control_socket").and_then(|value| value.path());
    let log = section.get("log").and_then(|value| value.parse(log_filter::read));
    let log_formats = [("plain", LogFormat::Plain), ("json", LogFormat::Json)];
    let log_format = section.get("log_format").and_then(|value| value.choice(&log_formats));
    let log_file = section.get("log_file").and_then(|value| value.path());
    let metrics = section.get("metrics").and_then(|value| value.parse(loopback));
    let notify_command = section.get("notify_command").and_then(|value| value.command());
    let finish_page = section.file("finish_page");
    let providers = providers::read(&mut section);
    let accounts = section.get("account").and_then(|value| value.section());
    let accounts = accounts.map(|table| accounts::read(&table, &providers)).unwrap_or_default();
    let mut config = Config {
        control_socket: control_socket.unwrap_or_else(|| state_dir.join("control")),
        state_dir,
        log: log.unwrap_or_else(|| log_filter::of_level(LevelFilter::INFO)),
        log_format,
        log_file,
        metrics,
        notify_command: notify_command.unwrap_or_default(),
        finish_page,
        listeners: Vec::new(),
        warnings: Vec::new(),
        accounts: accounts.accounts,
        aliases: accounts.aliases.into_iter().map(|(alias, (address, _))| (alias, address)).collect(),
        domains: accounts.domains,
        providers,
    };
    config.listeners = listeners::read(&mut section, &config);
    section.finish();
    config
}

fn state_dir(section: &mut Section<'_>, environment: &Environment) -> PathBuf {
    if let Some(value) = section.get("state_dir") {
        return value.path().unwrap_or_default();
    }
    let usual = environment.state_dir();
    if usual.is_none() {
        section.absence("nothing says where to keep the tokens; set state_dir, or HOME in the environment");
    }
    usual.unwrap_or_default()
}

/// An address that no other machine can reach: what is served there tells who has an account.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
    address.ok_or_else(|| "must be an address on this machine and a port; write \"127.0.0.1:9143\"".to_owned())
}

/// The grant, where one is named.
pub fn flow(section: &mut Section<'_>, legacy: bool) -> Option<Flow> {
    let value = section.get("flow")?;
    let flow = value.choice(&Flow::ALL.map(|flow| (flow.name(), flow)))?;
    if flow == Flow::Password && !legacy {
        value.mistake("shows the mailbox's own password to postkey; if there is no other way, add legacy = true");
    }
    Some(flow)
}

/// Whether the password grant may be used.
pub fn legacy(section: &mut Section<'_>) -> Option<bool> {
    let value = section.get("legacy")?;
    let legacy = value.flag()?;
    if legacy {
        value.warn("lets postkey keep a mailbox's own password, which opens more than the mail; ask for another grant");
    }
    Some(legacy)
}

/// An e-mail address, in lower case.
pub fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let plain = parts.is_some() && !text.chars().any(|char| char.is_whitespace() || char.is_control() || char == '*');
    if plain { Ok(text.to_lowercase()) } else { Err("must be an address such as \"ann@example.test\"".to_owned()) }
}

/// The name of a provider that there is.
pub fn provider_name(value: &Value<'_>, providers: &Providers) -> Option<String> {
    let name = value.text()?;
    if !providers.contains_key(name) {
        let names: Vec<&str> = providers.keys().map(String::as_str).collect();
        value.absence(format!("there is no provider \"{name}\"; {}", words::did_you_mean(name, &names)));
    }
    Some(name.to_owned())
}
