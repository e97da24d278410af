//! The accounts that passwords and authorizations have opened, and the providers that they need.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tracing::{info, warn};

use super::account::{OpenAccount, ended};
use super::connector::Connector;
use super::context::{Context, lock};
use super::state::TokenState;
use super::tokens::{CurrentTokens, Tokens};
use crate::config::Config;
use crate::exit::{Exit, Failed};
use crate::protocol::{Mechanism, Protocol};
use crate::vault::{self, Authorization};
use crate::wire::{Capabilities, Reason, Refusal};

/// All open accounts.
pub struct Accounts {
    context: Arc<Context>,
    open: Mutex<Open>,
    /// The providers that have been used, by name.
    connectors: Mutex<HashMap<String, Arc<Connector>>>,
}

#[derive(Default)]
struct Open {
    /// By address; those of a delegate and of the mailboxes that it opens have the same tokens.
    accounts: HashMap<String, Arc<OpenAccount>>,
    /// By owner.
    tokens: HashMap<String, Arc<Tokens>>,
}

impl Accounts {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), open: Mutex::default(), connectors: Mutex::default() }
    }

    /// The open account of this address.
    pub(super) fn get(&self, address: &str) -> Option<Arc<OpenAccount>> {
        lock(&self.open).accounts.get(address).cloned()
    }

    /// One open account of each owner: what is done to its tokens is done for all accounts that they open.
    pub(super) fn by_owner(&self) -> HashMap<String, Arc<OpenAccount>> {
        let open = lock(&self.open);
        open.accounts.values().map(|account| (account.owner.clone(), Arc::clone(account))).collect()
    }

    /// The tokens of an owner, as long as one of the accounts is open that they open.
    pub(super) fn tokens_of(&self, owner: &str) -> Option<Arc<Tokens>> {
        let open = lock(&self.open);
        let tokens = open.tokens.get(owner)?;
        let is_open = open.accounts.contains_key(owner) || open.accounts.values().any(|account| account.owner == owner);
        is_open.then(|| Arc::clone(tokens))
    }

    /// The account that a password has opened: the one that is open already, or one with these tokens.
    pub(super) fn admit(&self, address: &str, owner: &str, held: CurrentTokens) -> Result<Arc<OpenAccount>, Refusal> {
        let record = self.record(owner)?;
        // Before the lock is held, because the first use of a provider takes a while.
        self.connector(&record.provider)?;
        let mut open = lock(&self.open);
        if let Some(account) = open.accounts.get(address).filter(|account| account.owner == owner) {
            return Ok(Arc::clone(account));
        }
        let end = record.ended.as_ref().map(|end| ended(owner, &end.why));
        let new = || Tokens::new(TokenState::new(held.generation, None, end), held, Arc::default());
        let tokens = Arc::clone(open.tokens.entry(owner.to_owned()).or_insert_with(new));
        let account = Arc::new(self.account(address, owner, tokens)?);
        open.accounts.insert(address.to_owned(), Arc::clone(&account));
        Ok(account)
    }

    /// Opens the account whose authorization has just been stored. Its provider and its registration may be others now.
    pub(super) fn begin(&self, authorization: Authorization, generation: u64) -> Result<Arc<OpenAccount>, Failed> {
        let Authorization { address, provider, tokens, secrets, .. } = authorization;
        info!(account = address, provider, "{address} authorized at {provider}");
        // Sessions go on, with whatever token they began.
        let sessions = self.close(&address).map(|before| before.sessions()).unwrap_or_default();
        let held = CurrentTokens { tokens, generation, secrets };
        let tokens = Tokens::new(TokenState::new(generation, Some(Instant::now()), None), held, sessions);
        let account = Arc::new(self.account(&address, &address, Arc::clone(&tokens))?);
        let mut open = lock(&self.open);
        open.accounts.insert(address.clone(), Arc::clone(&account));
        open.tokens.insert(address, tokens);
        Ok(account)
    }

    /// Closes an account and those that its authorization opens. Returns its tokens.
    pub(super) fn close(&self, owner: &str) -> Option<Arc<Tokens>> {
        let mut open = lock(&self.open);
        open.accounts.retain(|_, account| account.owner != owner);
        open.tokens.remove(owner)
    }

    /// How to reach a provider; set up at its first use.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn connector(&self, provider: &str) -> Result<Arc<Connector>, Refusal> {
        let mut connectors = lock(&self.connectors);
        if let Some(connector) = connectors.get(provider) {
            return Ok(Arc::clone(connector));
        }
        let connector =
            Connector::new(&self.context.config(), provider).map_err(|why| Refusal::new(Reason::Forbidden, why))?;
        let connector = Arc::new(connector);
        connectors.insert(provider.to_owned(), Arc::clone(&connector));
        Ok(connector)
    }

    fn record(&self, owner: &str) -> Result<Arc<vault::StoredAccount>, Refusal> {
        self.context.vault.account(owner).ok_or_else(Refusal::credentials)
    }

    fn account(&self, address: &str, owner: &str, tokens: Arc<Tokens>) -> Result<OpenAccount, Refusal> {
        let record = self.record(owner)?;
        let connector = self.connector(&record.provider)?;
        OpenAccount::new(&self.context.config(), address, &record, connector, tokens)
    }

    /// Uses a new configuration from now on, or keeps the old one if one of the providers in use cannot be set up. Logins that are
    /// under way end as they began, no token is lost, and an account still has one refresh at a time.
    pub(super) async fn reconfigure(&self, config: Config) -> Result<(), Failed> {
        let config = Arc::new(config);
        let in_use: Vec<String> = lock(&self.connectors).keys().cloned().collect();
        let new = Arc::clone(&config);
        // Reading the system's certificate authorities takes a while.
        let connectors = tokio::task::spawn_blocking(move || set_up(&new, in_use)).await;
        let connectors =
            connectors.map_err(|_| Failed::new(Exit::Software, "the new configuration could not be tried"))??;

        let mut open = lock(&self.open);
        self.context.set_config(config);
        *lock(&self.connectors) = connectors;
        // The next login to an account whose provider is gone is refused, and says why. One that has another owner now is another
        // account for its password, too.
        open.accounts.retain(|address, account| {
            let now = self.context.resolve(address);
            let is_same = now.address == *address && now.owner == account.owner;
            match self.account(address, &account.owner, Arc::clone(&account.tokens)) {
                Ok(new) if is_same => {
                    *account = Arc::new(new);
                    true
                }
                _ => false,
            }
        });
        open.tokens.values().for_each(|tokens| tokens.change(TokenState::reloaded));
        Ok(())
    }

    /// Notes a server's capabilities before login: the next login need not ask, and clients are promised them.
    pub async fn learn(&self, account: &OpenAccount, protocol: Protocol, capabilities: &Capabilities) {
        account.hear(protocol, capabilities);
        let OpenAccount { address, owner, .. } = account;
        let is_known = |record: Arc<vault::StoredAccount>| record.known.get(protocol.name()) == Some(&capabilities.0);
        if self.context.vault.account(owner).is_some_and(is_known) {
            return;
        }
        let (owner, list) = (owner.clone(), capabilities.0.clone());
        if let Err(error) = self.context.in_vault(move |vault| vault.learn(&owner, protocol, list)).await {
            warn!(account = address, %error, "cannot note what the mail server of {address} offers: {error}");
        }
    }

    /// Notes which of several mechanisms works: after a restart the first login need not find out again.
    pub async fn prefer(&self, account: &OpenAccount, protocol: Protocol, mechanism: Mechanism) {
        let OpenAccount { address, owner, .. } = account;
        let is_known = |record: Arc<vault::StoredAccount>| {
            record.mechanisms.get(protocol.name()).is_some_and(|known| known == mechanism.name())
        };
        if self.context.vault.account(owner).is_none_or(is_known) {
            return;
        }
        let owner = owner.clone();
        if let Err(error) = self.context.in_vault(move |vault| vault.prefer(&owner, protocol, mechanism)).await {
            warn!(account = address, %error, "cannot note which mechanism the mail server of {address} accepts: {error}");
        }
    }
}

/// Sets up those of the providers that the configuration still has.
fn set_up(config: &Config, providers: Vec<String>) -> Result<HashMap<String, Arc<Connector>>, Failed> {
    let known = providers.into_iter().filter(|name| config.providers.contains_key(name));
    let set_up = |name: String| match Connector::new(config, &name) {
        Ok(connector) => Ok((name, Arc::new(connector))),
        Err(why) => Err(Failed::new(Exit::Config, format!("the provider {name} cannot be used: {why}"))),
    };
    known.map(set_up).collect()
}
