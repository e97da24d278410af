//! What commands and the one who holds the vault say to each other.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::address::Address;
use crate::broker::{Condition, Withdrawal};
use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::config::provider::Discovered;
use crate::examination::Finding;
use crate::exit::{Exit, Failed};
use crate::protocol::{Protocol, Security};
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};
use crate::vault::password::Password;
use crate::vault::{self, Authorization, Limits, Restored, Secrets, Trouble};

/// What a command asks for.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// What is served, and the state of every account.
    Status,
    /// Put in what an authorization has brought, and log in with it.
    Authorize(Box<Authorized>),
    /// Make a slot for another app password.
    AddSlot {
        /// Of which account.
        address: String,
        /// One of the account's app passwords.
        password: Carried,
        /// What the new slot is called.
        name: String,
        /// The new app password.
        new: Carried,
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
    /// Remove an account, and withdraw its authorization at the provider if that can be done.
    Forget {
        /// Which one.
        address: String,
        /// One of its app passwords, to open its tokens; without it only what is open can be withdrawn.
        password: Option<Carried>,
    },
    /// An account's record as it lies in the vault, sealed, for a backup.
    Export {
        /// Of which account.
        address: String,
    },
    /// Put an account's record from a backup in place.
    Restore {
        /// Of which account.
        address: String,
        /// The record.
        record: String,
        /// In place of a newer one, too.
        force: bool,
    },
    /// Really log in to the provider, on each protocol.
    Test {
        /// To which account.
        address: String,
        /// One of its app passwords.
        password: Carried,
    },
    /// Find out why an account does not work.
    Examine {
        /// Which one.
        address: String,
        /// One of its app passwords; without it what needs the tokens is left out.
        password: Option<Carried>,
    },
    /// Read the configuration anew.
    Reload,
    /// What has been counted.
    Metrics,
    /// Log by this filter, in the syntax of `RUST_LOG`, until the next reload.
    Log(String),
}

/// What an authorization has brought, on its way to the vault.
#[derive(Serialize, Deserialize)]
pub struct Authorized {
    address: String,
    provider: String,
    flow: Flow,
    client_id: Option<String>,
    client_secret: Option<Carried>,
    password: Option<Carried>,
    #[serde(default)]
    discovered: Option<Discovered>,
    access: Carried,
    refresh: Option<Carried>,
    life: Life,
    scope: String,
    /// Name and app password of the first slot, for a new account.
    first: Option<(String, Carried)>,
}

