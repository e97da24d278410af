//! Which mail servers a provider's bearers may be shown to.
//!
//! Whoever gets a bearer opens the mailbox with it. A provider of the user's own goes by the user's word; what the authorization
//! server of a compiled-in provider has issued is for that provider's hosts, whatever the entry is called.

use url::Url;

use crate::config::provider::{Endpoints, Provider, Providers};

/// The providers among `compiled_in` whose authorization server this one uses.
pub fn issuers<'a>(endpoints: &Endpoints, issuer: Option<&str>, compiled_in: &'a Providers) -> Vec<&'a Provider> {
    let hosts_of = |endpoints: &Endpoints, issuer: Option<&str>| {
        let issuer = issuer.and_then(|issuer| Url::parse(issuer).ok());
        let urls = endpoints.token.clone().into_iter().chain(issuer);
        urls.filter_map(|url| url.host_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let wanted = hosts_of(endpoints, issuer);
    let is_same = |provider: &&Provider| {
        hosts_of(&provider.endpoints, provider.issuer.as_deref()).iter().any(|host| wanted.contains(host))
    };
    compiled_in.values().filter(is_same).collect()
}

/// Refuses a host that is neither one of those of a provider nor a neighbour, as `smtp-relay.gmail.com` is of
/// `smtp.gmail.com`. Names further below may be given to customers, as those of access lines are.
pub fn judge(host: &str, issuers: &[&Provider]) -> Result<(), String> {
    let domain = |host: &str| host.split_once('.').map(|(_, domain)| domain.to_owned());
    let is_own = |own: &str| own == host || domain(own) == domain(host);
    let mut own = issuers.iter().flat_map(|provider| provider.servers.values());
    match issuers.first() {
        Some(first) if !own.any(|server| is_own(&server.host)) => Err(format!(
            "{host} is no host of \"{}\", and could open every mailbox whose token it gets; correct it, or add \
             trust_host = true here if it is meant",
            first.name
        )),
        _ => Ok(()),
    }
}
