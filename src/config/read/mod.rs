//! Reads the configuration from TOML, with one file for each table. `reader` records all mistakes.

mod accounts;
mod assertion;
mod certificate;
mod client;
mod clients;
mod database;
mod endpoints;
mod fields;
mod listeners;
mod providers;
mod proxy;
mod reader;
mod redirects;
mod secret_source;
mod servers;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use tracing_subscriber::filter::LevelFilter;

use super::environment::Environment;
use super::mistake::Mistake;
use super::{Config, LogFormat, log_filter};
use crate::address::Address;
use reader::{Disk, Report, Section};

impl Config {
    /// Reads the file at `path`, or the default file if it exists. This process must be able to read all files that the
    /// configuration names.
    ///
    /// # Errors
    ///
    /// All mistakes, in the order of the file. It is a mistake if there is no file at `path`.
    pub fn load(path: Option<&Path>) -> Result<Self, Vec<Mistake>> {
        let environment = Environment::of_process();
        let default = environment.config_file().unwrap_or_else(|| PathBuf::from("postkey.toml"));
        let file = path.unwrap_or(&default);
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(vec![unreadable(file, &error)]),
        };
        read(file, &text, &environment, Disk::REAL)
    }

    /// Reads `text` as the future content of `file`, which need not exist yet. This process must be able to read all files
    /// that the text names.
    ///
    /// # Errors
    ///
    /// All mistakes, in the order of the file.
    pub fn read(text: &str, file: &Path) -> Result<Self, Vec<Mistake>> {
        read(file, text, &Environment::of_process(), Disk::REAL)
    }

    /// Reads `text` as the content of `file`, whose folder is the base of relative paths. Opens no file.
    ///
    /// # Errors
    ///
    /// All mistakes, in the order of the file.
    pub fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, Vec<Mistake>> {
        read(file, text, environment, Disk::NONE)
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Mistake {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; correct the path, or omit it to use the defaults".to_owned(),
        io::ErrorKind::InvalidData => "is not UTF-8 text; save it as UTF-8".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("cannot be read: {error}; run postkey as root, or as a user that may read this file")
        }
        _ => format!("cannot be read: {error}"),
    };
    Mistake { file: file.to_owned(), position: None, key: String::new(), message }
}

/// Reads a file that contains `text`. `disk` checks it and the files that it names.
fn read(file: &Path, text: &str, environment: &Environment, disk: Disk) -> Result<Config, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let report = Report::new(file, text, disk);
    report.syntax(&errors);
    let config = top(Section::top(&report, document.get_ref()), environment);
    report.into_result().map(|warnings| Config { warnings, ..config })
}

/// Reads everything. If a value has a mistake, that is recorded, and the result can have any value there.
fn top(mut section: Section<'_>, environment: &Environment) -> Config {
    let state_dir = state_dir(&mut section, environment);
    let control_socket = section.get("control_socket").and_then(|value| {
        let path = value.path()?;
        listeners::judge_length(&value, &path);
        Some(path)
    });
    if control_socket.is_none() && !listeners::fits(&state_dir.join("control")) {
        section.absence("state_dir is too long for a Unix socket in it; set control_socket to a shorter path");
    }
    let log = section.parse("log", log_filter::read);
    let log_formats = [("plain", LogFormat::Plain), ("json", LogFormat::Json)];
    let log_format = section.choice("log_format", &log_formats);
    let log_file = section.get("log_file").and_then(|value| value.path());
    let metrics = section.parse("metrics", |text| loopback(text, "127.0.0.1:9143"));
    let metrics_users = fields::users(&mut section, "metrics_allow_uids");
    if let (None, Some(value)) = (metrics, section.get("metrics_allow_uids")) {
        value.absence("has no effect without metrics; add metrics, or remove this");
    }
    // `postkey metrics` has them, too.
    let metrics_accounts = section.flag("metrics_accounts");
    let web = section.section("web").and_then(page_address);
    let vault = section.section("vault").and_then(database::read);
    let notify_command = section.get("notify_command").and_then(|value| value.command());
    let finish_page = section.file("finish_page");
    let providers = providers::read(&mut section);
    let entries = section.section("account").map(|table| accounts::read(&table, &providers)).unwrap_or_default();
    let mut config = Config {
        control_socket: control_socket.unwrap_or_else(|| state_dir.join("control")),
        state_dir,
        vault,
        log: log.unwrap_or_else(|| log_filter::of_level(LevelFilter::INFO)),
        log_format,
        log_file,
        metrics,
        metrics_users,
        metrics_accounts,
        web,
        notify_command: notify_command.unwrap_or_default(),
        finish_page,
        listeners: Vec::new(),
        warnings: Vec::new(),
        accounts: entries.accounts,
        aliases: entries.aliases.into_iter().map(|(alias, (address, _))| (alias, address)).collect(),
        domains: entries.domains,
        providers,
    };
    config.listeners = listeners::read(&mut section, &config);
    redirects::judge(&section, &config);
    section.finish();
    config
}

fn state_dir(section: &mut Section<'_>, environment: &Environment) -> PathBuf {
    if let Some(value) = section.get("state_dir") {
        return value.path().unwrap_or_default();
    }
    let default = environment.state_dir();
    if default.is_none() {
        section.absence("there is no default for state_dir; set it, or HOME in the environment");
    }
    default.unwrap_or_default()
}

/// Reads `[web]`: where the page for setting up in a browser is.
fn page_address(mut section: Section<'_>) -> Option<Address> {
    section.require(&["address"]);
    let address = section.get("address").and_then(|value| {
        let address = value.parse(|text| match text.starts_with('/') {
            true => Ok(Address::Unix(text.into())),
            false => loopback(text, "127.0.0.1:8143")
                .map(Address::Tcp)
                .map_err(|why| format!("{why}, or the path of a Unix socket")),
        })?;
        if let Address::Unix(path) = &address {
            listeners::judge_length(&value, path);
        }
        Some(address)
    });
    section.finish();
    address
}

/// Reads an address that other machines cannot reach, because metrics and the page show who has an account.
fn loopback(text: &str, example: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
    address.ok_or_else(|| format!("must be an address on this machine and a port; write \"{example}\""))
}
