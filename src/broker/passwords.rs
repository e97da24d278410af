//! App passwords: checks one, remembers that it was right, and notices when it no longer is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::account::OpenAccount;
use super::accounts::Accounts;
use super::context::{Context, Resolved, lock};
use super::guesses::{Check, CheckDecision, Fingerprint, Guesses, PasswordAttempt};
use super::tokens::CurrentTokens;
use crate::exit::Failed;
use crate::random;
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{Authorization, Slot, Unlocked, Vault, VaultError};
use crate::wire::{Reason, Refusal};

/// Checked passwords of an account that are remembered: more than anybody has. Beyond that the oldest is checked again.
const REMEMBERED: usize = 64;

/// The least time until a wrong password is answered. It hides how much of that was work, and a program that keeps trying an old
/// password costs little.
const NO: Duration = Duration::from_millis(200);

/// What an app password has opened.
#[derive(Clone)]
pub struct Opened {
    /// The account.
    pub account: Arc<OpenAccount>,
    /// The app password's place in the vault.
    pub slot: Arc<Slot>,
}

/// Checks app passwords, and remembers those that were right.
pub struct Passwords {
    context: Arc<Context>,
    accounts: Arc<Accounts>,
    /// The key of the fingerprints of checked passwords. It lives as long as this process.
    key: Secret,
    checked: Mutex<CheckedPasswords>,
    guesses: Arc<Guesses>,
    /// Something has changed about app passwords.
    withdrawn: watch::Sender<()>,
}

#[derive(Default)]
struct CheckedPasswords {
    /// By address, the passwords that were right and what they have opened, the oldest first.
    right: HashMap<String, VecDeque<(Fingerprint, Opened)>>,
    /// Grows when a password stops being valid, so that a check that was under way is not remembered.
    withdrawals: u64,
}

impl Passwords {
    pub(super) fn new(context: &Arc<Context>, accounts: &Arc<Accounts>) -> Self {
        Self {
            context: Arc::clone(context),
            accounts: Arc::clone(accounts),
            key: Secret::new(random::bytes::<32>().to_vec()),
            checked: Mutex::default(),
            guesses: Arc::default(),
            withdrawn: watch::Sender::default(),
        }
    }

    /// Checks a password, always before anything of the provider's is touched. One that was right before costs an HMAC.
    ///
    /// # Errors
    ///
    /// It is not right, or cannot be checked.
    pub async fn unlock(
        &self,
        login: &Resolved,
        password: &Secret,
        attempt: PasswordAttempt<'_>,
    ) -> Result<Opened, Refusal> {
        let (begun, password) = (Instant::now(), Password::read(password.expose()));
        // Of the form in which passwords are compared, because the same one can be typed in many ways.
        let fingerprint = self.fingerprint(&login.address, &Zeroizing::new(password.expose()));
        let withdrawals = {
            let checked = lock(&self.checked);
            if let Some(opened) = checked.get(&login.address, &fingerprint) {
                return Ok(opened);
            }
            checked.withdrawals
        };
        let opened = self.check(login, password, attempt, fingerprint, withdrawals).await;
        if opened.is_err() {
            sleep_until(begun + NO).await;
        }
        opened
    }

    /// Forgets which of an account's passwords were right, because one was added or removed. Its tokens stay, so that a refresh
    /// that is under way remains the only one.
    pub fn withdraw(&self, owner: &str) {
        lock(&self.checked).recheck(|opened| opened.account.owner != owner);
        self.guesses.forget_wrong();
        self.withdrawn.send_replace(());
    }

    /// Opens the account whose authorization has just been stored. Its passwords open what it is now.
    pub(super) fn begin(&self, authorization: Authorization, generation: u64) -> Result<Arc<OpenAccount>, Failed> {
        let owner = authorization.address.clone();
        let begun = self.accounts.begin(authorization, generation);
        self.withdraw(&owner);
        begun
    }

    /// Closes an account and those that its authorization opens. Afterwards, so that no login remembers what was open.
    pub fn close(&self, owner: &str) {
        self.accounts.close(owner);
        self.withdraw(owner);
    }

    /// Goes by a new configuration: a password that was right opens the account as it is now. One whose account is not open any
    /// more is checked when it comes again.
    pub(super) fn reconfigure(&self) {
        lock(&self.checked).recheck(|opened| match self.accounts.get(&opened.account.address) {
            Some(account) => {
                opened.account = account;
                true
            }
            None => false,
        });
    }

