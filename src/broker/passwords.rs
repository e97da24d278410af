//! Checks app passwords, remembers which were correct, and notices when one is removed.

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
use super::context::{Context, Resolved};
use super::guesses::{Check, CheckDecision, Fingerprint, Guesses, PasswordAttempt};
use super::tokens::CurrentTokens;
use crate::exit::Failed;
use crate::mutex::lock;
use crate::random;
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{Authorization, Slot, Unlocked, Vault, VaultError};
use crate::wire::{Reason, Refusal};

/// How many correct passwords of an account are remembered: more than anybody has. Beyond that, the oldest is checked again.
const REMEMBERED: usize = 64;

/// The least time until the answer to a wrong password. It hides how long the check took, and makes a program that keeps trying
/// an old password cost little.
const REFUSAL_DELAY: Duration = Duration::from_millis(200);

/// An account opened by an app password, and its slot in the vault.
#[derive(Clone)]
pub struct Opened {
    pub account: Arc<OpenAccount>,
    pub slot: Arc<Slot>,
}

/// Checks app passwords, and remembers the correct ones.
pub struct Passwords {
    context: Arc<Context>,
    accounts: Arc<Accounts>,
    /// The key of the fingerprints of passwords, which this process never stores.
    key: Secret,
    checked: Mutex<CheckedPasswords>,
    guesses: Arc<Guesses>,
    /// App passwords were added or removed.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct CheckedPasswords {
    /// By address, the correct passwords and what they have opened, the oldest first.
    correct: HashMap<String, VecDeque<(Fingerprint, Opened)>>,
    /// Incremented when a password stops being valid, so that the result of a check that was under way is not remembered.
    rechecks: u64,
}

impl Passwords {
    pub(super) fn new(context: &Arc<Context>, accounts: &Arc<Accounts>) -> Self {
        Self {
            context: Arc::clone(context),
            accounts: Arc::clone(accounts),
            key: Secret::new(random::bytes::<32>().to_vec()),
            checked: Mutex::default(),
            guesses: Arc::default(),
            changed: watch::Sender::default(),
        }
    }

    /// Checks a password, always before the provider is contacted. One that was correct before costs an HMAC.
    ///
    /// # Errors
    ///
    /// It is wrong, or cannot be checked.
    pub async fn unlock(
        &self,
        login: &Resolved,
        password: &Secret,
        attempt: PasswordAttempt<'_>,
    ) -> Result<Opened, Refusal> {
        let (begun, password) = (Instant::now(), Password::read(password.expose()));
        // Of the normalized form, because the same password can be typed in many ways.
        let fingerprint = self.fingerprint(&login.address, &Zeroizing::new(password.expose()));
        let rechecks = {
            let checked = lock(&self.checked);
            if let Some(opened) = checked.get(&login.address, &fingerprint) {
                return Ok(opened);
            }
            checked.rechecks
        };
        let opened = self.check(login, password, attempt, fingerprint, rechecks).await;
        if opened.is_err() {
            sleep_until(begun + REFUSAL_DELAY).await;
        }
        opened
    }

    /// Forgets which passwords of an owner's accounts were correct, because one was added or removed. The tokens stay, so that a
    /// refresh that is under way remains the only one.
    pub fn forget_correct(&self, owner: &str) {
        lock(&self.checked).recheck(|opened| opened.account.owner != owner);
        self.guesses.forget_wrong();
        self.changed.send_replace(());
    }

    /// Forgets which passwords of an owner's accounts were correct if they are no longer, because another replica has added
    /// or removed some.
    pub(super) fn follow_slots(&self, owner: &str) {
        let record = self.context.vault.account(owner);
        let is_there = |opened: &Opened| record.as_ref().is_some_and(|record| record.has_slot(&opened.slot));
        lock(&self.checked).recheck(|opened| opened.account.owner != owner || is_there(opened));
        self.guesses.forget_wrong();
        self.changed.send_replace(());
    }

    /// Takes an account's newer tokens into use, which another replica has stored. If its passwords have to be checked again
    /// for that, closes it. Returns whether it is still open.
    pub(super) fn follow_tokens(&self, owner: &str) -> bool {
        let is_open = self.accounts.follow(owner);
        if !is_open {
            self.close(owner);
        }
        is_open
    }

    /// Opens the account whose authorization has just been stored, and makes its passwords open it as it is now.
    pub(super) fn open_authorized(
        &self,
        authorization: Authorization,
        generation: u64,
    ) -> Result<Arc<OpenAccount>, Failed> {
        let owner = authorization.address.clone();
        let opened = self.accounts.open_authorized(authorization, generation);
        self.forget_correct(&owner);
        opened
    }

    /// Closes all accounts of an owner. The passwords are forgotten after that, so that no login remembers a closed account.
    pub fn close(&self, owner: &str) {
        self.accounts.close(owner);
        self.forget_correct(owner);
    }

    /// After a reload: a correct password opens the account as it is now. If the account is no longer open, the password is checked
    /// again.
    pub(super) fn reconfigure(&self) {
        lock(&self.checked).recheck(|opened| {
            let account = self.accounts.get(&opened.account.address);
            account.map(|account| opened.account = account).is_some()
        });
    }

