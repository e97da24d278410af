//! A listener: local addresses that serve one protocol, and who may connect to them.

use std::path::PathBuf;

use ipnet::IpNet;
use nix::unistd::User;
use serde::{Deserialize, Serialize};

use super::host_name::HostName;
use crate::address::Address;
use crate::protocol::{Protocol, Security};

#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub protocol: Protocol,
    /// Port 0 stands for a free one.
    pub addresses: Vec<Address>,
    /// The permissions of its Unix sockets.
    pub mode: u32,
    pub security: Security,
    /// There is one unless `security` is [`Security::Clear`].
    pub certificate: Option<Certificate>,
    /// The only provider that this listener serves, if it is limited to one.
    pub provider: Option<String>,
    /// The only account that this listener serves, if it is limited to one.
    pub account: Option<String>,
    /// The addresses from which clients may connect. None if all may.
    pub allow_addresses: Option<Vec<IpNet>>,
    /// The load balancers. If there are any, nobody else may connect, and each connection begins with a PROXY header.
    pub balancers: Vec<IpNet>,
    /// The users of this machine who may connect.
    pub users: Users,
    /// The source of the account's app password, if clients send mail without a login. Then there is an `account`,
    /// `allow_addresses` or `users` name the clients, and the protocol is SMTP.
    pub password: Option<PasswordSource>,
}

/// An open port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listening {
    pub protocol: Protocol,
    pub address: Address,
    pub security: Security,
}

/// Where a listener's app password comes from.
#[derive(Clone, Debug)]
pub enum PasswordSource {
    /// A file that is inaccessible to others.
    File(PathBuf),
    /// The systemd credential with this name.
    Credential(String),
}

/// The uid that stands for all users whom a user namespace does not know, user_namespaces(7). It does not identify anybody.
pub const UNKNOWN_USER: u32 = 65534;

/// The users of this machine who are allowed. By default that is everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Option<Vec<u32>>);

impl Users {
    pub fn only(users: Vec<u32>) -> Self {
        Self(Some(users))
    }

    /// Whether this user is allowed. An unknown user is only allowed if everybody is.
    pub fn allow(&self, user: Option<u32>) -> bool {
        self.0.as_ref().is_none_or(|allowed| user.is_some_and(|user| allowed.contains(&user)))
    }

    /// Whether everybody is allowed, also other machines.
    pub const fn are_all(&self) -> bool {
        self.0.is_none()
    }

    /// These users, or the others if these are everybody by default.
    pub(super) fn or(self, others: &Self) -> Self {
        if self.0.is_some() { self } else { others.clone() }
    }
}

/// The uid of the user with this name.
///
/// # Errors
///
/// Fails if there is no such user, or if the system's user database cannot be read.
pub fn uid_of(name: &str) -> Result<u32, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user \"{name}\" on this machine; correct the name, or write a number")),
        Err(error) => Err(format!("cannot look up the user \"{name}\": {error}; write a number")),
    }
}

/// Where a listener's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Files, both PEM; in the chain, our own certificate is first.
    Files { chain: PathBuf, key: PathBuf },
    /// postkey's own authority issues it. These names are in it in addition to those that the machine has.
    Own { names: Vec<HostName> },
}
