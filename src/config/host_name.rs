//! A name or an address in a certificate.

use std::fmt;
use std::net::IpAddr;

/// What a client connects to, and what a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostName {
    /// A DNS name in ASCII, in lower case, without a dot at its end.
    Dns(String),
    Address(IpAddr),
}

impl HostName {
    /// Reads a name or an address for which postkey's own authority may issue certificates.
    ///
    /// # Errors
    ///
    /// Fails with what is wrong and what to write. A name that could be a whole top-level domain is refused, because
    /// constraints on names (RFC 5280 section 4.2.1.10) include everything below a name.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return match address.is_unspecified() || address.is_multicast() {
                true => Err("is not an address to which a client can connect; write the machine's own".to_owned()),
                false => Ok(Self::Address(address.to_canonical())),
            };
        }
        if text.contains('*') {
            return Err("cannot have a *; write each name".to_owned());
        }
        let name = idna::domain_to_ascii_strict(text.trim_end_matches('.')).ok().filter(|name| is_host(name));
        let name = name.ok_or("must be a name such as \"mail.home.example\", or an IP address")?;
        match could_be_top_level(&name) {
            true => Err(format!(
                "could be a top-level domain, and the authority could then sign for all of it; write \"{name}.local\" or another \
                 name with a dot"
            )),
            false => Ok(Self::Dns(name)),
        }
    }

    /// The names of a machine with this host name: the name itself unless it could be a top-level domain, and the one
    /// by which multicast DNS finds the machine (RFC 6762).
    pub fn of_machine(host: &str) -> Vec<Self> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let label = host.split('.').next().unwrap_or_default();
        let names = [host.clone(), format!("{label}.local")];
        let is_good = |name: &String| label != "localhost" && is_host(name) && !could_be_top_level(name);
        let mut names: Vec<Self> = names.into_iter().filter(is_good).map(Self::Dns).collect();
        names.dedup();
        names
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Whether this is a host name (RFC 1123 section 2.1) in lower case that does not look like an IPv4 address.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a name without a dot could be a top-level domain: those have letters only, or are international.
fn could_be_top_level(name: &str) -> bool {
    let is_single = !name.contains('.') && name != "localhost";
    is_single && (name.bytes().all(|byte| byte.is_ascii_lowercase()) || name.starts_with("xn--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_in_one_form() {
        for (text, read) in [
            ("Mail.Home.Example.", "mail.home.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("raspberrypi4", "raspberrypi4"),
            ("my-server", "my-server"),
            ("localhost", "localhost"),
            ("192.168.1.5", "192.168.1.5"),
            ("::ffff:192.168.1.5", "192.168.1.5"),
            ("fd00::1", "fd00::1"),
        ] {
            assert_eq!(HostName::read(text).unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_no_client_connects_to_is_refused() {
        for (text, why) in [
            ("raspberrypi", "could be a top-level domain"),
            ("dev", "could be a top-level domain"),
            ("xn--p1ai", "could be a top-level domain"),
            ("*.home.example", "write each name"),
            ("0.0.0.0", "not an address to which a client can connect"),
            ("::", "not an address to which a client can connect"),
            ("mail_1.example", "must be a name"),
            ("-a.example", "must be a name"),
            ("192.168.1.256", "must be a name"),
            ("a..example", "must be a name"),
            ("https://mail.example", "must be a name"),
            ("mail.example:993", "must be a name"),
            (".", "must be a name"),
        ] {
            let found = HostName::read(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn a_machine_is_reached_by_its_name_and_by_multicast_dns() {
        let names = |host: &str| HostName::of_machine(host).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("raspberrypi"), ["raspberrypi.local"]);
        assert_eq!(names("Pi4"), ["pi4", "pi4.local"]);
        assert_eq!(names("pi.home.example"), ["pi.home.example", "pi.local"]);
        assert_eq!(names("pi.local"), ["pi.local"]);
        for nothing in ["localhost", "localhost.localdomain", "", "(none)", "a_b"] {
            assert_eq!(names(nothing), [""; 0], "{nothing}");
        }
    }
}
