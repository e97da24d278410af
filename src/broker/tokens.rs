//! An authorization's tokens with their state: the locking, waiting and waking around `state.rs`.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::state::{Left, Mailbox, Next, RefreshTicket, SendDecision, TokenProbe, TokenState};
use crate::clock::Moment;
use crate::mutex::lock;
use crate::token::{TokenSet, Use};
use crate::vault::{Opener, Secrets, Slot, Unlocked};
use crate::wire::Refusal;

/// An authorization's tokens. All accounts that it opens share them, also across reloads.
pub(super) struct Tokens {
    shared: Mutex<Shared>,
    /// Wakes everybody who waits for the state to change.
    changed: watch::Sender<()>,
    /// Cloned by each open session.
    sessions: Arc<()>,
}

struct Shared {
    current: Arc<CurrentTokens>,
    state: TokenState,
}

pub struct CurrentTokens {
    pub tokens: TokenSet,
    /// The number of this token set in the account's record.
    pub generation: u64,
    pub(super) secrets: Secrets,
    /// Opens a later token set that another replica stores. None if no other replica can store one.
    pub(super) opener: Option<Arc<Opener>>,
}

impl CurrentTokens {
    /// The tokens of an account's record, and its slot.
    pub(super) fn of(unlocked: Unlocked) -> (Self, Slot) {
        let Unlocked { tokens, generation, secrets, slot, opener } = unlocked;
        (Self { tokens, generation, secrets, opener }, slot)
    }

    pub(super) fn left(&self, usage: Use, now: Moment) -> Left {
        match self.tokens.life {
            life if life.is_fresh(usage, now) => Left::Enough,
            life if life.is_alive(now) => Left::Little,
            _ => Left::Nothing,
        }
    }
}

impl Tokens {
    /// `sessions` counts the sessions that are already open.
    pub(super) fn new(state: TokenState, current: CurrentTokens, sessions: Arc<()>) -> Arc<Self> {
        let shared = Mutex::new(Shared { current: Arc::new(current), state });
        Arc::new(Self { shared, changed: watch::Sender::default(), sessions })
    }

    pub(super) fn current(&self) -> Arc<CurrentTokens> {
        Arc::clone(&lock(&self.shared).current)
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&TokenState) -> T) -> T {
        read(&lock(&self.shared).state)
    }

    /// Changes the state, and wakes everybody who waits for that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut TokenState) -> T) -> T {
        let changed = change(&mut lock(&self.shared).state);
        self.changed.send_replace(());
        changed
    }

    /// Puts new tokens into use.
    pub(super) fn replace(&self, current: &Arc<CurrentTokens>) {
        let mut shared = lock(&self.shared);
        shared.current = Arc::clone(current);
        shared.state.succeeded(current.generation, Instant::now());
    }

    /// Takes what opens later token sets from the same token set, which an app password has opened. A new authorization does not
    /// have it, because it needs no app password.
    pub(super) fn learn_opener(&self, opened: &CurrentTokens) {
        let mut shared = lock(&self.shared);
        let current = &shared.current;
        if current.opener.is_none() && current.generation == opened.generation {
            let (tokens, generation, secrets) = (current.tokens.clone(), current.generation, current.secrets.clone());
            shared.current = Arc::new(CurrentTokens { tokens, generation, secrets, opener: opened.opener.clone() });
        }
    }

    /// Waits until no refresh is under way, and prevents another one until the guard is dropped.
    pub(super) async fn block_refresh(self: &Arc<Self>) -> RefreshGuard {
        let mut changes = self.changed.subscribe();
        loop {
            let ticket = {
                let state = &mut lock(&self.shared).state;
                (!state.is_refreshing()).then(|| state.begin())
            };
            if let Some(ticket) = ticket {
                return RefreshGuard { tokens: Arc::clone(self), ticket };
            }
            // The sender lives as long as we do.
            let _change = changes.changed().await;
        }
    }

    /// A counter that each session clones while it is open.
    pub(super) fn sessions(&self) -> Arc<()> {
        Arc::clone(&self.sessions)
    }

    pub(super) fn has_session(&self) -> bool {
        Arc::strong_count(&self.sessions) > 1
    }

    /// The current tokens, if they still work although they should be replaced.
    pub(super) fn still_usable(&self, mailbox: &Mailbox, usage: Use, now: Moment) -> Option<Arc<CurrentTokens>> {
        let shared = lock(&self.shared);
        let left = shared.current.left(usage, now);
        (left == Left::Little && shared.state.may_send(mailbox, Instant::now())).then(|| Arc::clone(&shared.current))
    }

    /// Waits until `decide` returns tokens to send, or a refusal. If it decides on a refresh, calls `refresh`.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        decide: impl Fn(&TokenState, &CurrentTokens) -> Next,
        refresh: impl Fn(RefreshGuard),
    ) -> Result<Arc<CurrentTokens>, Refusal> {
        let mut changes = self.changed.subscribe();
        loop {
            let (next, current, ticket) = {
                let Shared { current, state } = &mut *lock(&self.shared);
                let next = decide(state, current);
                let ticket = (next == Next::Refresh).then(|| state.begin());
                (next, Arc::clone(current), ticket)
            };
            match next {
                Next::Send => return Ok(current),
                Next::Answer(refusal) => return Err(refusal),
                Next::Refresh | Next::Wait => {}
            }
            if let Some(ticket) = ticket {
                refresh(RefreshGuard { tokens: Arc::clone(self), ticket });
            }
            // The sender lives as long as we do.
            let _change = changes.changed().await;
        }
    }

    /// Waits until a login that is ready to send this token may do so. None if the token must not be sent any more. If the
    /// other logins wait for this one's answer, it gets a probe.
    pub(super) async fn wait_for_turn(&self, mailbox: &Mailbox, generation: u64) -> Option<Option<TokenProbe>> {
        let (mut changes, mut seen) = (self.changed.subscribe(), None);
        loop {
            let decision = lock(&self.shared).state.may_login_send(mailbox, generation, &mut seen, Instant::now());
            match decision {
                SendDecision::First(probe) => return Some(Some(probe)),
                SendDecision::Follow => return Some(None),
                SendDecision::Stale => return None,
                SendDecision::Wait(until) => drop(timeout_at(until, changes.changed()).await),
            }
        }
    }
}

/// The one refresh of an authorization. It ends when this is dropped.
pub(super) struct RefreshGuard {
    tokens: Arc<Tokens>,
    pub(super) ticket: RefreshTicket,
}

impl Drop for RefreshGuard {
    fn drop(&mut self) {
        self.tokens.change(TokenState::end);
    }
}
