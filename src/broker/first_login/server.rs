//! The authorization server for a first login: the configuration, completed from the server's metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::super::account::Connector;
use super::super::accounts::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, Endpoints};
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::{AuthorizationParameters, PendingAuthorization};
use crate::oauth::discovery::{Metadata, discover};
use crate::oauth::grant::GrantRequest;
use crate::oauth::id_token::Expected;
use crate::oauth::identity::{Identity, identify};
use crate::oauth::lasting;
use crate::oauth::revocation::revoke;
use crate::oauth::{Failure, Granted, Registration};
use crate::protocol::Protocol;
use crate::token::TokenSet;
use crate::vault::{Authorization, Secrets};

/// An authorization server, and what to request from it.
#[derive(Clone)]
pub struct AuthorizationServer {
    connector: Arc<Connector>,
    /// From its metadata.
    discovered: Option<Discovered>,
    /// Whether it promises to name itself when the browser returns (RFC 9207 section 3).
    names_itself: bool,
    endpoints: Endpoints,
    registration: Registration,
    scope: Vec<String>,
    parameters: BTreeMap<String, String>,
    /// The user name at the provider.
    user: String,
}

/// A request with which a browser was sent to the server.
pub struct AuthorizationRequest {
    pub pending: PendingAuthorization,
    pub server: AuthorizationServer,
}

impl AuthorizationServer {
    /// Finds the server for an address.
    pub async fn find(accounts: &Accounts, config: &Config, address: &str) -> Result<Self, Failed> {
        if config.domain_of(address).is_none() {
            return Err(misconfigured("its domain is no longer in the configuration"));
        }
        let name = config.provider_for(address).map(|provider| provider.name.clone()).unwrap_or_default();
        let connector = accounts.connector(&name)?;
        let (provider, account) = (&connector.provider, config.account(address).into_owned());
        if account.flow.unwrap_or(provider.flow) != Flow::AuthorizationCode {
            return Err(misconfigured("its flow is not authorization-code; run `postkey authorize`"));
        }
        let metadata = metadata(&connector).await?;
        let endpoints = match &metadata {
            Some(found) => provider.endpoints.or(&found.endpoints),
            None => provider.endpoints.clone(),
        };
        let client = config.client_for(address, provider);
        let client = client.ok_or_else(|| misconfigured("there is no client_id for it in the configuration"))?;
        let token = endpoints.token.as_ref().ok_or_else(|| misconfigured("there is no token_endpoint"))?;
        let registration = Registration::new(&client, token).await.map_err(no_tokens)?;
        let names_itself = provider.names_itself || metadata.as_ref().is_some_and(|metadata| metadata.names_itself);
        let issuer = provider.issuer.clone().unwrap_or_default();
        let discovered = metadata.map(|Metadata { endpoints, methods, .. }| Discovered {
            issuer,
            endpoints,
            is_registered: false,
            is_self_registered: false,
            methods,
        });
        let mut parameters = provider.authorization_parameters.clone();
        parameters.extend(account.authorization_parameters);
        Ok(Self {
            registration: registration.discovered(discovered.as_ref()),
            discovered,
            names_itself,
            endpoints,
            scope: account.scope.unwrap_or_else(|| provider.scope.clone()),
            parameters,
            user: config.user_of(address, Protocol::Imap),
            connector,
        })
    }

    pub fn provider(&self) -> &str {
        &self.connector.provider.name
    }

    /// Creates an authorization request to sign in as this address.
    pub fn request(self, address: &str, redirect_uri: &url::Url) -> Result<AuthorizationRequest, Failed> {
        let endpoint = self.endpoints.authorization.as_ref();
        let pending = PendingAuthorization::begin(&AuthorizationParameters {
            endpoint: endpoint.ok_or_else(|| misconfigured("there is no authorization_endpoint"))?,
            issuer: self.connector.provider.issuer.as_deref(),
            names_itself: self.names_itself,
            client_id: &self.registration.client_id,
            redirect_uri,
            scope: &self.scope,
            parameters: &self.parameters,
            login_hint: address,
        });
        Ok(AuthorizationRequest { pending, server: self })
    }

    /// Uses the new refresh token once, and logs what the provider has not granted. Returns the tokens to store, and why mail stops
    /// when the access token expires, if it does.
    pub async fn try_out(
        &self,
        address: &str,
        tokens: TokenSet,
        clock: &Clock,
    ) -> Result<(TokenSet, Option<String>), Failed> {
        let (provider, scope) = (&self.connector.provider, &*self.scope);
        let ask = GrantRequest { flow: Flow::AuthorizationCode, provider, scope, user: &self.user, secret: None };
        let asked =
            lasting::LastingRequest { address, ask, registration: &self.registration, parameters: &self.parameters };
        let (tokens, doubt) = asked.first_refresh(&self.connector.http, tokens, clock).await?;
        let end = asked.end(&tokens);
        for why in doubt.iter().chain(&asked.left_out(&tokens)).chain(&end) {
            warn!(account = address, why, "first login to {address}: {why}");
        }
        Ok((tokens, end))
    }

    /// Revokes unused tokens, if there is a revocation endpoint.
    pub async fn revoke(&self, tokens: &TokenSet, clock: &Clock) -> Result<(), Failure> {
        match &self.endpoints.revocation {
            Some(endpoint) => revoke(&self.connector.http, &self.registration, endpoint, tokens, clock).await,
            None => Ok(()),
        }
    }

    /// The authorization to store in the vault.
    pub fn authorization(&self, address: &str, tokens: TokenSet) -> Authorization {
        Authorization {
            address: address.to_owned(),
            provider: self.provider().to_owned(),
            flow: Flow::AuthorizationCode,
            client_id: None,
            secrets: Secrets::default(),
            discovered: self.discovered.clone(),
            tokens,
        }
    }
}

impl AuthorizationRequest {
    /// Exchanges the code in a browser's query, and finds out who has signed in.
    pub async fn exchange(
        self,
        query: &str,
        clock: &Clock,
    ) -> Result<(AuthorizationServer, TokenSet, Identity), Failed> {
        let Self { pending, server } = self;
        let code = pending.code(query).map_err(|denied| Failed::new(Exit::NoPermission, denied))?;
        let http = &server.connector.http;
        let granted = pending.exchange(http, &server.registration, code, clock).await;
        let Granted { tokens, id_token, nonce } = granted.map_err(no_tokens)?;
        let expected = Expected {
            client_id: &server.registration.client_id,
            secret: server.registration.secret(),
            issuer: server.connector.provider.issuer.as_deref(),
            token_endpoint: Some(&server.registration.token_endpoint),
            nonce: nonce.as_deref(),
            now: clock.now(),
        };
        let identity = identify(http, &server.endpoints, id_token.as_deref(), &tokens.access, &expected).await;
        let identity = identity.map_err(|why| Failed::new(Exit::NoPermission, why))?;
        Ok((server, tokens, identity))
    }
}

/// The metadata, if the configuration lacks something. It is an error only if the grant cannot work without them.
async fn metadata(connector: &Connector) -> Result<Option<Metadata>, Failed> {
    let (provider, known) = (&connector.provider, &connector.provider.endpoints);
    let Some(issuer) = &provider.issuer else { return Ok(None) };
    let is_usable = known.token.is_some() && known.authorization.is_some();
    if is_usable && known.jwks.is_some() {
        return Ok(None);
    }
    match discover(&connector.http, issuer).await {
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
