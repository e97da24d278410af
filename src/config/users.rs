//! Which users of this machine may come: `allow_uids`.

use nix::unistd::User;

/// Stands for every user that a user namespace does not know, user_namespaces(7). So it tells nobody apart.
pub const UNKNOWN_USER: u32 = 65534;

/// The users of this machine who may come; everybody, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Option<Vec<u32>>);

impl Users {
    /// These users, and nobody else.
    pub fn only(users: Vec<u32>) -> Self {
        Self(Some(users))
    }

    /// Whether this user may come. Who cannot be told may not, where anything is said at all.
    pub fn allow(&self, user: Option<u32>) -> bool {
        self.0.as_ref().is_none_or(|allowed| user.is_some_and(|user| allowed.contains(&user)))
    }

    /// These, or the others where nothing is said here.
    pub(super) fn or(self, others: &Self) -> Self {
        if self.0.is_some() { self } else { others.clone() }
    }
}

/// The number of the user of this name.
///
/// # Errors
///
/// There is none, or the system's user database cannot be read.
pub fn named(name: &str) -> Result<u32, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user \"{name}\" on this machine; correct the name, or write a number")),
        Err(error) => Err(format!("the user \"{name}\" cannot be looked up ({error}); write a number")),
    }
}
