//! The configuration as the program uses it. Only `read`, which creates it from TOML, depends on TOML.

mod account;
pub mod assertion;
pub mod client;
pub mod database;
pub mod environment;
pub mod flow;
pub mod host_name;
mod listener;
pub mod log_filter;
pub mod mistake;
pub mod provider;
mod read;
mod relations;
pub mod secret_source;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use tracing_subscriber::filter::Targets;

use crate::address::Address;
use crate::name::{Name, find};
use crate::protocol::Protocol;
pub use account::{AccountConfig, Domain, is_address};
use client::ClientRegistration;
use database::DatabaseConfig;
pub use listener::{Certificate, ListenerConfig, Listening, PasswordSource, UNKNOWN_USER, Users, uid_of};
use mistake::Mistake;
use provider::{Provider, Providers};
pub use relations::Relations;
use secret_source::SecretSource;

/// The whole configuration. It is checked: no two listeners use one address, and every provider is complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the vault, or only of the control socket if the vault is in a database.
    pub state_dir: PathBuf,
    /// The database of the vault. None if the vault is in the folder.
    pub vault: Option<DatabaseConfig>,
    /// The Unix socket on which the daemon accepts commands.
    pub control_socket: PathBuf,
    pub log: Targets,
    /// None if it depends on where the log goes.
    pub log_format: Option<LogFormat>,
    /// None if the log goes to the standard error or the journal.
    pub log_file: Option<PathBuf>,
    /// The loopback address of metrics and health over HTTP, if they are served.
    pub metrics: Option<SocketAddr>,
    /// The users of this machine who may read the metrics.
    pub metrics_users: Users,
    /// Whether there are metrics of each account, and not just of all together.
    pub metrics_accounts: bool,
    /// Where the page for setting up in a browser is, when it is open: a loopback address or a Unix socket. None if it
    /// may be on any free port.
    pub web: Option<Address>,
    /// The program that notifies a person, and its arguments. Empty if there is none.
    pub notify_command: Vec<String>,
    /// The HTML page that the browser shows at the end of an authorization, if not postkey's own.
    pub finish_page: Option<PathBuf>,
    /// At least one.
    pub listeners: Vec<ListenerConfig>,
    /// All known providers by name: the compiled-in ones with the file's changes, and the file's own.
    pub providers: Providers,
    /// The entries of single accounts.
    pub accounts: BTreeMap<Name, AccountConfig>,
    /// The further login names of accounts, with the account's name.
    pub aliases: BTreeMap<Name, Name>,
    /// The entries for all addresses of a domain, by the domain in lower case and in ASCII.
    pub domains: BTreeMap<String, Domain>,
    /// Settings that work, but should be changed.
    pub warnings: Vec<Mistake>,
}

impl Config {
    /// Whether a listener has a certificate of postkey's own authority.
    pub fn has_own_certificate(&self) -> bool {
        self.listeners.iter().any(|listener| matches!(listener.certificate, Some(Certificate::Own { .. })))
    }

    /// Whether postkey runs programs that the configuration names.
    pub fn runs_programs(&self) -> bool {
        let members = self.domains.values().map(|domain| &domain.members);
        let of_accounts = self.accounts.values().chain(members).map(|account| &account.client);
        let clients = self.providers.values().map(|provider| &provider.client).chain(of_accounts);
        let of_clients = clients.flatten().flat_map(|client| client.authentication.sources());
        let of_bearers = self.providers.values().filter_map(|provider| provider.bearer.as_ref());
        let of_bearers = of_bearers.flat_map(|bearer| bearer.sources());
        let of_vault = self.vault.as_ref().and_then(|database| database.password.as_ref());
        let is_program = |source: &SecretSource| matches!(source, SecretSource::Command(_));
        let is_named = of_clients.chain(of_bearers).flatten().chain(of_vault).any(is_program);
        is_named || !self.notify_command.is_empty()
    }

