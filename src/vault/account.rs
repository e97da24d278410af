//! An account's record: what is plain in it, and what is sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing::warn;
use zeroize::Zeroizing;

use super::limits::Limits;
use super::password::Password;
use super::record::{FORMAT, Record};
use super::seal::{self, AccountKey, Damaged, Derived, Sealed, Wrapped};
use super::{Authorization, Secrets, VaultError, text};
use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::config::provider::Discovered;
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};

/// What a record holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// An account.
    Account(Box<Account>),
    /// An account was here. It is noted, or an older copy that comes to light would bring the account back.
    Forgotten {
        /// Its last token set; one that is authorized here later counts on from there.
        generation: u64,
    },
}

/// An account as it lies in the vault. The public fields are plain text there.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    /// The address, lower case: the login name, and the key of the record.
    pub address: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// How it gets its tokens.
    #[serde(default)]
    pub flow: Flow,
    /// The client registration that the authorization was given to, where the configuration has none.
    pub client_id: Option<String>,
    /// What was found out about the authorization server, where the configuration does not say all: tokens have to be
    /// refreshed while its metadata cannot be reached.
    #[serde(default)]
    pub discovered: Option<Discovered>,
    /// When a person last gave the authorization.
    pub authorized: Moment,
    /// Why a person has to give it anew, if so.
    pub ended: Option<Ended>,
    /// Whether the newest token set may have been lost: damage has left only a copy of the record that may be older.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubtful: bool,
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
    #[serde(default)]
    password: Option<Sealed>,
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
    /// What its password is good for. Authenticated with the key: who takes a limit out of the file has a slot that does not
    /// open.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    wrapped: Wrapped,
}

impl Slot {
    /// What has to be the same for the key to be unwrapped. A slot without limits is as it was before there were any.
    fn kind(limits: &Limits) -> String {
        if limits.is_none() { SLOT.to_owned() } else { format!("{SLOT} for {}", limits.authenticated()) }
    }
}

/// A token set as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    generation: u64,
    life: Life,
    scope: String,
    sealed: Sealed,
}

/// What an app password takes out of the vault.
pub struct Unlocked {
    /// The newest token set that can be read.
    pub tokens: TokenSet,
    /// The number of the current one; these numbers only grow.
    pub generation: u64,
    /// The secrets that are kept beside it.
    pub secrets: Secrets,
    /// The app password's place.
    pub slot: Slot,
}

/// What is sealed or wrapped in a record beside the token sets, which are told apart by their generation.
const CLIENT_SECRET: &str = "client secret";
const PASSWORD: &str = "password";
const SLOT: &str = "slot";

impl Entry {
    /// Reads the record that is kept under this address. None if it is of another account or another format.
    pub(super) fn read(address: &str, record: &Record) -> Option<Self> {
        let entry: Self = (record.format == FORMAT).then(|| serde_json::from_slice(&record.content).ok())??;
        match &entry {
            Self::Account(account) if account.address != address => None,
            _ => Some(entry),
        }
    }

    /// The content of the record to keep.
    pub(super) fn to_content(&self, address: &str) -> Result<Vec<u8>, VaultError> {
        serde_json::to_vec(self).map_err(|_| VaultError::Damaged(address.to_owned()))
    }
}

impl Account {
    /// A new account with its first slot. Its token sets are numbered from above `generation`.
    pub(super) fn begin(
        authorization: &Authorization,
        first: Option<(&str, &Password)>,
        generation: u64,
        now: Moment,
    ) -> Result<Self, VaultError> {
        let address = &authorization.address;
        let (key, public_key) = seal::key_pair();
        let nothing = seal::seal(&public_key, b"", b"").map_err(|Damaged| VaultError::Damaged(address.clone()))?;
        let life = Life { issued: now, expires: now };
        let mut account = Self {
            address: address.clone(),
            provider: String::new(),
            flow: Flow::default(),
            client_id: None,
            discovered: None,
            authorized: now,
            ended: None,
            doubtful: false,
            slots: Vec::new(),
            known: BTreeMap::new(),
            salt: seal::random::<16>().to_vec(),
            public_key,
            client_secret: None,
            password: None,
            current: Stored { generation, life, scope: String::new(), sealed: nothing },
            previous: None,
        };
        if let Some((name, password)) = first {
            account.add_slot(&key, name, password, Limits::default(), now)?;
        }
        account.authorize(authorization, now)?;
        // Before the first token set there is none to go back to.
        account.settle();
        Ok(account)
    }

