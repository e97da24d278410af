//! The ports for browsers that return after a first login. They exist if the configuration has a whole domain.

use std::collections::HashMap;
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

/// The open ports.
#[derive(Default)]
pub struct FirstLoginPorts {
    open: HashMap<SiteAddress, FirstLoginSite>,
}

/// Ports that are bound but not served yet.
pub struct BoundSites {
    sites: HashMap<SiteAddress, FirstLoginSite>,
    /// By provider.
    wanted: HashMap<String, SiteAddress>,
}

impl FirstLoginPorts {
    /// Binds the ports that are not open yet. If this fails, nothing else has changed.
    pub fn prepare(&self, config: &Config) -> Result<BoundSites, Failed> {
        let providers = config.providers_of_domains().into_values();
        let place = |provider: &Provider| (provider.redirect_uri.clone(), provider.redirect_listen);
        let wanted: HashMap<_, _> = providers.map(|provider| (provider.name.clone(), place(provider))).collect();
        let is_wanted = |place: &SiteAddress| wanted.values().any(|wanted| wanted == place);
        let ending = self.open.iter().filter(|(place, _)| !is_wanted(place));
        let ending: Vec<_> = ending.map(|(_, site)| site).collect();
        let mut bound = BoundSites { sites: HashMap::new(), wanted: wanted.clone() };
        for place in wanted.into_values() {
            if self.open.contains_key(&place) || bound.sites.contains_key(&place) {
                continue;
            }
            let (uri, listen) = &place;
            let at = listen.map_or_else(|| uri.to_string(), |listen| listen.to_string());
            let failed = |error| Failed::new(Exit::Os, format!("cannot wait for browsers at {at}: {error}"));
            match FirstLoginSite::bind(uri, *listen, &ending).map_err(failed)? {
                Some(site) => drop(bound.sites.insert(place, site)),
                None => {
                    warn!(%uri, "first logins cannot be authorized by redirects to {uri}: it does not lead to this machine over http")
                }
            }
        }
        Ok(bound)
    }

    /// Serves these ports, and closes all others.
    pub fn put(&mut self, mut bound: BoundSites, first_logins: &Arc<FirstLogins>, strangers: &Arc<Strangers>) {
        self.open.retain(|place, _| bound.wanted.values().any(|wanted| wanted == place));
        for (configured, mut site) in bound.sites.drain() {
            info!(uri = %site.uri, "waiting for redirects of first logins at {}", site.uri);
            site.serve(first_logins, strangers);
            self.open.insert(configured, site);
        }
        let real = |(provider, place)| Some((provider, self.open.get(&place)?.uri.clone()));
        first_logins.set_redirect_uris(bound.wanted.into_iter().filter_map(real).collect());
    }
}
