//! A provider, and the means to reach its servers.

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use crate::config::Config;
use crate::config::provider::Provider;
use crate::net::tls;
use crate::oauth::Http;
use crate::proxy::Proxy;
use crate::resolver::Resolver;

/// A provider with its TLS configuration (which remembers TLS sessions, so that later logins resume one) and HTTP client.
pub struct Connector {
    /// Its configuration.
    pub provider: Provider,
    /// For its mail servers.
    pub tls: Arc<ClientConfig>,
    /// The proxy on the way to its servers.
    pub proxy: Option<Proxy>,
    /// For the names of all its servers, or of the proxy.
    pub resolver: Resolver,
    /// For its token endpoint.
    pub http: Http,
}

impl Connector {
    /// Sets a provider up. The error says what to do.
    pub fn new(config: &Config, provider: &str) -> Result<Self, String> {
        let provider = config.providers.get(provider).cloned().ok_or_else(|| {
            format!(
                "The provider {provider} is not in the configuration any more; add it, or authorize the account anew."
            )
        })?;
        let tls = tls::client_config(provider.ca_file.as_deref()).map_err(|error| error.to_string())?;
        let proxy = provider.proxy.as_ref().map(Proxy::new).transpose()?;
        let resolver = Resolver::system();
        let http = Http::new(ClientConfig::clone(&tls), resolver.clone(), proxy.as_ref());
        let http = http.map_err(|error| error.to_string())?;
        Ok(Self { provider, tls, proxy, resolver, http })
    }
}
