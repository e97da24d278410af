//! App passwords' places: an account's private key, wrapped once per app password.

use serde::{Deserialize, Serialize};

use super::error::VaultError;
use super::limits::Limits;
use super::password::Password;
use super::record::text;
use super::seal::{AccountKey, Damaged, Derived, Wrapped};
use super::stretch::{NoMemory, Stretch};
use crate::clock::Moment;
use crate::random;

/// An app password's place.
#[derive(Clone, Serialize, Deserialize)]
pub struct Slot {
    /// What the user calls it: the mail program or device that it was made for.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// What its password is good for.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// None in a slot of format 1: its password has either form, and the account's salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own: Option<Own>,
    wrapped: Wrapped,
}

/// What a slot has of its own since format 2.
#[derive(Clone, Serialize, Deserialize)]
struct Own {
    /// Tells it from another slot of its name. It stays when the key is wrapped again.
    #[serde(with = "text")]
    id: Vec<u8>,
    #[serde(with = "text")]
    salt: Vec<u8>,
    /// None for a generated password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stretch: Option<Stretch>,
}

/// A slot whose password has been derived already, because that may take a while.
pub struct Prepared {
    own: Own,
    derived: Derived,
}

impl Prepared {
    /// Derives the password with a salt of its own, and at today's cost.
    pub fn new(password: &Password) -> Result<Self, NoMemory> {
        let stretch = (!password.is_generated()).then_some(Stretch::STRONG);
        let own = Own { id: random::bytes::<8>().to_vec(), salt: random::bytes::<16>().to_vec(), stretch };
        let derived = own.derive(password.prepared().as_ref().unwrap_or(password))?;
        Ok(Self { own, derived })
    }

    /// Whether a person chose its password.
    pub const fn is_chosen(&self) -> bool {
        self.own.stretch.is_some()
    }

    /// Wraps the key. `context` makes what has to be authenticated out of what is said about the slot.
    pub fn wrap(
        self,
        key: &AccountKey,
        (name, limits, created): (&str, Limits, Moment),
        context: impl Fn(&str) -> Vec<u8>,
    ) -> Result<Slot, Damaged> {
        let about = self.own.authenticated(name, &limits, created);
        let wrapped = key.wrap(&self.derived, &context(&about))?;
        Ok(Slot { name: name.to_owned(), created, limits, own: Some(self.own), wrapped })
    }
}

impl Own {
    fn derive(&self, password: &Password) -> Result<Derived, NoMemory> {
        Derived::new(password, &self.salt, self.stretch.unwrap_or(Stretch::STRONG))
    }

    /// All that is said about the slot in plain text: different slots are different texts.
    fn authenticated(&self, name: &str, limits: &Limits, created: Moment) -> String {
        let Self { id, salt, stretch } = self;
        let stretch = stretch.map_or((0, 0), Stretch::parameters);
        format!("slot {name:?} of {} for {} by {id:?} {salt:?} {stretch:?}", created.0, limits.authenticated())
    }
}

impl Slot {
    /// Whether this is a slot of format 1.
    pub fn is_of_format_1(&self) -> bool {
        self.own.is_none()
    }

    /// Whether its key should be wrapped again: it is of format 1, or cheap to guess at.
    pub fn is_weak(&self) -> bool {
        self.own.as_ref().is_none_or(|own| own.stretch.is_some_and(Stretch::is_weak))
    }

    /// Its password's derivation, if it is one that a person chose. None for a slot of format 1, too, which may be either.
    pub fn stretch(&self) -> Option<Stretch> {
        self.own.as_ref()?.stretch
    }

