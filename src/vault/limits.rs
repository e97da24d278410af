//! What an app password is good for, where that is not everything.

use serde::{Deserialize, Serialize};

use crate::protocol::Protocol;

/// Where an app password is taken. An empty list means no limit of its kind.
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
    /// Whether it is good for everything.
    pub fn is_none(&self) -> bool {
        self.protocols.is_empty() && self.uids.is_empty()
    }

    /// What is authenticated of it: different limits are different texts.
    pub(super) fn authenticated(&self) -> String {
        format!("{:?} {:?}", self.protocols, self.uids)
    }

    /// Whether it is taken for this protocol from this user; None is one who cannot be told.
    pub fn allow(&self, protocol: Protocol, user: Option<u32>) -> bool {
        let has_user = || user.is_some_and(|user| self.uids.contains(&user));
        (self.protocols.is_empty() || self.protocols.iter().any(|name| name == protocol.name()))
            && (self.uids.is_empty() || has_user())
    }
}

/// For people.
impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uids: Vec<String> = self.uids.iter().map(|uid| format!("uid {uid}")).collect();
        write!(f, "{}", [self.protocols.as_slice(), &uids].concat().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_limit_holds_by_itself() {
        let limits = |protocols: &[&str], uids: &[u32]| Limits {
            protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
            uids: uids.to_vec(),
        };
        assert!(Limits::default().allow(Protocol::Imap, None) && Limits::default().is_none());
        let both = limits(&["imap", "smtp"], &[1000]);
        assert!(both.allow(Protocol::Imap, Some(1000)) && both.allow(Protocol::Smtp, Some(1000)));
        assert!(!both.allow(Protocol::Pop3, Some(1000)) && !both.allow(Protocol::Imap, Some(0)));
        assert!(!both.allow(Protocol::Imap, None), "who cannot be told is nobody");
        assert!(limits(&["imap"], &[]).allow(Protocol::Imap, None));
        assert!(limits(&[], &[7]).allow(Protocol::Pop3, Some(7)));
        assert_eq!(both.to_string(), "imap, smtp, uid 1000");
        let forged = limits(&["imap", "smtp", "uid 1000"], &[]);
        assert_ne!(forged.authenticated(), both.authenticated());
    }
}
