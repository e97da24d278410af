//! The one owner of accounts and tokens: checks passwords, and hands out tokens that are fresh.
//!
//! The broker is composed of parts. Each owns its state and is a file of its own; `context.rs` is what all of them share.

mod account;
mod accounts;
mod connector;
mod context;
mod first_login;
mod forget;
pub mod guesses;
pub mod metrics;
mod notices;
mod passwords;
mod patience;
mod refresh;
mod showing;
mod state;
mod status;
mod throttle;
mod tokens;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::error;

use crate::clock::Clock;
use crate::config::Config;
use crate::exit::Failed;
use crate::vault::password::Password;
use crate::vault::{self, Authorization, Vault};
pub use account::{OpenAccount, Presence};
pub use accounts::Accounts;
pub use connector::Connector;
pub use context::{Context, Resolved};
pub use first_login::{Authorized, Confirmation, FirstLogins, Refused};
pub use forget::Withdrawal;
use metrics::Metrics;
use notices::Notices;
pub use passwords::{Opened, Passwords};
pub use refresh::Refresher;
pub use showing::Showing;
pub use state::PastFailure;
use state::TokenState;
pub use status::{AccountState, AccountStatus, SlotStatus};
pub use throttle::{Backoff, ConnectionPermit, Occupancy, Throttle};
pub use tokens::CurrentTokens;

/// How soon after a failed write the next one is tried, without a change that asks for it.
const HEAL_SOON: Duration = Duration::from_millis(500);

/// The longest pause between two tries, and so the longest that a disk with space again is not used.
const HEAL_LATE: Duration = Duration::from_secs(4);

/// Owns the vault, and what has been taken out of it since the start.
pub struct Broker {
    /// The configuration, the vault and the clock.
    pub context: Arc<Context>,
    /// The open accounts.
    pub accounts: Arc<Accounts>,
    /// The check of app passwords.
    pub passwords: Arc<Passwords>,
    /// The refresh of tokens.
    pub refresher: Arc<Refresher>,
    /// The limits that providers set.
    pub throttle: Throttle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// First logins to addresses that a person has yet to authorize.
    pub first_logins: Arc<FirstLogins>,
    notices: Arc<Notices>,
}

impl Broker {
    /// A broker for this vault. `stores_first` is for a process that ends soon, and with it what could not be written: before
    /// each refresh it makes sure that the outcome can be stored.
    pub fn new(config: Arc<Config>, vault: Vault, clock: Clock, stores_first: bool) -> Self {
        let context = Context::new(config, vault, clock);
        let (accounts, metrics) = (Arc::new(Accounts::new(&context)), Arc::new(Metrics::default()));
        let (passwords, notices) = (Arc::new(Passwords::new(&context, &accounts)), Arc::new(Notices::new(&context)));
        Self {
            refresher: Arc::new(Refresher::new(&context, &metrics, &notices, stores_first)),
            throttle: Throttle::new(&context),
            first_logins: Arc::new(FirstLogins::new(&context, &accounts, &passwords, &notices)),
            context,
            accounts,
            passwords,
            metrics,
            notices,
        }
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        self.context.config()
    }

    /// What a login name stands for now. Each login asks once.
    pub fn resolve(&self, name: &str) -> Resolved {
        self.context.resolve(name)
    }

    /// Has the next refresh and the next login of an account tried, whatever was before: a person wants to see whether it works
    /// now.
    pub fn insist(&self, account: &OpenAccount) {
        account.tokens.change(TokenState::insisted);
        self.throttle.forget_backoff(&account.address);
    }

    /// Puts in what a person's authorization has brought; the account is open then. `first` is the first app password of a new
    /// account, with its name.
    ///
    /// # Errors
    ///
    /// The vault does not take it, or the configuration lacks its provider.
    pub async fn authorize(
        &self,
        authorization: Authorization,
        first: Option<(String, Password)>,
    ) -> Result<Arc<OpenAccount>, Failed> {
        let now = self.context.now();
        let authorize = move |vault: &Arc<Vault>| {
            let first = first.as_ref().map(|(name, password)| (name.as_str(), password));
            vault.authorize(&authorization, first, now).map(|generation| (authorization, generation))
        };
        let (authorization, generation) = self.context.in_vault(authorize).await?;
        let account = self.passwords.begin(authorization, generation)?;
        self.notices.review();
        Ok(account)
    }