    /// Whether both are the same slot, and not another one of its name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    fn id(&self) -> &[u8] {
        self.own.as_ref().map_or(self.wrapped.tag(), |own| &own.id)
    }

    /// Wraps the key again, for the same password.
    pub fn renew(
        &mut self,
        key: &AccountKey,
        mut prepared: Prepared,
        context: impl Fn(&str) -> Vec<u8>,
    ) -> Result<(), Damaged> {
        prepared.own.id = self.id().to_vec();
        *self = prepared.wrap(key, (&self.name.clone(), self.limits.clone(), self.created), context)?;
        Ok(())
    }

    /// A slot that no password opens, with the work of one that was chosen.
    pub fn decoy(&self) -> Self {
        let mut decoy = self.clone();
        if let Some(own) = &mut decoy.own {
            own.stretch = Some(Stretch::STRONG);
        }
        decoy
    }

    /// The private key inside. `of_format_1` makes the context for format 1, and `context` the one since.
    pub fn unwrap_key(
        &self,
        derived: &Derived,
        of_format_1: impl Fn(&str) -> Vec<u8>,
        context: impl Fn(&str) -> Vec<u8>,
    ) -> Result<AccountKey, Damaged> {
        let context = match &self.own {
            Some(own) => context(&own.authenticated(&self.name, &self.limits, self.created)),
            None if self.limits.is_none() => of_format_1("slot"),
            None => of_format_1(&format!("slot for {}", self.limits.authenticated())),
        };
        self.wrapped.unwrap_key(derived, &context)
    }
}

/// The forms of a password, by what finding its slot takes: generated; chosen; chosen, and come in other bytes than usual.
pub const FORMS: usize = 3;

/// Looks for the slot of a password. An unknown account costs the same as a wrong password, so the work is counted.
pub struct Search {
    typed: Password,
    /// Where it differs from what was typed. Slots have this form since format 2.
    prepared: Option<Password>,
    derivations: usize,
}

impl Search {
    /// A search for this password's slot.
    pub fn new(password: &Password) -> Self {
        Self { typed: password.clone(), prepared: password.prepared(), derivations: 0 }
    }

    /// Which of the [`FORMS`] the password has.
    pub fn form(&self) -> usize {
        match (self.typed.is_generated(), &self.prepared) {
            (true, _) => 0,
            (false, None) => 1,
            (false, Some(_)) => 2,
        }
    }

    /// The slot that the password opens, and what it comes to there. `salt` is that of the slots of format 1.
    pub fn find<'a>(&mut self, slots: &'a [Slot], salt: &[u8]) -> Result<(&'a Slot, Derived), VaultError> {
        for slot in slots {
            if let Some(derived) = self.derive(slot)?
                && slot.wrapped.belongs_to(&derived)
            {
                return Ok((slot, derived));
            }
        }
        let of_format_1: Vec<&Slot> = slots.iter().filter(|slot| slot.is_of_format_1()).collect();
        let forms: Vec<Password> = [Some(&self.typed), self.prepared.as_ref()].into_iter().flatten().cloned().collect();
        for password in forms.iter().filter(|_| !of_format_1.is_empty()) {
            let derived = self.count(Derived::new(password, salt, Stretch::FORMAT_1))?;
            if let Some(slot) = of_format_1.iter().find(|slot| slot.wrapped.belongs_to(&derived)) {
                return Ok((slot, derived));
            }
        }
        Err(VaultError::WrongCredentials)
    }

    /// Does what is missing of the work that the costliest account takes, on a slot that no password opens.
    pub fn fill_up(&mut self, decoy: &Slot, most: usize) -> Result<(), VaultError> {
        while self.derivations < most && self.derive(decoy)?.is_some() {}
        Ok(())
    }

    /// What the password comes to in this slot. None if it is not of the slot's form, or the slot of format 1.
    fn derive(&mut self, slot: &Slot) -> Result<Option<Derived>, VaultError> {
        let usual = self.prepared.as_ref().unwrap_or(&self.typed);
        let own = slot.own.as_ref().filter(|own| own.stretch.is_none() == usual.is_generated());
        let derived = own.map(|own| own.derive(usual));
        derived.map(|derived| self.count(derived)).transpose()
    }

    fn count(&mut self, derived: Result<Derived, NoMemory>) -> Result<Derived, VaultError> {
        self.derivations += 1;
        derived.map_err(|NoMemory| VaultError::NoMemory)
    }
}

/// How many derivations it takes to find that no slot of these fits a password, for each of the [`FORMS`].
pub fn derivations(slots: &[Slot]) -> [usize; FORMS] {
    let own = || slots.iter().filter_map(|slot| slot.own.as_ref());
    let generated = own().filter(|own| own.stretch.is_none()).count();
    let chosen = own().count() - generated;
    let of_format_1 = usize::from(slots.iter().any(Slot::is_of_format_1));
    [generated + of_format_1, chosen + of_format_1, chosen + 2 * of_format_1]
}