    /// An account that no password opens.
    pub(super) fn decoy() -> Result<Self, VaultError> {
        let nothing = Token::parse("nothing").ok_or(VaultError::Interrupted)?;
        let life = Life { issued: Moment(0), expires: Moment(0) };
        let authorization = Authorization {
            address: String::new(),
            provider: String::new(),
            flow: Flow::default(),
            client_id: None,
            secrets: Secrets::default(),
            discovered: None,
            tokens: TokenSet { access: nothing, refresh: None, life, scope: String::new() },
        };
        Self::begin(&authorization, Some(("", &Password::generate())), 0, Moment(0))
    }

    /// The life of the current access token.
    pub fn life(&self) -> Life {
        self.current.life
    }

    /// Which token set is the current one.
    pub fn generation(&self) -> u64 {
        self.current.generation
    }

    /// Whether the token set before the current one is still kept.
    pub(super) fn is_unsettled(&self) -> bool {
        self.previous.is_some()
    }

    /// Drops the token set before the current one.
    pub(super) fn settle(&mut self) {
        self.previous = None;
    }

    /// Puts in what an authorization has brought.
    pub(super) fn authorize(&mut self, authorization: &Authorization, now: Moment) -> Result<(), VaultError> {
        self.provider.clone_from(&authorization.provider);
        self.flow = authorization.flow;
        self.client_id.clone_from(&authorization.client_id);
        self.discovered.clone_from(&authorization.discovered);
        self.authorized = now;
        self.ended = None;
        let seal =
            |what, secret: &Option<Secret>| secret.as_ref().map(|secret| self.seal(what, secret.expose())).transpose();
        let sealed = (
            seal(CLIENT_SECRET, &authorization.secrets.client_secret)?,
            seal(PASSWORD, &authorization.secrets.password)?,
        );
        (self.client_secret, self.password) = sealed;
        self.put_tokens(&authorization.tokens)
    }

    /// A refresh takes seconds, in which a person may have authorized the account anew, or restored it.
    pub(super) fn check_current(&self, generation: u64) -> Result<(), VaultError> {
        match self.current.generation == generation {
            true => Ok(()),
            false => Err(VaultError::Superseded(self.address.clone())),
        }
    }

    /// Makes this token set the current one. Tokens hold no line end, so one stands between them.
    pub(super) fn put_tokens(&mut self, tokens: &TokenSet) -> Result<(), VaultError> {
        let generation = self.current.generation + 1;
        let refresh = tokens.refresh.as_ref().map_or("", Token::expose);
        let plain = Zeroizing::new(format!("{}\n{refresh}", tokens.access.expose()));
        let sealed = self.seal(&generation.to_string(), plain.as_bytes())?;
        let stored = Stored { generation, life: tokens.life, scope: tokens.scope.clone(), sealed };
        self.previous = Some(std::mem::replace(&mut self.current, stored));
        self.doubtful = false;
        Ok(())
    }

    /// The newest token set that opens, and the client secret.
    pub(super) fn take_tokens(&self, key: &AccountKey, slot: &Slot) -> Result<Unlocked, VaultError> {
        let tokens = match (self.open_tokens(key, &self.current), &self.previous) {
            (Some(tokens), _) => tokens,
            (None, Some(previous)) => {
                warn!(account = self.address, "the current token set does not open; taking the one before it");
                self.open_tokens(key, previous).ok_or_else(|| self.damaged())?
            }
            (None, None) => return Err(self.damaged()),
        };
        let secrets = Secrets {
            client_secret: self.open_secret(key, CLIENT_SECRET, self.client_secret.as_ref())?,
            password: self.open_secret(key, PASSWORD, self.password.as_ref())?,
        };
        Ok(Unlocked { tokens, generation: self.current.generation, secrets, slot: slot.clone() })
    }