    /// Removes an account altogether, and revokes its authorization at the provider where that can be done. `opened` is the
    /// account where a password has just opened it.
    ///
    /// # Errors
    ///
    /// It is still in the vault.
    pub async fn forget_account(&self, address: &str, opened: Option<Arc<OpenAccount>>) -> Result<Withdrawal, Failed> {
        forget::forget(&self.context, &self.accounts, &self.passwords, address, opened).await
    }

    /// Goes by a new configuration from now on, or stays with the old one.
    ///
    /// # Errors
    ///
    /// What is wrong with a provider that is in use.
    pub async fn reconfigure(&self, config: Config) -> Result<(), Failed> {
        self.accounts.reconfigure(config).await?;
        self.passwords.reconfigure();
        self.throttle.reconfigure();
        Ok(())
    }

    /// How all accounts are, by address.
    pub fn statuses(&self) -> Vec<AccountStatus> {
        self.context.vault.accounts().iter().map(|record| self.status(record)).collect()
    }

    /// How the account or the shared mailbox of this address is.
    pub fn status_of(&self, address: &str) -> Option<AccountStatus> {
        let owner = self.context.vault.account(&self.resolve(address).owner)?;
        let status = self.status(&owner);
        Some(if owner.address == address { status } else { self.shared(&status, address) })
    }

    fn status(&self, record: &vault::StoredAccount) -> AccountStatus {
        let (config, status) = (self.config(), self.of_tokens(record));
        let (aliases, mailboxes) = (config.aliases_of(&status.address), config.shared_with(&status.address));
        self.throttled(AccountStatus { aliases, mailboxes, ..status })
    }

    fn of_tokens(&self, record: &vault::StoredAccount) -> AccountStatus {
        AccountStatus::new(record, &self.config(), self.accounts.tokens_of(&record.address).as_deref())
    }

    /// A shared mailbox of an account: the tokens are the same, the connections are its own.
    fn shared(&self, account: &AccountStatus, address: &str) -> AccountStatus {
        let delegate = Some(account.address.clone());
        self.throttled(AccountStatus { address: address.to_owned(), delegate, ..account.clone() })
    }

    fn throttled(&self, status: AccountStatus) -> AccountStatus {
        let connections = self.throttle.occupancies(&status.address);
        AccountStatus { connections, backoff: self.throttle.backoff(&status.address), ..status }
    }

    /// What is counted, and how all accounts and shared mailboxes are, in the text form of Prometheus.
    pub fn metrics_text(&self) -> String {
        let mut all = self.statuses();
        let shared = |account: &AccountStatus| -> Vec<_> {
            account.mailboxes.iter().map(|address| self.shared(account, address)).collect()
        };
        all.extend(all.iter().flat_map(shared).collect::<Vec<_>>());
        self.metrics.text(&all, self.context.now())
    }

    /// Refreshes whatever is due, whenever it is due. Never ends.
    pub async fn keep_alive(self: Arc<Self>) {
        upkeep::run(&self.context, &self.accounts, &self.refresher).await;
    }

    /// Notifies people of whatever is news about the accounts. Never ends.
    pub async fn watch(self: Arc<Self>) {
        self.notices
            .watch(|| self.context.vault.accounts().iter().map(|record| self.of_tokens(record)).collect())
            .await;
    }

    /// Runs `notify_command` for each notice. Never ends.
    pub async fn serve_notices(self: Arc<Self>) {
        self.notices.serve().await;
    }

    /// Brings the vault back to stable storage whenever it has lost it, as soon as the disk lets it. Never ends.
    pub async fn keep_stable(self: Arc<Self>) {
        loop {
            self.context.vault.troubled().await;
            let mut pause = HEAL_SOON;
            while self.context.vault.trouble().is_some() {
                let changed = self.context.in_vault(|vault| Ok(vault.heal())).await.unwrap_or_default();
                changed.iter().for_each(|address| self.passwords.close(address));
                let _change = timeout(pause, self.context.vault.troubled()).await;
                pause = (pause * 2).min(HEAL_LATE);
            }
        }
    }

    /// A last try to write what is in memory only: with the end of the process it is lost.
    pub async fn write_last(&self) {
        if self.context.vault.trouble().is_none() {
            return;
        }
        let _changed = self.context.in_vault(|vault| Ok(vault.heal())).await;
        if let Some(trouble) = self.context.vault.trouble() {
            error!(
                why = trouble.why,
                "stopped without the newest tokens on stable storage: {}; run `postkey status` after the next start",
                trouble.why
            );
        }
    }
}
