//! The one owner of accounts and tokens: checks passwords, and hands out tokens that are fresh.

mod account;
mod attention;
mod first_login;
mod forget;
pub mod guesses;
mod measure;
mod patience;
mod reach;
mod reconfigure;
mod refresh;
mod unlock;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::config::client::{Client, ClientAuthentication};
use crate::exit::Failed;
use crate::metrics::Metrics;
use crate::notify::{Notice, Notifier};
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::token::Use;
use crate::vault::password::Password;
use crate::vault::{self, Authorization, Vault, VaultError};
use crate::wire::{Capabilities, Reason, Refusal};
pub use account::{Account, Held, Presence};
use account::{Tokens, Wanted};
use first_login::FirstLogins;
pub use first_login::{Return, Unasked};
pub use forget::Withdrawal;
use guesses::{Fingerprint, Guesses};
pub use reach::Reach;
pub use unlock::Opened;
pub use upkeep::Condition;

/// How long a refresh is waited for while the token at hand still works: a new one is better, for it does not end soon, but
/// not at the price of a login.
const WHILE_ALIVE: Duration = Duration::from_secs(3);

/// The same while the token at hand is good for any login, and a new one would only make the session longer.
const WHILE_FRESH: Duration = Duration::from_secs(1);

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
    notifier: Notifier,
    first_logins: FirstLogins,
    /// Something may have to be told to a person.
    attention: Notify,
}

/// What passwords have opened.
#[derive(Default)]
struct Open {
    /// By address; those of a delegate and of the mailboxes that it opens are the same.
    accounts: HashMap<String, Arc<Account>>,
    /// By owner.
    tokens: HashMap<String, Arc<Tokens>>,
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
            notifier: Notifier::default(),
            first_logins: FirstLogins::default(),
            attention: Notify::new(),
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

    /// Tells a person, by the configuration's `notify_command`. Does not wait for it.
    pub fn tell(&self, notice: Notice) {
        self.notifier.tell(&self.config().notify_command, notice);
    }

    /// Runs `notify_command` whenever there is something to tell. Never ends.
    pub async fn serve_notices(&self) {
        self.notifier.serve().await;
    }

    /// The time now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A token good to log in with by this protocol. `refused` is the generation that the provider has just refused: it is not
    /// handed out again. However many ask, there is one refresh, and all get its outcome.
    pub async fn bearer(
        self: &Arc<Self>,
        account: &Arc<Account>,
        protocol: Protocol,
        refused: Option<u64>,
    ) -> Result<Arc<Held>, Refusal> {
        let (wanted, now) = (Wanted::For(account.usage(protocol)), self.clock.now());
        if let Some(held) = account.fresh(refused, wanted, now) {
            return Ok(held);
        }
        let refresh = self.begin_refresh(account, refused, wanted);
        let refreshed = match account.alive(refused, now) {
            Some(held) => {
                let patience = if held.tokens.life.is_fresh(Use::Login, now) { WHILE_FRESH } else { WHILE_ALIVE };
                timeout(patience, refresh).await.unwrap_or(Ok(Ok(held)))
            }
            None => refresh.await,
        };
        refreshed.unwrap_or_else(|_| Err(Refusal::new(Reason::Unavailable, "postkey has a defect; see its log.")))
    }

