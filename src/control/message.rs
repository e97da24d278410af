//! The requests of commands, and what they are answered with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::broker::{AccountStatus, Selection};
use crate::carried::{self, AuthorizationDef};
use crate::config::Listening;
use crate::exit::Failed;
use crate::name::Name;
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{Authorization, Degradation, Limits};

/// A request of a command. Where its answer is not `()`, the type of the answer follows the colon.
#[derive(Serialize, Deserialize)]
pub enum ControlRequest {
    /// Asks whether changes are in memory only, since when and why: `Option<Degradation>`.
    Greet,
    /// Asks for the listeners and the state of every account: [`Status`].
    Status,
    /// Asks for the listeners and the state of some accounts: [`Status`].
    Select(Selection),
    /// Asks for the accounts in numbers: [`Census`](crate::broker::Census).
    Census,
    /// Stores an authorization, and logs in to each of the provider's servers if that is wanted: `Vec<LoginTest>`.
    Authorize(Box<NewAuthorization>),
    /// Adds an app password. `password` is one that the account already has.
    AddSlot {
        address: String,
        #[serde(with = "carried")]
        password: Secret,
        name: String,
        #[serde(with = "carried")]
        new: Password,
        #[serde(default)]
        limits: Limits,
    },
    /// Removes an app password.
    RemoveSlot { address: String, name: String },
    /// Removes an account, and revokes its authorization at the provider if possible:
    /// [`Withdrawal`](crate::broker::Withdrawal). Without an app password only open tokens can be revoked.
    Forget {
        address: String,
        #[serde(with = "carried")]
        password: Option<Secret>,
    },
    /// Copies an account's sealed record for a backup: `String`.
    Export { address: String },
    /// Restores an account's record from a backup: [`Restored`](crate::vault::Restored).
    Restore {
        address: String,
        record: String,
        /// Whether it may replace a newer record.
        force: bool,
    },
    /// Logs in to each of the provider's servers: `Vec<LoginTest>`.
    Test {
        address: String,
        #[serde(with = "carried")]
        password: Secret,
    },
    /// Finds out why an account does not work: `Vec<Finding>`, each after those on which it depends. Without an app
    /// password it skips what needs the tokens.
    Examine {
        address: String,
        #[serde(with = "carried")]
        password: Option<Secret>,
    },
    /// Reads the configuration again.
    Reload,
    /// Asks for the metrics, in the text format of Prometheus: `String`.
    Metrics,
    /// Opens the page for setting up in a browser, if it is not open, and makes a link to it that is good once: `String`.
    OpenPage {
        /// The users of this machine whose browsers may use the link.
        users: Vec<u32>,
    },
    /// Closes the page for setting up in a browser: `bool`, whether it was open.
    ClosePage,
    /// Sets the log filter, in the syntax of `RUST_LOG`, until the next reload.
    Log(String),
}

/// A new authorization, on its way to the vault.
#[derive(Serialize, Deserialize)]
pub struct NewAuthorization {
    #[serde(with = "AuthorizationDef")]
    pub authorization: Authorization,
    /// The first slot's name, for a new account.
    pub name: String,
    /// The first app password, for a new account.
    #[serde(with = "carried")]
    pub first: Option<Password>,
    /// Whether to log in to the provider's servers with the new token.
    pub is_tested: bool,
}

/// The answer to a request, of the type that [`ControlRequest`] names, or why it failed.
///
/// The answer is JSON text, because a tree of values for ten thousand accounts would take ten times its memory.
pub type ControlReply = Result<Box<RawValue>, Failed>;

/// The listeners, and the state of the accounts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The open ports; none if no daemon runs.
    pub listeners: Vec<Listening>,
    pub accounts: Vec<AccountStatus>,
    /// Addresses whose records in the vault cannot be read.
    pub damaged: Vec<String>,
    /// Since when, and why, the newest records are not on stable storage, if so.
    pub degraded: Option<Degradation>,
    /// The client ids with which postkey has registered itself, by issuer. The next account there uses the same one.
    #[serde(default)]
    pub registered: BTreeMap<String, String>,
    /// Those of the damaged records that only a newer version of postkey can read.
    #[serde(default)]
    pub newer: Vec<String>,
}

/// A provider's server's answer to a login.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginTest {
    pub protocol: Protocol,
    /// The server's host and port.
    pub server: String,
    /// The user name of the login, if it is not the account's address.
    pub user: Option<String>,
    /// The server's words, if it refused the login.
    pub refused: Option<String>,
    /// The trace of the dialogue with it.
    #[serde(default)]
    pub dialogue: Vec<String>,
}

impl ControlRequest {
    /// The account, in any spelling. A record from a backup keeps its own.
    pub(super) const fn address_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Authorize(authorized) => Some(&mut authorized.authorization.address),
            Self::AddSlot { address, .. }
            | Self::RemoveSlot { address, .. }
            | Self::Forget { address, .. }
            | Self::Export { address }
            | Self::Test { address, .. }
            | Self::Examine { address, .. } => Some(address),
            Self::Greet
            | Self::Restore { .. }
            | Self::Status
            | Self::Select(_)
            | Self::Census
            | Self::Reload
            | Self::Metrics
            | Self::OpenPage { .. }
            | Self::ClosePage
            | Self::Log(_) => None,
        }
    }

    /// Whether it can change the vault. A login can, because it may refresh the tokens.
    pub const fn is_change(&self) -> bool {
        use ControlRequest::{Census, ClosePage, Export, Greet, Log, Metrics, OpenPage, Reload, Select, Status};
        !matches!(
            self,
            Status
                | Select(_)
                | Census
                | Greet
                | Export { .. }
                | Metrics
                | Reload
                | Log(_)
                | OpenPage { .. }
                | ClosePage
        )
    }
}

impl Status {
    /// The account with this name, in any spelling.
    pub fn account(&self, address: &str) -> Option<&AccountStatus> {
        let name = Name::typed(address);
        let same = || self.accounts.iter().find(|account| Name::typed(&account.address).same_as(&name));
        self.accounts.iter().find(|account| account.address == address).or_else(same)
    }
}
