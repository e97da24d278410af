//! Showing a token to a provider's server, and what its answer says about the token.

use std::sync::Arc;

use tokio::time::Instant;

use super::account::OpenAccount;
use super::state::{Mailbox, TokenProbe};
use super::tokens::CurrentTokens;
use crate::protocol::{Mechanism, Protocol};
use crate::wire::{Bearer, Refusal};

/// A token that is being shown to a mailbox's server. Where nothing is said of the answer, there was none about the token.
pub struct Showing {
    account: Arc<OpenAccount>,
    mailbox: Mailbox,
    held: Arc<CurrentTokens>,
    /// The mechanisms that the server offers, in the order of use.
    mechanisms: Vec<Mechanism>,
    probe: Option<TokenProbe>,
}

impl OpenAccount {
    /// Waits until this token is to be shown to a mailbox's server that offers these mechanisms; None if it is not to be any
    /// more, because it was refused or replaced meanwhile.
    pub async fn show(
        self: &Arc<Self>,
        protocol: Protocol,
        held: &Arc<CurrentTokens>,
        offered: &[Mechanism],
    ) -> Option<Showing> {
        let mailbox = self.mailbox(protocol);
        let probe = self.tokens.turn(&mailbox, held.generation).await?;
        let first = self.tokens.look(|state| state.mechanism(&mailbox, offered));
        let others = offered.iter().copied().filter(|one| Some(*one) != first);
        let mechanisms = first.into_iter().chain(others).collect();
        Some(Showing { account: Arc::clone(self), mailbox, held: Arc::clone(held), mechanisms, probe })
    }
}

impl Showing {
    /// The credentials for the server.
    pub fn bearer(&self) -> Bearer {
        let user = self.account.user(self.mailbox.protocol).clone();
        Bearer { user, token: self.held.tokens.access.clone(), mechanisms: self.mechanisms.clone() }
    }

    /// The server lets us in. Whether it is news that this mechanism works, where there are several.
    pub fn accepted(&self) -> Option<Mechanism> {
        let mechanism = *self.mechanisms.first()?;
        self.account.tokens.change(|state| {
            let is_known = state.is_known(&self.mailbox, mechanism);
            state.accepted(&self.mailbox, self.held.generation, mechanism);
            (self.mechanisms.len() > 1 && !is_known).then_some(mechanism)
        })
    }

    /// The server refuses the token.
    pub fn refused(&self, refusal: &Refusal) {
        let (generation, now) = (self.held.generation, Instant::now());
        self.account.tokens.change(|state| state.refused(&self.mailbox, generation, &self.mechanisms, refusal, now));
    }

    /// The server has trouble. Whether it may let in who shows a newer token.
    pub fn doubted(&self) -> bool {
        let (generation, now) = (self.held.generation, Instant::now());
        self.account.tokens.change(|state| state.doubted(&self.mailbox, generation, now))
    }

    /// The server takes the mechanism not at all.
    pub fn mechanism_refused(&self) {
        if let Some(mechanism) = self.mechanisms.first() {
            self.account.tokens.change(|state| state.mechanism_refused(&self.mailbox, *mechanism));
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        if let Some(probe) = self.probe {
            self.account.tokens.change(|state| state.unanswered(probe));
        }
    }
}
