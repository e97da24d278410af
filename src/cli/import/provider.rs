//! Finds the provider of an imported account by its endpoints, or describes a new one as the other program has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use super::account::{ImportedAccount, ImportedListener};
use crate::config::Config;
use crate::config::flow::Flow;
use crate::config::provider::{Endpoints, MailServer, Provider, is_protected};
use crate::config::secret_source::SecretSource;
use crate::name::Name;
use crate::oauth::tenant::Tenant;
use crate::protocol::Protocol;

/// Google's older token endpoints, which it still serves beside the present one.
const SAME_ENDPOINT: (&str, [&str; 3]) = (
    "https://oauth2.googleapis.com/token",
    [
        "https://accounts.google.com/o/oauth2/token",
        "https://www.googleapis.com/oauth2/v3/token",
        "https://www.googleapis.com/oauth2/v4/token",
    ],
);

/// A provider that the configuration does not have yet.
pub struct NewProvider {
    pub name: String,
    pub domains: Vec<String>,
    pub endpoints: Endpoints,
    pub scope: Vec<String>,
    pub resource: Option<String>,
    pub flow: Flow,
    pub service_account: Option<SecretSource>,
    pub redirect_uri: Option<Url>,
    /// Whether each refresh names the scopes.
    pub refresh_scope: bool,
    pub servers: BTreeMap<Protocol, MailServer>,
    /// The known provider at the same authorization server, for what the file does not say.
    pub base: Option<Arc<Provider>>,
}

/// The providers of one import.
pub struct ImportProviders<'a> {
    config: &'a Config,
    listeners: Vec<&'a ImportedListener>,
    pub new: Vec<NewProvider>,
    /// The names of those that accounts use.
    used: Vec<String>,
}

impl<'a> ImportProviders<'a> {
    pub fn new(config: &'a Config, listeners: Vec<&'a ImportedListener>) -> Self {
        Self { config, listeners, new: Vec::new(), used: Vec::new() }
    }

    /// The provider's name. The error says what to do if there is none.
    pub fn find(&mut self, account: &ImportedAccount, named: Option<&str>) -> Result<String, String> {
        let known = match named.or(account.provider) {
            Some(name) => {
                let known = self.config.providers.get(name).ok_or_else(|| format!("there is no provider {name}"))?;
                Some(&**known)
            }
            None if account.endpoints.token.is_none() => self.config.provider_for(&account.address),
            None => self.known(account),
        };
        let name = match (known, self.added(account)) {
            (Some(provider), _) => provider.name.clone(),
            (None, Some(name)) => name,
            (None, None) => {
                let new = self.describe(account)?;
                let name = new.name.clone();
                self.new.push(new);
                name
            }
        };
        self.used.push(name.clone());
        Ok(name)
    }

