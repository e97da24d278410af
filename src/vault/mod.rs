//! The vault: accounts and their sealed token sets.
//!
//! Each account has a key pair. Token sets are sealed to the public key, so anyone who may authorize the account can put
//! one in; the private key is wrapped once per app password (a slot), so only an app password takes one out. What is not
//! secret lies beside it in plain text, for `status` to show.

mod account;
pub mod password;
mod seal;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;
use crate::exit::{Exit, Failed};
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::token::TokenSet;
pub use account::{Account, Ended, Slot, Unlocked};
use password::Password;
pub use seal::random;
use seal::{AccountKey, Damaged, Derived};
use store::Store;
pub use store::StoreError;

/// How long to wait for another process that has the vault open.
const TURN: Duration = Duration::from_secs(3);

/// Why the vault does not do what was asked. None of these has changed anything.
#[derive(Debug)]
pub enum VaultError {
    /// There is no such account, or no slot that this password opens; deliberately one answer.
    WrongCredentials,
    /// There is no account of this address.
    NoAccount(String),
    /// The account has no slot of this name.
    NoSlot(String),
    /// The account has a slot of this name already.
    SlotExists(String),
    /// It is the account's last slot; without it nothing could be taken out any more.
    LastSlot(String),
    /// The password that a person chose has the form of a generated one.
    LooksGenerated,
    /// The account's record is damaged, or of another version's format.
    Damaged(String),
    /// The account has newer tokens than those that this change begins from.
    Superseded(String),
    /// Reading or writing failed.
    Store(StoreError),
    /// The work was cut short by a defect or by the end of the process.
    Interrupted,
}

impl std::fmt::Display for VaultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongCredentials => f.write_str("wrong user name or password"),
            Self::NoAccount(address) => {
                write!(f, "there is no account {address}; `postkey authorize {address}` sets it up")
            }
            Self::NoSlot(name) => {
                write!(f, "there is no app password named {name}; `postkey password list` shows them")
            }
            Self::SlotExists(name) => write!(f, "there is an app password named {name} already; choose another name"),
            Self::LastSlot(name) => write!(
                f,
                "{name} is the last app password of this account; add another one first, \
                 or remove the account with `postkey forget`"
            ),
            Self::LooksGenerated => {
                f.write_str("this password looks like one that postkey generates; choose another one")
            }
            Self::Damaged(address) => write!(
                f,
                "the vault's record of {address} is damaged; `postkey forget {address}` and `postkey authorize {address}` \
                 set it up again"
            ),
            Self::Superseded(address) => write!(f, "{address} has been authorized anew in the meantime"),
            Self::Store(error) => error.fmt(f),
            Self::Interrupted => f.write_str("the vault was interrupted at its work; see the log"),
        }
    }
}

impl std::error::Error for VaultError {}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How a command ends that the vault refuses.
impl From<VaultError> for Failed {
    fn from(error: VaultError) -> Self {
        let exit = match &error {
            VaultError::WrongCredentials => Exit::NoPermission,
            VaultError::NoAccount(_) => Exit::NoUser,
            VaultError::NoSlot(_)
            | VaultError::SlotExists(_)
            | VaultError::LastSlot(_)
            | VaultError::LooksGenerated => Exit::Data,
            VaultError::Damaged(_) | VaultError::Store(_) => Exit::Io,
            VaultError::Superseded(_) => Exit::Temporary,
            VaultError::Interrupted => Exit::Software,
        };
        Self::new(exit, error)
    }
}

/// What an authorization has brought.
pub struct Authorization {
    /// For which address.
    pub address: String,
    /// At which provider.
    pub provider: String,
    /// With a client registration of the account's own.
    pub client_id: Option<String>,
    /// And its secret.
    pub client_secret: Option<Secret>,
    /// The tokens.
    pub tokens: TokenSet,
}

