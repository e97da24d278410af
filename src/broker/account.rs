//! An account that a password has opened: its provider, its tokens, and the attempts to log in with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use super::state::{Mailbox, TokenProbe};
use super::tokens::{CurrentTokens, Tokens};
use crate::clock::Moment;
use crate::config::Config;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, Endpoints, Provider};
use crate::config::secret_source::SecretSource;
use crate::mutex::lock;
use crate::net::tls;
use crate::oauth::grant::GrantRequest;
use crate::oauth::{Failure, Http, Registration};
use crate::protocol::{Mechanism, Protocol};
use crate::proxy::Proxy;
use crate::resolver::Resolver;
use crate::token::Use;
use crate::vault::StoredAccount;
use crate::visit::spare::SpareConnections;
use crate::wire::{Bearer, Capabilities, Reason, Refusal};

/// How long a server's capabilities are used without asking again, which saves a round trip of each login.
const CAPABILITIES_VALID: Duration = Duration::from_secs(24 * 3600);

/// A provider, and what it takes to talk to its servers.
#[derive(Clone)]
pub struct Connector {
    pub provider: Arc<Provider>,
    /// For its mail servers. It remembers TLS sessions, so that later logins resume one.
    pub tls: Arc<ClientConfig>,
    pub proxy: Option<Proxy>,
    /// For the names of all its servers, or of the proxy.
    pub resolver: Resolver,
    /// For its authorization server.
    pub http: Http,
    pub spares: Arc<SpareConnections>,
}

impl Connector {
    /// Sets a provider up. The error says what to do.
    pub fn new(config: &Config, provider: &str) -> Result<Self, String> {
        let provider = config.providers.get(provider).cloned().ok_or_else(|| {
            format!(
                "The provider {provider} is no longer in the configuration; add it, or authorize the account again."
            )
        })?;
        let tls = tls::client_config(provider.ca_file.as_deref()).map_err(|error| error.to_string())?;
        let proxy = provider.proxy.as_ref().map(Proxy::new).transpose()?;
        let resolver = Resolver::system();
        let http = Http::new(ClientConfig::clone(&tls), resolver.clone(), proxy.as_ref())?;
        Ok(Self { provider, tls, proxy, resolver, http, spares: Arc::default() })
    }
}

/// An account that a password has opened.
pub struct OpenAccount {
    pub address: String,
    /// The address of the record with the authorization: the delegate's, or its own.
    pub owner: String,
    pub connector: Arc<Connector>,
    /// The endpoints of the authorization server.
    pub endpoints: Endpoints,
    pub(super) tokens: Arc<Tokens>,
    /// The user names at the provider, by protocol.
    users: [String; Protocol::ALL.len()],
    /// The metadata that were discovered when the account was authorized.
    discovered: Option<Discovered>,
    flow: Flow,
    client: Option<ClientRegistration>,
    /// The owner's name at the provider, for grants without a person's consent.
    subject: String,
    /// The scope of token requests.
    scope: Vec<String>,
    /// The capabilities of the provider's servers, and when they were read.
    capabilities: Mutex<HashMap<Protocol, (Instant, Capabilities)>>,
}

/// A session holds this while it is open, so that the account's token is kept fresh for the next login.
pub struct Presence {
    _session: Arc<()>,
}

impl OpenAccount {
    /// Builds an account from its owner's record and the configuration.
    pub(super) fn new(
        config: &Config,
        address: &str,
        record: &StoredAccount,
        connector: Arc<Connector>,
        tokens: Arc<Tokens>,
    ) -> Result<Self, Refusal> {
        let (owner, provider) = (&record.address, &connector.provider);
        if let Some(discovered) = record.discovered.as_deref().filter(|found| found.is_foreign_to(provider)) {
            return Err(foreign(owner, discovered, provider));
        }
        recall_mechanisms(record, address, &provider.mechanisms, &tokens);
        Ok(Self {
            address: address.to_owned(),
            owner: owner.clone(),
            users: Protocol::ALL.map(|protocol| config.user_of(address, protocol)),
            subject: config.user_of(owner, Protocol::Imap),
            endpoints: match &record.discovered {
                Some(discovered) => provider.endpoints.or(&discovered.endpoints),
                None => provider.endpoints.clone(),
            },
            discovered: record.discovered.as_deref().cloned(),
            flow: record.flow,
            client: match &record.client_id {
                // If it has a secret, that is stored with the tokens.
                Some(id) => Some(ClientRegistration { id: id.clone(), authentication: ClientAuthentication::None }),
                None => config.client_for(owner, provider),
            },
            scope: config.account(owner).scope.clone().unwrap_or_else(|| provider.scope.clone()),
            tokens,
            capabilities: Mutex::default(),
            connector,
        })
    }

