//! A proxy between us and a provider, as the configuration has it, with the password for it.

use std::fs::File;
use std::net::Ipv6Addr;

use crate::config::provider;
use crate::secret::Secret;

/// A proxy that can be used.
pub struct Proxy {
    /// What and where it is.
    pub place: provider::ProxyConfig,
    password: Option<Secret>,
}

impl Proxy {
    /// Reads the password, where there is one. The error says what to do.
    pub fn new(place: &provider::ProxyConfig) -> Result<Self, String> {
        let Some((_, file)) = &place.login else { return Ok(Self { place: place.clone(), password: None }) };
        let read = File::open(file).and_then(Secret::read);
        let password =
            read.map_err(|error| format!("the proxy's password cannot be read from {}: {error}", file.display()))?;
        // RFC 1929 section 2.
        if !(1..=255).contains(&password.len()) {
            return Err(format!("{} should hold the proxy's password, of 1 to 255 bytes", file.display()));
        }
        Ok(Self { place: place.clone(), password: Some(password) })
    }

    /// User name and password, where the proxy wants them.
    pub fn login(&self) -> Option<(&str, &Secret)> {
        let (user, _) = self.place.login.as_ref()?;
        Some((user, self.password.as_ref()?))
    }

    /// Its host and port, as they stand in URLs.
    pub fn address(&self) -> String {
        authority(&self.place.host, self.place.port)
    }
}

/// A host and a port, as they stand in URLs and in HTTP (RFC 3986 section 3.2).
pub fn authority(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}
