//! The one owner of accounts and tokens: checks passwords, and hands out tokens that are fresh.

mod account;
pub mod guesses;
mod measure;
mod patience;
mod reach;
mod reconfigure;
mod refresh;
mod unlock;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::exit::Failed;
use crate::metrics::Metrics;
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{self, Authorization, Vault, VaultError};
use crate::wire::{Capabilities, Reason, Refusal};
use account::Tokens;
pub use account::{Account, Held};
use guesses::{Fingerprint, Guesses};
pub use reach::Reach;
pub use unlock::Opened;

/// How long a refresh is waited for while the token at hand still works: a new one is better, for it does not end soon, but
/// not at the price of a login.
const WHILE_ALIVE: Duration = Duration::from_secs(3);

/// How soon after a failed write the next one is tried, without a change that asks for it.
const HEAL_SOON: Duration = Duration::from_millis(500);

/// The longest pause between two tries, and so the longest that a disk with space again is not used.
const HEAL_LATE: Duration = Duration::from_secs(4);

/// Argon2 computations at a time, each 19 MiB and a core for 20 ms: one core stays free for the sessions.
const DERIVATIONS: usize = 1;

/// Logins that may wait for a refresh at a time; more than there are sessions.
const REFRESHES: u32 = 1 << 20;

/// Owns the vault, and what has been taken out of it since the start.
pub struct Broker {
    config: RwLock<Arc<Config>>,
    vault: Arc<Vault>,
    clock: Clock,
    /// Key of the fingerprints of checked passwords; lives as long as this process.
    fingerprint_key: Secret,
    open: Mutex<Open>,
    guesses: Guesses,
    /// Something has changed about app passwords.
    withdrawn: watch::Sender<()>,
    derivations: Semaphore,
    refreshing: Semaphore,
    reaches: Mutex<HashMap<String, Arc<Reach>>>,
    metrics: Metrics,
}

/// What passwords have opened.
#[derive(Default)]
struct Open {
    accounts: HashMap<String, Arc<Account>>,
    /// By fingerprint of address and password.
    checked: HashMap<Fingerprint, Opened>,
    /// Grows when a password stops being valid, so that a check that was under way is not remembered.
    withdrawals: u64,
}

impl Broker {
    /// A broker for this vault.
    pub fn new(config: Arc<Config>, vault: Vault, clock: Clock) -> Self {
        Self {
            config: RwLock::new(config),
            vault: Arc::new(vault),
            clock,
            fingerprint_key: Secret::new(vault::random::<32>().to_vec()),
            open: Mutex::default(),
            guesses: Guesses::default(),
            withdrawn: watch::Sender::default(),
            derivations: Semaphore::new(DERIVATIONS),
            refreshing: Semaphore::new(REFRESHES as usize),
            reaches: Mutex::default(),
            metrics: Metrics::default(),
        }
    }

