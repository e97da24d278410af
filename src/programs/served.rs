//! The listeners that serve one account.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Address;
use crate::config::{Certificate, Config, ListenerConfig, Listening};
use crate::name::Name;
use crate::protocol::{Protocol, Security};

/// An account, and the listeners through which a mail program reaches it.
#[derive(Clone)]
pub struct Served {
    pub address: String,
    pub provider: Option<String>,
    pub(super) listeners: Vec<Listening>,
    /// Those of them with a certificate of postkey's own authority, which is also for `localhost`.
    pub(super) by_name: Vec<Address>,
    /// The certificate of postkey's own authority in DER, if a listener's certificate is from it.
    pub authority: Option<Vec<u8>>,
}

impl Served {
    /// Finds the listeners for an account among the open ones.
    pub fn new(config: &Config, open: Vec<Listening>, address: &str, provider: Option<String>) -> Self {
        let serves = |listener: &ListenerConfig| {
            listener.password.is_none()
                && listener.account.as_ref().is_none_or(|only| Name::typed(only).same_as(&Name::typed(address)))
                && listener.provider.as_ref().is_none_or(|only| Some(only) == provider.as_ref())
        };
        let others: Vec<&Address> = config
            .listeners
            .iter()
            .filter(|listener| !serves(listener))
            .flat_map(|listener| &listener.addresses)
            .collect();
        let mut listeners = open;
        listeners.retain(|listener| !others.contains(&&listener.address));
        let is_own = |listener: &&ListenerConfig| matches!(listener.certificate, Some(Certificate::Own { .. }));
        let by_name = config.listeners.iter().filter(is_own).flat_map(|listener| listener.addresses.clone()).collect();
        Self { address: address.to_owned(), provider, listeners, by_name, authority: None }
    }

    /// Finds the listeners for any address at its domain, whether it has an account or not. Returns None if the
    /// configuration knows no provider for the domain.
    pub fn at_domain(config: &Config, address: &Name) -> Option<Self> {
        let (_, domain) = address.parts()?;
        let provider = config.provider_of_domain(&domain)?.name.clone();
        // No account has this name, so no listener of a single account is among them.
        let served = Self::new(config, config.listening(), &format!("*@{domain}"), Some(provider));
        Some(Self { address: address.to_string(), ..served })
    }

    /// The same with the listeners of some securities only.
    pub(super) fn only(&self, usable: impl Fn(Security) -> bool) -> Self {
        let mut some = self.clone();
        some.listeners.retain(|listener| usable(listener.security));
        some
    }

    /// The host, port and security of the first listener of a protocol that a program can reach by TCP. For a program
    /// `elsewhere`, on another machine, one that is not on loopback comes first.
    pub fn endpoint(&self, protocol: Protocol, elsewhere: bool) -> Option<(String, u16, Security)> {
        let is_loopback =
            |listener: &&Listening| matches!(&listener.address, Address::Tcp(it) if it.ip().is_loopback());
        let all = || self.listeners.iter().filter(|listener| listener.protocol == protocol);
        let first = all().filter(|listener| elsewhere && !is_loopback(listener));
        first.chain(all()).find_map(|listener| {
            let Address::Tcp(address) = &listener.address else { return None };
            Some((self.host(listener, address.ip()), address.port(), listener.security))
        })
    }

    /// Not every program can check a certificate for an address, so `localhost` is better where the certificate has it.
    fn host(&self, listener: &Listening, ip: IpAddr) -> String {
        let is_localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].contains(&ip);
        if ip.is_unspecified() || (is_localhost && self.by_name.contains(&listener.address)) {
            return "localhost".to_owned();
        }
        ip.to_string()
    }
}
