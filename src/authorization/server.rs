//! Discovers an authorization server: its endpoints, and postkey's client registration there.

use super::chosen::ChosenOptions;
use super::remark::{OnRemark, Remark};
use crate::broker::Connector;
use crate::config::Config;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, Endpoints, Provider};
use crate::config::secret_source::SecretSource;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::oauth::Failure;
use crate::oauth::discovery::{Metadata, discover};
use crate::oauth::self_registration::{by_hand, is_known, register};

/// An authorization server, and postkey's client registration there.
pub struct DiscoveredServer {
    /// The endpoints from the configuration, completed from the metadata.
    pub endpoints: Endpoints,
    /// Whether its authorization response contains `iss` (RFC 9207 section 3).
    pub names_itself: bool,
    pub client: ClientRegistration,
    /// Whether the client belongs to this account alone, and is stored with it.
    pub is_own_client: bool,
    pub scope: Vec<String>,
    /// The part of the metadata to store with the account.
    pub discovered: Option<Discovered>,
}

/// The mailbox, and how postkey gets its tokens.
pub struct Wanted<'a> {
    pub config: &'a Config,
    pub address: &'a str,
    pub chosen: &'a ChosenOptions,
    pub flow: Flow,
    pub status: &'a Status,
    pub redirect_uri: &'a url::Url,
    pub tell: &'a OnRemark,
}

impl DiscoveredServer {
    /// Completes the configuration from the server's metadata.
    pub async fn find(connector: &Connector, wanted: &Wanted<'_>) -> Result<Self, Failed> {
        let (provider, configured) = (&connector.provider, wanted.client(&connector.provider));
        let metadata = metadata(connector, wanted.flow, configured.as_ref()).await?;
        let found = metadata.clone().unwrap_or_default();
        let endpoints = provider.endpoints.or(&found.endpoints);
        let mut scope = provider.scope.clone();
        let (client, registered) = match configured {
            Some(client) => (client, None),
            None => {
                scope = listed(scope, &found.scopes, wanted.tell);
                let (client, is_shared, own) = wanted.register(connector, &endpoints, &scope).await?;
                scope = listed(scope, &own, wanted.tell);
                (client, Some(is_shared))
            }
        };
        let discovered = (metadata.is_some() || registered.is_some()).then(|| Discovered {
            issuer: registration_key(provider, &endpoints),
            endpoints: found.endpoints,
            is_registered: registered == Some(true),
            is_self_registered: registered.is_some(),
            methods: found.methods,
        });
        let is_own_client = wanted.chosen.client.is_some() || registered.is_some();
        let names_itself = provider.names_itself || found.names_itself;
        Ok(Self { endpoints, names_itself, client, is_own_client, scope, discovered })
    }
}

/// The requested scopes that a server lists, if it lists any of them. It might refuse a client that requests others.
fn listed(scope: Vec<String>, list: &[String], tell: &OnRemark) -> Vec<String> {
    let (listed, others): (Vec<_>, Vec<_>) = scope.into_iter().partition(|one| list.contains(one));
    if listed.is_empty() {
        return others;
    }
    if !others.is_empty() {
        let others = others.join(", ");
        tell(Remark::Warning(format!("the server does not offer the scope {others}, so postkey does not request it")));
    }
    listed
}