    fn open_secret(&self, key: &AccountKey, what: &str, sealed: Option<&Sealed>) -> Result<Option<Secret>, VaultError> {
        let open = |sealed| self.open(key, what, sealed).ok_or_else(|| self.damaged());
        Ok(sealed.map(open).transpose()?.map(|plain| Secret::new(plain.to_vec())))
    }

    fn open_tokens(&self, key: &AccountKey, stored: &Stored) -> Option<TokenSet> {
        let plain = self.open(key, &stored.generation.to_string(), &stored.sealed)?;
        let (access, refresh) = std::str::from_utf8(&plain).ok()?.split_once('\n')?;
        let (life, scope) = (stored.life, stored.scope.clone());
        Some(TokenSet { access: Token::parse(access)?, refresh: Token::parse(refresh), life, scope })
    }

    /// Makes a slot that this password opens.
    pub(super) fn add_slot(
        &mut self,
        key: &AccountKey,
        name: &str,
        password: &Password,
        limits: Limits,
        now: Moment,
    ) -> Result<(), VaultError> {
        if self.slots.iter().any(|slot| slot.name == name) {
            return Err(VaultError::SlotExists(name.to_owned()));
        }
        let context = self.context(&Slot::kind(&limits));
        let wrapped = Derived::new(password, &self.salt).and_then(|derived| key.wrap(&derived, &context));
        let wrapped = wrapped.map_err(|Damaged| self.damaged())?;
        self.slots.push(Slot { name: name.to_owned(), created: now, limits, wrapped });
        Ok(())
    }

    /// Removes a slot, unless it is the last one.
    pub(super) fn remove_slot(&mut self, name: &str) -> Result<(), VaultError> {
        let place = self.slots.iter().position(|slot| slot.name == name);
        let place = place.ok_or_else(|| VaultError::NoSlot(name.to_owned()))?;
        if self.slots.len() == 1 {
            return Err(VaultError::LastSlot(name.to_owned()));
        }
        self.slots.remove(place);
        Ok(())
    }

    /// Whether this slot, and not another one of its name, is still there.
    pub fn has_slot(&self, slot: &Slot) -> bool {
        self.slots.iter().any(|one| one.wrapped.is_same(&slot.wrapped))
    }

    /// The private key, and the slot that this password opens.
    pub(super) fn unlock(&self, password: &Password) -> Result<(AccountKey, &Slot), VaultError> {
        let derived = &Derived::new(password, &self.salt).map_err(|Damaged| VaultError::WrongCredentials)?;
        let slot = self.slots.iter().find(|slot| slot.wrapped.belongs_to(derived));
        let slot = slot.ok_or(VaultError::WrongCredentials)?;
        let key = slot.wrapped.unwrap_key(derived, &self.context(&Slot::kind(&slot.limits)));
        Ok((key.map_err(|Damaged| self.damaged())?, slot))
    }

    fn seal(&self, what: &str, plain: &[u8]) -> Result<Sealed, VaultError> {
        seal::seal(&self.public_key, &self.context(what), plain).map_err(|Damaged| self.damaged())
    }

    fn open(&self, key: &AccountKey, what: &str, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        key.open(&self.context(what), sealed).ok()
    }

    /// Binds what is sealed to its place: format, account and kind or generation. An address holds no NUL.
    fn context(&self, what: &str) -> Vec<u8> {
        format!("{FORMAT}\0{}\0{what}", self.address).into_bytes()
    }

