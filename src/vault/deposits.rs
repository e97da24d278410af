//! Deposits: what one replica leaves in the database for the others, for some minutes.
//!
//! A deposit is found and opened only with a secret that somebody brings: the link of a page, the answer of a browser, or a
//! password that a mail program has tried. So the database and its administrator can read none. An embedded vault has no
//! deposits, because nobody else would read them.

use std::time::Duration;

use zeroize::Zeroizing;

use super::Vault;
use super::error::VaultError;
use super::password::Password;
use super::seal::Derived;
use super::stretch::Stretch;

/// Where a deposit is, and what opens it.
pub struct DepositKey(Derived);

/// What a deposit says, and how long it will still be there.
pub struct Deposit {
    pub content: Zeroizing<Vec<u8>>,
    pub left: Duration,
}

impl DepositKey {
    /// The key of a secret that nobody can guess. The same secret has another key for each purpose.
    pub fn of_secret(secret: &str, purpose: &str) -> Result<Self, VaultError> {
        Derived::of_secret(secret.as_bytes(), purpose).map(Self)
    }

    /// The key of a password, which belongs to whom `whose` names. Blocks for 100 ms, so that whoever reads the database cannot
    /// guess the password faster than an app password.
    pub fn of_password(password: &Password, whose: &str) -> Result<Self, VaultError> {
        let prepared = password.prepared();
        let salt = format!("postkey deposit of {whose}");
        Derived::new(prepared.as_ref().unwrap_or(password), salt.as_bytes(), Stretch::STRONG).map(Self)
    }
}

impl Vault {
    /// Leaves something for the other replicas, in place of what was there.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub async fn deposit(&self, key: &DepositKey, content: &[u8], time: Duration) -> Result<(), VaultError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let sealed = key.0.seal(content).map_err(|_| VaultError::NoMemory)?;
        shared.deposit(key.0.tag(), sealed, time).await
    }

    /// Reads a deposit; None if there is none.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub async fn read_deposit(&self, key: &DepositKey) -> Result<Option<Deposit>, VaultError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let found = shared.read_deposit(key.0.tag()).await?;
        // What cannot be opened was not left by a replica.
        Ok(found.and_then(|(sealed, left)| Some(Deposit { content: key.0.open(&sealed).ok()?, left })))
    }

    /// Removes a deposit. Returns whether it was there: of several replicas that remove one, one learns that.
    ///
    /// # Errors
    ///
    /// The database cannot be used, or has not answered in time; then the deposit may be gone.
    pub async fn remove_deposit(&self, key: &DepositKey) -> Result<bool, VaultError> {
        match &self.shared {
            Some(shared) => shared.remove_deposit(key.0.tag()).await,
            None => Ok(false),
        }
    }
}
