//! Refreshes an account's tokens: one request for all logins that wait, and its outcome is stored before it is used. `state.rs`
//! decides when it is time for one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, warn};

use super::account::{OpenAccount, ended};
use super::context::Context;
use super::metrics::Metrics;
use super::notices::Notices;
use super::patience::Tries;
use super::state::{Ticket, TokenState};
use super::tokens::{CurrentTokens, Refreshing};
use crate::oauth::{Failure, Registration, TemporaryCause};
use crate::protocol::Protocol;
use crate::token::{TokenSet, Use};
use crate::vault::{Ended, VaultError};
use crate::wire::{Reason, Refusal};

/// How long a login waits for a refresh while the current token still works: a new one is better, because it does not expire soon,
/// but not at the price of a login.
const WHILE_ALIVE: Duration = Duration::from_secs(3);

/// The same while the current token is good for any login, and a new one would only make the session longer.
const WHILE_FRESH: Duration = Duration::from_secs(1);

/// Refreshes that may be under way at a time; more than there are accounts.
const REFRESHES: u32 = 1 << 20;

/// The journal's MESSAGE_ID by which monitoring can wait for an account that needs a person, sd-id128(3).
const PERSON_NEEDED: &str = "e6c40c79aa3e42549853498eea3870b1";

/// Gets new tokens, and hands out those that are fresh.
pub struct Refresher {
    context: Arc<Context>,
    metrics: Arc<Metrics>,
    notices: Arc<Notices>,
    /// One for each refresh that is under way.
    permits: Arc<Semaphore>,
    /// Whether a refresh has to wait until its outcome can be stored, because this process ends soon.
    stores_first: bool,
}

