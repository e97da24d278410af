//! An account that a password has opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::connector::Connector;
use super::context::lock;
use super::state::Mailbox;
use super::tokens::{CurrentTokens, Tokens};
use crate::clock::Moment;
use crate::config::Config;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, Endpoints, Provider};
use crate::config::secret_source::SecretSource;
use crate::oauth::grant::GrantRequest;
use crate::oauth::{Failure, Registration};
use crate::protocol::{Mechanism, Protocol};
use crate::token::Use;
use crate::vault;
use crate::wire::{Capabilities, Reason, Refusal};

/// How long a server's capabilities are used without asking again, which saves a round trip of each login.
const HEARSAY: Duration = Duration::from_secs(24 * 3600);

/// An account that a password has opened.
pub struct OpenAccount {
    /// Its address.
    pub address: String,
    /// Under which address the vault has its authorization: its delegate's, or its own.
    pub owner: String,
    /// Its provider.
    pub connector: Arc<Connector>,
    /// Its authorization server's endpoints.
    pub endpoints: Endpoints,
    pub(super) tokens: Arc<Tokens>,
    /// See [`OpenAccount::user`].
    users: [String; Protocol::ALL.len()],
    /// What else authorizing it has found out about its authorization server.
    discovered: Option<Discovered>,
    flow: Flow,
    client: Option<ClientRegistration>,
    /// The owner's name at the provider, for which tokens are requested where no person consents.
    subject: String,
    /// The scope of token requests.
    scope: Vec<String>,
    /// The last capabilities of the provider's servers, and when they were read.
    heard: Mutex<HashMap<Protocol, (Instant, Capabilities)>>,
}

/// Held by a session as long as it is open: its account's token is kept fresh for the next one.
pub struct Presence {
    _session: Arc<()>,
}

impl OpenAccount {
    /// An account, from its owner's record and the configuration.
    pub(super) fn new(
        config: &Config,
        address: &str,
        record: &vault::StoredAccount,
        connector: Arc<Connector>,
        tokens: Arc<Tokens>,
    ) -> Result<Self, Refusal> {
        let (owner, provider) = (&record.address, &connector.provider);
        if let Some(discovered) = record.discovered.as_ref().filter(|found| found.is_foreign_to(provider)) {
            return Err(foreign(owner, discovered, provider));
        }
        recall(record, address, &provider.mechanisms, &tokens);
        Ok(Self {
            address: address.to_owned(),
            owner: owner.clone(),
            users: Protocol::ALL.map(|protocol| config.user_of(address, protocol)),
            subject: config.user_of(owner, Protocol::Imap),
            endpoints: match &record.discovered {
                Some(discovered) => provider.endpoints.or(&discovered.endpoints),
                None => provider.endpoints.clone(),
            },
            discovered: record.discovered.clone(),
            flow: record.flow,
            client: match &record.client_id {
                // Its secret, if it has one, is kept with the tokens.
                Some(id) => Some(ClientRegistration { id: id.clone(), authentication: ClientAuthentication::None }),
                None => config.client_for(owner, provider),
            },
            scope: config.account(owner).scope.clone().unwrap_or_else(|| provider.scope.clone()),
            tokens,
            heard: Mutex::default(),
            connector,
        })
    }

    /// Who signed in for this account, where it is a shared mailbox.
    pub fn delegate(&self) -> Option<&str> {
        (self.owner != self.address).then_some(self.owner.as_str())
    }

    /// Who logs in for it at the provider.
    pub fn user(&self, protocol: Protocol) -> &String {
        self.users.get(protocol as usize).unwrap_or(&self.address)
    }

    /// A server's capabilities as they were not long ago; empty if it has to be asked.
    pub fn capabilities(&self, protocol: Protocol) -> Capabilities {
        let heard = lock(&self.heard).get(&protocol).cloned();
        heard.filter(|(at, _)| at.elapsed() < HEARSAY).map(|(_, capabilities)| capabilities).unwrap_or_default()
    }

