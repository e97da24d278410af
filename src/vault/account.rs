//! The content of an account's record: a plain part and a sealed part.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::VaultError;
use super::offers::OfferByProtocol;
use super::password::Password;
use super::record::{FORMAT, Record, checksum, shared, text};
use super::seal::{self, AccountKey, Damaged, Sealed};
use super::slot::{self, Limits, Prepared, Search, Slot};
use super::stretch::Stretch;
use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, is_protected};
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};

/// The result of an authorization.
pub struct Authorization {
    pub address: String,
    pub provider: String,
    pub flow: Flow,
    /// The client id, if the account has a client registration of its own.
    pub client_id: Option<String>,
    pub secrets: Secrets,
    /// The discovered metadata of the authorization server, if the configuration is not complete.
    pub discovered: Option<Discovered>,
    pub tokens: TokenSet,
}

/// The secrets that are stored with an account beside its tokens.
#[derive(Clone, Default)]
pub struct Secrets {
    /// The secret of the account's own client registration.
    pub client_secret: Option<Secret>,
    /// What the grant itself needs: the mailbox's own password at the provider, or the key file of a service account.
    pub grant_secret: Option<Secret>,
}

/// The content of a record. Clones share the account.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Account(#[serde(with = "shared")] Arc<StoredAccount>),
    /// There was an account. Without this entry, an older copy that appears later would bring it back.
    Forgotten {
        /// The generation of its last token set. The generations of a later account continue from there.
        generation: u64,
    },
}

/// An account as it is in the vault. The public fields are plain text there.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct StoredAccount {
    /// The login name in lower case, and the key of the record.
    pub address: String,
    /// The provider's name in the configuration.
    pub provider: String,
    #[serde(default)]
    pub flow: Flow,
    /// The client to which the authorization was given, if the configuration has none.
    pub client_id: Option<String>,
    /// The discovered metadata of the authorization server, if the configuration is not complete. It is stored because
    /// tokens must be refreshed even while the server's metadata cannot be reached.
    #[serde(default)]
    pub discovered: Option<Box<Discovered>>,
    /// When a person last authorized the account.
    pub authorized: Moment,
    /// Why a person has to authorize it again, if so.
    pub ended: Option<Ended>,
    /// Whether the newest token set may be lost, because damage has left only a copy of the record that may be older.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubtful: bool,
    /// Whether both copies of the record have been replaced by older files, so that removed app passwords may be back. It
    /// stays until a person authorizes the account again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
    /// One for each app password.
    pub slots: Vec<Slot>,
    /// The capabilities that the provider's servers last offered before the login, by protocol.
    #[serde(default, with = "shared")]
    pub known: Arc<OfferByProtocol>,
    /// The SASL mechanism with which they accept this account, by protocol, if they offer several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mechanisms: BTreeMap<String, String>,
    /// The salt of all slots of format 1. Empty if there are none.
    #[serde(with = "text", default, skip_serializing_if = "Vec::is_empty")]
    salt: Vec<u8>,
    #[serde(with = "text")]
    public_key: Vec<u8>,
    client_secret: Option<Sealed>,
    #[serde(default)]
    password: Option<Sealed>,
    current: Stored,
}

/// When and why an authorization ended.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ended {
    pub at: Moment,
    /// The reason that the authorization server gave.
    pub why: String,
}

/// A token set as it is stored.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Stored {
    generation: u64,
    life: Life,
    scope: String,
    sealed: Sealed,
}

/// The part of a record that an app password opens.
pub struct Unlocked {
    pub tokens: TokenSet,
    /// The number of the token set. These numbers only grow.
    pub generation: u64,
    pub secrets: Secrets,
    /// The slot of the app password.
    pub slot: Slot,
    /// Opens token sets that other replicas store. None if no other replica can store one.
    pub opener: Option<Arc<Opener>>,
}

/// Opens an account's later token sets without the app password.
pub struct Opener {
    key: AccountKey,
    slot: Slot,
}

/// The names of what is sealed in a record beside the token set, whose name is its generation.
const CLIENT_SECRET: &str = "client secret";
const PASSWORD: &str = "password";

/// The maximum number of chosen app passwords of an account, because a wrong one costs a derivation for each.
const MOST_CHOSEN: usize = 8;

impl Opener {
    pub(super) fn new(key: AccountKey, slot: Slot) -> Arc<Self> {
        Arc::new(Self { key, slot })
    }
}

impl Entry {
    /// The generation of its token set, or of the last one of a forgotten account.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Account(account) => account.generation(),
            Self::Forgotten { generation } => *generation,
        }
    }

    /// Reads the record of this address. None if it belongs to another account, has an unknown format, or asks for
    /// something that no record of ours asks for.
    pub(super) fn read(address: &str, record: &Record) -> Option<Self> {
        let is_known = (1..=FORMAT).contains(&record.format);
        let mut entry: Self = is_known.then(|| serde_json::from_slice(&record.content).ok())??;
        if let Self::Account(account) = &mut entry {
            let account = Arc::make_mut(account);
            // The parser reserves more memory than the slots need.
            account.slots.shrink_to_fit();
            if account.address != address || !account.is_sound() {
                return None;
            }
        }
        Some(entry)
    }

    pub(super) fn to_content(&self, address: &str) -> Result<Vec<u8>, VaultError> {
        serde_json::to_vec(self).map_err(|_| VaultError::Damaged(address.to_owned()))
    }
}

