//! The names that an authority may sign for: name constraints (RFC 5280 section 4.2.1.10).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::host_name::HostName;

/// The domains that cannot belong to anybody on the Internet: multicast DNS (RFC 6762), home networks (RFC 8375), the
/// machine itself (RFC 6761), and the one that ICANN has reserved for private use.
const PRIVATE_DOMAINS: [&str; 4] = ["home.arpa", "internal", "local", "localhost"];

/// The networks that cannot be reached over the Internet: private ones (RFC 1918, RFC 4193), those of carriers and overlay
/// networks (RFC 6598), link-local ones (RFC 3927, RFC 4291), and the machine itself.
const PRIVATE_NETWORKS: [&str; 9] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// A domain with all names below it, or a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subtree {
    Domain(String),
    Network(IpNet),
}

impl Subtree {
    /// All that are private, so that nobody's site on the Internet is in them.
    pub fn private() -> impl Iterator<Item = Self> {
        let domains = PRIVATE_DOMAINS.into_iter().map(|domain| Self::Domain(domain.to_owned()));
        domains.chain(PRIVATE_NETWORKS.into_iter().filter_map(|network| network.parse().ok()).map(Self::Network))
    }

    /// The smallest one that contains this name.
    pub fn around(name: &HostName) -> Self {
        match name {
            HostName::Dns(name) => Self::Domain(name.clone()),
            HostName::Address(address) => Self::Network((*address).into()),
        }
    }

    pub fn contains(&self, name: &HostName) -> bool {
        match (self, name) {
            (Self::Domain(domain), HostName::Dns(name)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Network(network), HostName::Address(address)) => network.contains(address),
            _ => false,
        }
    }
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// Whether an address cannot be reached over the Internet.
pub fn is_private(address: IpAddr) -> bool {
    Subtree::private().any(|subtree| subtree.contains(&HostName::Address(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_contains_what_is_below_it_and_nothing_beside_it() {
        let contains = |subtree: &Subtree, name: &str| subtree.contains(&HostName::read(name).unwrap());
        let home = Subtree::Domain("home.example".to_owned());
        assert!(contains(&home, "home.example") && contains(&home, "mail.home.example"));
        assert!(!contains(&home, "myhome.example") && !contains(&home, "home.example.test"));
        let lan = Subtree::Network("192.168.1.0/24".parse().unwrap());
        assert!(contains(&lan, "192.168.1.7") && !contains(&lan, "192.168.2.7") && !contains(&lan, "fd00::1"));
    }

    #[test]
    fn every_private_subtree_is_listed_and_nothing_public_is_in_one() {
        assert_eq!(Subtree::private().count(), PRIVATE_DOMAINS.len() + PRIVATE_NETWORKS.len());
        for address in ["192.0.2.1", "8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1", "2600::1"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }
}
