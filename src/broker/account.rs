//! An account that a password has opened, and its tokens.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::patience::Refreshes;
use super::{Reach, lock};
use crate::clock::Moment;
use crate::config::client::Client;
use crate::config::flow::Flow;
use crate::config::provider::Endpoints;
use crate::oauth::grant::Ask;
use crate::protocol::Protocol;
use crate::secret::Token;
use crate::token::{Life, TokenSet, Use};
use crate::vault::Secrets;
use crate::wire::{Bearer, Capabilities, Reason, Refusal};

/// How long what a server was heard to offer spares the question, and with it a round trip of each login.
const HEARSAY: Duration = Duration::from_secs(24 * 3600);

/// An account that a password has opened.
pub struct Account {
    /// Its address.
    pub address: String,
    /// Under which address the vault has its authorization: its delegate's, or its own.
    pub owner: String,
    /// Its provider.
    pub reach: Arc<Reach>,
    /// See [`Account::user`].
    pub(super) users: BTreeMap<Protocol, String>,
    /// Its authorization server's endpoints.
    pub endpoints: Endpoints,
    pub(super) flow: Flow,
    pub(super) client: Option<Client>,
    /// The owner's name at the provider, whom tokens are asked for where no person consents.
    pub(super) subject: String,
    /// What tokens are asked for.
    pub(super) scope: Vec<String>,
    pub(super) tokens: Arc<Tokens>,
    /// What the provider's servers were heard to offer, and when.
    pub(super) heard: Mutex<HashMap<Protocol, (Instant, Capabilities)>>,
}

/// An authorization's tokens: the same ones for all accounts that it opens, and when the configuration changes around them.
pub(super) struct Tokens {
    pub(super) held: Mutex<Arc<Held>>,
    /// Locked by the one refresh that is under way.
    pub(super) refreshing: tokio::sync::Mutex<Refreshes>,
    /// How the last refreshes ended, for people.
    pub(super) health: Mutex<Health>,
    /// Shared by the sessions that are open.
    pub(super) sessions: Arc<()>,
}

/// How the last refreshes of an account ended, for people.
#[derive(Clone, Default)]
pub(super) struct Health {
    /// The last failure, and when it was.
    pub(super) failure: Option<(Moment, String)>,
    /// What is to be done, as long as nothing is asked any more until a person has done it.
    pub(super) needed: Option<String>,
}

/// Held by a session as long as it is open: its account's token is kept fresh for the next one.
pub struct Presence {
    _session: Arc<()>,
}

/// Which token will do.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// One that is fresh enough for this.
    For(Use),
    /// Any that is newer than this generation.
    Newer(u64),
}

/// The tokens that are in use.
pub struct Held {
    pub(super) tokens: TokenSet,
    /// Which token set of the account this is.
    pub generation: u64,
    pub(super) secrets: Secrets,
}

impl Held {
    /// The access token.
    pub fn access(&self) -> &Token {
        &self.tokens.access
    }

    /// Its life.
    pub fn life(&self) -> Life {
        self.tokens.life
    }

    /// What it is good for, as the server says it; empty where it says nothing.
    pub fn scope(&self) -> &str {
        &self.tokens.scope
    }
}

impl Tokens {
    /// `sessions` are those that are open.
    pub(super) fn new(held: Held, sessions: Arc<()>) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::new(Arc::new(held)),
            refreshing: tokio::sync::Mutex::default(),
            health: Mutex::default(),
            sessions,
        })
    }
}

impl Account {
    /// Who signed in for this account, where it is a shared mailbox.
    pub fn delegate(&self) -> Option<&str> {
        (self.owner != self.address).then_some(self.owner.as_str())
    }

    /// Who logs in for it at the provider.
    pub fn user(&self, protocol: Protocol) -> &String {
        self.users.get(&protocol).unwrap_or(&self.address)
    }

    /// What is sent to the provider with this token.
    pub fn bearer(&self, held: &Held, protocol: Protocol) -> Bearer {
        Bearer {
            user: self.user(protocol).clone(),
            token: held.tokens.access.clone(),
            mechanisms: self.reach.provider.mechanisms.clone(),
        }
    }

    /// What a server was heard to offer not long ago; empty if it has to be asked.
    pub fn heard(&self, protocol: Protocol) -> Capabilities {
        let heard = lock(&self.heard).get(&protocol).cloned();
        heard.filter(|(at, _)| at.elapsed() < HEARSAY).map(|(_, capabilities)| capabilities).unwrap_or_default()
    }

    /// What a server was heard to offer may have led us wrong.
    pub fn unlearn(&self, protocol: Protocol) {
        lock(&self.heard).remove(&protocol);
    }

    /// What it asks the authorization server for.
    pub(super) fn ask<'a>(&'a self, held: &'a Held) -> Ask<'a> {
        let (flow, provider) = (self.flow, &self.reach.provider);
        Ask { flow, provider, scope: &self.scope, user: &self.subject, password: held.secrets.password.as_ref() }
    }

    /// Which token set is in use.
    pub fn generation(&self) -> u64 {
        self.held().generation
    }

    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&lock(&self.tokens.held))
    }

    /// To be held by a session of this account.
    pub fn presence(&self) -> Presence {
        Presence { _session: Arc::clone(&self.tokens.sessions) }
    }

    /// Whether a session is open.
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.tokens.sessions) > 1
    }

    /// What a login by this protocol wants of a token.
    pub(super) fn usage(&self, protocol: Protocol) -> Use {
        match protocol {
            Protocol::Imap if self.reach.provider.session_ends_with_token => Use::Session,
            _ => Use::Login,
        }
    }

    pub(super) fn fresh(&self, refused: Option<u64>, wanted: Wanted, now: Moment) -> Option<Arc<Held>> {
        let held = self.held();
        let will_do = match wanted {
            Wanted::For(usage) => held.tokens.life.is_fresh(usage, now),
            Wanted::Newer(generation) => held.generation > generation,
        };
        (refused.is_none_or(|refused| refused < held.generation) && will_do).then_some(held)
    }

    pub(super) fn alive(&self, refused: Option<u64>, now: Moment) -> Option<Arc<Held>> {
        let held = self.held();
        (refused.is_none_or(|refused| refused < held.generation) && held.tokens.life.is_alive(now)).then_some(held)
    }

    pub(super) fn ended(&self, why: &str) -> Refusal {
        Refusal::new(Reason::AuthorizationEnded, ended(&self.owner, why))
    }
}

/// What a person is told whose authorization has ended.
pub(super) fn ended(address: &str, why: &str) -> String {
    format!("Run `postkey authorize {address}`: its authorization has ended: {why}.")
}