    /// Refreshes in a task of its own: a client that hangs up must not take a rotated refresh token with it.
    fn begin_refresh(
        self: &Arc<Self>,
        account: &Arc<Account>,
        refused: Option<u64>,
        wanted: Wanted,
    ) -> JoinHandle<Result<Arc<Held>, Refusal>> {
        let (broker, account) = (Arc::clone(self), Arc::clone(account));
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = broker.refreshing.acquire().await;
            broker.refresh(&account, refused, wanted).await
        })
    }

    /// The new token has worked: the one before it is not needed any more.
    pub fn worked(&self, account: &Account, generation: u64) {
        let (vault, address) = (Arc::clone(&self.vault), account.owner.clone());
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
        self.opened(authorization, generation)
    }

    /// Puts in a new account; one that is there stays as it is.
    async fn begin_account(
        &self,
        authorization: Authorization,
        (name, password): (&'static str, Password),
    ) -> Result<Arc<Account>, Failed> {
        let (vault, now) = (Arc::clone(&self.vault), self.clock.now());
        let (authorization, generation) = blocking(move || {
            vault.begin(&authorization, (name, &password), now).map(|generation| (authorization, generation))
        })
        .await?;
        self.opened(authorization, generation)
    }

    /// An authorization is in the vault: the account is open.
    fn opened(&self, authorization: Authorization, generation: u64) -> Result<Arc<Account>, Failed> {
        info!(account = authorization.address, "authorized");
        // Sessions go on, with whatever token they began.
        let before = lock(&self.open).tokens.get(&authorization.address).cloned();
        let sessions = before.map(|tokens| Arc::clone(&tokens.sessions)).unwrap_or_default();
        // Its provider and its registration may be others now.
        self.forget(&authorization.address);
        let held = Held { tokens: authorization.tokens, generation, secrets: authorization.secrets };
        let (address, tokens) = (authorization.address, Tokens::new(held, sessions));
        let account = Arc::new(self.account(&address, &address, Arc::clone(&tokens))?);
        let mut open = lock(&self.open);
        open.accounts.insert(address.clone(), Arc::clone(&account));
        open.tokens.insert(address, tokens);
        drop(open);
        self.attention.notify_one();
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

    /// A last try to write what is in memory only: with the end of the process it is lost.
    pub async fn write_last(&self) {
        if self.vault.trouble().is_none() {
            return;
        }
        let vault = Arc::clone(&self.vault);
        let _changed = blocking(move || Ok(vault.heal())).await;
        if let Some(trouble) = self.vault.trouble() {
            error!(why = trouble.why, "stopped without having written the newest tokens; a person may be needed");
        }
    }

    /// Forgets an account altogether, and those that its authorization opens.
    pub fn forget(&self, address: &str) {
        self.withdraw(address);
        let mut open = lock(&self.open);
        open.accounts.retain(|_, account| account.owner != address);
        open.tokens.remove(address);
    }

    /// One open account of each owner: what is done to its tokens is done for all accounts that they open.
    fn open_owners(&self) -> HashMap<String, Arc<Account>> {
        let open = lock(&self.open);
        open.accounts.values().map(|account| (account.owner.clone(), Arc::clone(account))).collect()
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
        if self.vault.account(&account.owner).is_some_and(is_known) {
            return;
        }
        let (vault, address, list) = (Arc::clone(&self.vault), account.owner.clone(), capabilities.0.clone());
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

    fn account(&self, address: &str, owner: &str, tokens: Arc<Tokens>) -> Result<Account, Refusal> {
        let record = self.vault.account(owner).ok_or_else(Refusal::credentials)?;
        let reach = self.reach(&record.provider)?;
        let config = self.config();
        let client = match &record.client_id {
            // Its secret, if it has one, is kept with the tokens.
            Some(id) => Some(Client { id: id.clone(), authentication: ClientAuthentication::None }),
            None => config.client_for(owner, &reach.provider),
        };
        let users = Protocol::ALL.map(|protocol| (protocol, config.user_of(address, protocol)));
        Ok(Account {
            address: address.to_owned(),
            owner: owner.to_owned(),
            users: users.into(),
            subject: config.user_of(owner, Protocol::Imap),
            endpoints: match &record.discovered {
                Some(discovered) => reach.provider.endpoints.or(&discovered.endpoints),
                None => reach.provider.endpoints.clone(),
            },
            flow: record.flow,
            client,
            scope: config.account(owner).scope.clone().unwrap_or_else(|| reach.provider.scope.clone()),
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