    /// Notes a server's capabilities.
    pub(super) fn hear(&self, protocol: Protocol, capabilities: &Capabilities) {
        lock(&self.heard).insert(protocol, (Instant::now(), capabilities.clone()));
    }

    /// Forgets a server's capabilities, because they may be wrong.
    pub fn forget_capabilities(&self, protocol: Protocol) {
        lock(&self.heard).remove(&protocol);
    }

    /// What it asks the authorization server for.
    pub(super) fn ask<'a>(&'a self, held: &'a CurrentTokens) -> GrantRequest<'a> {
        let (flow, provider) = (self.flow, &self.connector.provider);
        GrantRequest {
            flow,
            provider,
            scope: &self.scope,
            user: &self.subject,
            password: held.secrets.password.as_ref(),
        }
    }

    /// The client registration, its secret read again.
    pub(super) async fn registration(&self, held: &CurrentTokens) -> Result<Registration, Failure> {
        let mut client = self.client.clone().unwrap_or_else(ClientRegistration::nobody);
        if let Some(secret) = &held.secrets.client_secret {
            client.authentication = ClientAuthentication::Secret(SecretSource::Text(secret.clone()));
        }
        let token_endpoint = self.endpoints.token.as_ref().ok_or_else(|| {
            Failure::Misconfigured("its token endpoint is not known; authorize the account anew".to_owned())
        })?;
        Ok(Registration::new(&client, token_endpoint).await?.discovered(self.discovered.as_ref()))
    }

    /// Which token set is in use.
    pub fn generation(&self) -> u64 {
        self.held().generation
    }

    pub(super) fn held(&self) -> Arc<CurrentTokens> {
        self.tokens.held()
    }

    /// To be held by a session of this account.
    pub fn presence(&self) -> Presence {
        Presence { _session: self.tokens.sessions() }
    }

    /// How much life a login by this protocol needs a token to have.
    pub(super) fn usage(&self, protocol: Protocol) -> Use {
        match protocol {
            Protocol::Imap if self.connector.provider.session_ends_with_token => Use::Session,
            _ => Use::Login,
        }
    }

    /// Its mailbox as it is reached by this protocol.
    pub(super) fn mailbox(&self, protocol: Protocol) -> Mailbox {
        Mailbox { address: self.address.clone(), protocol }
    }

    /// Notes for people what a server of the provider has said to a login that it did not let in.
    pub fn note(&self, protocol: Protocol, at: Moment, said: &str) {
        let mailbox = self.mailbox(protocol);
        self.tokens.change(|state| state.note(&mailbox, at, said));
    }
}

/// The answer to a client whose authorization has ended.
pub(super) fn ended(address: &str, why: &str) -> Refusal {
    let text = format!("Run `postkey authorize {address}`: its authorization has ended: {why}.");
    Refusal::new(Reason::AuthorizationEnded, text)
}

/// The tokens of one issuer must not be sent to the endpoints of another.
fn foreign(owner: &str, discovered: &Discovered, provider: &Provider) -> Refusal {
    let (found, configured) = (&discovered.issuer, provider.issuer.as_deref().unwrap_or_default());
    Refusal::new(
        Reason::AuthorizationEnded,
        format!(
            "{owner} was authorized at {found}, and the configuration names {configured}; run `postkey authorize {owner}`."
        ),
    )
}

/// Restores which mechanisms the provider's servers have accepted before this process began.
fn recall(record: &vault::StoredAccount, address: &str, mechanisms: &[Mechanism], tokens: &Tokens) {
    for protocol in Protocol::ALL {
        let Some(name) = record.mechanisms.get(protocol.name()) else { continue };
        if let Some(mechanism) = mechanisms.iter().find(|mechanism| mechanism.name() == name) {
            let mailbox = Mailbox { address: address.to_owned(), protocol };
            tokens.change(|state| state.recall(mailbox, *mechanism));
        }
    }
}