    fn damaged(&self) -> VaultError {
        VaultError::Damaged(self.address.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000);

    fn tokens(name: &str) -> TokenSet {
        TokenSet {
            access: Token::parse(&format!("access-{name}")).unwrap(),
            refresh: Token::parse(&format!(r#"refresh-{name}-with-"quotes\""#)),
            life: Life { issued: NOW, expires: NOW.after(3600) },
            scope: String::new(),
        }
    }

    /// An account with two token sets, its key and its slot.
    fn account() -> (Account, AccountKey, Slot) {
        let password = Password::generate();
        let authorization = Authorization {
            address: "ann@example.test".into(),
            provider: "test".into(),
            flow: Flow::Password,
            client_id: None,
            secrets: Secrets { client_secret: None, password: Some(Secret::new(b"own".to_vec())) },
            discovered: None,
            tokens: tokens("1"),
        };
        let mut account = Account::begin(&authorization, Some(("main", &password)), 0, NOW).unwrap();
        assert!(!account.is_unsettled());
        account.put_tokens(&tokens("2")).unwrap();
        let (key, slot) = account.unlock(&password).unwrap();
        let slot = slot.clone();
        (account, key, slot)
    }

    #[test]
    fn the_newest_token_set_that_opens_is_taken() {
        let (mut account, key, slot) = account();
        let unlocked = account.take_tokens(&key, &slot).unwrap();
        assert_eq!((unlocked.tokens.access.expose(), unlocked.generation), ("access-2", 2));
        assert_eq!(unlocked.tokens.refresh.unwrap().expose(), r#"refresh-2-with-"quotes\""#);
        assert_eq!(unlocked.secrets.password.unwrap().expose(), b"own");
        account.current.sealed = seal::seal(&account.public_key, b"elsewhere", b"x").unwrap();
        assert_eq!(account.take_tokens(&key, &slot).unwrap().tokens.access.expose(), "access-1");
        account.settle();
        assert!(matches!(account.take_tokens(&key, &slot), Err(VaultError::Damaged(_))));
    }

    #[test]
    fn a_token_set_does_not_open_in_another_place() {
        let (mut account, key, slot) = account();
        if let Some(previous) = &mut account.previous {
            std::mem::swap(&mut previous.sealed, &mut account.current.sealed);
        }
        assert!(matches!(account.take_tokens(&key, &slot), Err(VaultError::Damaged(_))));
    }

    #[test]
    fn a_record_of_another_account_or_format_is_not_read() {
        let (account, ..) = account();
        let content = Entry::Account(Box::new(account)).to_content("ann@example.test").unwrap();
        let mut record = Record { format: FORMAT, serial: 1, content };
        assert!(Entry::read("ann@example.test", &record).is_some());
        assert!(Entry::read("ben@example.test", &record).is_none());
        record.format += 1;
        assert!(Entry::read("ann@example.test", &record).is_none());
        let forgotten = Entry::Forgotten { generation: 7 }.to_content("ann@example.test").unwrap();
        assert_eq!(forgotten, br#"{"forgotten":{"generation":7}}"#);
    }

    #[test]
    fn who_takes_a_limit_out_of_the_file_has_a_slot_that_does_not_open() {
        let (mut account, key, _) = account();
        let password = Password::generate();
        let limits = Limits { protocols: vec!["imap".into()], uids: vec![1000] };
        account.add_slot(&key, "phone", &password, limits.clone(), NOW).unwrap();
        assert_eq!(account.unlock(&password).unwrap().1.limits, limits);
        for forged in [
            Limits::default(),
            Limits { uids: Vec::new(), ..limits.clone() },
            Limits { protocols: Vec::new(), ..limits.clone() },
            Limits { uids: vec![1000, 0], ..limits.clone() },
            Limits { protocols: vec!["imap".into(), "smtp".into()], ..limits },
        ] {
            account.slots[1].limits = forged;
            assert!(matches!(account.unlock(&password), Err(VaultError::Damaged(_))));
        }
    }

    #[test]
    fn a_slot_without_limits_lies_in_the_file_as_it_did_before_there_were_any() {
        let (account, ..) = account();
        let text = serde_json::to_string(&account.slots[0]).unwrap();
        assert!(!text.contains("limits"), "{text}");
        assert!(serde_json::from_str::<Slot>(&text).unwrap().limits.is_none());
    }
}