    /// The address of the person who has signed in, if this is a shared mailbox.
    pub fn delegate(&self) -> Option<&str> {
        (self.owner != self.address).then_some(self.owner.as_str())
    }

    /// The user name at the provider.
    pub fn user(&self, protocol: Protocol) -> &String {
        self.users.get(protocol as usize).unwrap_or(&self.address)
    }

    /// The cached capabilities of a server; empty if they are not known or too old.
    pub fn capabilities(&self, protocol: Protocol) -> Capabilities {
        let cached = lock(&self.capabilities).get(&protocol).cloned();
        let cached = cached.filter(|(at, _)| at.elapsed() < CAPABILITIES_VALID);
        cached.map(|(_, capabilities)| capabilities).unwrap_or_default()
    }

    pub(super) fn cache_capabilities(&self, protocol: Protocol, capabilities: &Capabilities) {
        lock(&self.capabilities).insert(protocol, (Instant::now(), capabilities.clone()));
    }

    /// Drops a server's cached capabilities, because they may be wrong.
    pub fn forget_capabilities(&self, protocol: Protocol) {
        lock(&self.capabilities).remove(&protocol);
    }

    /// The parameters of a request to the authorization server.
    pub(super) fn grant_request<'a>(&'a self, current: &'a CurrentTokens) -> GrantRequest<'a> {
        GrantRequest {
            flow: self.flow,
            provider: &self.connector.provider,
            scope: &self.scope,
            user: &self.subject,
            secret: current.secrets.grant_secret.as_ref(),
        }
    }

    /// The client registration. Its secret is read again each time.
    pub(super) async fn registration(&self, current: &CurrentTokens) -> Result<Registration, Failure> {
        let mut client = self.client.clone().unwrap_or_else(ClientRegistration::nobody);
        if let Some(secret) = &current.secrets.client_secret {
            client.authentication = ClientAuthentication::Secret(SecretSource::Text(secret.clone()));
        }
        let token_endpoint = self.endpoints.token.as_ref().ok_or_else(|| {
            Failure::Misconfigured("its token endpoint is not known; authorize the account again".to_owned())
        })?;
        Ok(Registration::new(&client, token_endpoint).await?.discovered(self.discovered.as_ref()))
    }

    /// The generation of the current token set.
    pub fn generation(&self) -> u64 {
        self.tokens.current().generation
    }

    /// Marks a session of this account as open.
    pub fn presence(&self) -> Presence {
        Presence { _session: self.tokens.sessions() }
    }

    /// The use that a login by this protocol has for the token, and so how long it must still be valid.
    pub(super) fn usage(&self, protocol: Protocol) -> Use {
        match protocol {
            Protocol::Imap if self.connector.provider.session_ends_with_token => Use::Session,
            _ => Use::Login,
        }
    }

    pub(super) fn mailbox(&self, protocol: Protocol) -> Mailbox {
        Mailbox { address: self.address.clone(), protocol }
    }

    /// Stores, for `status`, what a server answered to a login that failed.
    pub fn note_login_failure(&self, protocol: Protocol, at: Moment, why: &str) {
        let mailbox = self.mailbox(protocol);
        self.tokens.change(|state| state.note_login_failure(&mailbox, at, why));
    }

