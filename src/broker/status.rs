//! How an account is: the one view of it that `postkey status`, metrics, notices and `postkey doctor` share.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::account::ended;
use super::state::{PastFailure, TokenState};
use super::throttle::{Backoff, Occupancy};
use super::tokens::Tokens;
use crate::clock::Moment;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::vault::{Limits, Slot, StoredAccount};

/// A refresh token is used after this part of the time that it may lie idle: two more chances are left then.
const IDLE_PART: u64 = 3;

/// Whether an account's tokens can be refreshed, or who has to act before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// They can be.
    #[default]
    Ready,
    /// A person has to authorize the account again.
    Ended,
    /// An administrator or the configuration has to let them be refreshed.
    Refused,
}

impl fmt::Display for AccountState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Ended => "ended",
            Self::Refused => "refused",
        })
    }
}

/// An account or a shared mailbox, as far as it may be shown to people. What is skipped is not part of `status --json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AccountStatus {
    /// Its address, which is the login name.
    pub address: String,
    /// Whose authorization opens it, where it is a shared mailbox. All that is said of tokens is the delegate's then.
    #[serde(skip)]
    pub delegate: Option<String>,
    /// Its further login names.
    pub aliases: Vec<String>,
    /// The shared mailboxes that its authorization opens.
    pub mailboxes: Vec<String>,
    /// Its provider.
    pub provider: String,
    /// Whether its tokens can be refreshed.
    pub state: AccountState,
    /// Why it is not ready, and what to do.
    pub reason: Option<String>,
    /// Whether its newest tokens may have been lost with a damaged record, so that only older ones are left.
    pub doubtful: bool,
    /// Whether its record is older than the last one that was written: somebody has put older files back.
    #[serde(default)]
    pub rolled_back: bool,
    /// When a person last authorized it.
    pub authorized: Moment,
    /// Which token set is the newest.
    #[serde(skip)]
    pub generation: u64,
    /// When the access token expires; it is refreshed at the first login after that, or before if a session is open.
    pub token_expires: Moment,
    /// When the tokens were last refreshed, or authorized.
    pub token_refreshed: Moment,
    /// Whether an app password has opened it since the daemon's start, so that its tokens can be refreshed.
    pub open: bool,
    /// When the refresh token expires unless it is used before, where the provider has such a time.
    pub refresh_token_ends: Option<Moment>,
    /// When it is used at the latest to keep it alive, if the account is open.
    pub next_keep_alive: Option<Moment>,
    /// The last refresh since the daemon's start that failed.
    pub last_failure: Option<PastFailure>,
    /// What a mail server last said to a login that it refused, unless it has accepted one since.
    #[serde(default)]
    pub last_login_failure: Option<PastFailure>,
    /// Its connections to the provider, by protocol, where there are any or a limit.
    #[serde(default)]
    pub connections: Vec<Occupancy>,
    /// Until when the provider wants no logins to it, if so.
    #[serde(default)]
    pub backoff: Option<Backoff>,
    /// Its app passwords' slots.
    pub slots: Vec<SlotStatus>,
}

/// The plain part of a slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    /// What the user calls it.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// What its password is good for, where that is not everything.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

impl AccountStatus {
    /// How an account is, from its record, the configuration, and its tokens where they are open. Other names and
    /// connections are left out, because notices need neither, and are reviewed often.
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
            state: match &needed {
                _ if ended.is_some() => AccountState::Ended,
                Some(_) => AccountState::Refused,
                None => AccountState::Ready,
            },
            doubtful: record.doubtful,
            rolled_back: record.rolled_back,
            authorized: record.authorized,
            generation: record.generation(),
            token_expires: life.expires,
            token_refreshed: life.issued,
            open: tokens.is_some(),
            refresh_token_ends: idle_life(config, record).map(|idle| life.issued.after(idle)),
            next_keep_alive: next_use(config, record).filter(|_| tokens.is_some() && ended.is_none()),
            reason: needed.or(ended),
            last_failure,
            last_login_failure,
            slots: record.slots.iter().map(slot).collect(),
            ..Self::default()
        }
    }
}

/// When the refresh token is to be used at the latest.
pub(super) fn next_use(config: &Config, record: &StoredAccount) -> Option<Moment> {
    idle_life(config, record).map(|life| record.life().issued.after(life / IDLE_PART))
}

/// How long a refresh token of this account may lie idle, in seconds.
fn idle_life(config: &Config, record: &StoredAccount) -> Option<u64> {
    // The other grants ask with something else; their refresh tokens do not age.
    if !matches!(record.flow, Flow::AuthorizationCode | Flow::DeviceCode) {
        return None;
    }
    Some(config.providers.get(&record.provider)?.refresh_token_life?.as_secs())
}