impl StoredAccount {
    /// A new account with its first slot. The generations of its token sets start above `generation`.
    pub(super) fn begin(
        authorization: &Authorization,
        first: Option<(&str, &Prepared)>,
        generation: u64,
        now: Moment,
    ) -> Result<Self, VaultError> {
        let (key, public_key) = seal::key_pair();
        let current = Stored { generation, ..Stored::default() };
        let mut account = Self { address: authorization.address.clone(), public_key, current, ..Self::default() };
        account.authorize(authorization, now)?;
        if let Some((name, prepared)) = first {
            account.add_slot(&key, name, prepared, Limits::default(), now)?;
        }
        Ok(account)
    }

    /// An account that no password opens, with one slot of each form.
    pub(super) fn decoy() -> Result<Self, VaultError> {
        let prepared = Prepared::new(&Password::generate())?;
        let (key, public_key) = seal::key_pair();
        let mut decoy = Self { public_key, ..Self::default() };
        let slot = prepared.wrap(&key, ("", Limits::default(), Moment(0)), |about| decoy.context(FORMAT, about));
        let slot = slot.map_err(|Damaged| decoy.damaged())?;
        decoy.slots = vec![slot.decoy(), slot];
        Ok(decoy)
    }

    /// Whether it asks for nothing that no record of ours asks for: no unencrypted connection, and no login that takes all
    /// of the machine's memory or time.
    fn is_sound(&self) -> bool {
        let endpoints = self.discovered.iter().flat_map(|discovered| discovered.endpoints.all());
        let stretches = || self.slots.iter().filter_map(Slot::stretch);
        let most = 2 * MOST_CHOSEN as u64 * Stretch::STRONG.cost();
        endpoints.into_iter().all(is_protected)
            && stretches().all(Stretch::is_acceptable)
            && stretches().map(Stretch::cost).sum::<u64>() <= most
    }

    /// The life of the current access token.
    pub fn life(&self) -> Life {
        self.current.life
    }

    /// Whether the account's own client registration has a secret.
    pub fn has_client_secret(&self) -> bool {
        self.client_secret.is_some()
    }

    /// Which token set is the current one.
    pub fn generation(&self) -> u64 {
        self.current.generation
    }

    pub(super) fn authorize(&mut self, authorization: &Authorization, now: Moment) -> Result<(), VaultError> {
        self.provider.clone_from(&authorization.provider);
        self.flow = authorization.flow;
        self.client_id.clone_from(&authorization.client_id);
        self.discovered = authorization.discovered.clone().map(Box::new);
        self.authorized = now;
        self.ended = None;
        self.rolled_back = false;
        self.seal_secrets(&authorization.secrets)?;
        self.put_tokens(&authorization.tokens)
    }

    fn seal_secrets(&mut self, secrets: &Secrets) -> Result<(), VaultError> {
        let seal =
            |what, secret: &Option<Secret>| secret.as_ref().map(|secret| self.seal(what, secret.expose())).transpose();
        let sealed = (seal(CLIENT_SECRET, &secrets.client_secret)?, seal(PASSWORD, &secrets.grant_secret)?);
        (self.client_secret, self.password) = sealed;
        Ok(())
    }

    /// Fails if a person has authorized or restored the account since `generation`, because a refresh takes seconds.
    pub(super) fn check_current(&self, generation: u64) -> Result<(), VaultError> {
        match self.current.generation == generation {
            true => Ok(()),
            false => Err(VaultError::Superseded(self.address.clone())),
        }
    }

    /// Makes this token set the current one. Tokens contain no line end, so one separates them.
    pub(super) fn put_tokens(&mut self, tokens: &TokenSet) -> Result<(), VaultError> {
        let generation = self.current.generation + 1;
        let refresh = tokens.refresh.as_ref().map_or("", Token::expose);
        let plain = Zeroizing::new(format!("{}\n{refresh}", tokens.access.expose()));
        let sealed = self.seal(&generation.to_string(), plain.as_bytes())?;
        self.current = Stored { generation, life: tokens.life, scope: tokens.scope.clone(), sealed };
        self.doubtful = false;
        Ok(())
    }

    /// Opens the token set and the secrets beside it.
    pub(super) fn take_tokens(&self, key: &AccountKey, slot: &Slot) -> Result<Unlocked, VaultError> {
        // A slot since format 2 only opens what is bound. Anything else has been copied from an older record.
        let pieces = [Some(&self.current.sealed), self.client_secret.as_ref(), self.password.as_ref()];
        if !slot.is_of_format_1() && pieces.into_iter().flatten().any(|sealed| !sealed.is_bound) {
            return Err(self.damaged());
        }
        let tokens = self.open_tokens(key).ok_or_else(|| self.damaged())?;
        let secrets = self.open_secrets(key)?;
        Ok(Unlocked { tokens, generation: self.current.generation, secrets, slot: slot.clone(), opener: None })
    }

