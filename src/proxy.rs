//! The proxy between postkey and a provider, with its password.

use std::fs::File;
use std::net::Ipv6Addr;

use crate::config::provider;
use crate::secret::Secret;

#[derive(Clone)]
pub struct Proxy {
    pub config: provider::ProxyConfig,
    password: Option<Secret>,
}

impl Proxy {
    /// Reads the password, if the proxy needs one.
    pub fn new(config: &provider::ProxyConfig) -> Result<Self, String> {
        let Some((_, file)) = &config.login else { return Ok(Self { config: config.clone(), password: None }) };
        let read = File::open(file).and_then(Secret::read);
        let password =
            read.map_err(|error| format!("the proxy's password cannot be read from {}: {error}", file.display()))?;
        // RFC 1929 section 2.
        if !(1..=255).contains(&password.len()) {
            return Err(format!("{} must have the proxy's password, of 1 to 255 bytes", file.display()));
        }
        Ok(Self { config: config.clone(), password: Some(password) })
    }

    /// User name and password, if the proxy needs them.
    pub fn login(&self) -> Option<(&str, &Secret)> {
        let (user, _) = self.config.login.as_ref()?;
        Some((user, self.password.as_ref()?))
    }

    pub fn address(&self) -> String {
        authority(&self.config.host, self.config.port)
    }
}

/// A host and a port as in URLs and HTTP (RFC 3986 section 3.2).
pub fn authority(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}
