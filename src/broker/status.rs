//! The status of an account: the one view that `postkey status`, metrics, notices and `postkey doctor` share.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::account::ended;
use super::state::{PastFailure, TokenState};
use super::throttle::{Backoff, Occupancy};
use super::tokens::Tokens;
use crate::clock::Moment;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::vault::{Limits, Slot, StoredAccount};

/// A refresh token is used after this part of its lifetime without use. That leaves two more chances.
const IDLE_PART: u64 = 3;

/// Whether an account's tokens can be refreshed, or who has to act first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// They can be refreshed.
    #[default]
    Ready,
    /// A person has to authorize the account again.
    Ended,
    /// An administrator has to act, or the configuration has to change.
    Refused,
}

impl AccountState {
    pub(super) const ALL: [Self; 3] = [Self::Ready, Self::Ended, Self::Refused];

    /// The state of this record. `needs` is whether its tokens are not refreshed before somebody acts.
    pub(super) fn of(record: &StoredAccount, needs: bool) -> Self {
        match needs {
            _ if record.ended.is_some() => Self::Ended,
            true => Self::Refused,
            false => Self::Ready,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Ended => "ended",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for AccountState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The accounts to show. All of them if there is no condition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Selection {
    /// Only the account that this login name opens.
    pub address: Option<String>,
    /// Only accounts that need a person, or whose record may be older than before.
    pub needs_person: bool,
    /// Only accounts of the provider with this name.
    pub provider: Option<String>,
}

impl Selection {
    pub(super) fn has_provider(&self, provider: &str) -> bool {
        self.provider.as_ref().is_none_or(|wanted| wanted == provider)
    }

    pub(super) fn has_state(&self, account: &AccountStatus) -> bool {
        !self.needs_person || account.state != AccountState::Ready || account.doubtful || account.rolled_back
    }

    /// Whether a damaged record is selected. Nobody knows its provider.
    pub fn has_damaged(&self, address: &str) -> bool {
        self.provider.is_none() && self.address.as_ref().is_none_or(|wanted| wanted == address)
    }
}

/// The public view of an account or a shared mailbox. Skipped fields are not in `status --json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AccountStatus {
    pub address: String,
    /// The account whose authorization opens this shared mailbox. All fields about tokens are the delegate's then.
    #[serde(skip)]
    pub delegate: Option<String>,
    /// Its other login names.
    pub aliases: Vec<String>,
    /// The shared mailboxes that its authorization opens.
    pub mailboxes: Vec<String>,
    pub provider: String,
    pub state: AccountState,
    /// Why its state is not ready, and what to do.
    pub reason: Option<String>,
    /// Whether its newest tokens may have been lost with a damaged record, so that these are older ones.
    pub doubtful: bool,
    /// Whether its record is older than the last one that was written, because somebody has restored old files.
    #[serde(default)]
    pub rolled_back: bool,
    /// When a person last authorized it.
    pub authorized: Moment,
    /// The number of its newest token set.
    #[serde(skip)]
    pub generation: u64,
    /// When the access token expires. It is refreshed at the first login after that, or earlier if a session is open.
    pub token_expires: Moment,
    /// When the tokens were issued.
    pub token_refreshed: Moment,
    /// Whether an app password has opened it since the daemon started, so that its tokens can be refreshed.
    pub open: bool,
    /// When the refresh token expires if it is not used, if the provider has such a limit.
    pub refresh_token_ends: Option<Moment>,
    /// When postkey will use it at the latest to keep it alive, if the account is open.
    pub next_keep_alive: Option<Moment>,
    /// The last refresh that failed since the daemon started.
    pub last_failure: Option<PastFailure>,
    /// The last login that a mail server refused, unless it has accepted one since.
    #[serde(default)]
    pub last_login_failure: Option<PastFailure>,
    /// Its connections to the provider by protocol, if there are any, or a limit.
    #[serde(default)]
    pub connections: Vec<Occupancy>,
    #[serde(default)]
    pub backoff: Option<Backoff>,
    pub slots: Vec<SlotStatus>,
}

/// The plain part of a slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    pub name: String,
    pub created: Moment,
    /// The permitted uses of its password, if they are limited.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

impl AccountStatus {
    /// The status from a record, the configuration, and the tokens if the account is open. It lacks the other names and the
    /// connections, because notices are reviewed often and do not need them.
    pub(super) fn new(record: &StoredAccount, config: &Config, tokens: Option<&Tokens>) -> Self {
        let (address, life) = (&record.address, record.life());
        let read = |state: &TokenState| {
            (state.needed().map(str::to_owned), state.past_failure().cloned(), state.login_failure().cloned())
        };
        let (needed, last_failure, last_login_failure) = tokens.map(|tokens| tokens.read(read)).unwrap_or_default();
        let ended = record.ended.as_ref().map(|end| ended(address, &end.why).text);
        let slot =
            |slot: &Slot| SlotStatus { name: slot.name.clone(), created: slot.created, limits: slot.limits.clone() };
        Self {
            address: address.clone(),
            provider: record.provider.clone(),
            state: AccountState::of(record, needed.is_some()),
            doubtful: record.doubtful,
            rolled_back: record.rolled_back,
            authorized: record.authorized,
            generation: record.generation(),
            token_expires: life.expires,
            token_refreshed: life.issued,
            open: tokens.is_some(),
            refresh_token_ends: idle_end(config, record),
            next_keep_alive: next_use(config, record).filter(|_| tokens.is_some() && ended.is_none()),
            reason: needed.or(ended),
            last_failure,
            last_login_failure,
            slots: record.slots.iter().map(slot).collect(),
            ..Self::default()
        }
    }
}

/// When the refresh token expires if it is not used.
pub(super) fn idle_end(config: &Config, record: &StoredAccount) -> Option<Moment> {
    idle_life(config, record).map(|idle| record.life().issued.after(idle))
}

/// The latest time to use the refresh token: up to a tenth earlier than it could be, which differs by account.
pub(super) fn next_use(config: &Config, record: &StoredAccount) -> Option<Moment> {
    let latest = idle_life(config, record)? / IDLE_PART;
    Some(record.life().issued.after(latest - latest / 10 * u64::from(share(&record.address)) / 255))
}

/// A number from 0 to 255 that differs between accounts, and is always the same for one account.
pub(super) fn share(owner: &str) -> u8 {
    Sha256::digest(owner).first().copied().unwrap_or_default()
}

/// How long a refresh token of this account is valid without use, in seconds.
fn idle_life(config: &Config, record: &StoredAccount) -> Option<u64> {
    // The other grants do not need their refresh tokens.
    if !matches!(record.flow, Flow::AuthorizationCode | Flow::DeviceCode) {
        return None;
    }
    Some(config.providers.get(&record.provider)?.refresh_token_life?.as_secs())
}