    /// Opens the token set with what an app password has opened before. Fails if it is another account by now.
    pub(super) fn open_again(&self, opener: &Arc<Opener>) -> Result<Unlocked, VaultError> {
        if opener.key.public_key() != self.public_key {
            return Err(VaultError::Superseded(self.address.clone()));
        }
        Ok(Unlocked { opener: Some(Arc::clone(opener)), ..self.take_tokens(&opener.key, &opener.slot)? })
    }

    /// This account with the token set of another record of it, if that was made from this token set. What is sealed is
    /// bound to where it is sent, so both must be sent to the same place.
    pub(super) fn with_tokens_of(&self, other: &Self) -> Option<Self> {
        let follows = other.current.generation == self.current.generation.saturating_add(1);
        let is_same = follows && self.public_key == other.public_key && self.bound("") == other.bound("");
        is_same.then(|| Self { current: other.current.clone(), ended: None, doubtful: false, ..self.clone() })
    }

    fn open_secrets(&self, key: &AccountKey) -> Result<Secrets, VaultError> {
        Ok(Secrets {
            client_secret: self.open_secret(key, CLIENT_SECRET, self.client_secret.as_ref())?,
            grant_secret: self.open_secret(key, PASSWORD, self.password.as_ref())?,
        })
    }

    fn open_secret(&self, key: &AccountKey, what: &str, sealed: Option<&Sealed>) -> Result<Option<Secret>, VaultError> {
        let open = |sealed| self.open(key, what, sealed).ok_or_else(|| self.damaged());
        Ok(sealed.map(open).transpose()?.map(|plain| Secret::new(plain.to_vec())))
    }

    fn open_tokens(&self, key: &AccountKey) -> Option<TokenSet> {
        let Stored { generation, life, scope, sealed } = &self.current;
        let plain = self.open(key, &generation.to_string(), sealed)?;
        let (access, refresh) = std::str::from_utf8(&plain).ok()?.split_once('\n')?;
        let (access, refresh) = (Token::parse(access)?, Token::parse(refresh));
        Some(TokenSet { access, refresh, life: *life, scope: scope.clone() })
    }

    pub(super) fn add_slot(
        &mut self,
        key: &AccountKey,
        name: &str,
        prepared: &Prepared,
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

    /// Wraps the key again for a slot of an older kind.
    pub(super) fn renew_slot(&mut self, key: &AccountKey, slot: &Slot, prepared: &Prepared) -> Result<(), VaultError> {
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

    /// Seals everything again, because in format 1 it is not bound to where the tokens are sent.
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

    /// Whether this is a later record of the same authorization, so that what was opened with the other one stays valid.
    pub fn continues(&self, other: &Self) -> bool {
        let authorization = |account: &Self| (account.authorized, account.ended.is_some(), account.bound(""));
        authorization(self) == authorization(other)
    }

    /// Whether both records have the same app passwords.
    pub fn has_slots_of(&self, other: &Self) -> bool {
        self.slots.len() == other.slots.len() && other.slots.iter().all(|slot| self.has_slot(slot))
    }

    /// Whether this slot still exists, and not just another one with its name.
    pub fn has_slot(&self, slot: &Slot) -> bool {
        self.slots.iter().any(|one| one.is_same(slot))
    }

    /// How many derivations a wrong password of each form takes here.
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

    /// Continues a search that has found nothing, until it has taken as long as in any account.
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

    /// Binds what is sealed to its format, its account, and its name or generation. An address contains no NUL.
    fn context(&self, format: u32, what: &str) -> Vec<u8> {
        format!("{format}\0{}\0{what}", self.address).into_bytes()
    }

    /// Binds what is sealed to where it is sent, so that whoever can write to the record or a backup of it cannot have the
    /// tokens sent elsewhere. Later additions must be left out if they are empty, so that older records open.
    fn bound(&self, what: &str) -> String {
        let mut parts = vec![("provider", self.provider.as_str()), ("flow", self.flow.name())];
        parts.extend(self.client_id.as_deref().map(|id| ("client", id)));
        // The other members only explain errors. They do not say where anything is sent.
        if let Some(Discovered { issuer, endpoints, is_registered, is_self_registered: _, methods: _ }) =
            self.discovered.as_deref()
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

/// Reads the account in an exported record.
pub(super) fn exported(address: &str, exported: &[u8]) -> Result<(Record, Arc<StoredAccount>), VaultError> {
    let record = Record::read(address, exported);
    match record.and_then(|record| Some((Entry::read(address, &record)?, record))) {
        Some((Entry::Account(account), record)) => Ok((record, account)),
        _ => Err(VaultError::NotAnAccount(address.to_owned())),
    }
}

#[cfg(test)]
mod tests;
