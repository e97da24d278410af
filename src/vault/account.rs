//! An account's record: what is plain in it, and what is sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::password::Password;
use super::seal::{self, AccountKey, Damaged, Derived, Sealed, Wrapped};
use super::{Authorization, VaultError, text};
use crate::clock::Moment;
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};

/// The format of the records. A record of another format is left alone and reported.
const FORMAT: u32 = 1;

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

/// What an app password takes out of the vault.
pub struct Unlocked {
    /// The newest token set that can be read.
    pub tokens: TokenSet,
    /// Which one that is; generations only grow.
    pub generation: u64,
    /// The client secret that is kept with the account.
    pub client_secret: Option<Secret>,
}

/// What is sealed or wrapped in a record beside the token sets, which are told apart by their generation.
const CLIENT_SECRET: &str = "client secret";
const SLOT: &str = "slot";

impl Account {
    /// A new account with its first slot, as yet without tokens.
    pub(super) fn begin(address: &str, first: Option<(&str, &Password)>, now: Moment) -> Result<Self, VaultError> {
        let (key, public_key) = seal::key_pair();
        let nothing = seal::seal(&public_key, b"", b"").map_err(|Damaged| VaultError::Damaged(address.to_owned()))?;
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
            current: Stored {
                generation: 0,
                life: Life { issued: Moment(0), expires: Moment(0) },
                scope: String::new(),
                sealed: nothing,
            },
            previous: None,
        };
        if let Some((name, password)) = first {
            account.add_slot(&key, name, password, now)?;
        }
        Ok(account)
    }

    /// Reads the record that is kept under this address; None if it is damaged, of another account or another format.
    pub(super) fn from_record(address: &str, record: &[u8]) -> Option<Self> {
        let account: Self = serde_json::from_slice(record).ok()?;
        (account.format == FORMAT && account.address == address).then_some(account)
    }

    /// The record to keep.
    pub(super) fn to_record(&self) -> Result<Vec<u8>, VaultError> {
        serde_json::to_vec(self).map_err(|_| self.damaged())
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
        self.client_id.clone_from(&authorization.client_id);
        self.authorized = now;
        self.ended = None;
        self.client_secret = match &authorization.client_secret {
            Some(secret) => Some(self.seal(CLIENT_SECRET, secret.expose())?),
            None => None,
        };
        self.put_tokens(&authorization.tokens)
    }

    /// A refresh takes seconds, in which a person may have authorized the account anew.
    pub(super) fn check_newest(&self, generation: u64) -> Result<(), VaultError> {
        match self.current.generation > generation {
            true => Err(VaultError::Superseded(self.address.clone())),
            false => Ok(()),
        }
    }

    /// Makes this token set the current one. Tokens hold no line end, so one stands between them.
    pub(super) fn put_tokens(&mut self, tokens: &TokenSet) -> Result<(), VaultError> {
        let generation = self.current.generation + 1;
        let refresh = tokens.refresh.as_ref().map_or("", Token::expose);
        let plain = Zeroizing::new(format!("{}\n{refresh}", tokens.access.expose()));
        let sealed = self.seal(&generation.to_string(), plain.as_bytes())?;
        let stored = Stored { generation, life: tokens.life, scope: tokens.scope.clone(), sealed };
        let before = std::mem::replace(&mut self.current, stored);
        self.previous = (before.generation > 0).then_some(before);
        Ok(())
    }

    /// The newest token set that opens, and the client secret.
    pub(super) fn take_tokens(&self, key: &AccountKey) -> Result<Unlocked, VaultError> {
        let newest = std::iter::once(&self.current).chain(&self.previous);
        let opened = newest.filter_map(|stored| Some((stored, self.open_tokens(key, stored)?))).next();
        let (stored, tokens) = opened.ok_or_else(|| self.damaged())?;
        let client_secret = match &self.client_secret {
            Some(sealed) => {
                Some(Secret::new(self.open(key, CLIENT_SECRET, sealed).ok_or_else(|| self.damaged())?.to_vec()))
            }
            None => None,
        };
        Ok(Unlocked { tokens, generation: stored.generation, client_secret })
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
        now: Moment,
    ) -> Result<(), VaultError> {
        if self.slots.iter().any(|slot| slot.name == name) {
            return Err(VaultError::SlotExists(name.to_owned()));
        }
        let wrapped = Derived::new(password, &self.salt).and_then(|derived| key.wrap(&derived, &self.context(SLOT)));
        let wrapped = wrapped.map_err(|Damaged| self.damaged())?;
        self.slots.push(Slot { name: name.to_owned(), created: now, wrapped });
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

    /// What passwords are derived with.
    pub(super) fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The private key, from the slot that this password opens.
    pub(super) fn key(&self, derived: &Derived) -> Result<AccountKey, VaultError> {
        let slot = self.slots.iter().find(|slot| slot.wrapped.belongs_to(derived));
        let wrapped = &slot.ok_or(VaultError::WrongCredentials)?.wrapped;
        wrapped.unwrap_key(derived, &self.context(SLOT)).map_err(|Damaged| self.damaged())
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

    /// An account with two token sets, and its key.
    fn account() -> (Account, AccountKey) {
        let password = Password::generate();
        let mut account = Account::begin("ann@example.test", Some(("main", &password)), NOW).unwrap();
        account.put_tokens(&tokens("1")).unwrap();
        account.put_tokens(&tokens("2")).unwrap();
        let key = account.key(&Derived::new(&password, account.salt()).unwrap()).unwrap();
        (account, key)
    }

    #[test]
    fn the_newest_token_set_that_opens_is_taken() {
        let (mut account, key) = account();
        let unlocked = account.take_tokens(&key).unwrap();
        assert_eq!((unlocked.tokens.access.expose(), unlocked.generation), ("access-2", 2));
        assert_eq!(unlocked.tokens.refresh.unwrap().expose(), r#"refresh-2-with-"quotes\""#);
        account.current.sealed = seal::seal(&account.public_key, b"elsewhere", b"x").unwrap();
        assert_eq!(account.take_tokens(&key).unwrap().tokens.access.expose(), "access-1");
        account.settle();
        assert!(matches!(account.take_tokens(&key), Err(VaultError::Damaged(_))));
    }

    #[test]
    fn a_token_set_does_not_open_in_another_place() {
        let (mut account, key) = account();
        if let Some(previous) = &mut account.previous {
            std::mem::swap(&mut previous.sealed, &mut account.current.sealed);
        }
        assert!(matches!(account.take_tokens(&key), Err(VaultError::Damaged(_))));
    }

    #[test]
    fn a_record_of_another_account_or_format_is_not_read() {
        let (mut account, _) = account();
        let record = account.to_record().unwrap();
        assert!(Account::from_record("ann@example.test", &record).is_some());
        assert!(Account::from_record("ben@example.test", &record).is_none());
        assert!(Account::from_record("ann@example.test", &record[1..]).is_none());
        account.format += 1;
        assert!(Account::from_record("ann@example.test", &account.to_record().unwrap()).is_none());
    }
}