/// A secret on its way through the control socket, which only its owner can open: the one form in which a secret can be
/// serialized.
pub struct Carried(pub Secret);

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Authorize`] and [`Request::Test`]: what each of the provider's servers said.
    Tested(Vec<Probe>),
    /// To [`Request::Examine`], in the order in which one thing needs the other.
    Examined(Vec<Finding>),
    /// To [`Request::Metrics`]: the text form of Prometheus.
    Metrics(String),
    /// To [`Request::Forget`]: what became of the authorization at the provider.
    Forgotten(Withdrawal),
    /// To [`Request::Export`].
    Exported(String),
    /// To [`Request::Restore`].
    Restored(Restored),
    /// It was not done.
    Failed(Failed),
}

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
    pub degraded: Option<Trouble>,
    /// The client ids by which postkey has registered itself, by issuer: the next account there uses the same.
    #[serde(default)]
    pub registered: BTreeMap<String, String>,
}

/// An open port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listening {
    /// By its name in the configuration.
    pub protocol: String,
    /// Where.
    pub address: Address,
    /// By its name in the configuration.
    pub security: String,
}

/// The plain part of an account.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccountStatus {
    /// Its address, which is the login name.
    pub address: String,
    /// Its further login names.
    pub aliases: Vec<String>,
    /// The shared mailboxes that its authorization opens.
    pub mailboxes: Vec<String>,
    /// Its provider.
    pub provider: String,
    /// "ready"; "ended" when a person has to authorize it anew; "refused" when an administrator or the configuration has to
    /// let it be refreshed.
    pub state: String,
    /// Why it is not ready, and what to do.
    pub reason: Option<String>,
    /// Whether its newest tokens may have been lost with a damaged record, and older ones are all that is left.
    pub doubtful: bool,
    /// When a person last authorized it.
    pub authorized: Moment,
    /// When the access token expires; it is refreshed at the first login after that, or before if a session is open.
    pub token_expires: Moment,
    /// When the tokens were last refreshed, or authorized.
    pub token_refreshed: Moment,
    /// Whether an app password has opened it since the daemon's start, so that its tokens can be refreshed.
    pub open: bool,
    /// When the refresh token ends unless it is used before, where the provider has such a time.
    pub refresh_token_ends: Option<Moment>,
    /// When it is used at the latest to keep it alive, if the account is open.
    pub next_keep_alive: Option<Moment>,
    /// The last refresh since the daemon's start that failed.
    pub last_failure: Option<FailureStatus>,
    /// Its app passwords' slots.
    pub slots: Vec<SlotStatus>,
}

/// A refresh that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct FailureStatus {
    /// When.
    pub at: Moment,
    /// What happened and what to do.
    pub why: String,
}

/// The plain part of a slot.
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    /// What the user calls it.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// What its password is good for, where that is not everything.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// What a provider's server said to a login.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probe {
    /// By its name in the configuration.
    pub protocol: String,
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

impl Request {
    /// Whether it changes what is in the vault.
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::Status | Self::Export { .. } | Self::Test { .. } | Self::Examine { .. })
    }
}

impl Reply {
    /// The answer to [`Request::Status`].
    pub fn status(self) -> Result<Status, Failed> {
        if let Self::Status(status) = self { Ok(status) } else { Err(Self::of_another_kind()) }
    }

    /// The answer to [`Request::Authorize`] and [`Request::Test`].
    pub fn tested(self) -> Result<Vec<Probe>, Failed> {
        if let Self::Tested(probes) = self { Ok(probes) } else { Err(Self::of_another_kind()) }
    }

    /// The answer to [`Request::Examine`].
    pub fn examined(self) -> Result<Vec<Finding>, Failed> {
        if let Self::Examined(findings) = self { Ok(findings) } else { Err(Self::of_another_kind()) }
    }

    /// The answer to [`Request::Forget`].
    pub fn forgotten(self) -> Result<Withdrawal, Failed> {
        if let Self::Forgotten(withdrawal) = self { Ok(withdrawal) } else { Err(Self::of_another_kind()) }
    }

    /// The answer to [`Request::Export`].
    pub fn exported(self) -> Result<String, Failed> {
        if let Self::Exported(record) = self { Ok(record) } else { Err(Self::of_another_kind()) }
    }

    /// The answer to [`Request::Restore`].
    pub fn restored(self) -> Result<Restored, Failed> {
        if let Self::Restored(restored) = self { Ok(restored) } else { Err(Self::of_another_kind()) }
    }

    fn of_another_kind() -> Failed {
        Failed::new(Exit::Software, "the daemon's answer is of another kind; restart it, it may be of another version")
    }
}

impl Authorized {
    /// Packs an authorization.
    pub fn new(authorization: &Authorization, first: Option<(String, &Password)>) -> Self {
        let token = |token: &Token| Carried(Secret::new(token.expose().as_bytes().to_vec()));
        let Authorization { address, provider, flow, client_id, secrets, discovered, tokens } = authorization;
        Self {
            address: address.clone(),
            provider: provider.clone(),
            flow: *flow,
            client_id: client_id.clone(),
            client_secret: secrets.client_secret.clone().map(Carried),
            password: secrets.password.clone().map(Carried),
            discovered: discovered.clone(),
            access: token(&tokens.access),
            refresh: tokens.refresh.as_ref().map(token),
            life: tokens.life,
            scope: tokens.scope.clone(),
            first: first.map(|(name, password)| (name, Carried(Secret::new(password.expose())))),
        }
    }

    /// Whether it can be unpacked.
    #[cfg(fuzzing)]
    pub fn is_usable(self) -> bool {
        self.open().is_some()
    }

    /// Unpacks it. None if the tokens are none.
    pub(super) fn open(self) -> Option<(Authorization, Option<(String, Password)>)> {
        let token = |carried: &Carried| Token::parse(std::str::from_utf8(carried.0.expose()).ok()?);
        let refresh = match &self.refresh {
            Some(carried) => Some(token(carried)?),
            None => None,
        };
        let tokens = TokenSet { access: token(&self.access)?, refresh, life: self.life, scope: self.scope };
        let authorization = Authorization {
            address: self.address,
            provider: self.provider,
            flow: self.flow,
            client_id: self.client_id,
            secrets: Secrets {
                client_secret: self.client_secret.map(|carried| carried.0),
                password: self.password.map(|carried| carried.0),
            },
            discovered: self.discovered,
            tokens,
        };
        Some((authorization, self.first.map(|(name, carried)| (name, Password::read(carried.0.expose())))))
    }
}

impl Status {
    /// In one line: how many accounts there are, and who needs a person.
    pub fn summary(&self) -> String {
        let count = match self.accounts.len() {
            0 => "No account yet.".to_owned(),
            1 => "1 account.".to_owned(),
            count => format!("{count} accounts."),
        };
        let ended = self.accounts.iter().filter(|account| account.state != "ready");
        let needing: Vec<&str> =
            ended.map(|account| account.address.as_str()).chain(self.damaged.iter().map(String::as_str)).collect();
        let needing = match needing.len() {
            0 => String::new(),
            _ => format!(" A person is needed for: {}.", needing.join(", ")),
        };
        let doubtful: Vec<&str> =
            self.accounts.iter().filter(|account| account.doubtful).map(|account| account.address.as_str()).collect();
        let doubtful = match doubtful.len() {
            0 => String::new(),
            _ => format!(" Perhaps with older tokens than it had: {}.", doubtful.join(", ")),
        };
        let degraded = self.degraded.as_ref().map_or("", |_| " The vault cannot be written to stable storage.");
        format!("{count}{needing}{doubtful}{degraded}")
    }
}

impl AccountStatus {
    /// An account, and how its tokens are.
    pub fn new(account: &vault::Account, condition: Condition) -> Self {
        let state = match (&account.ended, &condition.needed) {
            (Some(_), _) => "ended",
            (None, Some(_)) => "refused",
            (None, None) => "ready",
        };
        let slot = |slot: &vault::Slot| SlotStatus {
            name: slot.name.clone(),
            created: slot.created,
            limits: slot.limits.clone(),
        };
        Self {
            address: account.address.clone(),
            aliases: Vec::new(),
            mailboxes: Vec::new(),
            provider: account.provider.clone(),
            state: state.to_owned(),
            reason: condition.needed,
            doubtful: account.doubtful,
            authorized: account.authorized,
            token_expires: account.life().expires,
            token_refreshed: condition.refreshed,
            open: condition.is_open,
            refresh_token_ends: condition.idle_end,
            next_keep_alive: condition.next_use,
            last_failure: condition.failure.map(|(at, why)| FailureStatus { at, why }),
            slots: account.slots.iter().map(slot).collect(),
        }
    }
}

impl Listening {
    /// An open port.
    pub fn new(protocol: Protocol, address: Address, security: Security) -> Self {
        Self { protocol: protocol.name().to_owned(), address, security: security.name().to_owned() }
    }
}

/// As base64: a password can be any bytes.
impl Serialize for Carried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(BASE64_STANDARD.encode(self.0.expose()));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Carried {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64_STANDARD.decode(text.as_bytes());
        bytes.map(|bytes| Self(Secret::new(bytes))).map_err(D::Error::custom)
    }
}
