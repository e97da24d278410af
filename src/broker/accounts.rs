//! The open accounts, their tokens, and the connectors to their providers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tracing::{info, warn};

use super::account::{Connector, OpenAccount, ended};
use super::context::Context;
use super::state::TokenState;
use super::tokens::{CurrentTokens, Tokens};
use crate::config::Config;
use crate::exit::{Exit, Failed};
use crate::mutex::lock;
use crate::protocol::{Mechanism, Protocol};
use crate::vault::{Authorization, StoredAccount, Vault, VaultError};
use crate::wire::{Capabilities, Reason, Refusal};

pub struct Accounts {
    context: Arc<Context>,
    open: Mutex<Open>,
    /// By provider, for those that have been used.
    connectors: Mutex<HashMap<String, Arc<Connector>>>,
}

#[derive(Default)]
struct Open {
    /// By address. A delegate and its shared mailboxes have the same tokens.
    accounts: HashMap<String, Arc<OpenAccount>>,
    /// By owner.
    tokens: HashMap<String, Arc<Tokens>>,
}

impl Accounts {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), open: Mutex::default(), connectors: Mutex::default() }
    }

    pub(super) fn get(&self, address: &str) -> Option<Arc<OpenAccount>> {
        lock(&self.open).accounts.get(address).cloned()
    }

    /// One open account of each owner, because all accounts of an owner share their tokens.
    pub(super) fn by_owner(&self) -> HashMap<String, Arc<OpenAccount>> {
        let open = lock(&self.open);
        open.accounts.values().map(|account| (account.owner.clone(), Arc::clone(account))).collect()
    }

    /// The tokens of an owner, if one of the owner's accounts is open.
    pub(super) fn tokens_of(&self, owner: &str) -> Option<Arc<Tokens>> {
        let open = lock(&self.open);
        let tokens = open.tokens.get(owner)?;
        let is_open = open.accounts.contains_key(owner) || open.accounts.values().any(|account| account.owner == owner);
        is_open.then(|| Arc::clone(tokens))
    }

    /// Opens the account for which a password was correct, with these tokens unless it is open already.
    pub(super) fn open(&self, address: &str, owner: &str, current: CurrentTokens) -> Result<Arc<OpenAccount>, Refusal> {
        let record = self.record(owner)?;
        // Before the lock, because the first use of a provider takes a while.
        self.connector(&record.provider)?;
        let mut open = lock(&self.open);
        if let Some(account) = open.accounts.get(address).filter(|account| account.owner == owner) {
            account.tokens.learn_opener(&current);
            return Ok(Arc::clone(account));
        }
        let end = record.ended.as_ref().map(|end| ended(owner, &end.why));
        let new = || Tokens::new(TokenState::new(current.generation, None, end), current, Arc::default());
        let tokens = Arc::clone(open.tokens.entry(owner.to_owned()).or_insert_with(new));
        let account = Arc::new(self.account(address, owner, tokens)?);
        open.accounts.insert(address.to_owned(), Arc::clone(&account));
        Ok(account)
    }

    /// Opens the account whose authorization has just been stored. It may have another provider or registration than before.
    pub(super) fn open_authorized(
        &self,
        authorization: Authorization,
        generation: u64,
    ) -> Result<Arc<OpenAccount>, Failed> {
        let Authorization { address, provider, tokens, secrets, .. } = authorization;
        info!(account = address, provider, "{address} authorized at {provider}");
        // The sessions continue.
        let before = self.close(&address);
        let sessions = before.as_ref().map(|before| before.sessions()).unwrap_or_default();
        // It still opens the record if the account has the same key pair.
        let opener = before.and_then(|before| before.current().opener.clone());
        let current = CurrentTokens { tokens, generation, secrets, opener };
        let tokens = Tokens::new(TokenState::new(generation, Some(Instant::now()), None), current, sessions);
        let account = Arc::new(self.account(&address, &address, Arc::clone(&tokens))?);
        let mut open = lock(&self.open);
        open.accounts.insert(address.clone(), Arc::clone(&account));
        open.tokens.insert(address, tokens);
        Ok(account)
    }

    /// Takes an owner's newer tokens into use, which another replica has stored. Returns false if they cannot be opened
    /// without an app password.
    pub(super) fn follow(&self, owner: &str) -> bool {
        let Some(tokens) = self.tokens_of(owner) else { return true };
        let (vault, current) = (&self.context.vault, tokens.current());
        if vault.account(owner).is_some_and(|record| record.generation() == current.generation) {
            return true;
        }
        let opened = current.opener.as_ref().map(|opener| vault.open_again(owner, opener));
        let Some(Ok(unlocked)) = opened else { return false };
        tokens.replace(&Arc::new(CurrentTokens::of(unlocked).0));
        true
    }

    /// Closes all accounts of an owner. Returns the tokens.
    pub(super) fn close(&self, owner: &str) -> Option<Arc<Tokens>> {
        let mut open = lock(&self.open);
        open.accounts.retain(|_, account| account.owner != owner);
        open.tokens.remove(owner)
    }

    /// The connector to a provider, which is set up at the first use.
    ///
    /// # Errors
    ///
    /// The provider cannot be used.
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

    fn record(&self, owner: &str) -> Result<Arc<StoredAccount>, Refusal> {
        self.context.vault.account(owner).ok_or_else(Refusal::credentials)
    }

    fn account(&self, address: &str, owner: &str, tokens: Arc<Tokens>) -> Result<OpenAccount, Refusal> {
        let record = self.record(owner)?;
        let connector = self.connector(&record.provider)?;
        OpenAccount::new(&self.context.config(), address, &record, connector, tokens)
    }

    /// Replaces the configuration, unless one of the providers in use cannot be set up. Logins that are under way continue with the
    /// old one, no token is lost, and an account still has one refresh at a time.
    pub(super) async fn reconfigure(&self, config: Config) -> Result<(), Failed> {
        let config = Arc::new(config);
        let in_use: Vec<String> = lock(&self.connectors).keys().cloned().collect();
        let new = Arc::clone(&config);
        // Reading the system's certificate authorities takes a while.
        let connectors = tokio::task::spawn_blocking(move || set_up(&new, in_use)).await;
        let connectors = connectors.map_err(|_| Failed::new(Exit::Software, "cannot set the providers up"))??;

        let mut open = lock(&self.open);
        self.context.set_config(config);
        *lock(&self.connectors) = connectors;
        // An account without a provider is closed, so that the next login is refused and says why. So is one with another owner,
        // because its passwords are different now.
        open.accounts.retain(|address, account| {
            let now = self.context.resolve(address);
            let is_same = now.address == *address && now.owner == account.owner;
            let new = self.account(address, &account.owner, Arc::clone(&account.tokens));
            new.is_ok_and(|new| {
                *account = Arc::new(new);
                is_same
            })
        });
        open.tokens.values().for_each(|tokens| tokens.change(TokenState::reloaded));
        Ok(())
    }

    /// Stores a server's capabilities before the login, so that the next login need not ask, and clients are offered them.
    pub async fn store_capabilities(&self, account: &OpenAccount, protocol: Protocol, capabilities: &Capabilities) {
        account.cache_capabilities(protocol, capabilities);
        let list = capabilities.0.clone();
        let is_stored = |record: &StoredAccount| record.known.get(protocol.name()) == Some(&capabilities.0);
        self.store(account, is_stored, move |vault, owner| vault.learn(owner, protocol, list)).await;
    }

    /// Stores which of several mechanisms works, so that the first login after a restart need not find out again.
    pub async fn store_mechanism(&self, account: &OpenAccount, protocol: Protocol, mechanism: Mechanism) {
        let is_stored = |record: &StoredAccount| {
            record.mechanisms.get(protocol.name()).is_some_and(|known| known == mechanism.name())
        };
        self.store(account, is_stored, move |vault, owner| vault.prefer(owner, protocol, mechanism)).await;
    }

    /// Changes the record of an account's owner, unless that is not necessary.
    async fn store(
        &self,
        OpenAccount { address, owner, .. }: &OpenAccount,
        is_stored: impl FnOnce(&StoredAccount) -> bool,
        store: impl FnOnce(&Vault, &str) -> Result<(), VaultError> + Send + 'static,
    ) {
        if self.context.vault.account(owner).is_none_or(|record| is_stored(&record)) {
            return;
        }
        let owner = owner.clone();
        if let Err(error) = self.context.in_vault(move |vault| store(vault, &owner)).await {
            warn!(account = address, %error, "cannot store what the mail server of {address} supports: {error}");
        }
    }
}

/// Sets up those of these providers that the configuration still has.
fn set_up(config: &Config, providers: Vec<String>) -> Result<HashMap<String, Arc<Connector>>, Failed> {
    let known = providers.into_iter().filter(|name| config.providers.contains_key(name));
    let set_up = |name: String| match Connector::new(config, &name) {
        Ok(connector) => Ok((name, Arc::new(connector))),
        Err(why) => Err(Failed::new(Exit::Config, format!("the provider {name} cannot be used: {why}"))),
    };
    known.map(set_up).collect()
}
