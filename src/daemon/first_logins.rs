//! The ports where browsers come back to after a first login, as long as the configuration has a whole domain.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tracing::{info, warn};
use url::Url;

use crate::broker::Broker;
use crate::config::Config;
use crate::exit::{Exit, Failed};
use crate::web::first_login::FirstLoginSite;

/// The open ports, by the redirect URI as it is configured.
#[derive(Default)]
pub struct FirstLogins {
    open: HashMap<Url, FirstLoginSite>,
}

/// What has been bound and is not served yet.
pub struct Bound {
    sites: HashMap<Url, FirstLoginSite>,
    /// By provider.
    wanted: HashMap<String, Url>,
}

impl FirstLogins {
    /// Binds what is not open yet. Nothing else has changed if this fails.
    pub fn prepare(&self, config: &Config) -> Result<Bound, Failed> {
        let names: BTreeSet<&str> = config.domains.keys().filter_map(|domain| provider_of(config, domain)).collect();
        let mut bound = Bound { sites: HashMap::new(), wanted: HashMap::new() };
        for provider in names.into_iter().filter_map(|name| config.providers.get(name)) {
            let uri = &provider.redirect_uri;
            bound.wanted.insert(provider.name.clone(), uri.clone());
            if self.open.contains_key(uri) || bound.sites.contains_key(uri) {
                continue;
            }
            let failed = |error| Failed::new(Exit::Os, format!("cannot wait for browsers at {uri}: {error}"));
            match FirstLoginSite::bind(uri, provider.redirect_listen).map_err(failed)? {
                Some(site) => drop(bound.sites.insert(uri.clone(), site)),
                None => warn!(%uri, "does not lead back to this machine over http; first logins are not authorized"),
            }
        }
        Ok(bound)
    }

    /// Serves them, and closes all others.
    pub fn put(&mut self, mut bound: Bound, broker: &Arc<Broker>) {
        self.open.retain(|uri, _| bound.wanted.values().any(|wanted| wanted == uri));
        for (configured, mut site) in bound.sites.drain() {
            info!(uri = %site.uri, "waiting for browsers that come back from the provider");
            site.serve(broker);
            self.open.insert(configured, site);
        }
        let real = |(provider, uri)| Some((provider, self.open.get(&uri)?.uri.clone()));
        broker.set_redirect_uris(bound.wanted.into_iter().filter_map(real).collect());
    }
}

/// Any address will do to learn the provider of a domain.
fn provider_of<'a>(config: &'a Config, domain: &str) -> Option<&'a str> {
    config.provider_for(&format!("*@{domain}")).map(|provider| provider.name.as_str())
}
