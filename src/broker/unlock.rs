//! App passwords: checking one, remembering that it was right, and noticing that it is no longer.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::account::Tokens;
use super::guesses::{Attempt, Fingerprint, Turn};
use super::{Account, Broker, Held, blocking, lock};
use crate::vault::password::Password;
use crate::vault::{Slot, Unlocked, VaultError};
use crate::wire::{Credentials, Reason, Refusal};

/// Passwords that are remembered as checked; more than any user has. When there are more, all are checked anew.
const REMEMBERED: usize = 4096;

/// How long the answer to a wrong password takes at least. It hides how much of that was work; and a program with an old
/// password that does not stop trying costs little.
const NO: Duration = Duration::from_millis(200);

/// What an app password has opened.
#[derive(Clone)]
pub struct Opened {
    /// The account.
    pub account: Arc<Account>,
    /// The app password's place in the vault.
    pub slot: Arc<Slot>,
}

impl Broker {
    /// Checks a password, always before anything of the provider's is touched. One that was right before costs an HMAC.
    pub async fn unlock(&self, credentials: &Credentials, attempt: Attempt<'_>) -> Result<Opened, Refusal> {
        let begun = Instant::now();
        let config = self.config();
        let address = config.address_of(&credentials.user);
        let owner = config.owner_of(&address);
        let fingerprint = self.fingerprint(&address, credentials.password.expose());
        let withdrawals = {
            let open = lock(&self.open);
            if let Some(opened) = open.checked.get(&fingerprint) {
                return Ok(opened.clone());
            }
            open.withdrawals
        };
        let password = Password::read(credentials.password.expose());
        let unlocked = match self.check(owner, password, attempt, &fingerprint).await {
            Err(refusal) if refusal.reason == Reason::Credentials => {
                sleep_until(begun + NO).await;
                return Err(refusal);
            }
            unlocked => unlocked?,
        };
        let opened = self.admit(&address, owner, unlocked)?;
        let mut open = lock(&self.open);
        if open.withdrawals == withdrawals {
            if open.checked.len() >= REMEMBERED {
                open.checked.clear();
            }
            open.checked.insert(fingerprint, opened.clone());
        }
        Ok(opened)
    }

    /// Forgets what is known of an account's passwords: one of them has come or gone. Its tokens stay: a refresh that is
    /// under way has to be the only one.
    pub fn withdraw(&self, owner: &str) {
        let mut open = lock(&self.open);
        open.withdrawals += 1;
        open.checked.retain(|_, opened| opened.account.owner != owner);
        drop(open);
        self.guesses.forget_wrong();
        self.withdrawn.send_replace(());
    }

    /// Waits until an app password that was right opens its account no longer.
    pub async fn withdrawn(&self, opened: &Opened) {
        let mut changes = self.withdrawn.subscribe();
        while self.vault.account(&opened.account.owner).is_some_and(|record| record.has_slot(&opened.slot)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Has the vault check a password when it is its turn.
    async fn check(
        &self,
        address: &str,
        password: Password,
        attempt: Attempt<'_>,
        fingerprint: &Fingerprint,
    ) -> Result<Unlocked, Refusal> {
        if password.is_generated() {
            // Nobody guesses one, and its check costs less than to keep count.
            return self.open_vault(address.to_owned(), password).await.map_err(|error| refusal(address, &error));
        }
        let Attempt { source, is_first, gone } = attempt;
        let turn = tokio::select! {
            turn = self.guesses.turn(source, is_first, fingerprint) => turn,
            () = gone => Turn::TooMany,
        };
        match turn {
            Turn::Yours => {}
            Turn::KnownWrong => return Err(Refusal::credentials()),
            Turn::TooMany => {
                return Err(Refusal::new(Reason::Limit, "Too many wrong passwords have come from here; try later."));
            }
        }
        let unlocked = self.open_vault(address.to_owned(), password).await;
        match &unlocked {
            Err(VaultError::WrongCredentials) => self.guesses.wrong(source, *fingerprint),
            _ => self.guesses.right(source),
        }
        unlocked.map_err(|error| refusal(address, &error))
    }

    fn fingerprint(&self, address: &str, password: &[u8]) -> Fingerprint {
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
    fn admit(&self, address: &str, owner: &str, unlocked: Unlocked) -> Result<Opened, Refusal> {
        let held = Held { tokens: unlocked.tokens, generation: unlocked.generation, secrets: unlocked.secrets };
        let (tokens, slot) = (Tokens::new(held, Arc::default()), Arc::new(unlocked.slot));
        // Before the lock is held, for the first use of a provider takes a while.
        self.account(address, owner, Arc::clone(&tokens))?;
        let mut open = lock(&self.open);
        if let Some(account) = open.accounts.get(address).filter(|account| account.owner == owner) {
            return Ok(Opened { account: Arc::clone(account), slot });
        }
        let tokens = Arc::clone(open.tokens.entry(owner.to_owned()).or_insert(tokens));
        // Again, for the configuration may be another one by now.
        let account = Arc::new(self.account(address, owner, tokens)?);
        open.accounts.insert(address.to_owned(), Arc::clone(&account));
        Ok(Opened { account, slot })
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