    /// Waits until an app password no longer opens its account.
    pub async fn removed(&self, opened: &Opened) {
        let mut changes = self.changed.subscribe();
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
        mut attempt: PasswordAttempt<'_>,
        fingerprint: Fingerprint,
        rechecks: u64,
    ) -> Result<Opened, Refusal> {
        let check = if password.is_generated() {
            // Nobody can guess one, and checking it costs less than counting.
            None
        } else {
            let check = self.turn(&mut attempt, &fingerprint).await?;
            // Another connection may have logged in with it in the meantime.
            if let Some(opened) = lock(&self.checked).get(address, &fingerprint) {
                check.not_needed();
                return Ok(opened);
            }
            Some(check)
        };
        let unlocked = self.open_vault(owner.clone(), password, check).await;
        let (current, slot) = CurrentTokens::of(unlocked.map_err(|error| refusal(owner, &error))?);
        let account = self.accounts.open(address, owner, current)?;
        let opened = Opened { account, slot: Arc::new(slot) };
        let mut checked = lock(&self.checked);
        if checked.rechecks == rechecks {
            checked.remember(address, fingerprint, opened.clone());
        }
        Ok(opened)
    }

    /// Waits until a password for an address without an account may be derived.
    pub(super) async fn turn_of(
        &self,
        address: &str,
        password: &Password,
        attempt: &mut PasswordAttempt<'_>,
    ) -> Result<Check, Refusal> {
        self.turn(attempt, &self.fingerprint(address, &Zeroizing::new(password.expose()))).await
    }

    /// Waits until this password may be checked.
    async fn turn(&self, attempt: &mut PasswordAttempt<'_>, fingerprint: &Fingerprint) -> Result<Check, Refusal> {
        self.guesses.share_with(self.context.vault.replicas());
        let turn = tokio::select! {
            biased;
            turn = self.guesses.wait_for_turn(attempt.source, fingerprint) => turn,
            () = &mut attempt.gone => CheckDecision::TooMany,
        };
        let too_many = "There were too many wrong passwords from this address; try later.";
        match turn {
            CheckDecision::Allowed(check) => Ok(check),
            CheckDecision::KnownWrong => Err(Refusal::credentials()),
            CheckDecision::TooMany => Err(Refusal::new(Reason::Limit, too_many)),
        }
    }

    fn fingerprint(&self, address: &str, password: &[u8]) -> Fingerprint {
        // A key of any length is fine for HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose()) else { return [0; 32] };
        // No address contains a NUL.
        mac.update(address.as_bytes());
        mac.update(&[0]);
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    /// Checks a password in the vault. If the client disconnects, the check continues, and keeps its turn.
    async fn open_vault(
        &self,
        owner: String,
        password: Password,
        check: Option<Check>,
    ) -> Result<Unlocked, VaultError> {
        let unlock = move |vault: &Arc<Vault>| {
            let unlocked = vault.unlock(&owner, &password);
            match (&unlocked, check) {
                (Ok(_), Some(check)) => check.correct(),
                (Err(VaultError::WrongCredentials), Some(check)) => check.wrong(),
                // It could not be checked. That counts as wrong, so that nobody can find out quickly which records are damaged.
                (_, check) => drop(check),
            }
            if unlocked.as_ref().is_ok_and(|unlocked| unlocked.slot.is_weak()) {
                let vault = Arc::clone(vault);
                // Once for each slot of an older version. This login does not wait for it.
                tokio::task::spawn_blocking(move || renew(&vault, &owner, &password));
            }
            unlocked
        };
        self.context.in_vault(unlock).await
    }
}

/// Converts an app password's slot to the current format.
fn renew(vault: &Vault, address: &str, password: &Password) {
    if let Err(error) = vault.renew(address, password) {
        warn!(account = address, %error, "cannot convert an app password of {address}: {error}");
    }
}

impl CheckedPasswords {
    fn get(&self, address: &str, fingerprint: &Fingerprint) -> Option<Opened> {
        let of_account = self.correct.get(address)?;
        of_account.iter().find(|(checked, _)| checked == fingerprint).map(|(_, opened)| opened.clone())
    }

    fn remember(&mut self, address: &str, fingerprint: Fingerprint, opened: Opened) {
        let of_account = self.correct.entry(address.to_owned()).or_default();
        if of_account.len() >= REMEMBERED {
            of_account.pop_front();
        }
        of_account.push_back((fingerprint, opened));
    }

    /// Forgets the passwords for which `keeps` is false, and the results of all checks that are under way.
    fn recheck(&mut self, mut keeps: impl FnMut(&mut Opened) -> bool) {
        self.rechecks += 1;
        self.correct.retain(|_, of_account| {
            of_account.retain_mut(|(_, opened)| keeps(opened));
            !of_account.is_empty()
        });
    }
}

/// The answer to a client for an error of the vault.
fn refusal(address: &str, error: &VaultError) -> Refusal {
    match error {
        VaultError::WrongCredentials => Refusal::credentials(),
        // Mail programs ask their user for another password if it is wrong, but not if it cannot be checked. Damaged records are
        // logged at the start and with refused logins, but not here, because strangers could fill the log.
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
