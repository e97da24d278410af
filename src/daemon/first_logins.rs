//! The ports for browsers that return after a first login. They exist if the configuration has an entry for a domain.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{info, warn};
use url::Url;

use crate::broker::FirstLogins;
use crate::config::Config;
use crate::config::provider::Provider;
use crate::exit::{Exit, Failed};
use crate::net::strangers::Strangers;
use crate::web::first_login::FirstLoginSite;

/// The redirect URI and `redirect_listen` from the configuration.
type SiteAddress = (Url, Option<SocketAddr>);

#[derive(Default)]
pub struct FirstLoginPorts {
    open: HashMap<SiteAddress, FirstLoginSite>,
}

/// Ports that are bound but not served yet.
pub struct BoundSites {
    sites: HashMap<SiteAddress, FirstLoginSite>,
    /// The address of each provider, by its name.
    wanted: HashMap<String, SiteAddress>,
}

impl FirstLoginPorts {
    /// Binds the ports that are not open yet. If this fails, nothing else has changed.
    pub fn prepare(&self, config: &Config) -> Result<BoundSites, Failed> {
        let providers = config.providers_of_domains().into_values();
        let address = |provider: &Provider| (provider.redirect_uri.clone(), provider.redirect_listen);
        let wanted: HashMap<_, _> = providers.map(|provider| (provider.name.clone(), address(provider))).collect();
        let addresses: HashSet<&SiteAddress> = wanted.values().collect();
        let closing = self.open.iter().filter(|(address, _)| !addresses.contains(address));
        let closing: Vec<_> = closing.map(|(_, site)| site).collect();
        let mut sites = HashMap::new();
        for address @ (uri, listen) in addresses.into_iter().filter(|address| !self.open.contains_key(address)) {
            let shown = listen.map_or_else(|| uri.to_string(), |listen| listen.to_string());
            let failed = |error| Failed::new(Exit::Os, format!("cannot wait for browsers at {shown}: {error}"));
            match FirstLoginSite::bind(uri, *listen, &closing).map_err(failed)? {
                Some(site) => drop(sites.insert(address.clone(), site)),
                None => {
                    warn!(%uri, "first logins cannot be authorized by redirects to {uri}: it does not lead to this machine over http")
                }
            }
        }
        Ok(BoundSites { sites, wanted })
    }

    /// Serves these ports, and closes all others.
    pub fn put(&mut self, bound: BoundSites, first_logins: &Arc<FirstLogins>, strangers: &Arc<Strangers>) {
        self.open.retain(|address, _| bound.wanted.values().any(|wanted| wanted == address));
        for (configured, mut site) in bound.sites {
            info!(uri = %site.uri, "waiting for redirects of first logins at {}", site.uri);
            site.serve(first_logins, strangers);
            self.open.insert(configured, site);
        }
        let real = |(provider, address)| Some((provider, self.open.get(&address)?.uri.clone()));
        first_logins.set_redirect_uris(bound.wanted.into_iter().filter_map(real).collect());
    }
}
