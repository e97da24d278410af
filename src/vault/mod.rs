//! The vault: accounts and their sealed token sets.
//!
//! Each account has a key pair. Token sets are sealed to the public key, so anyone who may authorize the account can put
//! one in; the private key is wrapped once per app password (a slot), so only an app password takes one out. What is not
//! secret lies beside it in plain text, for `status` to show.

pub mod password;
mod seal;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::exit::{Exit, Failed};
use crate::protocol::Protocol;
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};
use password::Password;
pub use seal::random;
use seal::{AccountKey, Damaged, Derived, Sealed, Wrapped};
use store::Store;
pub use store::StoreError;

/// The format of the records. A record of another format is left alone and reported.
const FORMAT: u32 = 1;

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

/// An account as it lies in the vault. The public fields are plain text there.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    format: u32,
    /// The address, lower case: the login name, and the key of the record.
    pub address: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The client registration that the authorization was given to, where the configuration has none.
    pub client_id: Option<String>,
    /// When a person last gave the authorization.
    pub authorized: Moment,
    /// Why a person has to give it anew, if so.
    pub ended: Option<Ended>,
    /// One per app password.
    pub slots: Vec<Slot>,
    /// What the provider's servers offered before login when they were last seen, by protocol.
    #[serde(default)]
    pub known: BTreeMap<String, Vec<String>>,
    /// Derives every slot of this account, so that a login costs one derivation however many slots there are.
    #[serde(with = "text")]
    salt: Vec<u8>,
    #[serde(with = "text")]
    public_key: Vec<u8>,
    client_secret: Option<Sealed>,
    current: Stored,
    /// The token set before the current one, until that one has worked once.
    previous: Option<Stored>,
}

/// Why and since when an authorization has ended.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ended {
    /// Since when.
    pub at: Moment,
    /// The authorization server's reason.
    pub why: String,
}

/// An app password's place: the account's private key, wrapped under it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Slot {
    /// What the user calls it: the mail program or device that it was made for.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    wrapped: Wrapped,
}

/// A token set as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    generation: u64,
    life: Life,
    scope: String,
    sealed: Sealed,
}

/// The secret part of a token set, in the form in which it is sealed.
#[derive(Serialize, Deserialize)]
struct Sealable<'a> {
    access: &'a str,
    refresh: Option<&'a str>,
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