    /// The vault, for what needs no token.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The time now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A token good to log in with. `refused` is the generation that the provider has just refused: it is not handed out
    /// again. However many ask, there is one refresh, and all get its outcome.
    pub async fn bearer(self: &Arc<Self>, account: &Arc<Account>, refused: Option<u64>) -> Result<Arc<Held>, Refusal> {
        if let Some(held) = account.fresh(refused, self.clock.now()) {
            return Ok(held);
        }
        // A task of its own: a client that hangs up must not take a rotated refresh token with it.
        let (broker, account) = (Arc::clone(self), Arc::clone(account));
        let alive = account.alive(refused, self.clock.now());
        let refresh = tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = broker.refreshing.acquire().await;
            broker.refresh(&account, refused).await
        });
        let refreshed = match alive {
            Some(held) => timeout(WHILE_ALIVE, refresh).await.unwrap_or(Ok(Ok(held))),
            None => refresh.await,
        };
        refreshed.unwrap_or_else(|_| Err(Refusal::new(Reason::Unavailable, "postkey has a defect; see its log.")))
    }

    /// The new token has worked: the one before it is not needed any more.
    pub fn worked(&self, account: &Account, generation: u64) {
        let (vault, address) = (Arc::clone(&self.vault), account.address.clone());
        if vault.is_unsettled(&address, generation) {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = vault.settle(&address, generation) {
                    warn!(account = address, %error, "the vault keeps an old token longer than needed");
                }
            });
        }
    }

    /// Puts in what a person's authorization has brought; the account is open then.
    pub async fn authorize(
        &self,
        authorization: Authorization,
        first: Option<(String, Password)>,
    ) -> Result<Arc<Account>, Failed> {
        let (vault, now) = (Arc::clone(&self.vault), self.clock.now());
        let (authorization, generation) = blocking(move || {
            let first = first.as_ref().map(|(name, password)| (name.as_str(), password));
            vault.authorize(&authorization, first, now).map(|generation| (authorization, generation))
        })
        .await?;
        info!(account = authorization.address, "authorized");
        // Its provider and its registration may be others now.
        self.forget(&authorization.address);
        let held = Held { tokens: authorization.tokens, generation, client_secret: authorization.client_secret };
        let account = Arc::new(self.account(&authorization.address, Tokens::new(held))?);
        lock(&self.open).accounts.insert(authorization.address, Arc::clone(&account));
        Ok(account)
    }

    /// Brings the vault back to stable storage whenever it has lost it, as soon as the disk lets it. Never ends.
    pub async fn keep_stable(&self) {
        loop {
            self.vault.troubled().await;
            let mut pause = HEAL_SOON;
            while self.vault.trouble().is_some() {
                let vault = Arc::clone(&self.vault);
                let changed = blocking(move || Ok(vault.heal())).await.unwrap_or_default();
                changed.iter().for_each(|address| self.forget(address));
                let _change = tokio::time::timeout(pause, self.vault.troubled()).await;
                pause = (pause * 2).min(HEAL_LATE);
            }
        }
    }

    /// Forgets an account altogether.
    pub fn forget(&self, address: &str) {
        self.withdraw(address);
        lock(&self.open).accounts.remove(address);
    }

    /// Waits for the refreshes that are under way, and lets no other begin: a process that ends with a rotated refresh
    /// token on the wire has lost the authorization.
    pub async fn finish(&self) {
        if let Ok(all) = self.refreshing.acquire_many(REFRESHES).await {
            all.forget();
        }
    }

    /// Notes what a server offers before login: our next login need not ask, and the next client is promised it.
    pub async fn learn(&self, account: &Account, protocol: Protocol, capabilities: &Capabilities) {
        lock(&account.heard).insert(protocol, (Instant::now(), capabilities.clone()));
        let is_known = |record: Arc<vault::Account>| record.known.get(protocol.name()) == Some(&capabilities.0);
        if self.vault.account(&account.address).is_some_and(is_known) {
            return;
        }
        let (vault, address, list) = (Arc::clone(&self.vault), account.address.clone(), capabilities.0.clone());
        if let Err(error) = blocking(move || vault.learn(&address, protocol, list)).await {
            warn!(account = account.address, %error, "what the provider's server offers could not be noted");
        }
    }

    /// How to reach a provider; set up at its first use.
    pub fn reach(&self, provider: &str) -> Result<Arc<Reach>, Refusal> {
        let mut reaches = lock(&self.reaches);
        if let Some(reach) = reaches.get(provider) {
            return Ok(Arc::clone(reach));
        }
        let reach = Reach::new(&self.config(), provider).map_err(|why| Refusal::new(Reason::Forbidden, why))?;
        let reach = Arc::new(reach);
        reaches.insert(provider.to_owned(), Arc::clone(&reach));
        Ok(reach)
    }

    fn account(&self, address: &str, tokens: Arc<Tokens>) -> Result<Account, Refusal> {
        let record = self.vault.account(address).ok_or_else(Refusal::credentials)?;
        let reach = self.reach(&record.provider)?;
        let config = self.config();
        let configured = config.accounts.get(address);
        let client_id = record.client_id.clone().or_else(|| configured.and_then(|account| account.client_id.clone()));
        let client_id = client_id.or_else(|| reach.provider.client_id.clone()).unwrap_or_default();
        Ok(Account {
            address: address.to_owned(),
            user: configured.and_then(|account| account.user.clone()).unwrap_or_else(|| address.to_owned()),
            client_id,
            reach,
            tokens,
            heard: Mutex::default(),
        })
    }
}

/// Runs what waits for the disk or computes for long, off the threads that serve sessions.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(VaultError::Interrupted))
}

/// Everything behind these locks is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