/// Reads the metadata, if anything is needed from it. It may be missing if postkey needs only the keys of id_tokens.
async fn metadata(
    connector: &Connector,
    flow: Flow,
    client: Option<&ClientRegistration>,
) -> Result<Option<Metadata>, Failed> {
    let (provider, known) = (&connector.provider, &connector.provider.endpoints);
    let Some(issuer) = &provider.issuer else {
        return Ok(None);
    };
    let is_usable = known.token.is_some()
        && (known.authorization.is_some() || flow != Flow::AuthorizationCode)
        && (known.device().is_some() || flow != Flow::DeviceCode);
    let may_sign_in = client.is_some() || known.registration.is_some();
    // Only the metadata says which signature algorithm the server accepts.
    let signs = client.is_some_and(|client| matches!(client.authentication, ClientAuthentication::Key(_)));
    let registers = client.is_none();
    let tells_who = known.jwks.is_some() || !provider.scope.iter().any(|scope| scope == "openid");
    if is_usable && !signs && !registers && (tells_who || !may_sign_in) {
        return Ok(None);
    }
    match discover(&connector.http, issuer).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(_) if is_usable => Ok(None),
        Err(error) => {
            let text = format!("cannot discover the endpoints of {}: {error}", provider.name);
            Err(Failed::new(Exit::Unavailable, text))
        }
    }
}

/// The key by which to find a registration again: the issuer, or else the registration endpoint.
fn registration_key(provider: &Provider, endpoints: &Endpoints) -> String {
    let endpoint = endpoints.registration.as_ref().map(ToString::to_string);
    provider.issuer.clone().or(endpoint).unwrap_or_default()
}

impl Wanted<'_> {
    /// The user's own client registration: a typed one, or from the configuration of this account or its provider.
    fn client(&self, provider: &Provider) -> Option<ClientRegistration> {
        let nobody = (self.flow == Flow::JwtBearer).then(ClientRegistration::nobody);
        self.chosen.client.clone().or_else(|| self.config.client_for(self.address, provider)).or(nobody)
    }

    /// Registers postkey, unless it is registered already. Returns the registration, whether other accounts can use it,
    /// and the scopes that it may request, if the server says so.
    async fn register(
        &self,
        connector: &Connector,
        endpoints: &Endpoints,
        scope: &[String],
    ) -> Result<(ClientRegistration, bool, Vec<String>), Failed> {
        let provider = &connector.provider;
        let Some(endpoint) = &endpoints.registration else {
            return Err(self.no_client(provider));
        };
        let token = endpoints.token.as_ref().ok_or_else(no_token_endpoint)?;
        let public = |id: String| ClientRegistration { id, authentication: ClientAuthentication::None };
        let is_usual = *self.redirect_uri == provider.redirect_uri;
        let known = self.status.registered.get(&registration_key(provider, endpoints)).filter(|_| is_usual);
        if let Some(id) = known
            && is_known(&connector.http, token, id, self.redirect_uri).await
        {
            return Ok((public(id.clone()), true, Vec::new()));
        }
        let registered = register(&connector.http, (endpoint, token), self.redirect_uri, self.flow, scope).await;
        let registered = registered.map_err(|failure| no_tokens(&failure))?;
        (self.tell)(Remark::Note(format!(
            "postkey has registered itself at {} with the client id {}.",
            provider.name, registered.client_id
        )));
        let (id, scope) = (registered.client_id, registered.scope.unwrap_or_default());
        Ok(match registered.client_secret {
            Some(secret) => {
                let authentication = ClientAuthentication::Secret(SecretSource::Text(secret));
                (ClientRegistration { id, authentication }, false, scope)
            }
            None => (public(id), is_usual, scope),
        })
    }

    /// The failure for a missing registration. Everybody can register a client at a compiled-in provider; another
    /// server has an administrator.
    fn no_client(&self, provider: &Provider) -> Failed {
        let name = &provider.name;
        let how = match &provider.note {
            Some(note) => format!("create one there, then add `--client-id ID`. {note}"),
            None => by_hand(self.redirect_uri, self.flow),
        };
        Failed::new(Exit::Config, format!("{name} requires a client registration of your own: {how}"))
    }
}

/// The failure for metadata without a token endpoint.
pub fn no_token_endpoint() -> Failed {
    Failed::new(Exit::Config, "the authorization server's metadata has no token endpoint; set `token_endpoint`")
}

/// The failure for an answer without tokens.
pub fn no_tokens(failure: &Failure) -> Failed {
    Failed::new(failure.exit(), format!("the provider gave no tokens: {failure}"))
}