/// What an app password takes out of the vault.
pub struct Unlocked {
    /// The newest token set that can be read.
    pub tokens: TokenSet,
    /// Which one that is; generations only grow.
    pub generation: u64,
    /// The client secret that is kept with the account.
    pub client_secret: Option<Secret>,
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
            match serde_json::from_slice::<Account>(&record) {
                Ok(account) if account.format == FORMAT && account.address == address => {
                    accounts.insert(address, Arc::new(account));
                }
                _ => damaged.push(address),
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
            None => Account::begin(address, first, now).map_err(|Damaged| VaultError::Damaged(address.clone()))?,
        };
        account.provider.clone_from(&authorization.provider);
        account.client_id.clone_from(&authorization.client_id);
        account.authorized = now;
        account.ended = None;
        account.put_tokens(&authorization.tokens)?;
        account.client_secret = match &authorization.client_secret {
            Some(secret) => Some(account.seal(CLIENT_SECRET, secret.expose())?),
            None => None,
        };
        let generation = account.current.generation;
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
            Ok(account.current.generation)
        })
    }

    /// Whether this token set is the current one, and the one before it is still kept.
    pub fn is_unsettled(&self, address: &str, generation: u64) -> bool {
        let account = self.account(address);
        account.is_some_and(|account| account.previous.is_some() && account.current.generation == generation)
    }

    /// Drops the token set before this one: this one has worked.
    pub fn settle(&self, address: &str, generation: u64) -> Result<(), VaultError> {
        if !self.is_unsettled(address, generation) {
            return Ok(());
        }
        self.change(address, |account| {
            account.previous = None;
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
        self.change(address, |account| {
            if account.slots.iter().any(|slot| slot.name == name) {
                return Err(VaultError::SlotExists(name.to_owned()));
            }
            let slot = account.slot(&key, name, new, now).map_err(|Damaged| VaultError::Damaged(address.to_owned()))?;
            account.slots.push(slot);
            Ok(())
        })
    }

    /// Removes a slot: its password opens nothing any more.
    pub fn remove_slot(&self, address: &str, name: &str) -> Result<(), VaultError> {
        self.change(address, |account| {
            let place = account.slots.iter().position(|slot| slot.name == name);
            let place = place.ok_or_else(|| VaultError::NoSlot(name.to_owned()))?;
            if account.slots.len() == 1 {
                return Err(VaultError::LastSlot(name.to_owned()));
            }
            account.slots.remove(place);
            Ok(())
        })
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
        let salt = account.map_or(self.decoy.as_slice(), |account| &account.salt);
        let derived = Derived::new(password, salt).map_err(|Damaged| VaultError::WrongCredentials)?;
        let account = account.ok_or(VaultError::WrongCredentials)?;
        let slot = account.slots.iter().find(|slot| slot.wrapped.belongs_to(&derived));
        let wrapped = &slot.ok_or(VaultError::WrongCredentials)?.wrapped;
        let key = wrapped.unwrap_key(&derived, &account.context(SLOT));
        key.map_err(|Damaged| VaultError::Damaged(account.address.clone()))
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

/// What is sealed or wrapped in a record beside the token sets, which are told apart by their generation.
const CLIENT_SECRET: &str = "client secret";
const SLOT: &str = "slot";

impl Account {
    /// A new account with its first slot, as yet without tokens.
    fn begin(address: &str, first: Option<(&str, &Password)>, now: Moment) -> Result<Self, Damaged> {
        let (key, public_key) = seal::key_pair();
        let nothing = Stored {
            generation: 0,
            life: Life { issued: Moment(0), expires: Moment(0) },
            scope: String::new(),
            sealed: seal::seal(&public_key, b"", b"")?,
        };
        let mut account = Self {
            format: FORMAT,
            address: address.to_owned(),
            provider: String::new(),
            client_id: None,
            authorized: now,
            ended: None,
            slots: Vec::new(),
            known: BTreeMap::new(),
            salt: seal::random::<16>().to_vec(),
            public_key,
            client_secret: None,
            current: nothing,
            previous: None,
        };
        if let Some((name, password)) = first {
            account.slots.push(account.slot(&key, name, password, now)?);
        }
        Ok(account)
    }

    /// The life of the current access token.
    pub fn life(&self) -> Life {
        self.current.life
    }

    /// Which token set is the current one.
    pub fn generation(&self) -> u64 {
        self.current.generation
    }

    fn slot(&self, key: &AccountKey, name: &str, password: &Password, now: Moment) -> Result<Slot, Damaged> {
        let derived = Derived::new(password, &self.salt)?;
        let wrapped = key.wrap(&derived, &self.context(SLOT))?;
        Ok(Slot { name: name.to_owned(), created: now, wrapped })
    }

    /// A refresh takes seconds, in which a person may have authorized the account anew.
    fn check_newest(&self, generation: u64) -> Result<(), VaultError> {
        match self.current.generation > generation {
            true => Err(VaultError::Superseded(self.address.clone())),
            false => Ok(()),
        }
    }

    fn put_tokens(&mut self, tokens: &TokenSet) -> Result<(), VaultError> {
        let generation = self.current.generation + 1;
        let sealable = Sealable { access: tokens.access.expose(), refresh: tokens.refresh.as_ref().map(Token::expose) };
        let plain =
            Zeroizing::new(serde_json::to_vec(&sealable).map_err(|_| VaultError::Damaged(self.address.clone()))?);
        let sealed = self.seal(&generation.to_string(), &plain)?;
        let stored = Stored { generation, life: tokens.life, scope: tokens.scope.clone(), sealed };
        let before = std::mem::replace(&mut self.current, stored);
        self.previous = (before.generation > 0).then_some(before);
        Ok(())
    }

    /// The newest token set that opens, and the client secret.
    fn take_tokens(&self, key: &AccountKey) -> Result<Unlocked, VaultError> {
        let newest = std::iter::once(&self.current).chain(&self.previous);
        let (stored, tokens) = newest
            .filter_map(|stored| Some((stored, self.open_tokens(key, stored)?)))
            .next()
            .ok_or_else(|| VaultError::Damaged(self.address.clone()))?;
        let client_secret = match &self.client_secret {
            Some(sealed) => Some(self.open(key, CLIENT_SECRET, sealed)?),
            None => None,
        };
        let client_secret = client_secret.map(|secret| Secret::new(secret.to_vec()));
        Ok(Unlocked { tokens, generation: stored.generation, client_secret })
    }

    fn open_tokens(&self, key: &AccountKey, stored: &Stored) -> Option<TokenSet> {
        let plain = self.open(key, &stored.generation.to_string(), &stored.sealed).ok()?;
        let sealable: Sealable<'_> = serde_json::from_slice(&plain).ok()?;
        let refresh = match sealable.refresh {
            Some(text) => Some(Token::parse(text)?),
            None => None,
        };
        Some(TokenSet {
            access: Token::parse(sealable.access)?,
            refresh,
            life: stored.life,
            scope: stored.scope.clone(),
        })
    }

    fn seal(&self, what: &str, plain: &[u8]) -> Result<Sealed, VaultError> {
        let sealed = seal::seal(&self.public_key, &self.context(what), plain);
        sealed.map_err(|Damaged| VaultError::Damaged(self.address.clone()))
    }

    fn open(&self, key: &AccountKey, what: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let plain = key.open(&self.context(what), sealed);
        plain.map_err(|Damaged| VaultError::Damaged(self.address.clone()))
    }

    /// Binds what is sealed to its place: format, account and kind or generation. An address holds no NUL.
    fn context(&self, what: &str) -> Vec<u8> {
        format!("{FORMAT}\0{}\0{what}", self.address).into_bytes()
    }

    fn to_record(&self) -> Result<Vec<u8>, VaultError> {
        serde_json::to_vec(self).map_err(|_| VaultError::Damaged(self.address.clone()))
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
        let (vault, password) = vault(dir.path());
        vault.keep(ANN, 1, &tokens("2")).unwrap();
        let spoil = |account: &mut Account| {
            account.current.sealed = seal::seal(&account.public_key, b"elsewhere", b"x").unwrap();
            Ok(())
        };
        vault.change(ANN, spoil).unwrap();
        assert_eq!(access(&vault.unlock(ANN, &password).unwrap()), "access-1");
        vault.settle(ANN, 1).unwrap();
        assert!(vault.unlock(ANN, &password).is_ok(), "only the current generation settles");
        vault.settle(ANN, 2).unwrap();
        assert!(matches!(vault.unlock(ANN, &password), Err(VaultError::Damaged(_))));
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
    fn a_token_set_does_not_open_in_another_place() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, password) = vault(dir.path());
        vault.keep(ANN, 1, &tokens("2")).unwrap();
        let swap = |account: &mut Account| {
            if let Some(previous) = &mut account.previous {
                std::mem::swap(&mut previous.sealed, &mut account.current.sealed);
            }
            Ok(())
        };
        vault.change(ANN, swap).unwrap();
        assert!(matches!(vault.unlock(ANN, &password), Err(VaultError::Damaged(_))));
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
