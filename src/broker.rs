//! The one owner of accounts and tokens: checks passwords, and hands out tokens that are fresh.

mod account;
mod attention;
mod forget;
mod measure;
mod patience;
mod reach;
mod reconfigure;
mod refresh;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::{Notify, Semaphore};
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
use crate::vault::{self, Authorization, Unlocked, Vault, VaultError};
use crate::wire::{Capabilities, Credentials, Reason, Refusal};
pub use account::{Account, Held, Presence};
use account::{Tokens, Wanted};
pub use forget::Withdrawal;
pub use reach::Reach;
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

/// Passwords that are remembered as checked; more than any user has. When there are more, all are checked anew.
const REMEMBERED: usize = 4096;

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
    derivations: Semaphore,
    refreshing: Semaphore,
    reaches: Mutex<HashMap<String, Arc<Reach>>>,
    metrics: Metrics,
    notifier: Notifier,
    /// Something may have to be told to a person.
    attention: Notify,
}

/// What passwords have opened.
#[derive(Default)]
struct Open {
    accounts: HashMap<String, Arc<Account>>,
    /// By fingerprint of address and password.
    checked: HashMap<[u8; 32], Arc<Account>>,
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
            derivations: Semaphore::new(DERIVATIONS),
            refreshing: Semaphore::new(REFRESHES as usize),
            reaches: Mutex::default(),
            metrics: Metrics::default(),
            notifier: Notifier::default(),
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

    /// Checks a password, always before anything else happens for the client. One that was right before costs an HMAC.
    pub async fn unlock(&self, credentials: &Credentials) -> Result<Arc<Account>, Refusal> {
        let address = credentials.user.to_lowercase();
        let fingerprint = self.fingerprint(&address, credentials.password.expose());
        let withdrawals = {
            let open = lock(&self.open);
            if let Some(account) = open.checked.get(&fingerprint) {
                return Ok(Arc::clone(account));
            }
            open.withdrawals
        };
        let password = Password::read(credentials.password.expose());
        let unlocked = self.open_vault(address.clone(), password).await.map_err(|error| refusal(&address, &error))?;
        let account = self.admit(&address, unlocked)?;
        let mut open = lock(&self.open);
        if open.withdrawals == withdrawals {
            if open.checked.len() >= REMEMBERED {
                open.checked.clear();
            }
            open.checked.insert(fingerprint, Arc::clone(&account));
        }
        Ok(account)
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
        // Sessions go on, with whatever token they began.
        let before = lock(&self.open).accounts.get(&authorization.address).cloned();
        let sessions = before.map(|account| Arc::clone(&account.tokens.sessions)).unwrap_or_default();
        // Its provider and its registration may be others now.
        self.forget(&authorization.address);
        let held = Held { tokens: authorization.tokens, generation, secrets: authorization.secrets };
        let account = Arc::new(self.account(&authorization.address, Tokens::new(held, sessions))?);
        lock(&self.open).accounts.insert(authorization.address, Arc::clone(&account));
        self.attention.notify_one();
        Ok(account)
    }

    /// Forgets which passwords of an account were right: one of them has been taken away. Its tokens stay: a refresh that
    /// is under way has to be the only one.
    pub fn withdraw(&self, address: &str) {
        let mut open = lock(&self.open);
        open.withdrawals += 1;
        open.checked.retain(|_, account| account.address != address);
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

    fn fingerprint(&self, address: &str, password: &[u8]) -> [u8; 32] {
        // A key of any length is fine for HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.fingerprint_key.expose()) else { return [0; 32] };
        // No address holds a NUL.
        mac.update(address.as_bytes());
        mac.update(&[0]);
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    async fn open_vault(&self, address: String, password: Password) -> Result<Unlocked, VaultError> {
        let _permit = if password.is_generated() { None } else { self.derivations.acquire().await.ok() };
        let vault = Arc::clone(&self.vault);
        blocking(move || vault.unlock(&address, &password)).await
    }

    /// The account that was opened: the one that is open already, unless the vault holds newer tokens.
    fn admit(&self, address: &str, unlocked: Unlocked) -> Result<Arc<Account>, Refusal> {
        let held = Held { tokens: unlocked.tokens, generation: unlocked.generation, secrets: unlocked.secrets };
        let tokens = Tokens::new(held, Arc::default());
        // Before the lock is held, for the first use of a provider takes a while.
        self.account(address, Arc::clone(&tokens))?;
        let mut open = lock(&self.open);
        if let Some(account) = open.accounts.get(address) {
            return Ok(Arc::clone(account));
        }
        // Again, for the configuration may be another one by now.
        let account = Arc::new(self.account(address, tokens)?);
        open.accounts.insert(address.to_owned(), Arc::clone(&account));
        Ok(account)
    }

    fn account(&self, address: &str, tokens: Arc<Tokens>) -> Result<Account, Refusal> {
        let record = self.vault.account(address).ok_or_else(Refusal::credentials)?;
        let reach = self.reach(&record.provider)?;
        let config = self.config();
        let configured = config.accounts.get(address);
        let client = match &record.client_id {
            // Its secret, if it has one, is kept with the tokens.
            Some(id) => Some(Client { id: id.clone(), authentication: ClientAuthentication::None }),
            None => config.client_for(address, &reach.provider),
        };
        Ok(Account {
            address: address.to_owned(),
            user: configured.and_then(|account| account.user.clone()).unwrap_or_else(|| address.to_owned()),
            endpoints: match &record.discovered {
                Some(discovered) => reach.provider.endpoints.or(&discovered.endpoints),
                None => reach.provider.endpoints.clone(),
            },
            flow: record.flow,
            client,
            reach,
            tokens,
            heard: Mutex::default(),
        })
    }
}

/// What the vault's answer is to a client.
fn refusal(address: &str, error: &VaultError) -> Refusal {
    match error {
        VaultError::WrongCredentials => Refusal::credentials(),
        error => {
            error!(account = address, %error, "the vault cannot be used");
            Refusal::new(Reason::Unavailable, "postkey's vault cannot be used; see its log.")
        }
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