    /// Waits until an app password that was right opens its account no longer.
    pub async fn withdrawn(&self, opened: &Opened) {
        let mut changes = self.withdrawn.subscribe();
        let record = || self.context.vault.account(&opened.account.owner);
        while record().is_some_and(|record| record.has_slot(&opened.slot)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Has the vault check a password when it is its turn, and opens its account.
    async fn check(
        &self,
        Resolved { address, owner, .. }: &Resolved,
        password: Password,
        attempt: PasswordAttempt<'_>,
        fingerprint: Fingerprint,
        withdrawals: u64,
    ) -> Result<Opened, Refusal> {
        let check = if password.is_generated() {
            // Nobody guesses one, and checking it costs less than counting.
            None
        } else {
            let check = self.turn(attempt, &fingerprint).await?;
            // Another of the account's programs may have been right with it meanwhile.
            if let Some(opened) = lock(&self.checked).get(address, &fingerprint) {
                check.unneeded();
                return Ok(opened);
            }
            Some(check)
        };
        let unlocked = self.open_vault(owner.clone(), password, check).await;
        let Unlocked { tokens, generation, secrets, slot } = unlocked.map_err(|error| refusal(owner, &error))?;
        let account = self.accounts.admit(address, owner, CurrentTokens { tokens, generation, secrets })?;
        let opened = Opened { account, slot: Arc::new(slot) };
        let mut checked = lock(&self.checked);
        if checked.withdrawals == withdrawals {
            checked.remember(address, fingerprint, opened.clone());
        }
        Ok(opened)
    }

    /// Waits until it is a password's turn.
    async fn turn(&self, attempt: PasswordAttempt<'_>, fingerprint: &Fingerprint) -> Result<Check, Refusal> {
        let turn = tokio::select! {
            biased;
            turn = self.guesses.turn(attempt.source, fingerprint) => turn,
            () = attempt.gone => CheckDecision::TooMany,
        };
        let too_many = "Too many wrong passwords have come from here; try later.";
        match turn {
            CheckDecision::Yours(check) => Ok(check),
            CheckDecision::KnownWrong => Err(Refusal::credentials()),
            CheckDecision::TooMany => Err(Refusal::new(Reason::Limit, too_many)),
        }
    }

    fn fingerprint(&self, address: &str, password: &[u8]) -> Fingerprint {
        // A key of any length is fine for HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose()) else { return [0; 32] };
        // No address holds a NUL.
        mac.update(address.as_bytes());
        mac.update(&[0]);
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    /// Has the vault check a password. A check whose client has gone meanwhile goes on, and keeps its turn.
    async fn open_vault(
        &self,
        owner: String,
        password: Password,
        check: Option<Check>,
    ) -> Result<Unlocked, VaultError> {
        let unlock = move |vault: &Arc<Vault>| {
            let unlocked = vault.unlock(&owner, &password);
            match (&unlocked, check) {
                (Ok(_), Some(check)) => check.right(),
                (Err(VaultError::WrongCredentials), Some(check)) => check.wrong(),
                // Not known. It counts like a wrong one, so that nobody can find out at leisure which records are damaged.
                (_, check) => drop(check),
            }
            if unlocked.as_ref().is_ok_and(|unlocked| unlocked.slot.is_weak()) {
                let vault = Arc::clone(vault);
                // Once for each slot of an older version; this login does not wait for it.
                tokio::task::spawn_blocking(move || renew(&vault, &owner, &password));
            }
            unlocked
        };
        self.context.in_vault(unlock).await
    }
}

/// Brings an app password's slot into the format of today.
fn renew(vault: &Vault, address: &str, password: &Password) {
    if let Err(error) = vault.renew(address, password) {
        warn!(account = address, %error, "cannot renew the format of an app password of {address}: {error}");
    }
}

impl CheckedPasswords {
    /// What this password has opened since the start.
    fn get(&self, address: &str, fingerprint: &Fingerprint) -> Option<Opened> {
        let of_account = self.right.get(address)?;
        of_account.iter().find(|(checked, _)| checked == fingerprint).map(|(_, opened)| opened.clone())
    }

    fn remember(&mut self, address: &str, fingerprint: Fingerprint, opened: Opened) {
        let of_account = self.right.entry(address.to_owned()).or_default();
        if of_account.len() >= REMEMBERED {
            of_account.pop_front();
        }
        of_account.push_back((fingerprint, opened));
    }

    /// Keeps those only for which this holds; all others, and those that are being checked, are checked when they come again.
    fn recheck(&mut self, mut keeps: impl FnMut(&mut Opened) -> bool) {
        self.withdrawals += 1;
        self.right.retain(|_, of_account| {
            of_account.retain_mut(|(_, opened)| keeps(opened));
            !of_account.is_empty()
        });
    }
}

/// The vault's error in a client's terms.
fn refusal(address: &str, error: &VaultError) -> Refusal {
    match error {
        VaultError::WrongCredentials => Refusal::credentials(),
        // The password cannot be checked, which is not the same as a wrong one: for that programs ask their user. The log has
        // damaged records when postkey starts, and with each refused login that it has room for: strangers can bring many.
        VaultError::Damaged(_) | VaultError::Newer(_) | VaultError::NoMemory => {
            if matches!(error, VaultError::NoMemory) {
                error!(account = address, %error, "cannot check an app password of {address}: {error}");
            }
            Refusal::new(Reason::Unavailable, format!("postkey cannot check this password: {error}."))
        }
        error => {
            error!(account = address, %error, "cannot use the vault for {address}: {error}");
            Refusal::new(Reason::Unavailable, "postkey's vault cannot be used; see its log.")
        }
    }
}