/// All accounts. Its methods block on the disk, and [`Vault::unlock`] may take 20 ms of CPU time.
pub struct Vault {
    store: Store,
    accounts: Mutex<BTreeMap<String, Arc<Account>>>,
    /// Addresses whose records cannot be read.
    damaged: Vec<String>,
    /// Stands in for the salt of an account that does not exist, so that its login takes as long as another's.
    decoy: [u8; 16],
}

impl Vault {
    /// Opens the vault in this folder, or begins one.
    pub fn open(dir: &Path) -> Result<Self, VaultError> {
        let store = Store::open(dir)?;
        let (mut accounts, mut damaged) = (BTreeMap::new(), Vec::new());
        for (address, record) in store.records()? {
            match Account::from_record(&address, &record) {
                Some(account) => drop(accounts.insert(address, Arc::new(account))),
                None => damaged.push(address),
            }
        }
        Ok(Self { store, accounts: Mutex::new(accounts), damaged, decoy: seal::random() })
    }

    /// Opens the vault, waiting for whoever has it open to be done: a command has it for a moment only.
    pub async fn open_in_turn(dir: &Path) -> Result<Self, VaultError> {
        let deadline = Instant::now() + TURN;
        loop {
            match Self::open(dir) {
                Err(VaultError::Store(StoreError::InUse(_))) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }

    /// All accounts, by address.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        self.map().values().cloned().collect()
    }

    /// The addresses whose records are damaged.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// The account of this address.
    pub fn account(&self, address: &str) -> Option<Arc<Account>> {
        self.map().get(address).cloned()
    }

    /// Puts in what an authorization has brought; the generation of its token set. An account that is there already keeps
    /// its slots, a new one begins with `first`.
    pub fn authorize(
        &self,
        authorization: &Authorization,
        first: Option<(&str, &Password)>,
        now: Moment,
    ) -> Result<u64, VaultError> {
        let address = &authorization.address;
        let mut account = match self.account(address) {
            Some(account) => Account::clone(&account),
            None => Account::begin(address, first, now)?,
        };
        account.authorize(authorization, now)?;
        let generation = account.generation();
        self.save(account)?;
        Ok(generation)
    }

    /// Opens an account with one of its app passwords. Unknown accounts and wrong passwords are one error and take the same
    /// time; nothing is ever written.
    pub fn unlock(&self, address: &str, password: &Password) -> Result<Unlocked, VaultError> {
        let account = self.account(address);
        let key = self.account_key(account.as_deref(), password)?;
        account.ok_or(VaultError::WrongCredentials)?.take_tokens(&key)
    }

    /// Keeps the token set that a refresh of generation `before` has brought; its generation. On stable storage when this
    /// returns. What a new authorization has brought meanwhile stays.
    pub fn keep(&self, address: &str, before: u64, tokens: &TokenSet) -> Result<u64, VaultError> {
        self.change(address, |account| {
            account.check_newest(before)?;
            account.put_tokens(tokens)?;
            Ok(account.generation())
        })
    }

    /// Whether this token set is the current one, and the one before it is still kept.
    pub fn is_unsettled(&self, address: &str, generation: u64) -> bool {
        let account = self.account(address);
        account.is_some_and(|account| account.is_unsettled() && account.generation() == generation)
    }

    /// Drops the token set before this one: this one has worked.
    pub fn settle(&self, address: &str, generation: u64) -> Result<(), VaultError> {
        if !self.is_unsettled(address, generation) {
            return Ok(());
        }
        self.change(address, |account| {
            account.settle();
            Ok(())
        })
    }

    /// Notes what a server of the account's provider offers before login.
    pub fn learn(&self, address: &str, protocol: Protocol, capabilities: Vec<String>) -> Result<(), VaultError> {
        self.change(address, |account| {
            account.known.insert(protocol.name().to_owned(), capabilities);
            Ok(())
        })
    }

    /// Notes that a person has to authorize the account anew, for generation `before` cannot be refreshed.
    pub fn end(&self, address: &str, before: u64, ended: Ended) -> Result<(), VaultError> {
        self.change(address, |account| {
            account.check_newest(before)?;
            account.ended = Some(ended);
            Ok(())
        })
    }

    /// Makes a slot for `new`, opened by one of the app passwords that the account has.
    pub fn add_slot(
        &self,
        address: &str,
        password: &Password,
        name: &str,
        new: &Password,
        now: Moment,
    ) -> Result<(), VaultError> {
        let key = self.account_key(self.account(address).as_deref(), password)?;
        self.change(address, |account| account.add_slot(&key, name, new, now))
    }

    /// Removes a slot: its password opens nothing any more.
    pub fn remove_slot(&self, address: &str, name: &str) -> Result<(), VaultError> {
        self.change(address, |account| account.remove_slot(name))
    }

    /// Removes an account and all that was kept of it.
    pub fn forget(&self, address: &str) -> Result<(), VaultError> {
        let known = self.map().contains_key(address) || self.damaged.iter().any(|damaged| damaged == address);
        if !known {
            return Err(VaultError::NoAccount(address.to_owned()));
        }
        self.store.remove(address)?;
        self.map().remove(address);
        Ok(())
    }

    /// The private key of an account, unwrapped from the slot that the password opens.
    fn account_key(&self, account: Option<&Account>, password: &Password) -> Result<AccountKey, VaultError> {
        let salt = account.map_or(self.decoy.as_slice(), Account::salt);
        let derived = Derived::new(password, salt).map_err(|Damaged| VaultError::WrongCredentials)?;
        account.ok_or(VaultError::WrongCredentials)?.key(&derived)
    }

    /// Changes an account: on disk first, so that a failure leaves both as they were.
    fn change<T>(
        &self,
        address: &str,
        change: impl FnOnce(&mut Account) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut accounts = self.map();
        let account = accounts.get_mut(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        let mut changed = Account::clone(account);
        let result = change(&mut changed)?;
        self.store.put(address, &changed.to_record()?)?;
        *account = Arc::new(changed);
        Ok(result)
    }

    fn save(&self, account: Account) -> Result<(), VaultError> {
        let mut accounts = self.map();
        self.store.put(&account.address, &account.to_record()?)?;
        accounts.insert(account.address.clone(), Arc::new(account));
        Ok(())
    }

    /// The map is whole at every moment, so a panic elsewhere does not spoil it.
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes as base64 in a record.
mod text {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Token;
    use crate::token::Life;

    const ANN: &str = "ann@example.test";
    const NOW: Moment = Moment(1_000_000);

    fn tokens(name: &str) -> TokenSet {
        TokenSet {
            access: Token::parse(&format!("access-{name}")).unwrap(),
            refresh: Token::parse(&format!("refresh-{name}")),
            life: Life { issued: NOW, expires: NOW.after(3600) },
            scope: "mail".into(),
        }
    }

    fn authorization(name: &str) -> Authorization {
        Authorization {
            address: ANN.into(),
            provider: "test".into(),
            client_id: None,
            client_secret: Some(Secret::new(b"client-secret".to_vec())),
            tokens: tokens(name),
        }
    }

    /// A vault with one account, whose only app password is returned.
    fn vault(dir: &Path) -> (Vault, Password) {
        let vault = Vault::open(&dir.join("state")).unwrap();
        let password = Password::generate();
        vault.authorize(&authorization("1"), Some(("main", &password)), NOW).unwrap();
        (vault, password)
    }

    fn access(unlocked: &Unlocked) -> &str {
        unlocked.tokens.access.expose()
    }

    #[test]
    fn what_was_put_in_comes_out_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (first, password) = vault(dir.path());
        assert_eq!(first.keep(ANN, 1, &tokens("2")).unwrap(), 2);
        drop(first);
        let again = Vault::open(&dir.path().join("state")).unwrap();
        let unlocked = again.unlock(ANN, &password).unwrap();
        assert_eq!((access(&unlocked), unlocked.generation), ("access-2", 2));
        assert_eq!(unlocked.tokens.refresh.unwrap().expose(), "refresh-2");
        assert_eq!(unlocked.client_secret.unwrap().expose(), b"client-secret");
    }

    #[test]
    fn a_wrong_password_and_an_unknown_account_are_one_answer_and_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, password) = vault(dir.path());
        let before = vault.account(ANN).unwrap().to_record().unwrap();
        for (address, password) in
            [(ANN, Password::generate()), (ANN, Password::read(b"guess")), ("bob@example.test", password.clone())]
        {
            assert!(matches!(vault.unlock(address, &password), Err(VaultError::WrongCredentials)));
        }
        assert_eq!(vault.account(ANN).unwrap().to_record().unwrap(), before);
        assert!(vault.unlock(ANN, &password).is_ok());
    }

