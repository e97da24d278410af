//! The policy of a listener: who may connect, and which accounts it serves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use tokio_rustls::rustls::ServerConfig;

use crate::broker::{Broker, Resolved};
use crate::config::Users;
use crate::mutex::lock;
use crate::name::Name;
use crate::protocol::{Protocol, Security};
use crate::shutdown::Shutdown;
use crate::vault::password::Password;
use crate::wire::{Capabilities, Credentials, one_line};

/// The policy that the sessions of one listener share.
pub struct ListenerPolicy {
    pub protocol: Protocol,
    pub security: Security,
    /// None if the listener has no TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// The only provider that is served here, if there is such a limit.
    pub provider: Option<String>,
    /// The only account that is served here, if there is such a limit.
    pub account: Option<Name>,
    /// The addresses from which clients may connect; all, if None.
    pub allow_addresses: Option<Vec<IpNet>>,
    /// The addresses of load balancers. If there are any, nobody else may connect, and each connection begins with a
    /// PROXY header.
    pub balancers: Vec<IpNet>,
    /// The login to use for clients that may send mail without one.
    pub own: Option<Credentials>,
    /// The users of this machine who may connect; all, if None.
    pub users: Users,
    /// Whether the service manager keeps the port open while postkey restarts.
    pub port_stays_open: bool,
    /// Our host name in greetings.
    pub host: String,
    pub broker: Arc<Broker>,
    pub shutdown: Shutdown,
    /// The cached capabilities for greetings, with the version that they were computed from, because the cost of a
    /// greeting must not grow with the number of accounts.
    pub promised: Mutex<Option<(u64, Capabilities)>>,
}

impl ListenerPolicy {
    /// The capabilities to announce before the login: what the servers of all accounts of this listener offer. Nothing
    /// as long as one of them is unknown.
    pub(super) fn known(&self) -> Capabilities {
        let vault = &self.broker.context.vault;
        if let Some(only) = &self.account {
            let owner = vault.account(&self.broker.resolve(only.as_str()).owner);
            let owner = owner.filter(|owner| self.serves_provider(&owner.provider));
            let known = owner.and_then(|owner| owner.known.get(self.protocol.name()).cloned());
            return Capabilities(known.unwrap_or_default());
        }
        vault.offers(|offers| {
            let mut promised = lock(&self.promised);
            match &*promised {
                Some((of, known)) if *of == offers.version() => known.clone(),
                _ => {
                    let common = offers.common(self.protocol.name(), |provider| self.serves_provider(provider));
                    promised.insert((offers.version(), Capabilities(common))).1.clone()
                }
            }
        })
    }

    /// Whether a client from this address may connect. A Unix socket has only users.
    pub fn is_open_to(&self, address: Option<SocketAddr>) -> bool {
        let Some(address) = address else { return true };
        self.allow_addresses.as_ref().is_none_or(|networks| is_in(address, networks))
    }

    /// Whether this listener is only for load balancers, which name their clients.
    pub const fn is_balanced(&self) -> bool {
        !self.balancers.is_empty()
    }

    /// Whether a load balancer has this address.
    pub fn is_balancer(&self, address: Option<SocketAddr>) -> bool {
        address.is_some_and(|address| is_in(address, &self.balancers))
    }

    /// A login name as the log shows it. Somebody who confuses the two fields of a form types a password there, so the
    /// name is shown only if it belongs to an account, or looks like an address of a domain that has a provider.
    pub(super) fn shown(&self, name: &str, login: &Resolved) -> String {
        let is_account = self.broker.context.vault.account(&login.owner).is_some();
        let is_generated = |part: &str| Password::read(part.as_bytes()).is_generated();
        match is_account || (login.provider().is_some() && !name.split('@').any(is_generated)) {
            true => one_line(name),
            false => format!("? ({} bytes)", name.len()),
        }
    }

    /// Whether the listener serves this account of this provider.
    pub(super) fn serves(&self, account: &str, provider: &str) -> bool {
        self.account.as_ref().is_none_or(|only| only.same_as(&Name::typed(account))) && self.serves_provider(provider)
    }

    /// Whether the listener serves this login name, which may not have an account yet.
    pub(super) fn serves_login(&self, login: &Resolved) -> bool {
        login.provider().is_some_and(|provider| self.serves(&login.address, &provider.name))
    }

    fn serves_provider(&self, provider: &str) -> bool {
        self.provider.as_ref().is_none_or(|only| only == provider)
    }
}

fn is_in(address: SocketAddr, networks: &[IpNet]) -> bool {
    let address = address.ip().to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
