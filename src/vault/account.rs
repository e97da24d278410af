//! An account's record: what is plain in it, and what is sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::VaultError;
use super::limits::Limits;
use super::password::Password;
use super::record::{FORMAT, Record, checksum, text};
use super::seal::{self, AccountKey, Damaged, Sealed};
use super::slot::{self, Prepared, Search, Slot};
use super::stretch::Stretch;
use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::config::provider::Discovered;
use crate::config::provider::is_protected;
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};

/// What an authorization has brought.
pub struct Authorization {
    /// For which address.
    pub address: String,
    /// At which provider.
    pub provider: String,
    /// By which grant.
    pub flow: Flow,
    /// With a client registration of the account's own.
    pub client_id: Option<String>,
    /// What is to be kept beside the tokens.
    pub secrets: Secrets,
    /// What was found out about the authorization server, where the configuration does not say all.
    pub discovered: Option<Discovered>,
    /// The tokens.
    pub tokens: TokenSet,
}

/// The secrets that are kept with an account beside its tokens.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Of the client registration of the account's own.
    pub client_secret: Option<Secret>,
    /// The mailbox's own password at the provider, where the grant sends it.
    pub password: Option<Secret>,
}

/// What a record holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// An account.
    Account(Box<StoredAccount>),
    /// An account was here. It is noted, or an older copy that comes to light would bring the account back.
    Forgotten {
        /// Its last token set; one that is authorized here later counts on from there.
        generation: u64,
    },
}

/// An account as it lies in the vault. The public fields are plain text there.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredAccount {
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
    /// Whether older files have been put in the place of both copies of the record: app passwords that had been removed may
    /// be back. It stands until a person authorizes the account again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
    /// One per app password.
    pub slots: Vec<Slot>,
    /// What the provider's servers offered before login when they were last seen, by protocol.
    #[serde(default)]
    pub known: BTreeMap<String, Vec<String>>,
    /// By which SASL mechanism they let this account in, by protocol, where they offer several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mechanisms: BTreeMap<String, String>,
    /// Of all slots of format 1; empty if there are none.
    #[serde(with = "text", default, skip_serializing_if = "Vec::is_empty")]
    salt: Vec<u8>,
    #[serde(with = "text")]
    public_key: Vec<u8>,
    client_secret: Option<Sealed>,
    #[serde(default)]
    password: Option<Sealed>,
    current: Stored,
}

/// Why and since when an authorization has ended.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ended {
    /// Since when.
    pub at: Moment,
    /// The authorization server's reason.
    pub why: String,
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
    /// The current token set.
    pub tokens: TokenSet,
    /// Its number; these numbers only grow.
    pub generation: u64,
    /// The secrets that are kept beside it.
    pub secrets: Secrets,
    /// The app password's place.
    pub slot: Slot,
}

/// What is sealed in a record beside the token set, which is known by its generation.
const CLIENT_SECRET: &str = "client secret";
const PASSWORD: &str = "password";

/// The app passwords of a person's own choice that an account may have: a wrong one costs a derivation for each.
const MOST_CHOSEN: usize = 8;

impl Entry {
    /// Reads the record that is kept under this address. None if it is of another account or a format that is not known,
    /// or if it asks for what no record of ours asks for.
    pub(super) fn read(address: &str, record: &Record) -> Option<Self> {
        let is_known = (1..=FORMAT).contains(&record.format);
        let entry: Self = is_known.then(|| serde_json::from_slice(&record.content).ok())??;
        match &entry {
            Self::Account(account) if account.address != address || !account.is_sound() => None,
            _ => Some(entry),
        }
    }

    /// The content of the record to keep.
    pub(super) fn to_content(&self, address: &str) -> Result<Vec<u8>, VaultError> {
        serde_json::to_vec(self).map_err(|_| VaultError::Damaged(address.to_owned()))
    }
}