    /// The configured provider with the account's token endpoint. Several may share one, such as Microsoft's for work and for
    /// personal accounts: then the domain decides, and after that the mail servers.
    fn known(&self, account: &ImportedAccount) -> Option<&'a Provider> {
        let config = self.config;
        let is_candidate = |provider: &&Provider| is_at(provider, account);
        if let Some(provider) = config.provider_for(&account.address).filter(is_candidate) {
            return Some(provider);
        }
        let servers = |provider: &&Provider| {
            self.listeners.iter().filter(|listener| leads_to(listener, &provider.servers)).count()
        };
        // The last maximum counts, so the first of equals has to come last.
        config.providers.values().map(AsRef::as_ref).filter(is_candidate).rev().max_by_key(servers)
    }

    /// A provider that an earlier account has added.
    fn added(&self, account: &ImportedAccount) -> Option<String> {
        let token = &account.endpoints.token;
        let is_same = |new: &&NewProvider| {
            new.endpoints.token == *token
                && new.flow == account.flow
                && new.refresh_scope == account.names_scope
                && account.service_account.is_none()
        };
        self.new.iter().find(is_same).map(|new| new.name.clone())
    }

    fn describe(&self, account: &ImportedAccount) -> Result<NewProvider, String> {
        let token = account.endpoints.token.as_ref().ok_or("its token endpoint is not known; add `--provider NAME`")?;
        let base = self.config.providers.values().find(|provider| has_host(provider, token)).cloned();
        let servers = match &base {
            Some(base) => base.servers.clone(),
            None => self.servers(account),
        };
        if servers.is_empty() {
            let host = token.host_str().unwrap_or_default();
            return Err(format!(
                "no provider has the token endpoint at {host}, and the file does not name its mail servers; describe it in the configuration"
            ));
        }
        let domain = Name::typed(&account.address).parts().map(|(_, domain)| domain.into_owned()).unwrap_or_default();
        let is_free = crate::config::provider::of_domain(&self.config.providers, &domain).is_none()
            && !self.new.iter().any(|new| new.domains.contains(&domain));
        Ok(NewProvider {
            name: self.name(account, base.as_deref(), &domain),
            domains: is_free.then_some(domain).into_iter().collect(),
            endpoints: base.as_ref().map_or_else(|| account.endpoints.clone(), |base| endpoints(account, base)),
            scope: match &base {
                Some(base) if account.scope.is_empty() => base.scope.clone(),
                _ => account.scope.clone(),
            },
            resource: account.resource.clone(),
            flow: account.flow,
            service_account: account.service_account.clone(),
            redirect_uri: account.redirect_uri.clone().filter(is_protected),
            refresh_scope: account.names_scope,
            servers,
            base,
        })
    }

    /// A name that says which one it is, and that is still free.
    fn name(&self, account: &ImportedAccount, base: Option<&Provider>, domain: &str) -> String {
        let tenant = account.endpoints.token.as_ref().and_then(Tenant::of).map(|tenant| tenant.name().to_owned());
        let name = match base {
            Some(base) if account.service_account.is_some() => format!("{}-service-account", base.name),
            Some(base) => format!("{}-{}", base.name, tenant.unwrap_or_else(|| domain.to_owned())),
            None => domain.to_owned(),
        };
        let name: String =
            name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        let is_free =
            |name: &String| !self.config.providers.contains_key(name) && !self.new.iter().any(|new| new.name == *name);
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.clone()).chain(numbered).find(is_free).unwrap_or(name)
    }

    /// The mail servers that belong to no known provider: those with a similar name, or else all of them.
    fn servers(&self, account: &ImportedAccount) -> BTreeMap<Protocol, MailServer> {
        let is_known = |listener: &ImportedListener| {
            self.config.providers.values().any(|provider| leads_to(listener, &provider.servers))
        };
        let unknown: Vec<_> = self.listeners.iter().filter(|listener| !is_known(listener)).collect();
        let token = account.endpoints.token.as_ref().and_then(Url::host_str).map(ending);
        let domain = account.address.rsplit_once('@').map(|(_, domain)| ending(domain));
        let is_related = |listener: &&&&ImportedListener| {
            let host = Some(ending(&listener.server.host));
            host == token || host == domain
        };
        let related: Vec<_> = unknown.iter().filter(is_related).copied().collect();
        let mut servers = BTreeMap::new();
        for listener in if related.is_empty() { unknown } else { related } {
            servers.entry(listener.protocol).or_insert_with(|| listener.server.clone());
        }
        servers
    }

    /// The one provider to which a local port leads. None if it leads to several, or to none at all, which `Err` says.
    pub fn of_listener(&self, listener: &ImportedListener) -> Result<Option<String>, String> {
        let known = self.config.providers.values().map(|provider| (&provider.name, &provider.servers));
        let all: Vec<_> = known.chain(self.new.iter().map(|new| (&new.name, &new.servers))).collect();
        let leading = all.into_iter().filter(|(_, servers)| leads_to(listener, servers)).map(|(name, _)| name);
        let leading: Vec<&String> = leading.collect();
        let used: Vec<&String> = leading.iter().filter(|name| self.used.contains(name)).copied().collect();
        match (used.as_slice(), leading.as_slice()) {
            ([one], _) | ([], [one]) => Ok(Some((*one).clone())),
            ([], []) => Err(format!("no provider in the configuration has the server {}", listener.server.host)),
            _ => Ok(None),
        }
    }
}

/// Whether a local port leads to one of these servers.
fn leads_to(listener: &ImportedListener, servers: &BTreeMap<Protocol, MailServer>) -> bool {
    servers.get(&listener.protocol).is_some_and(|server| server.host == listener.server.host)
}

/// Whether an account is at the authorization server of a provider.
fn is_at(provider: &Provider, account: &ImportedAccount) -> bool {
    let (Some(own), Some(token)) = (&provider.endpoints.token, &account.endpoints.token) else { return false };
    let (new, old) = SAME_ENDPOINT;
    let is_same = own == token || own.as_str() == new && old.contains(&token.as_str());
    let is_tenant = Tenant::of(own).zip(Tenant::of(token)).is_some_and(|(own, other)| own.may_know(&other));
    (is_same || is_tenant)
        && (!account.names_scope || provider.refresh_scope)
        && (account.service_account.is_none() || provider.bearer.is_some())
}

fn has_host(provider: &Provider, token: &Url) -> bool {
    provider
        .endpoints
        .token
        .as_ref()
        .is_some_and(|own| own.host_str() == token.host_str() && own.port() == token.port())
}

/// The account's endpoints, completed by those of the known provider for the account's tenant.
fn endpoints(account: &ImportedAccount, base: &Provider) -> Endpoints {
    let tenants = [&base.endpoints, &account.endpoints].map(|endpoints| endpoints.token.as_ref().and_then(Tenant::of));
    let [Some(general), Some(own)] = tenants else { return account.endpoints.or(&base.endpoints) };
    let (general, own) = (format!("/{}/", general.name()), format!("/{}/", own.name()));
    let moved = |url: &Option<Url>| Url::parse(&url.as_ref()?.as_str().replacen(&general, &own, 1)).ok();
    let Endpoints { authorization, token, device_authorization, revocation, registration, userinfo, jwks } =
        &base.endpoints;
    account.endpoints.or(&Endpoints {
        authorization: moved(authorization),
        token: moved(token),
        device_authorization: moved(device_authorization),
        revocation: moved(revocation),
        registration: moved(registration),
        userinfo: moved(userinfo),
        jwks: moved(jwks),
    })
}

/// The last two parts of a host's name, which siblings have in common.
fn ending(host: &str) -> &str {
    let dot = host.rmatch_indices('.').nth(1).map(|(at, _)| at + 1);
    dot.and_then(|at| host.get(at..)).unwrap_or(host)
}
