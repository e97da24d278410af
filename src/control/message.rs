//! What commands and the one who holds the vault say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::carried::{self, AuthorizationDef};
use crate::address::Address;
use crate::broker::{AccountState, AccountStatus};
use crate::exit::Failed;
use crate::name::Name;
use crate::protocol::{Protocol, Security};
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{Authorization, Degradation, Limits};

/// What a command asks for. Each says what it is answered with; without that, the answer is `()`.
#[derive(Serialize, Deserialize)]
pub enum ControlRequest {
    /// Since when and why changes are in memory only, if so: `Option<Trouble>`.
    Greet,
    /// What is served, and the state of every account: [`Status`].
    Status,
    /// Put in what an authorization has brought, and log in with it. What each of the provider's servers said: `Vec<Probe>`.
    Authorize(Box<NewAuthorization>),
    /// Make a slot for another app password.
    AddSlot {
        /// Of which account.
        address: String,
        /// One of the account's app passwords.
        #[serde(with = "carried")]
        password: Secret,
        /// What the new slot is called.
        name: String,
        /// The new app password.
        #[serde(with = "carried")]
        new: Password,
        /// What it is good for.
        #[serde(default)]
        limits: Limits,
    },
    /// Remove a slot.
    RemoveSlot {
        /// Of which account.
        address: String,
        /// Which slot.
        name: String,
    },
    /// Remove an account, and revoke its authorization at the provider if that can be done:
    /// [`Withdrawal`](crate::broker::Withdrawal).
    Forget {
        /// Which one.
        address: String,
        /// One of its app passwords, to open its tokens; without it only what is open can be revoked.
        #[serde(with = "carried")]
        password: Option<Secret>,
    },
    /// An account's record as it lies in the vault, sealed, for a backup: a `String`.
    Export {
        /// Of which account.
        address: String,
    },
    /// Put an account's record from a backup in place: [`Restored`](crate::vault::Restored).
    Restore {
        /// Of which account.
        address: String,
        /// The record.
        record: String,
        /// In place of a newer one, too.
        force: bool,
    },
    /// Really log in to the provider, on each protocol: `Vec<Probe>`.
    Test {
        /// To which account.
        address: String,
        /// One of its app passwords.
        #[serde(with = "carried")]
        password: Secret,
    },
    /// Find out why an account does not work: the `Vec<Finding>`, in the order in which one thing needs the other.
    Examine {
        /// Which one.
        address: String,
        /// One of its app passwords; without it what needs the tokens is left out.
        #[serde(with = "carried")]
        password: Option<Secret>,
    },
    /// Read the configuration again.
    Reload,
    /// What has been counted, in the text form of Prometheus: a `String`.
    Metrics,
    /// Log by this filter, in the syntax of `RUST_LOG`, until the next reload.
    Log(String),
}

/// What an authorization has brought, on its way to the vault.
#[derive(Serialize, Deserialize)]
pub struct NewAuthorization {
    /// What goes into the vault.
    #[serde(with = "AuthorizationDef")]
    pub authorization: Authorization,
    /// The first slot's name, for a new account.
    pub name: String,
    /// The first app password, for a new account.
    #[serde(with = "carried")]
    pub first: Option<Password>,
}

/// The answer to a request: what [`ControlRequest`] says, or why it was not done.
pub type ControlReply = Result<Value, Failed>;

/// What is served, and how the accounts are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The ports that are open; none if no daemon runs.
    pub listeners: Vec<Listening>,
    /// Every account.
    pub accounts: Vec<AccountStatus>,
    /// Addresses whose records in the vault cannot be read.
    pub damaged: Vec<String>,
    /// Since when, and why, the newest records are not on stable storage, if so.
    pub degraded: Option<Degradation>,
    /// The client ids by which postkey has registered itself, by issuer: the next account there uses the same.
    #[serde(default)]
    pub registered: BTreeMap<String, String>,
    /// Those of the damaged records that only a newer version of postkey can read.
    #[serde(default)]
    pub newer: Vec<String>,
}

/// An open port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listening {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where.
    pub address: Address,
    /// How connections are protected.
    pub security: Security,
}

/// What a provider's server said to a login.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoginTest {
    /// What was spoken.
    pub protocol: Protocol,
    /// The server.
    pub server: String,
    /// Who logged in there, where it is not the account's address.
    pub user: Option<String>,
    /// What it said, if it did not let us in.
    pub refused: Option<String>,
    /// The trace of the dialogue with it.
    #[serde(default)]
    pub dialogue: Vec<String>,
}

impl ControlRequest {
    /// The account that it is about, by any of its names. A record from a backup has its own.
    pub(super) const fn address_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Authorize(authorized) => Some(&mut authorized.authorization.address),
            Self::AddSlot { address, .. }
            | Self::RemoveSlot { address, .. }
            | Self::Forget { address, .. }
            | Self::Export { address }
            | Self::Test { address, .. }
            | Self::Examine { address, .. } => Some(address),
            Self::Greet | Self::Restore { .. } | Self::Status | Self::Reload | Self::Metrics | Self::Log(_) => None,
        }
    }

    /// Whether it changes what is in the vault, or may: a login can bring new tokens.
    pub const fn is_change(&self) -> bool {
        use ControlRequest::{Export, Greet, Log, Metrics, Reload, Status};
        !matches!(self, Status | Greet | Export { .. } | Metrics | Reload | Log(_))
    }
}

impl Status {
    /// The account of a name, whichever spelling its record has.
    pub fn account(&self, address: &str) -> Option<&AccountStatus> {
        let name = Name::typed(address);
        let same = || self.accounts.iter().find(|account| Name::typed(&account.address).same_as(&name));
        self.accounts.iter().find(|account| account.address == address).or_else(same)
    }

    /// In one line: how many accounts there are, and who needs a person.
    pub fn summary(&self) -> String {
        let count = match self.accounts.len() {
            0 => "No account yet.".to_owned(),
            1 => "1 account.".to_owned(),
            count => format!("{count} accounts."),
        };
        let named = |words: &str, names: Vec<&str>| match names.len() {
            0 => String::new(),
            _ => format!(" {words}: {}.", names.join(", ")),
        };
        let of = |is_it: fn(&AccountStatus) -> bool| {
            self.accounts.iter().filter(move |account| is_it(account)).map(|account| account.address.as_str())
        };
        let damaged = self.damaged.iter().map(String::as_str);
        let needing = of(|account| account.state != AccountState::Ready).chain(damaged).collect();
        let needing = named("A person is needed for", needing);
        let doubtful = of(|account| account.doubtful || account.rolled_back).collect();
        let doubtful = named("Perhaps with older tokens than it had", doubtful);
        let degraded = self.degraded.as_ref().map_or("", |_| " The vault cannot be written to stable storage.");
        format!("{count}{needing}{doubtful}{degraded}")
    }
}
