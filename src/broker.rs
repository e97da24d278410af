//! The one owner of accounts and tokens: checks passwords, and hands out fresh tokens.
//!
//! The broker is composed of parts. Each part owns its state, and has its own file. `context.rs` has what they share. What
//! concerns several parts is here.

mod account;
mod accounts;
mod census;
mod context;
mod first_login;
pub mod guesses;
mod journal;
pub mod metrics;
mod notices;
mod opening;
mod passwords;
mod pauses;
mod refresh;
mod refresh_permits;
mod refresh_turn;
mod state;
mod status;
mod throttle;
mod tokens;
mod upkeep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::secret_source::SecretSource;
use crate::config::{Config, Relations};
use crate::exit::Failed;
use crate::oauth::revocation::revoke;
use crate::vault::password::Password;
use crate::vault::{Authorization, StoredAccount, Vault};
pub use account::{Connector, OpenAccount, Presence, TokenAttempt};
pub use accounts::Accounts;
pub use census::Census;
pub use context::{Context, Resolved};
pub use first_login::{Authorized, Confirmation, FirstLogins, Refused};
pub use journal::{LoginJournal, LoginRecord};
use metrics::{Figures, Metrics};
use notices::Notices;
pub use opening::{migrate, open_database, open_vault};
pub use passwords::{Opened, Passwords};
pub use refresh::Refresher;
pub use state::PastFailure;
use state::TokenState;
use status::idle_end;
pub use status::{AccountState, AccountStatus, Selection, SlotStatus};
pub use throttle::{Backoff, ConnectionPermit, Occupancy, Throttle};
pub use tokens::CurrentTokens;

/// The first pause after a failed write before the vault tries again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause, and so the longest time until a disk that has space again is used.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How long a provider may take to revoke both tokens. A person waits.
const REVOCATION: Duration = Duration::from_secs(20);

pub struct Broker {
    pub context: Arc<Context>,
    pub accounts: Arc<Accounts>,
    pub passwords: Arc<Passwords>,
    pub refresher: Arc<Refresher>,
    pub throttle: Throttle,
    pub metrics: Arc<Metrics>,
    pub first_logins: Arc<FirstLogins>,
    pub journal: LoginJournal,
    notices: Arc<Notices>,
}

/// The outcome of a forgotten account's authorization at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Withdrawal {
    /// It is revoked.
    Done,
    /// It is still valid, because the provider has no revocation endpoint.
    Unsupported,
    /// It is still valid, because its tokens are sealed and no app password was given.
    Sealed,
    /// It is still valid; why.
    Failed(String),
}

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("is revoked"),
            Self::Unsupported => f.write_str("is still valid, because the provider offers no revocation endpoint"),
            Self::Sealed => f.write_str("is still valid, because no app password opened its tokens"),
            Self::Failed(why) => write!(f, "is still valid: {why}"),
        }
    }
}

impl Broker {
    /// `stores_first` is for a process that ends soon: before each refresh, it checks that new tokens can be stored, because
    /// nothing that is only in memory would survive.
    pub fn new(config: Arc<Config>, vault: Vault, clock: Clock, stores_first: bool) -> Self {
        let context = Context::new(config, vault, clock);
        let (accounts, metrics) = (Arc::new(Accounts::new(&context)), Arc::new(Metrics::default()));
        let (passwords, notices) = (Arc::new(Passwords::new(&context, &accounts)), Arc::new(Notices::new(&context)));
        Self {
            refresher: Arc::new(Refresher::new(&context, &metrics, &notices, &passwords, stores_first)),
            throttle: Throttle::new(&context),
            first_logins: Arc::new(FirstLogins::new(&context, &accounts, &passwords, &notices)),
            journal: LoginJournal::default(),
            context,
            accounts,
            passwords,
            metrics,
            notices,
        }
    }

    pub fn config(&self) -> Arc<Config> {
        self.context.config()
    }

    /// Finds out what a login name stands for. Each login does this once.
    pub fn resolve(&self, name: &str) -> Resolved {
        self.context.resolve(name)
    }

    /// Makes the next refresh and the next login of an account try at once, whatever failed before, because a person wants to
    /// see whether it works now.
    pub fn retry_now(&self, account: &OpenAccount) {
        account.tokens.change(TokenState::retry_now);
        self.throttle.forget_backoff(&account.address);
    }