    /// The ports that the listeners are to open.
    pub fn listening(&self) -> Vec<Listening> {
        let of_listener = |listener: &ListenerConfig| {
            let ListenerConfig { protocol, security, addresses, .. } = listener.clone();
            addresses.into_iter().map(move |address| Listening { protocol, address, security })
        };
        self.listeners.iter().flat_map(of_listener).collect()
    }

    /// The provider of an account: the configured one, or else the one that has the domain.
    pub fn provider_for(&self, address: &str) -> Option<&Provider> {
        let owner = self.owner_of(address);
        match &self.account(owner).provider {
            Some(name) => self.providers.get(name).map(AsRef::as_ref),
            None => provider::of_domain(&self.providers, &Name::typed(owner).parts()?.1),
        }
    }

    /// The provider of an address at this domain about which nothing more is known.
    pub fn provider_of_domain(&self, domain: &str) -> Option<&Provider> {
        self.provider_for(&format!("*@{domain}"))
    }

    /// The providers of all domains that have an entry, by name.
    pub fn providers_of_domains(&self) -> BTreeMap<&str, &Provider> {
        // Any address of a domain has its provider.
        let providers = self.domains.keys().filter_map(|domain| self.provider_of_domain(domain));
        providers.map(|provider| (provider.name.as_str(), provider)).collect()
    }

    /// The client registration for an account of a provider: its own, or its provider's.
    pub fn client_for(&self, address: &str, provider: &Provider) -> Option<ClientRegistration> {
        self.account(address).client.as_ref().or(provider.client.as_ref()).cloned()
    }

    /// How many simultaneous connections of an account its provider allows for this protocol, if there is a known limit.
    pub fn connections(&self, address: &str, provider: &Provider, protocol: Protocol) -> Option<usize> {
        let own = self.account(address).connections.get(&protocol).copied();
        own.or_else(|| provider.connections.get(&protocol).copied()).flatten()
    }

    /// The address of the account that a login name stands for. The spelling is the file's, or else the login name's.
    pub fn address_of(&self, name: &str) -> String {
        let name = Name::typed(name);
        // An account's own address comes before an alias.
        match (self.accounts.contains_key(&name), find(&self.aliases, &name)) {
            (false, Some((_, address))) => address.clone().into(),
            _ => find(&self.accounts, &name).map_or(&name, |(address, _)| address).clone().into(),
        }
    }

    /// The entry of an account, in any spelling of its name.
    pub fn entry_of(&self, address: &str) -> Option<&AccountConfig> {
        find(&self.accounts, &Name::typed(address)).map(|(_, account)| account)
    }

    /// The address whose authorization opens an account: its delegate's, or its own.
    pub fn owner_of<'a>(&'a self, address: &'a str) -> &'a str {
        self.entry_of(address).and_then(|account| account.delegate.as_ref()).map_or(address, Name::as_str)
    }

    pub fn domain_of(&self, address: &str) -> Option<&Domain> {
        self.domains.get(&*Name::typed(address).parts()?.1)
    }

    /// The settings of an account: from its own entry, or else from that of its domain.
    pub fn account(&self, address: &str) -> Cow<'_, AccountConfig> {
        let own = self.entry_of(address).map(Cow::Borrowed).unwrap_or_default();
        match self.domain_of(address) {
            Some(domain) => Cow::Owned(own.into_owned().or(&domain.members, address)),
            None => own,
        }
    }

    /// The user name at the provider for an account. For a shared mailbox's SMTP it is the delegate's, because Microsoft's
    /// SMTP server accepts no other with the delegate's token.
    pub fn user_of(&self, address: &str, protocol: Protocol) -> String {
        let account = self.account(address);
        match (account.user.get(&protocol), &account.delegate) {
            (Some(user), _) => user.clone(),
            (None, Some(delegate)) if protocol == Protocol::Smtp => self.user_of(delegate.as_str(), protocol),
            (None, _) => address.to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Plain,
    /// A JSON object per line.
    Json,
}
