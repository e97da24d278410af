//! The context that all parts of the broker share: the configuration, the vault and the clock. And the meaning of a login name.

use std::sync::{Arc, PoisonError, RwLock};

use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::config::provider::Provider;
use crate::vault::{Vault, VaultError};

/// The configuration, the vault and the clock.
pub struct Context {
    config: RwLock<Arc<Config>>,
    pub vault: Arc<Vault>,
    pub(super) clock: Clock,
}

/// The meaning of a login name. It is looked up once per login, so that a reload in between cannot give two answers.
pub struct Resolved {
    /// The account's address, in the spelling of its record, or else of the configuration.
    pub address: String,
    /// The address of the record with the authorization: the delegate's, or its own.
    pub owner: String,
    /// Whether the vault has a record of this address.
    pub is_known: bool,
    /// The configuration from which this was found out.
    pub config: Arc<Config>,
}

impl Context {
    pub(super) fn new(config: Arc<Config>, vault: Vault, clock: Clock) -> Arc<Self> {
        Arc::new(Self { config: RwLock::new(config), vault: Arc::new(vault), clock })
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_config(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Runs vault work that waits for the disk or computes for long, off the threads that serve sessions.
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

    pub fn now(&self) -> Moment {
        self.clock.now()
    }

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
    /// The provider in the configuration, also for an address without an account.
    pub fn provider(&self) -> Option<&Provider> {
        self.config.provider_for(&self.address)
    }

    /// Whether the configuration lets this user of this machine log in. For a shared mailbox, the delegate's entry counts, too.
    pub fn allows(&self, user: Option<u32>) -> bool {
        let allows = |address: &str| self.config.account(address).users.allow(user);
        allows(&self.address) && (self.owner == self.address || allows(&self.owner))
    }
}
