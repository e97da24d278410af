//! Slots: an account's private key, wrapped once for each app password, and what that password may be used for.

use serde::{Deserialize, Serialize};

use super::error::VaultError;
use super::password::Password;
use super::record::text;
use super::seal::{AccountKey, Damaged, Derived, Wrapped};
use super::stretch::Stretch;
use crate::clock::Moment;
use crate::exit::{Exit, Failed};
use crate::protocol::Protocol;
use crate::random;

/// One app password's way to open an account.
#[derive(Clone, Serialize, Deserialize)]
pub struct Slot {
    /// The user's name for it: usually a mail program or a device.
    pub name: String,
    pub created: Moment,
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// None in a slot of format 1, whose password has either form and the account's salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own: Option<Own>,
    wrapped: Wrapped,
}

/// The permitted uses of an app password. An empty list is not a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Protocols by their names in the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
    /// Users of this machine by their numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uids: Vec<u32>,
}

impl Limits {
    pub fn is_none(&self) -> bool {
        self.protocols.is_empty() && self.uids.is_empty()
    }

    /// The text that is authenticated. Different limits have different texts.
    fn authenticated(&self) -> String {
        format!("{:?} {:?}", self.protocols, self.uids)
    }

    /// Whether they allow this protocol for this user, who is None if unknown.
    pub fn allow(&self, protocol: Protocol, user: Option<u32>) -> bool {
        (self.protocols.is_empty() || self.protocols.iter().any(|name| name == protocol.name()))
            && (self.uids.is_empty() || user.is_some_and(|user| self.uids.contains(&user)))
    }
}

/// For people, as in `imap, smtp, uid 1000`.
impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uids: Vec<String> = self.uids.iter().map(|uid| format!("uid {uid}")).collect();
        write!(f, "{}", [self.protocols.as_slice(), &uids].concat().join(", "))
    }
}

/// Checks the name of an app password, which appears in lists and in the log.
pub fn check_slot_name(name: &str) -> Result<(), Failed> {
    match (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => {
            let why = "the name of an app password must have 1 to 64 characters and no control characters";
            Err(Failed::new(Exit::Usage, why))
        }
    }
}

/// The fields of a slot since format 2.
#[derive(Clone, Serialize, Deserialize)]
struct Own {
    /// Distinguishes the slot from a later one with its name. It stays when the key is wrapped again.
    #[serde(with = "text")]
    id: Vec<u8>,
    #[serde(with = "text")]
    salt: Vec<u8>,
    /// None for a generated password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stretch: Option<Stretch>,
}

/// A slot whose password is already derived, because that takes time.
pub struct Prepared {
    own: Own,
    derived: Derived,
}

impl Prepared {
    /// Derives the password with a new salt and the current cost.
    pub fn new(password: &Password) -> Result<Self, VaultError> {
        let stretch = (!password.is_generated()).then_some(Stretch::STRONG);
        let own = Own { id: random::bytes::<8>().to_vec(), salt: random::bytes::<16>().to_vec(), stretch };
        let derived = own.derive(password.prepared().as_ref().unwrap_or(password))?;
        Ok(Self { own, derived })
    }

    pub const fn is_chosen(&self) -> bool {
        self.own.stretch.is_some()
    }

    /// Wraps the key. `context` turns the slot's description into what is authenticated.
    pub fn wrap(
        &self,
        key: &AccountKey,
        about: (&str, Limits, Moment),
        context: impl Fn(&str) -> Vec<u8>,
    ) -> Result<Slot, Damaged> {
        self.wrap_as(self.own.clone(), key, about, context)
    }

    fn wrap_as(
        &self,
        own: Own,
        key: &AccountKey,
        (name, limits, created): (&str, Limits, Moment),
        context: impl Fn(&str) -> Vec<u8>,
    ) -> Result<Slot, Damaged> {
        let about = own.authenticated(name, &limits, created);
        let wrapped = key.wrap(&self.derived, &context(&about))?;
        Ok(Slot { name: name.to_owned(), created, limits, own: Some(own), wrapped })
    }
}

impl Own {
    fn derive(&self, password: &Password) -> Result<Derived, VaultError> {
        Derived::new(password, &self.salt, self.stretch.unwrap_or(Stretch::STRONG))
    }

    /// The slot's description, which is authenticated. Different slots have different texts.
    fn authenticated(&self, name: &str, limits: &Limits, created: Moment) -> String {
        let Self { id, salt, stretch } = self;
        let stretch = stretch.map_or((0, 0), Stretch::parameters);
        format!("slot {name:?} of {} for {} by {id:?} {salt:?} {stretch:?}", created.0, limits.authenticated())
    }
}

impl Slot {
    pub fn is_of_format_1(&self) -> bool {
        self.own.is_none()
    }

    /// Whether its key should be wrapped again, because it has format 1 or is cheap to guess.
    pub fn is_weak(&self) -> bool {
        self.own.as_ref().is_none_or(|own| own.stretch.is_some_and(Stretch::is_weak))
    }