    #[test]
    fn authorizing_anew_keeps_the_slots_and_needs_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, password) = vault(dir.path());
        vault.end(ANN, 1, Ended { at: NOW, why: "revoked".into() }).unwrap();
        vault.authorize(&authorization("new"), None, NOW).unwrap();
        assert_eq!(access(&vault.unlock(ANN, &password).unwrap()), "access-new");
        assert!(vault.account(ANN).unwrap().ended.is_none());
    }

    #[test]
    fn the_token_set_before_is_kept_until_the_new_one_has_worked() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, _) = vault(dir.path());
        vault.keep(ANN, 1, &tokens("2")).unwrap();
        vault.settle(ANN, 1).unwrap();
        assert!(vault.is_unsettled(ANN, 2), "only the current generation settles");
        vault.settle(ANN, 2).unwrap();
        assert!(!vault.is_unsettled(ANN, 2));
    }

    #[test]
    fn each_slot_opens_the_account_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, first) = vault(dir.path());
        let chosen = Password::read(b"correct horse battery staple");
        let add = |password, name| vault.add_slot(ANN, password, name, &chosen, NOW);
        let wrong = Password::generate();
        assert!(matches!(add(&wrong, "mutt"), Err(VaultError::WrongCredentials)));
        add(&first, "mutt").unwrap();
        assert!(matches!(add(&first, "mutt"), Err(VaultError::SlotExists(_))));
        assert!(vault.unlock(ANN, &first).is_ok() && vault.unlock(ANN, &chosen).is_ok());
        vault.remove_slot(ANN, "main").unwrap();
        assert!(vault.unlock(ANN, &first).is_err() && vault.unlock(ANN, &chosen).is_ok());
        assert!(matches!(vault.remove_slot(ANN, "mutt"), Err(VaultError::LastSlot(_))));
        vault.forget(ANN).unwrap();
        assert!(matches!(vault.unlock(ANN, &chosen), Err(VaultError::WrongCredentials)));
    }

    #[test]
    fn no_secret_lies_in_the_files_and_nobody_else_reads_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (vault, password) = vault(dir.path());
        drop(vault);
        let secrets = [b"access-1".to_vec(), b"refresh-1".to_vec(), b"client-secret".to_vec(), password.expose()];
        for entry in std::fs::read_dir(dir.path().join("state/sled")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { continue };
            for secret in &secrets {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_slice()), "{}", path.display());
            }
        }
        let mode = std::fs::metadata(dir.path().join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let open_to_all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path().join("state"), open_to_all).unwrap();
        assert!(matches!(Vault::open(&dir.path().join("state")), Err(VaultError::Store(StoreError::Exposed(_)))));
    }

    #[test]
    fn the_vault_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (_vault, _) = vault(dir.path());
        let second = Vault::open(&dir.path().join("state"));
        assert!(matches!(second, Err(VaultError::Store(StoreError::InUse(_)))));
    }
}