impl StoredAccount {
    /// A new account with its first slot. Its token sets are numbered from above `generation`.
    pub(super) fn begin(
        authorization: &Authorization,
        first: Option<(&str, Prepared)>,
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
            rolled_back: false,
            slots: Vec::new(),
            known: BTreeMap::new(),
            mechanisms: BTreeMap::new(),
            salt: Vec::new(),
            public_key,
            client_secret: None,
            password: None,
            current: Stored { generation, life, scope: String::new(), sealed: nothing },
        };
        account.authorize(authorization, now)?;
        if let Some((name, prepared)) = first {
            account.add_slot(&key, name, prepared, Limits::default(), now)?;
        }
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
        let prepared = Prepared::new(&Password::generate()).map_err(|_| VaultError::NoMemory)?;
        let mut decoy = Self::begin(&authorization, Some(("", prepared)), 0, Moment(0))?;
        decoy.slots.extend(decoy.slots.first().map(Slot::decoy));
        Ok(decoy)
    }

    /// Whether it asks for nothing that no record of ours asks for: tokens go nowhere in the clear, and a login does not
    /// take the machine's memory and time away.
    fn is_sound(&self) -> bool {
        let endpoints = self.discovered.iter().flat_map(|discovered| discovered.endpoints.all());
        let stretches = || self.slots.iter().filter_map(Slot::stretch);
        let most = 2 * MOST_CHOSEN as u64 * Stretch::STRONG.cost();
        endpoints.into_iter().all(is_protected)
            && stretches().all(Stretch::is_bearable)
            && stretches().map(Stretch::cost).sum::<u64>() <= most
    }

    /// The life of the current access token.
    pub fn life(&self) -> Life {
        self.current.life
    }

    /// Which token set is the current one.
    pub fn generation(&self) -> u64 {
        self.current.generation
    }

    /// Puts in what an authorization has brought.
    pub(super) fn authorize(&mut self, authorization: &Authorization, now: Moment) -> Result<(), VaultError> {
        self.provider.clone_from(&authorization.provider);
        self.flow = authorization.flow;
        self.client_id.clone_from(&authorization.client_id);
        self.discovered.clone_from(&authorization.discovered);
        self.authorized = now;
        self.ended = None;
        self.rolled_back = false;
        self.seal_secrets(&authorization.secrets)?;
        self.put_tokens(&authorization.tokens)
    }

    fn seal_secrets(&mut self, secrets: &Secrets) -> Result<(), VaultError> {
        let seal =
            |what, secret: &Option<Secret>| secret.as_ref().map(|secret| self.seal(what, secret.expose())).transpose();
        let sealed = (seal(CLIENT_SECRET, &secrets.client_secret)?, seal(PASSWORD, &secrets.password)?);
        (self.client_secret, self.password) = sealed;
        Ok(())
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
        self.current = stored;
        self.doubtful = false;
        Ok(())
    }

    /// The token set, and the secrets beside it.
    pub(super) fn take_tokens(&self, key: &AccountKey, slot: &Slot) -> Result<Unlocked, VaultError> {
        // What a slot since format 2 opens is bound. Something older has been put in from elsewhere.
        let pieces = [Some(&self.current.sealed), self.client_secret.as_ref(), self.password.as_ref()];
        if !slot.is_of_format_1() && pieces.into_iter().flatten().any(|sealed| !sealed.is_bound) {
            return Err(self.damaged());
        }
        let tokens = self.open_tokens(key, &self.current).ok_or_else(|| self.damaged())?;
        let secrets = self.open_secrets(key)?;
        Ok(Unlocked { tokens, generation: self.current.generation, secrets, slot: slot.clone() })
    }

    fn open_secrets(&self, key: &AccountKey) -> Result<Secrets, VaultError> {
        Ok(Secrets {
            client_secret: self.open_secret(key, CLIENT_SECRET, self.client_secret.as_ref())?,
            password: self.open_secret(key, PASSWORD, self.password.as_ref())?,
        })
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

    /// Makes a slot for a password.
    pub(super) fn add_slot(
        &mut self,
        key: &AccountKey,
        name: &str,
        prepared: Prepared,
        limits: Limits,
        now: Moment,
    ) -> Result<(), VaultError> {
        if self.slots.iter().any(|slot| slot.name == name) {
            return Err(VaultError::SlotExists(name.to_owned()));
        }
        if prepared.is_chosen() && self.slots.iter().filter_map(Slot::stretch).count() >= MOST_CHOSEN {
            return Err(VaultError::TooManyChosen(MOST_CHOSEN));
        }
        self.bind(key)?;
        let slot = prepared.wrap(key, (name, limits, now), |about| self.context(FORMAT, about));
        self.slots.push(slot.map_err(|Damaged| self.damaged())?);
        Ok(())
    }

    /// Wraps the key again for a slot that is not as new ones are.
    pub(super) fn renew_slot(&mut self, key: &AccountKey, slot: &Slot, prepared: Prepared) -> Result<(), VaultError> {
        self.bind(key)?;
        let mut slots = std::mem::take(&mut self.slots);
        if let Some(slot) = slots.iter_mut().find(|one| one.is_same(slot)) {
            let renewed = slot.renew(key, prepared, |about| self.context(FORMAT, about));
            renewed.map_err(|Damaged| self.damaged())?;
        }
        self.slots = slots;
        if !self.slots.iter().any(Slot::is_of_format_1) {
            self.salt.clear();
        }
        Ok(())
    }

    /// Seals what is still sealed as in format 1, bound to where the tokens are sent.
    fn bind(&mut self, key: &AccountKey) -> Result<(), VaultError> {
        let secrets = self.open_secrets(key)?;
        let tokens = self.open(key, &self.current.generation.to_string(), &self.current.sealed);
        let tokens = tokens.ok_or_else(|| self.damaged())?;
        self.current.sealed = self.seal(&self.current.generation.to_string(), &tokens)?;
        self.seal_secrets(&secrets)
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
        self.slots.iter().any(|one| one.is_same(slot))
    }

    /// How many derivations a wrong password of each form costs here.
    pub(super) fn derivations(&self) -> [usize; slot::FORMS] {
        slot::derivations(&self.slots)
    }

    /// The private key, and the slot that this password opens.
    pub(super) fn unlock(&self, search: &mut Search) -> Result<(AccountKey, &Slot), VaultError> {
        let (slot, derived) = search.find(&self.slots, &self.salt)?;
        let key = slot.unwrap_key(&derived, |about| self.context(1, about), |about| self.context(FORMAT, about));
        match key {
            Ok(key) if key.public_key() == self.public_key => Ok((key, slot)),
            _ => Err(self.damaged()),
        }
    }

    /// Goes on with a search that has found nothing, until it has cost as much as anywhere.
    pub(super) fn search_on(&self, search: &mut Search, most: usize) -> Result<(), VaultError> {
        self.slots.iter().try_for_each(|slot| search.fill_up(slot, most))
    }

    fn seal(&self, what: &str, plain: &[u8]) -> Result<Sealed, VaultError> {
        let context = self.context(FORMAT, &self.bound(what));
        seal::seal(&self.public_key, &context, plain).map_err(|Damaged| self.damaged())
    }

    fn open(&self, key: &AccountKey, what: &str, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let context = if sealed.is_bound { self.context(FORMAT, &self.bound(what)) } else { self.context(1, what) };
        key.open(&context, sealed).ok()
    }

    /// Binds what is sealed to its place: format, account and kind or generation. An address holds no NUL.
    fn context(&self, format: u32, what: &str) -> Vec<u8> {
        format!("{format}\0{}\0{what}", self.address).into_bytes()
    }

    /// Binds what is sealed to where it is sent: whoever can write to the record, or to a backup of it, has no tokens sent
    /// elsewhere. What is added here later is left out where it is not there, so that older records open.
    fn bound(&self, what: &str) -> String {
        let mut parts = vec![("provider", self.provider.as_str()), ("flow", self.flow.name())];
        parts.extend(self.client_id.as_deref().map(|id| ("client", id)));
        // The other members explain errors, and nothing is sent where they say.
        if let Some(Discovered { issuer, endpoints, is_registered, is_self_registered: _, methods: _ }) =
            &self.discovered
        {
            parts.extend([("issuer", issuer.as_str()), ("registered", if *is_registered { "yes" } else { "no" })]);
            parts.extend(endpoints.named().map(|(name, url)| (name, url.as_str())));
        }
        let mut bytes: Vec<&[u8]> =
            parts.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
        bytes.push(&self.public_key);
        format!("{what} {}", checksum(&bytes))
    }

    fn damaged(&self) -> VaultError {
        VaultError::Damaged(self.address.clone())
    }
}

/// The account that an exported record holds.
pub(super) fn exported(address: &str, exported: &[u8]) -> Result<(Record, Box<StoredAccount>), VaultError> {
    let record = Record::read(address, exported);
    match record.and_then(|record| Some((Entry::read(address, &record)?, record))) {
        Some((Entry::Account(account), record)) => Ok((record, account)),
        _ => Err(VaultError::NotAnAccount(address.to_owned())),
    }
}

#[cfg(test)]
mod tests;