    /// Stores a new authorization, and opens the account. `first` is the name and the first app password of a new account.
    ///
    /// # Errors
    ///
    /// The vault cannot store it, or the configuration lacks its provider.
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
        let account = self.passwords.open_authorized(authorization, generation)?;
        self.notices.review(&account.owner);
        Ok(account)
    }

    /// Forgets an account: first here, and then revokes its authorization at the provider with the tokens that are still in
    /// memory. A failure there is only reported. `opened` is the account if a password has just opened it.
    ///
    /// # Errors
    ///
    /// The account is still in the vault.
    pub async fn forget_account(&self, address: &str, opened: Option<Arc<OpenAccount>>) -> Result<Withdrawal, Failed> {
        let account = opened.or_else(|| self.accounts.by_owner().remove(address));
        // A refresh that is under way may bring the token that has to be revoked.
        let guard = match &account {
            Some(account) => Some(account.tokens.block_refresh().await),
            None => None,
        };
        let (can_revoke, of) = (self.can_revoke(address), address.to_owned());
        let forgotten = self.context.in_vault(move |vault| vault.forget(&of)).await;
        self.passwords.close(address);
        forgotten?;
        let withdrawal = match &account {
            _ if !can_revoke => Withdrawal::Unsupported,
            None => Withdrawal::Sealed,
            Some(account) => self.revoke(account).await,
        };
        drop(guard);
        info!(account = address, ?withdrawal, "{address} forgotten; its authorization at the provider {withdrawal}");
        Ok(withdrawal)
    }

    /// Whether the provider of an account is known to have a revocation endpoint.
    fn can_revoke(&self, address: &str) -> bool {
        let Some(record) = self.context.vault.account(address) else { return false };
        let discovered = record.discovered.as_ref().is_some_and(|found| found.endpoints.revocation.is_some());
        discovered
            || self.config().providers.get(&record.provider).is_some_and(|one| one.endpoints.revocation.is_some())
    }

    async fn revoke(&self, account: &OpenAccount) -> Withdrawal {
        let Some(endpoint) = &account.endpoints.revocation else { return Withdrawal::Unsupported };
        let (current, http) = (account.tokens.current(), &account.connector.http);
        let revoked = async {
            let registration = account.registration(&current).await?;
            revoke(http, &registration, endpoint, &current.tokens, &self.context.clock).await
        };
        match timeout(REVOCATION, revoked).await {
            Ok(Ok(())) => Withdrawal::Done,
            Ok(Err(failure)) => {
                warn!(account = account.address, %failure, "cannot revoke the authorization of {}: {failure}", account.address);
                Withdrawal::Failed(failure.to_string())
            }
            Err(_) => Withdrawal::Failed(format!("the provider did not answer within {} s", REVOCATION.as_secs())),
        }
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    ///
    /// A provider that is in use cannot be set up. The old configuration stays.
    pub async fn reconfigure(&self, config: Config) -> Result<(), Failed> {
        self.accounts.reconfigure(config).await?;
        self.passwords.reconfigure();
        self.throttle.reconfigure();
        Ok(())
    }

    /// The client registration that a person has typed for another account of this provider. One with a secret is known
    /// only while that account is open.
    pub fn typed_client(&self, provider: &str) -> Option<ClientRegistration> {
        let is_typed = |record: &StoredAccount| {
            record.provider == provider && !record.discovered.as_ref().is_some_and(|found| found.is_self_registered)
        };
        self.context.vault.accounts().iter().filter(|record| is_typed(record)).find_map(|record| {
            let id = record.client_id.clone()?;
            if !record.has_client_secret() {
                return Some(ClientRegistration { id, authentication: ClientAuthentication::None });
            }
            let secret = self.accounts.tokens_of(&record.address)?.current().secrets.client_secret.clone()?;
            let authentication = ClientAuthentication::Secret(SecretSource::Text(secret));
            Some(ClientRegistration { id, authentication })
        })
    }

    /// The status of all accounts that are selected, by address.
    pub fn statuses(&self, selection: &Selection) -> Vec<AccountStatus> {
        let (config, now) = (self.config(), Instant::now());
        let relations = Relations::of(&config);
        let records = self.selected(selection);
        records
            .iter()
            .map(|record| self.status(record, &relations, now))
            .filter(|one| selection.has_state(one))
            .collect()
    }

    /// The records of the accounts that are selected, without regard to their state.
    fn selected(&self, selection: &Selection) -> Vec<Arc<StoredAccount>> {
        let vault = &self.context.vault;
        let records = match &selection.address {
            Some(name) => vault.account(&self.resolve(name).owner).into_iter().collect(),
            None => vault.accounts(),
        };
        let is_wanted = |record: &Arc<StoredAccount>| selection.has_provider(&record.provider);
        records.into_iter().filter(is_wanted).collect()
    }

    /// The status of the account or shared mailbox with this address.
    pub fn status_of(&self, address: &str) -> Option<AccountStatus> {
        let (config, now) = (self.config(), Instant::now());
        let owner = self.context.vault.account(&self.resolve(address).owner)?;
        let status = self.status(&owner, &Relations::of(&config), now);
        Some(if owner.address == address { status } else { self.shared(&status, address, now) })
    }

    fn status(&self, record: &StoredAccount, relations: &Relations, now: Instant) -> AccountStatus {
        let status = self.status_of_tokens(record);
        let (aliases, mailboxes) = (relations.aliases_of(&status.address), relations.shared_with(&status.address));
        self.throttled(AccountStatus { aliases, mailboxes, ..status }, now)
    }

    fn status_of_tokens(&self, record: &StoredAccount) -> AccountStatus {
        AccountStatus::new(record, &self.config(), self.accounts.tokens_of(&record.address).as_deref())
    }

    /// The status of a shared mailbox: it has its delegate's tokens, and connections of its own.
    fn shared(&self, delegate: &AccountStatus, address: &str, now: Instant) -> AccountStatus {
        let name = Some(delegate.address.clone());
        self.throttled(AccountStatus { address: address.to_owned(), delegate: name, ..delegate.clone() }, now)
    }

    fn throttled(&self, status: AccountStatus, now: Instant) -> AccountStatus {
        let connections = self.throttle.occupancies(&status.address);
        AccountStatus { connections, backoff: self.throttle.backoff(&status.address, now), ..status }
    }

    /// The accounts in numbers. It costs little enough to be asked every few seconds.
    pub fn census(&self) -> Census {
        let (config, vault) = (self.config(), &self.context.vault);
        let mut census = Census { is_degraded: vault.trouble().is_some(), ..Census::default() };
        for record in vault.accounts() {
            let tokens = self.accounts.tokens_of(&record.address);
            let needs = tokens.is_some_and(|tokens| tokens.read(|state| state.needed().is_some()));
            census.count(&record, AccountState::of(&record, needs), idle_end(&config, &record));
        }
        vault.damaged().iter().for_each(|address| census.damaged.add(address));
        census
    }

    /// The metrics, and figures of the accounts, in the text form of Prometheus. There is a series for each account and each
    /// shared mailbox only if the configuration wants that.
    pub fn metrics_text(&self) -> String {
        let mut each = Vec::new();
        if self.config().metrics_accounts {
            let now = Instant::now();
            each = self.statuses(&Selection::default());
            let shared = |account: &AccountStatus| -> Vec<_> {
                account.mailboxes.iter().map(|address| self.shared(account, address, now)).collect()
            };
            each.extend(each.iter().flat_map(shared).collect::<Vec<_>>());
        }
        let connections = self.throttle.totals();
        let clients = self.notices.client_expiries();
        self.metrics.text(&Figures { census: &self.census(), connections, each: &each, clients }, self.context.now())
    }

    /// Refreshes tokens when they are due. Never returns.
    pub async fn keep_alive(self: Arc<Self>) {
        upkeep::run(&self.context, &self.accounts, &self.refresher).await;
    }

    /// Queues notices when the accounts' status changes. Never returns.
    pub async fn watch(self: Arc<Self>) {
        self.notices
            .watch(
                |owner| Some(self.status_of_tokens(&*self.context.vault.account(owner)?)),
                || self.metrics.certificate_expiries(),
            )
            .await;
    }

    /// Runs `notify_command` for each notice. Never returns.
    pub async fn serve_notices(self: Arc<Self>) {
        self.notices.serve().await;
    }

    /// Brings the vault back to stable storage after a failed write, as soon as the disk allows it. Never returns.
    pub async fn keep_stable(self: Arc<Self>) {
        loop {
            self.context.vault.troubled().await;
            let mut pause = FIRST_PAUSE;
            while self.context.vault.trouble().is_some() {
                let changed = self.context.in_vault(|vault| Ok(vault.heal())).await.unwrap_or_default();
                changed.iter().for_each(|address| self.passwords.close(address));
                let _change = timeout(pause, self.context.vault.troubled()).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Follows what other replicas change in the vault. Never returns.
    pub async fn follow(self: Arc<Self>) {
        loop {
            for (address, before) in self.context.vault.foreign_changes().await {
                self.follow_change(&address, before.as_deref());
            }
        }
    }

    /// Another replica has changed this account, which was `before` here.
    fn follow_change(&self, address: &str, before: Option<&StoredAccount>) {
        let now = self.context.vault.account(address);
        match before.zip(now) {
            Some((before, now)) if now.continues(before) => {
                self.passwords.follow_tokens(address);
                if !now.has_slots_of(before) {
                    self.passwords.follow_slots(address);
                }
            }
            // There is no account any more, or a person has authorized it again.
            _ => self.passwords.close(address),
        }
        self.notices.review(address);
    }

    /// Tries a last time to write what is only in memory, because it is lost when the process ends.
    pub async fn write_last(&self) {
        if self.context.vault.has_unsaved() {
            self.write_unsaved().await;
        }
        let _left = self.context.in_vault(|vault| vault.leave()).await;
    }

    async fn write_unsaved(&self) {
        let _changed = self.context.in_vault(|vault| Ok(vault.heal())).await;
        if let Some(trouble) = self.context.vault.trouble().filter(|_| self.context.vault.has_unsaved()) {
            error!(
                why = trouble.why,
                "stopped without the newest tokens on stable storage: {}; run `postkey status` after the next start",
                trouble.why
            );
        }
    }
}
