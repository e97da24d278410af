//! The configuration: from the file's shape to something that can be relied on.

mod accounts;
pub mod assertion;
pub mod client;
mod clients;
pub mod endpoints;
pub mod environment;
mod file;
pub mod flow;
mod hosts;
mod listeners;
pub mod log_filter;
pub mod mistake;
pub mod provider;
mod providers;
mod proxy;
mod reader;
pub mod secret_source;
mod servers;
#[cfg(test)]
mod tests;
pub mod users;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::protocol::{Protocol, Security};
pub use accounts::{Account, Domain, is_address};
use client::Client;
use environment::Environment;
use ipnet::IpNet;
use mistake::Mistake;
use provider::Provider;
use reader::Disk;
use secret_source::SecretSource;
use tracing_subscriber::filter::Targets;
use users::Users;

/// The whole configuration, checked: every listener can be bound as written, every provider is complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the vault is kept.
    pub state_dir: PathBuf,
    /// Where the running daemon takes commands.
    pub control_socket: PathBuf,
    /// What to log.
    pub log: Targets,
    /// How to write the log, where the file says so.
    pub log_format: Option<LogFormat>,
    /// Where to write the log, if not to the standard error or the journal.
    pub log_file: Option<PathBuf>,
    /// Where metrics and health are served over HTTP, if anywhere: an address on loopback.
    pub metrics: Option<SocketAddr>,
    /// The program, and its arguments, that tells a person; empty where there is none.
    pub notify_command: Vec<String>,
    /// The page that the browser shows at the end of an authorization, HTML, if not postkey's own.
    pub finish_page: Option<PathBuf>,
    /// The local ports, at least one.
    pub listeners: Vec<Listener>,
    /// All known providers by name: those that are compiled in, and the file's changes and additions.
    pub providers: BTreeMap<String, Provider>,
    /// What the file says about single accounts, by address in lower case.
    pub accounts: BTreeMap<String, Account>,
    /// The accounts' further login names, in lower case, and whose they are.
    pub aliases: BTreeMap<String, String>,
    /// What the file says about all addresses of a domain, by domain in lower case.
    pub domains: BTreeMap<String, Domain>,
    /// What can be used, and should not be.
    pub warnings: Vec<Mistake>,
}

impl Config {
    /// Reads the file at `path`, or the one at the usual place, or does with the defaults where there is none.
    ///
    /// All files that the configuration names have to be readable by this process.
    ///
    /// # Errors
    ///
    /// All mistakes at once, in the order of the file. A file that was named and is not there is one.
    pub fn load(path: Option<&Path>) -> Result<Self, Vec<Mistake>> {
        let environment = Environment::of_process();
        let usual = environment.config_file().unwrap_or_else(|| PathBuf::from("postkey.toml"));
        let file = path.unwrap_or(&usual);
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(vec![unreadable(file, &error)]),
        };
        file::read(file, &text, &environment, Disk::REAL)
    }

    /// Reads `text` as the contents of `file`, against whose folder relative paths are resolved. No file is opened.
    ///
    /// # Errors
    ///
    /// All mistakes at once, in the order of the file.
    pub fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, Vec<Mistake>> {
        file::read(file, text, environment, Disk::NONE)
    }

    /// Whether this names programs for postkey to run.
    pub fn runs_programs(&self) -> bool {
        let members = self.domains.values().map(|domain| &domain.members);
        let of_accounts = self.accounts.values().chain(members).map(|account| &account.client);
        let clients = self.providers.values().map(|provider| &provider.client).chain(of_accounts);
        let of_clients = clients.flatten().filter_map(|client| client.authentication.source());
        let of_bearers = self.providers.values().filter_map(|provider| Some(provider.bearer.as_ref()?.source()));
        let is_program = |source: &SecretSource| matches!(source, SecretSource::Command(_));
        !self.notify_command.is_empty() || of_clients.chain(of_bearers).any(is_program)
    }

    /// The provider of an account: what the file says of it, or else whose domain it is. Case does not matter.
    pub fn provider_for(&self, address: &str) -> Option<&Provider> {
        let address = address.to_lowercase();
        let owner = self.owner_of(&address);
        match &self.account(owner).provider {
            Some(name) => self.providers.get(name),
            None => providers::of_domain(&self.providers, owner.rsplit_once('@')?.1),
        }
    }

    /// The client registration for an account, in lower case, of a provider: its own, or its provider's.
    pub fn client_for(&self, address: &str, provider: &Provider) -> Option<Client> {
        self.account(address).client.as_ref().or(provider.client.as_ref()).cloned()
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines of text.
    Plain,
    /// A JSON object per line.
    Json,
}

fn unreadable(file: &Path, error: &io::Error) -> Mistake {
    let message = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; correct the path, or leave it out to use the defaults".to_owned()
        }
        io::ErrorKind::InvalidData => "is no text in UTF-8; save it as UTF-8".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    Mistake { file: file.to_owned(), position: None, key: String::new(), message }
}

/// Local addresses that serve one protocol.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What is spoken.
    pub protocol: Protocol,
    /// Where; port 0 is a free one.
    pub addresses: Vec<Address>,
    /// The permissions of its Unix sockets.
    pub mode: u32,
    /// How clients' connections are protected.
    pub security: Security,
    /// Certificate chain and key, where `security` is not [`Security::Clear`].
    pub certificate: Option<Certificate>,
    /// The one provider that this listener serves, where it serves only one.
    pub provider: Option<String>,
    /// The one account that this listener serves, where it serves only one.
    pub account: Option<String>,
    /// From where clients may come, where that is not from everywhere.
    pub allow_addresses: Option<Vec<IpNet>>,
    /// The users of this machine who may connect.
    pub users: Users,
    /// Where the account's app password is found, where clients send mail without a login. Then `account` is
    /// there, `allow_addresses` or `users` name the clients, and the protocol is SMTP.
    pub machine: Option<Machine>,
}

/// Where an app password is found without a person.
#[derive(Clone, Debug)]
pub enum Machine {
    /// In this file, which is closed to all others.
    File(PathBuf),
    /// In the systemd credential of this name.
    Credential(String),
}

/// Where a listener's certificate is.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain, PEM, our own certificate first.
    pub chain: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}