    /// Waits until this token may be sent to a server that offers these mechanisms. None if it must not be sent any more,
    /// because it was refused or replaced in the meantime.
    pub async fn attempt(
        self: &Arc<Self>,
        protocol: Protocol,
        current: &Arc<CurrentTokens>,
        offered: &[Mechanism],
    ) -> Option<TokenAttempt> {
        let mailbox = self.mailbox(protocol);
        let probe = self.tokens.wait_for_turn(&mailbox, current.generation).await?;
        let first = self.tokens.read(|state| state.mechanism(&mailbox, offered));
        let others = offered.iter().copied().filter(|one| Some(*one) != first);
        let mechanisms = first.into_iter().chain(others).collect();
        Some(TokenAttempt { account: Arc::clone(self), mailbox, current: Arc::clone(current), mechanisms, probe })
    }
}

/// An attempt to log in to a mailbox's server with a token. If none of its methods is called, the server gave no answer
/// about the token.
pub struct TokenAttempt {
    account: Arc<OpenAccount>,
    mailbox: Mailbox,
    current: Arc<CurrentTokens>,
    /// The mechanisms that the server offers, in the order of use.
    mechanisms: Vec<Mechanism>,
    probe: Option<TokenProbe>,
}

impl TokenAttempt {
    /// The credentials for the server.
    pub fn bearer(&self) -> Bearer {
        let user = self.account.user(self.mailbox.protocol).clone();
        Bearer { user, token: self.current.tokens.access.clone(), mechanisms: self.mechanisms.clone() }
    }

    /// The server has accepted the token. Returns the mechanism if the server offers several and this one was not yet known
    /// to work.
    pub fn accepted(&self) -> Option<Mechanism> {
        let mechanism = *self.mechanisms.first()?;
        self.account.tokens.change(|state| {
            let is_known = state.works(&self.mailbox, mechanism);
            state.accepted(&self.mailbox, self.current.generation, mechanism);
            (self.mechanisms.len() > 1 && !is_known).then_some(mechanism)
        })
    }

    /// The server has refused the token.
    pub fn refused(&self, refusal: &Refusal) {
        let (generation, now) = (self.current.generation, Instant::now());
        self.account.tokens.change(|state| state.refused(&self.mailbox, generation, &self.mechanisms, refusal, now));
    }

    /// The server has reported a temporary problem. Returns whether a newer token may help.
    pub fn troubled(&self) -> bool {
        let (generation, now) = (self.current.generation, Instant::now());
        self.account.tokens.change(|state| state.troubled(&self.mailbox, generation, now))
    }

    /// The server does not accept the mechanism, whatever the token.
    pub fn mechanism_refused(&self) {
        if let Some(mechanism) = self.mechanisms.first() {
            self.account.tokens.change(|state| state.mechanism_refused(&self.mailbox, *mechanism));
        }
    }
}

impl Drop for TokenAttempt {
    fn drop(&mut self) {
        if let Some(probe) = self.probe {
            self.account.tokens.change(|state| state.unanswered(probe));
        }
    }
}

/// The answer to a client whose authorization has ended.
pub(super) fn ended(address: &str, why: &str) -> Refusal {
    let text = format!("The authorization of {address} has ended ({why}). Run `postkey authorize {address}`.");
    Refusal::new(Reason::AuthorizationEnded, text)
}

/// The tokens of one issuer must not be sent to the endpoints of another.
fn foreign(owner: &str, discovered: &Discovered, provider: &Provider) -> Refusal {
    let (found, configured) = (&discovered.issuer, provider.issuer.as_deref().unwrap_or_default());
    Refusal::new(
        Reason::AuthorizationEnded,
        format!(
            "{owner} was authorized at {found}, but the configuration names {configured}; run `postkey authorize {owner}`."
        ),
    )
}

/// Restores which mechanisms the servers have accepted, from the record.
fn recall_mechanisms(record: &StoredAccount, address: &str, mechanisms: &[Mechanism], tokens: &Tokens) {
    for protocol in Protocol::ALL {
        let Some(name) = record.mechanisms.get(protocol.name()) else { continue };
        if let Some(mechanism) = mechanisms.iter().find(|mechanism| mechanism.name() == name) {
            let mailbox = Mailbox { address: address.to_owned(), protocol };
            tokens.change(|state| state.recall(mailbox, *mechanism));
        }
    }
}
