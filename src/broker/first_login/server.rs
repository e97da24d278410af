//! The authorization server for a new account, as the configuration and its metadata tell it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Broker, Reach};
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, Endpoints};
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::{Asking, Granted, Pending};
use crate::oauth::discovery::{Metadata, discover};
use crate::oauth::id_token::Expected;
use crate::oauth::identity::{Identity, who};
use crate::oauth::{Failure, Registration};
use crate::token::TokenSet;
use crate::vault::{Authorization, Secrets};

/// An authorization server, and what it is asked for.
pub struct Server {
    reach: Arc<Reach>,
    metadata: Option<Metadata>,
    endpoints: Endpoints,
    registration: Registration,
    scope: Vec<String>,
    parameters: BTreeMap<String, String>,
}

/// A person has been sent there.
pub struct Asked {
    pub pending: Pending,
    pub server: Server,
}

impl Server {
    /// Finds it for an address that is still to be authorized at its first login.
    pub async fn find(broker: &Broker, address: &str) -> Result<Self, Failed> {
        let config = broker.config();
        if config.domain_of(address).is_none() {
            return Err(misconfigured("its domain has no entry in the configuration any more"));
        }
        let name = config.provider_for(address).map(|provider| provider.name.clone()).unwrap_or_default();
        let reach = broker.reach(&name)?;
        let (provider, account) = (&reach.provider, config.account(address).into_owned());
        if account.flow.unwrap_or(provider.flow) != Flow::AuthorizationCode {
            return Err(misconfigured("its flow is not authorization-code; run `postkey authorize`"));
        }
        let metadata = metadata(&reach).await?;
        let found = metadata.as_ref().map(|found| found.endpoints.clone()).unwrap_or_default();
        let endpoints = provider.endpoints.or(&found);
        let client = config.client_for(address, provider);
        let client = client.ok_or_else(|| misconfigured("there is no client_id for it in the configuration"))?;
        let token = endpoints.token.as_ref().ok_or_else(|| misconfigured("there is no token_endpoint"))?;
        let registration = Registration::new(&client, token).await.map_err(no_tokens)?;
        let scope = account.scope.unwrap_or_else(|| provider.scope.clone());
        let mut parameters = provider.authorization_parameters.clone();
        parameters.extend(account.authorization_parameters);
        Ok(Self { metadata, endpoints, registration, scope, parameters, reach: Arc::clone(&reach) })
    }

    /// Which provider's it is.
    pub fn provider(&self) -> &str {
        &self.reach.provider.name
    }

    /// Whether it has promised to name itself when the browser returns.
    fn names_itself(&self) -> bool {
        self.reach.provider.names_itself || self.metadata.as_ref().is_some_and(|metadata| metadata.names_itself)
    }

    /// Begins to ask for consent as this very address.
    pub fn ask(self, address: &str, redirect_uri: &url::Url) -> Result<Asked, Failed> {
        let endpoint = self.endpoints.authorization.as_ref();
        let pending = Pending::begin(&Asking {
            endpoint: endpoint.ok_or_else(|| misconfigured("there is no authorization_endpoint"))?,
            issuer: self.reach.provider.issuer.as_deref(),
            names_itself: self.names_itself(),
            client_id: &self.registration.client_id,
            redirect_uri,
            scope: &self.scope,
            parameters: &self.parameters,
            login_hint: address,
        });
        Ok(Asked { pending, server: self })
    }

    /// What goes into the vault.
    pub fn authorization(&self, address: &str, tokens: TokenSet) -> Authorization {
        let issuer = self.reach.provider.issuer.clone().unwrap_or_default();
        let discovered = self.metadata.as_ref().map(|metadata| Discovered {
            issuer,
            endpoints: metadata.endpoints.clone(),
            is_registered: false,
        });
        Authorization {
            address: address.to_owned(),
            provider: self.provider().to_owned(),
            flow: Flow::AuthorizationCode,
            client_id: None,
            secrets: Secrets::default(),
            discovered,
            tokens,
        }
    }
}

impl Asked {
    /// Exchanges what a browser has brought back, and finds out who has signed in.
    pub async fn exchange(self, query: &str, clock: &Clock) -> Result<(Server, TokenSet, Identity), Failed> {
        let Self { pending, server } = self;
        let code = pending.code(query).map_err(|denied| Failed::new(Exit::NoPermission, denied))?;
        let http = &server.reach.http;
        let granted = pending.exchange(http, &server.registration, code, clock).await;
        let Granted { tokens, id_token, nonce } = granted.map_err(no_tokens)?;
        let expected = Expected {
            client_id: &server.registration.client_id,
            issuer: server.reach.provider.issuer.as_deref(),
            nonce: nonce.as_deref(),
            now: clock.now(),
        };
        let identity = who(http, &server.endpoints, id_token.as_deref(), &tokens.access, &expected).await;
        let identity = identity.map_err(|why| Failed::new(Exit::NoPermission, why))?;
        Ok((server, tokens, identity))
    }
}

/// The metadata, where the configuration lacks something; not having them matters only if the grant cannot do without.
async fn metadata(reach: &Reach) -> Result<Option<Metadata>, Failed> {
    let (provider, known) = (&reach.provider, &reach.provider.endpoints);
    let Some(issuer) = &provider.issuer else { return Ok(None) };
    let is_usable = known.token.is_some() && known.authorization.is_some();
    if is_usable && known.jwks.is_some() {
        return Ok(None);
    }
    match discover(&reach.http, issuer).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(_) if is_usable => Ok(None),
        Err(error) => Err(Failed::new(Exit::Unavailable, error)),
    }
}

fn misconfigured(why: &str) -> Failed {
    Failed::new(Exit::Config, why)
}

fn no_tokens(failure: Failure) -> Failed {
    Failed::new(Exit::Unavailable, failure)
}
