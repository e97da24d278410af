//! The ports to which browsers return after first logins, of all providers together.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::reader::Section;
use crate::config::Config;
use crate::config::provider::Provider;

/// Refuses providers that wait for browsers at one port and cannot share it, because a port has only one redirect URI.
pub fn judge(section: &Section<'_>, config: &Config) {
    let providers = config.providers_of_domains();
    for (name, one) in &providers {
        for (other_name, other) in
            providers.range::<str, _>((std::ops::Bound::Excluded(*name), std::ops::Bound::Unbounded))
        {
            let is_one = (&one.redirect_uri, one.redirect_listen) == (&other.redirect_uri, other.redirect_listen);
            if !is_one && ports(one).iter().any(|port| ports(other).iter().any(|other| overlap(port, other))) {
                section.absence(format!(
                    "the providers {name} and {other_name} wait for browsers at the same port in different ways; give both \
                     the same redirect_uri and redirect_listen, or separate ports"
                ));
            }
        }
    }
}

/// The fixed ports on this machine to which a provider's browsers return.
fn ports(provider: &Provider) -> Vec<SocketAddr> {
    let (uri, listen) = (&provider.redirect_uri, provider.redirect_listen);
    let is_here = uri.scheme() == "http" && matches!(uri.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match (listen, uri.port()) {
        (Some(listen), _) => vec![listen],
        (None, Some(port)) if is_here => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        _ => Vec::new(),
    }
}

fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_same
}
