//! Where a connection comes from. Sources are distinguished only by what costs something, so that nobody gets a larger
//! share with addresses that are free.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::users::UNKNOWN_USER;
use crate::net::peer::Peer;

/// The first subordinate uid, and the number of them per user (`SUB_UID_MIN` and `SUB_UID_COUNT`, login.defs(5)).
const FIRST_SUB_USER: u32 = 100_000;
const SUB_USERS: u32 = 65_536;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A user of this machine.
    User(u32),
    /// A block of subordinate users, by its first one, all of which may belong to one user (subuid(5)).
    SubUsers(u32),
    /// This machine, if the kernel does not say whose connection it is. Every user has all of 127.0.0.0/8.
    ThisMachine,
    /// Another machine, by its IPv4 address.
    Address(Ipv4Addr),
    /// Other machines, by their IPv6 /64, the smallest network that anybody has.
    Network(Ipv6Addr),
    /// Other machines, by their IPv6 /48, the usual size for those with more than one network.
    Site(Ipv6Addr),
    /// All other machines together.
    Elsewhere,
}

impl Source {
    /// Returns the source of a peer.
    pub fn of(peer: &Peer) -> Self {
        match (peer.user, peer.address) {
            (Some(UNKNOWN_USER), _) | (None, None) => Self::ThisMachine,
            (Some(user), _) => Self::of_user(user),
            (None, Some(address)) => Self::of_address(address.ip()),
        }
    }

    /// A user of this machine.
    pub const fn of_user(user: u32) -> Self {
        match user.checked_sub(FIRST_SUB_USER) {
            Some(beyond) => Self::SubUsers(user - beyond % SUB_USERS),
            None => Self::User(user),
        }
    }

    /// Returns the source of an address.
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::ThisMachine,
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => Self::Network(prefix(address, 64)),
        }
    }

    /// The next wider source. Users of this machine have none, because one does not count for another.
    pub fn wider(self) -> Option<Self> {
        match self {
            Self::Network(network) => Some(Self::Site(prefix(network, 48))),
            Self::Address(_) | Self::Site(_) => Some(Self::Elsewhere),
            Self::User(_) | Self::SubUsers(_) | Self::ThisMachine | Self::Elsewhere => None,
        }
    }

    /// This source and all wider ones.
    pub fn and_wider(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |source| source.wider())
    }
}

/// The first bits of an address.
fn prefix(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() >> (128 - bits) << (128 - bits))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::SubUsers(first) => write!(f, "users {first} to {}", first.saturating_add(SUB_USERS - 1)),
            Self::ThisMachine => f.write_str("this machine"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Network(network) => write!(f, "{network}/64"),
            Self::Site(network) => write!(f, "{network}/48"),
            Self::Elsewhere => f.write_str("other machines"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, user: Option<u32>) -> Source {
        Source::of(&Peer { address: address.parse().ok(), user })
    }

    #[test]
    fn a_user_is_one_source_by_whatever_way() {
        assert_eq!(source("", Some(7)), source("127.0.0.1:1", Some(7)));
        assert_ne!(source("", Some(7)), source("", Some(8)));
        assert_ne!(source("", None), source("", Some(7)));
    }

    #[test]
    fn all_loopback_addresses_are_one_source() {
        for address in ["127.0.0.1:1", "127.255.3.4:2", "[::1]:3", "[::ffff:127.9.9.9]:4", ""] {
            assert_eq!(source(address, None), Source::ThisMachine, "{address}");
            assert_eq!(source(address, Some(UNKNOWN_USER)), Source::ThisMachine, "{address}");
        }
        assert_eq!(source("128.0.0.1:1", None), Source::Address("128.0.0.1".parse().unwrap()));
    }

    #[test]
    fn users_that_one_user_was_given_are_one_source() {
        assert_eq!(source("", Some(100_000)), source("", Some(165_535)));
        assert_ne!(source("", Some(165_535)), source("", Some(165_536)));
        assert_ne!(source("", Some(99_999)), source("", Some(99_998)));
        assert_eq!(Source::of_user(u32::MAX).to_string(), "users 4294936224 to 4294967295");
    }

    #[test]
    fn networks_of_ipv6_are_one_source_and_have_a_wider_one() {
        let one = source("[2001:db8::1]:1", None);
        assert_eq!(one, source("[2001:db8::ffff:0:0:2]:9", None));
        let next = source("[2001:db8:0:1::1]:1", None);
        assert_ne!(one, next);
        assert_eq!(one.wider(), next.wider());
        assert_ne!(one.wider(), source("[2001:db8:1::1]:1", None).wider());
        assert_eq!(source("[::ffff:192.0.2.1]:1", None), source("192.0.2.1:7", None));
        let all: Vec<_> = next.and_wider().map(|source| source.to_string()).collect();
        assert_eq!(all, ["2001:db8:0:1::/64", "2001:db8::/48", "other machines"]);
        assert_eq!(source("192.0.2.1:7", None).and_wider().last(), Some(Source::Elsewhere));
        assert_eq!(source("", Some(7)).and_wider().count(), 1);
    }
}
