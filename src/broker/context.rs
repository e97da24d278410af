//! What every part of the broker shares: the configuration, the vault and the clock. And what a login name stands for by them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::config::provider::Provider;
use crate::vault::{Vault, VaultError};

/// The configuration, the vault and the clock.
pub struct Context {
    config: RwLock<Arc<Config>>,
    /// The vault, for what needs no token.
    pub vault: Arc<Vault>,
    pub(super) clock: Clock,
}

/// What a login name stands for. It is found out once per login, so a reload in between cannot give two answers.
pub struct Resolved {
    /// The address of the account, as its record spells it, or else the configuration.
    pub address: String,
    /// Under which address the vault has the authorization that opens it: its delegate's, or its own.
    pub owner: String,
    /// Whether the vault has a record of this address.
    pub is_known: bool,
    /// The configuration that gave this answer.
    pub config: Arc<Config>,
}

impl Context {
    pub(super) fn new(config: Arc<Config>, vault: Vault, clock: Clock) -> Arc<Self> {
        Arc::new(Self { config: RwLock::new(config), vault: Arc::new(vault), clock })
    }

    /// The configuration as it is now.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_config(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Does something with the vault that waits for the disk or computes for long, off the threads that serve sessions.
    ///
    /// # Errors
    ///
    /// Those of `work`.
    pub async fn in_vault<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Vault>) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let vault = Arc::clone(&self.vault);
        tokio::task::spawn_blocking(move || work(&vault)).await.unwrap_or(Err(VaultError::Interrupted))
    }

    /// The time now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// What a login name stands for now.
    pub(super) fn resolve(&self, name: &str) -> Resolved {
        let config = self.config();
        let address = config.address_of(name);
        let spelling = self.vault.spelling_of(&address);
        let (is_known, address) = (spelling.is_some(), spelling.unwrap_or(address));
        let owner = match config.owner_of(&address) {
            own if own == address => address.clone(),
            delegate => self.vault.spelling_of(delegate).unwrap_or_else(|| delegate.to_owned()),
        };
        Resolved { address, owner, config, is_known }
    }
}

impl Resolved {
    /// The provider by the configuration, which may have one for an address without an account, too.
    pub fn provider(&self) -> Option<&Provider> {
        self.config.provider_for(&self.address)
    }

    /// Whether the configuration lets this user of this machine log in. The delegate's entry of a shared mailbox counts, too.
    pub fn allows(&self, user: Option<u32>) -> bool {
        let allows = |address: &str| self.config.account(address).users.allow(user);
        allows(&self.address) && (self.owner == self.address || allows(&self.owner))
    }
}

/// Locks. Everything behind these locks is whole at every moment, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
