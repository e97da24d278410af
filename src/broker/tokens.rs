//! An authorization's tokens and their state, shared by all who wait for them.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::context::lock;
use super::state::{Left, Mailbox, Next, ShowDecision, Ticket, TokenProbe, TokenState};
use crate::clock::Moment;
use crate::token::{TokenSet, Use};
use crate::vault::Secrets;
use crate::wire::Refusal;

/// An authorization's tokens: the same ones for all accounts that it opens, and when the configuration changes around them.
pub(super) struct Tokens {
    kept: Mutex<Kept>,
    /// Wakes those who wait for the state to change.
    changed: watch::Sender<()>,
    /// Shared by the sessions that are open.
    sessions: Arc<()>,
}

/// The newest tokens, and what is known of them.
struct Kept {
    held: Arc<CurrentTokens>,
    state: TokenState,
}

/// The tokens that are in use.
pub struct CurrentTokens {
    /// The token set.
    pub tokens: TokenSet,
    /// Which token set of the account this is.
    pub generation: u64,
    pub(super) secrets: Secrets,
}

impl CurrentTokens {
    /// How much of its life is left for such a use.
    pub(super) fn left(&self, usage: Use, now: Moment) -> Left {
        match self.tokens.life {
            life if life.is_fresh(usage, now) => Left::Enough,
            life if life.is_alive(now) => Left::Little,
            _ => Left::Nothing,
        }
    }
}

impl Tokens {
    /// `sessions` are those that are open.
    pub(super) fn new(state: TokenState, held: CurrentTokens, sessions: Arc<()>) -> Arc<Self> {
        let kept = Mutex::new(Kept { held: Arc::new(held), state });
        Arc::new(Self { kept, changed: watch::Sender::default(), sessions })
    }

    /// The newest tokens.
    pub(super) fn held(&self) -> Arc<CurrentTokens> {
        Arc::clone(&lock(&self.kept).held)
    }

    /// Reads the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&TokenState) -> T) -> T {
        look(&lock(&self.kept).state)
    }

    /// Changes the state, and wakes those who wait for that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut TokenState) -> T) -> T {
        let changed = change(&mut lock(&self.kept).state);
        self.changed.send_replace(());
        changed
    }

    /// Puts new tokens into use.
    pub(super) fn replace(&self, held: &Arc<CurrentTokens>) {
        let mut kept = lock(&self.kept);
        kept.held = Arc::clone(held);
        kept.state.succeeded(held.generation, Instant::now());
    }

    /// Waits until no refresh is under way, and lets no other begin as long as what is returned is held.
    pub(super) async fn alone(self: &Arc<Self>) -> Refreshing {
        let mut changes = self.changed.subscribe();
        loop {
            let ticket = {
                let state = &mut lock(&self.kept).state;
                (!state.is_refreshing()).then(|| state.begin())
            };
            if let Some(ticket) = ticket {
                return Refreshing { tokens: Arc::clone(self), ticket };
            }
            // The sender lives as long as we do.
            let _change = changes.changed().await;
        }
    }

    /// To be held by each session that is open.
    pub(super) fn sessions(&self) -> Arc<()> {
        Arc::clone(&self.sessions)
    }

    /// Whether a session is open.
    pub(super) fn are_in_use(&self) -> bool {
        Arc::strong_count(&self.sessions) > 1
    }

    /// The newest tokens, if they can still be shown though there should be newer ones.
    pub(super) fn while_they_last(&self, of: &Mailbox, usage: Use, now: Moment) -> Option<Arc<CurrentTokens>> {
        let kept = lock(&self.kept);
        let left = kept.held.left(usage, now);
        (left == Left::Little && kept.state.may_show(of, Instant::now())).then(|| Arc::clone(&kept.held))
    }

    /// Waits until `decide` says whether there are tokens to show. Where it decides on a refresh, `refresh` begins it.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        decide: impl Fn(&TokenState, &CurrentTokens) -> Next,
        refresh: impl Fn(Refreshing),
    ) -> Result<Arc<CurrentTokens>, Refusal> {
        let mut changes = self.changed.subscribe();
        loop {
            let (next, held, refreshing) = self.step(&decide);
            match next {
                Next::Show => return Ok(held),
                Next::Answer(refusal) => return Err(refusal),
                Next::Refresh | Next::Wait => {}
            }
            refreshing.into_iter().for_each(&refresh);
            // The sender lives as long as we do.
            let _change = changes.changed().await;
        }
    }

    /// Waits until a login that is ready to show this token may do so; None if the token is not to be shown any more. The login
    /// whose answer the others wait for gets a probe.
    pub(super) async fn turn(&self, mailbox: &Mailbox, generation: u64) -> Option<Option<TokenProbe>> {
        let (mut changes, mut seen) = (self.changed.subscribe(), None);
        loop {
            let turn = lock(&self.kept).state.turn(mailbox, generation, &mut seen, Instant::now());
            match turn {
                ShowDecision::First(probe) => return Some(Some(probe)),
                ShowDecision::Follow => return Some(None),
                ShowDecision::Stale => return None,
                ShowDecision::Wait(until) => drop(timeout_at(until, changes.changed()).await),
            }
        }
    }

    /// What to do now, and with which tokens. If that is a refresh, it has begun.
    fn step(
        self: &Arc<Self>,
        decide: impl Fn(&TokenState, &CurrentTokens) -> Next,
    ) -> (Next, Arc<CurrentTokens>, Option<Refreshing>) {
        let kept = &mut *lock(&self.kept);
        let next = decide(&kept.state, &kept.held);
        let ticket = (next == Next::Refresh).then(|| kept.state.begin());
        let refreshing = ticket.map(|ticket| Refreshing { tokens: Arc::clone(self), ticket });
        (next, Arc::clone(&kept.held), refreshing)
    }
}

/// The one refresh of an authorization. It has come to its end when this is dropped.
pub(super) struct Refreshing {
    tokens: Arc<Tokens>,
    pub(super) ticket: Ticket,
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.tokens.change(TokenState::end);
    }
}
