//! A listener: local addresses that serve one protocol.

use std::path::PathBuf;

use ipnet::IpNet;

use super::users::Users;
use crate::address::Address;
use crate::protocol::{Protocol, Security};

/// Local addresses that serve one protocol.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
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
