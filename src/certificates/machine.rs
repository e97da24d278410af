//! The names and addresses at which clients reach this machine's listeners.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::unistd::gethostname;

use super::subtree::is_private;
use crate::config::host_name::HostName;
use crate::config::{Certificate, ListenerConfig};

/// This machine, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub host: String,
    /// The addresses of its network interfaces.
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    /// Looks up the host name and the addresses now. What cannot be looked up is left out.
    pub fn here() -> Self {
        let host = gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
        let interfaces = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
        let address = |address: nix::sys::socket::SockaddrStorage| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        };
        Self { host, addresses: interfaces.filter_map(address).collect() }
    }

    /// The names and addresses at which clients reach the listeners whose certificates postkey issues, sorted.
    ///
    /// A listener on all addresses is reached at those of the network interfaces. Public ones are left out, because they
    /// can belong to somebody else tomorrow; `names` can list them. Link-local IPv6 addresses are left out, because
    /// clients write them with a zone that no certificate contains.
    pub fn names(&self, listeners: &[ListenerConfig]) -> Vec<HostName> {
        let mut names = BTreeSet::new();
        for listener in listeners {
            let Some(Certificate::Own { names: more }) = &listener.certificate else { continue };
            names.extend(more.iter().cloned());
            for bound in listener.addresses.iter().filter_map(|address| address.tcp()).map(|address| address.ip()) {
                names.extend(self.names_at(bound));
            }
        }
        names.into_iter().collect()
    }

    fn names_at(&self, bound: IpAddr) -> Vec<HostName> {
        let of_host = || HostName::of_machine(&self.host);
        let localhost = HostName::Dns("localhost".to_owned());
        if bound.to_canonical().is_loopback() {
            return vec![localhost, HostName::Address(bound.to_canonical())];
        }
        if !bound.is_unspecified() {
            return of_host().into_iter().chain([HostName::Address(bound.to_canonical())]).collect();
        }
        let is_reached = |address: &&IpAddr| {
            address.is_ipv4() == bound.is_ipv4() && is_private(**address) && !is_link_local(**address)
        };
        let addresses = self.addresses.iter().filter(is_reached).map(|address| HostName::Address(*address));
        of_host().into_iter().chain([localhost]).chain(addresses).collect()
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::environment::Environment;

    fn names(address: &str, more: &str) -> Vec<String> {
        let text = format!(
            "state_dir = \"s\"\n[[listener]]\nprotocol = \"imap\"\naddress = {address}\nsecurity = \"tls\"\n\
             certificate = \"own\"\nallow_remote = true\n{more}\n"
        );
        let config = Config::parse(&text, Path::new("postkey.toml"), &Environment::default());
        let config = config.unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        let addresses = ["127.0.0.1", "::1", "192.168.1.5", "198.51.100.7", "fd00::5", "fe80::5", "2001:db8::5"];
        let addresses = addresses.map(|address| address.parse().unwrap()).into();
        let machine = Machine { host: "pi".to_owned(), addresses };
        machine.names(&config.listeners).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_has_the_names_at_which_its_listener_is_reached() {
        for (address, more, expected) in [
            ("\"127.0.0.1:1\"", "", &["localhost", "127.0.0.1"][..]),
            ("[\"127.0.0.1:1\", \"[::1]:1\"]", "", &["localhost", "127.0.0.1", "::1"]),
            ("\"192.168.1.5:1\"", "", &["pi.local", "192.168.1.5"]),
            ("\"198.51.100.7:1\"", "", &["pi.local", "198.51.100.7"]),
            ("\"0.0.0.0:1\"", "", &["localhost", "pi.local", "127.0.0.1", "192.168.1.5"]),
            ("\"[::]:1\"", "", &["localhost", "pi.local", "::1", "fd00::5"]),
            ("\"192.168.1.5:1\"", "names = \"mail.home.example\"", &["mail.home.example", "pi.local", "192.168.1.5"]),
        ] {
            assert_eq!(names(address, more), expected, "{address} {more}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(Machine::here().addresses.iter().any(IpAddr::is_loopback), "{:?}", Machine::here());
    }
}