impl Refresher {
    pub(super) fn new(
        context: &Arc<Context>,
        metrics: &Arc<Metrics>,
        notices: &Arc<Notices>,
        stores_first: bool,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(REFRESHES as usize));
        let (context, metrics, notices) = (Arc::clone(context), Arc::clone(metrics), Arc::clone(notices));
        Self { context, metrics, notices, permits, stores_first }
    }

    /// A token good to log in with by this protocol. However many ask, there is one refresh, and all get its outcome.
    ///
    /// # Errors
    ///
    /// What a client hears where there is none.
    pub async fn bearer(
        self: &Arc<Self>,
        account: &Arc<OpenAccount>,
        protocol: Protocol,
    ) -> Result<Arc<CurrentTokens>, Refusal> {
        let (mailbox, usage, now) = (account.mailbox(protocol), account.usage(protocol), self.context.now());
        let next =
            |state: &TokenState, held: &CurrentTokens| state.next(&mailbox, held.left(usage, now), Instant::now());
        let obtained = account.tokens.obtain(next, |refreshing| self.begin(account, refreshing));
        match account.tokens.while_they_last(&mailbox, usage, now) {
            Some(held) => {
                let patience = if held.tokens.life.is_fresh(Use::Login, now) { WHILE_FRESH } else { WHILE_ALIVE };
                timeout(patience, obtained).await.unwrap_or(Ok(held))
            }
            None => obtained.await,
        }
    }

    /// A token newer than this one, which nobody has to wait for.
    ///
    /// # Errors
    ///
    /// What a client hears where there is none.
    pub async fn renew(
        self: &Arc<Self>,
        account: &Arc<OpenAccount>,
        generation: u64,
    ) -> Result<Arc<CurrentTokens>, Refusal> {
        let next = |state: &TokenState, _: &CurrentTokens| state.renewal(generation, Instant::now());
        account.tokens.obtain(next, |refreshing| self.begin(account, refreshing)).await
    }

    /// Waits for the refreshes that are under way.
    pub async fn rest(&self) {
        let _all = self.permits.acquire_many(REFRESHES).await;
    }

    /// Waits for the refreshes that are under way, and lets no other begin: a process that ends with a rotated refresh
    /// token on the wire has lost the authorization.
    pub async fn finish(&self) {
        if let Ok(all) = self.permits.acquire_many(REFRESHES).await {
            all.forget();
        }
    }

    /// Refreshes in a task of its own: a client that hangs up must not take a rotated refresh token with it.
    fn begin(self: &Arc<Self>, account: &Arc<OpenAccount>, refreshing: Refreshing) {
        let (refresher, account) = (Arc::clone(self), Arc::clone(account));
        // From now on `rest` and `finish` wait for this one.
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        tokio::spawn(async move {
            if permit.is_err() {
                // This process ends, and lets no refresh begin.
                return std::future::pending().await;
            }
            refresher.refresh(&account, refreshing.ticket).await;
            drop((refreshing, permit));
        });
    }

    async fn refresh(&self, account: &OpenAccount, ticket: Ticket) {
        let held = account.held();
        debug!(account = account.owner, generation = ticket.generation, "refreshing the access token");
        let ready = match self.check_storage(account).await {
            Ok(()) => account.registration(&held).await,
            Err(failure) => Err(failure),
        };
        let (result, was_asked) = match ready {
            Ok(registration) => (self.request(account, &registration, &held).await, true),
            Err(failure) => (Err(failure), false),
        };
        let result = match result {
            Err(Failure::Temporary(TemporaryCause::Unexplained, why)) => Err(self.explain(account, why).await),
            result => result,
        };
        self.metrics.refresh(result.as_ref().map_or_else(Failure::name, |_| "ok"));
        match result {
            Ok(tokens) => self.keep(account, &held, tokens).await,
            Err(failure) => {
                let refusal = self.failed(account, ticket.generation, &failure).await;
                let now = (self.context.now(), Instant::now());
                account.tokens.change(|state| state.failed(ticket, &failure, refusal, was_asked, now));
            }
        }
        self.notices.review();
    }

    /// Classifies a refusal without a reason: the authorization has ended, if it comes again and again from a server that
    /// otherwise works.
    async fn explain(&self, account: &OpenAccount, why: String) -> Failure {
        let is_often = account.tokens.change(TokenState::unexplained);
        let works = match &account.endpoints.token {
            Some(endpoint) if is_often => account.connector.http.date(endpoint).await.is_ok(),
            _ => false,
        };
        if works {
            Failure::Ended(format!("{why}, again and again, as some servers do when an authorization has ended"))
        } else {
            Failure::Temporary(TemporaryCause::Unexplained, why)
        }
    }

    /// A refresh spends the refresh token, so there is none where its outcome could only be lost. Writing the record unchanged
    /// shows whether it can be stored.
    async fn check_storage(&self, account: &OpenAccount) -> Result<(), Failure> {
        if !self.stores_first {
            return Ok(());
        }
        let owner = account.owner.clone();
        let written =
            self.context.in_vault(move |vault| vault.rewrite(&owner)).await.map_err(|error| error.to_string());
        match written.err().or_else(|| self.context.vault.trouble().map(|trouble| trouble.why)) {
            None => Ok(()),
            Some(why) => {
                let text = format!("new tokens could not be stored, so none were asked for: {why}");
                Err(Failure::Temporary(TemporaryCause::Lasting(None), text))
            }
        }
    }

    /// Requests new tokens, and retries as far as that helps a client that waits; one whose token still works need not wait.
    async fn request(
        &self,
        account: &OpenAccount,
        registration: &Registration,
        held: &CurrentTokens,
    ) -> Result<TokenSet, Failure> {
        let connector = &account.connector;
        let ask = account.ask(held);
        let needed = account.tokens.look(TokenState::is_refused) || !held.tokens.life.is_alive(self.context.now());
        let mut tries = Tries::begin();
        loop {
            let outcome = ask.renew(&connector.http, registration, Some(&held.tokens), &self.context.clock).await;
            let Err(Failure::Temporary(trouble, why)) = &outcome else { return outcome };
            let pause = tries.pause(*trouble).filter(|_| needed || *trouble == TemporaryCause::Lost);
            let Some(pause) = pause else { return outcome };
            warn!(
                account = account.owner,
                why, "asking the authorization server for a token of {} again: {why}", account.owner
            );
            tokio::time::sleep(pause).await;
        }
    }

    /// Puts new tokens on stable storage, and only then into use. While the disk is full or fails, the vault holds them in
    /// memory, and they are used from there.
    async fn keep(&self, account: &OpenAccount, before: &CurrentTokens, tokens: TokenSet) {
        let (owner, kept, last) = (account.owner.clone(), tokens.clone(), before.generation);
        let generation = match self.context.in_vault(move |vault| vault.keep(&owner, last, &kept)).await {
            Ok(generation) => generation,
            Err(error) => {
                match error {
                    // The token is good for the logins that wait for this refresh; later ones get the new authorization's, or none.
                    VaultError::Superseded(_) | VaultError::NoAccount(_) => {}
                    // The new refresh token may be the only good one: better to go on with it in memory than to lose it.
                    error => {
                        let owner = &account.owner;
                        error!(account = owner, %error, "cannot store the new tokens of {owner}, they will be lost at a restart: {error}");
                    }
                }
                last + 1
            }
        };
        account.tokens.replace(&Arc::new(CurrentTokens { tokens, generation, secrets: before.secrets.clone() }));
    }

    /// Turns a failed refresh into what clients are answered, now and as long as it stands.
    async fn failed(&self, account: &OpenAccount, generation: u64, failure: &Failure) -> Refusal {
        warn!(account = account.owner, %failure, "cannot refresh the access token of {}: {failure}", account.owner);
        let address = &account.owner;
        match failure {
            Failure::Temporary(_, why) => Refusal::new(Reason::Unavailable, format!("Try later: {why}.")),
            Failure::Misconfigured(why) => Refusal::new(
                Reason::AuthorizationEnded,
                format!("postkey's settings for {address} need care, and then `postkey reload`: {why}."),
            ),
            Failure::Forbidden(why) => Refusal::new(
                Reason::AuthorizationEnded,
                format!("{address} needs an administrator of its provider, and then `postkey reload`: {why}."),
            ),
            Failure::Ended(why) => {
                self.note_end(account, generation, why).await;
                ended(address, why)
            }
        }
    }

    async fn note_end(&self, account: &OpenAccount, generation: u64, why: &str) {
        error!(
            message_id = PERSON_NEEDED,
            account = account.owner,
            why,
            "authorization of {0} ended: {why}; run `postkey authorize {0}`",
            account.owner
        );
        let (address, ended) = (account.owner.clone(), Ended { at: self.context.now(), why: why.to_owned() });
        if let Err(error) = self.context.in_vault(move |vault| vault.end(&address, generation, ended)).await {
            let owner = &account.owner;
            warn!(account = owner, %error, "cannot store that the authorization of {owner} ended: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
