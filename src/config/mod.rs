//! The configuration: from the file's shape to something that can be relied on.

pub mod provider;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::protocol::{Protocol, Security};
use provider::Provider;

/// The whole configuration, checked: every listener can be bound as written, every provider is complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the vault is kept.
    pub state_dir: PathBuf,
    /// Where the running daemon takes commands.
    pub control_socket: PathBuf,
    /// What to log, in the syntax of `RUST_LOG`.
    pub log: String,
    /// The local ports, at least one.
    pub listeners: Vec<Listener>,
    /// All known providers by name: those that are compiled in, and the file's changes and additions.
    pub providers: BTreeMap<String, Provider>,
    /// What the file says about single accounts, by address in lower case.
    pub accounts: BTreeMap<String, Account>,
}

/// Local addresses that serve one protocol.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What is spoken.
    pub protocol: Protocol,
    /// Where; port 0 is a free one.
    pub addresses: Vec<SocketAddr>,
    /// How clients' connections are protected.
    pub security: Security,
    /// Certificate chain and key, where `security` is not [`Security::Clear`].
    pub certificate: Option<Certificate>,
    /// The one provider that this listener serves, where it serves only one.
    pub provider: Option<String>,
    /// The one account that this listener serves, where it serves only one.
    pub account: Option<String>,
}

/// Where a listener's certificate is.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain, PEM, our own certificate first.
    pub chain: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// What the file says about an account. Everything is optional: what is not here, the authorization has recorded.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its provider, where the address's domain does not tell.
    pub provider: Option<String>,
    /// The mailbox to open at the provider, where it is not the address.
    pub user: Option<String>,
    /// The client registration to use for this account alone.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret_file: Option<PathBuf>,
}