    /// The derivation of a chosen password. None if it is generated, or of format 1, where it may be either.
    pub fn stretch(&self) -> Option<Stretch> {
        self.own.as_ref()?.stretch
    }

    /// Whether both are the same slot, not just two with the same name.
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
        prepared: &Prepared,
        context: impl Fn(&str) -> Vec<u8>,
    ) -> Result<(), Damaged> {
        let own = Own { id: self.id().to_vec(), ..prepared.own.clone() };
        *self = prepared.wrap_as(own, key, (&self.name, self.limits.clone(), self.created), context)?;
        Ok(())
    }

    /// A slot that no password opens, and that takes as much work as one with a chosen password.
    pub fn decoy(&self) -> Self {
        let mut decoy = self.clone();
        if let Some(own) = &mut decoy.own {
            own.stretch = Some(Stretch::STRONG);
        }
        decoy
    }

    /// Unwraps the private key. `of_format_1` makes the context in format 1, and `context` the one since.
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

/// The number of forms of a password, which differ in the work to find its slot: generated, chosen, and chosen with other
/// bytes when prepared.
pub const FORMS: usize = 3;

/// The search for a password's slot. It counts the derivations, because an unknown account must take as many as a wrong
/// password.
pub struct Search {
    typed: Password,
    /// If it differs from what was typed. Slots have this form since format 2.
    prepared: Option<Password>,
    derivations: usize,
}

impl Search {
    pub fn new(password: &Password) -> Self {
        Self { typed: password.clone(), prepared: password.prepared(), derivations: 0 }
    }

    /// The password's form, below [`FORMS`].
    pub fn form(&self) -> usize {
        match (self.typed.is_generated(), &self.prepared) {
            (true, _) => 0,
            (false, None) => 1,
            (false, Some(_)) => 2,
        }
    }

    /// Finds the slot that the password opens, and what is derived there. `salt` is that of the slots of format 1.
    pub fn find<'a>(&mut self, slots: &'a [Slot], salt: &[u8]) -> Result<(&'a Slot, Derived), VaultError> {
        for slot in slots {
            if let Some(derived) = self.derive(slot)?
                && slot.wrapped.belongs_to(&derived)
            {
                return Ok((slot, derived));
            }
        }
        let of_format_1: Vec<&Slot> = slots.iter().filter(|slot| slot.is_of_format_1()).collect();
        for password in [Some(self.typed.clone()), self.prepared.clone()].into_iter().flatten() {
            if of_format_1.is_empty() {
                break;
            }
            self.derivations += 1;
            let derived = Derived::new(&password, salt, Stretch::FORMAT_1)?;
            if let Some(slot) = of_format_1.iter().find(|slot| slot.wrapped.belongs_to(&derived)) {
                return Ok((slot, derived));
            }
        }
        Err(VaultError::WrongCredentials)
    }

    /// Does the rest of the work that the most expensive account takes, on a slot that no password opens.
    pub fn fill_up(&mut self, decoy: &Slot, most: usize) -> Result<(), VaultError> {
        while self.derivations < most && self.derive(decoy)?.is_some() {}
        Ok(())
    }

    /// Derives the password for this slot. None if it does not have the slot's form, or the slot has format 1.
    fn derive(&mut self, slot: &Slot) -> Result<Option<Derived>, VaultError> {
        let usual = self.prepared.as_ref().unwrap_or(&self.typed);
        match &slot.own {
            Some(own) if own.stretch.is_none() == usual.is_generated() => {
                self.derivations += 1;
                own.derive(usual).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// How many derivations it takes to find that a password opens none of these slots, for each of the [`FORMS`].
pub fn derivations(slots: &[Slot]) -> [usize; FORMS] {
    let own = || slots.iter().filter_map(|slot| slot.own.as_ref());
    let generated = own().filter(|own| own.stretch.is_none()).count();
    let chosen = own().count() - generated;
    let of_format_1 = usize::from(slots.iter().any(Slot::is_of_format_1));
    [generated + of_format_1, chosen + of_format_1, chosen + 2 * of_format_1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_limit_applies() {
        let limits = |protocols: &[&str], uids: &[u32]| Limits {
            protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
            uids: uids.to_vec(),
        };
        assert!(Limits::default().allow(Protocol::Imap, None) && Limits::default().is_none());
        let both = limits(&["imap", "smtp"], &[1000]);
        assert!(both.allow(Protocol::Imap, Some(1000)) && both.allow(Protocol::Smtp, Some(1000)));
        assert!(!both.allow(Protocol::Pop3, Some(1000)) && !both.allow(Protocol::Imap, Some(0)));
        assert!(!both.allow(Protocol::Imap, None), "an unknown user is nobody");
        assert!(limits(&["imap"], &[]).allow(Protocol::Imap, None));
        assert!(limits(&[], &[7]).allow(Protocol::Pop3, Some(7)));
        assert_eq!(both.to_string(), "imap, smtp, uid 1000");
        let forged = limits(&["imap", "smtp", "uid 1000"], &[]);
        assert_ne!(forged.authenticated(), both.authenticated());
    }
}
