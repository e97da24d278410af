//! Refreshes an account's tokens: with one request for all logins that wait, and the new tokens are stored before they are
//! used. `state.rs` decides when a refresh is needed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, warn};

use super::account::{OpenAccount, ended};
use super::context::Context;
use super::metrics::Metrics;
use super::notices::Notices;
use super::passwords::Passwords;
use super::refresh_permits::ServerPermits;
use super::refresh_turn::{self, TurnOutcome};
use super::state::{RefreshTicket, TokenState};
use super::tokens::{CurrentTokens, RefreshGuard};
use crate::oauth::{Failure, Registration, TemporaryCause};
use crate::protocol::Protocol;
use crate::random;
use crate::token::{TokenSet, Use};
use crate::vault::{Ended, RefreshLock, VaultError};
use crate::wire::{Reason, Refusal};

/// How long a login waits for a refresh while the current token still works. A new token is better, because it does not expire
/// soon, but the login must not fail for it.
const WHILE_ALIVE: Duration = Duration::from_secs(3);

/// The same while the current token is good for any login, and a new one would only allow a longer session.
const WHILE_FRESH: Duration = Duration::from_secs(1);

/// How many refreshes may be under way at a time: more than there are accounts.
const REFRESHES: u32 = 1 << 20;

/// How long a refresh waits for its turn at the authorization server. Clients give up after half a minute.
const TURN: Duration = Duration::from_secs(20);

/// The journal's MESSAGE_ID by which monitoring finds accounts that need a person, sd-id128(3).
const PERSON_NEEDED: &str = "e6c40c79aa3e42549853498eea3870b1";

/// The number of requests for one refresh.
const TRIES: u32 = 3;

/// A request sent later than this after the first could not help the client that waits: it has half a minute, and its login
/// takes time, too.
const LAST_TRY: Duration = Duration::from_secs(5);

/// The pause before the second request; doubled before the third.
const PAUSE: Duration = Duration::from_millis(500);

/// Gets new tokens, and hands out fresh ones.
pub struct Refresher {
    context: Arc<Context>,
    metrics: Arc<Metrics>,
    notices: Arc<Notices>,
    passwords: Arc<Passwords>,
    /// One for each refresh that is under way.
    permits: Arc<Semaphore>,
    pub(super) server_permits: ServerPermits,
    /// Whether to check before a refresh that new tokens can be stored, because this process ends soon.
    stores_first: bool,
}

/// An attempt to get new tokens.
enum RefreshAttempt {
    /// The authorization server was asked, in this replica's turn.
    Made(RefreshLock, Result<TokenSet, Failure>),
    /// It was not asked.
    Failed(Failure),
    /// Another replica has got new tokens.
    Replaced,
    /// It is not this replica's turn; why.
    Postponed(String),
}

impl Refresher {
    pub(super) fn new(
        context: &Arc<Context>,
        metrics: &Arc<Metrics>,
        notices: &Arc<Notices>,
        passwords: &Arc<Passwords>,
        stores_first: bool,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(REFRESHES as usize));
        let (context, metrics, notices) = (Arc::clone(context), Arc::clone(metrics), Arc::clone(notices));
        let passwords = Arc::clone(passwords);
        Self { context, metrics, notices, passwords, permits, server_permits: ServerPermits::default(), stores_first }
    }

    /// Returns a token for a login by this protocol. However many logins need one, there is one refresh, and all get its outcome.
    ///
    /// # Errors
    ///
    /// The answer to the client if there is no token.
    pub async fn bearer(
        self: &Arc<Self>,
        account: &Arc<OpenAccount>,
        protocol: Protocol,
    ) -> Result<Arc<CurrentTokens>, Refusal> {
        let (mailbox, usage, now) = (account.mailbox(protocol), account.usage(protocol), self.context.now());
        let next = |state: &TokenState, current: &CurrentTokens| {
            state.next(&mailbox, current.left(usage, now), Instant::now())
        };
        let obtained = account.tokens.obtain(next, |guard| self.begin(account, guard));
        match account.tokens.still_usable(&mailbox, usage, now) {
            Some(current) => {
                let patience = if current.tokens.life.is_fresh(Use::Login, now) { WHILE_FRESH } else { WHILE_ALIVE };
                timeout(patience, obtained).await.unwrap_or(Ok(current))
            }
            None => obtained.await,
        }
    }

    /// Returns a token newer than the one of this generation.
    ///
    /// # Errors
    ///
    /// The answer to the client if there is none.
    pub async fn renew(
        self: &Arc<Self>,
        account: &Arc<OpenAccount>,
        generation: u64,
    ) -> Result<Arc<CurrentTokens>, Refusal> {
        let next = |state: &TokenState, _: &CurrentTokens| state.renewal(generation, Instant::now());
        account.tokens.obtain(next, |guard| self.begin(account, guard)).await
    }

    /// Waits for the refreshes that are under way.
    pub async fn wait(&self) {
        let _all = self.permits.acquire_many(REFRESHES).await;
    }

    /// Waits for the refreshes that are under way, and lets no other begin. If the process ended while the server sends a rotated
    /// refresh token, the authorization would be lost.
    pub async fn finish(&self) {
        if let Ok(all) = self.permits.acquire_many(REFRESHES).await {
            all.forget();
        }
    }

    /// Refreshes in a separate task, so that a rotated refresh token is not lost when the client disconnects.
    fn begin(self: &Arc<Self>, account: &Arc<OpenAccount>, guard: RefreshGuard) {
        let (refresher, account) = (Arc::clone(self), Arc::clone(account));
        // From now on `wait` and `finish` wait for this refresh.
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        tokio::spawn(async move {
            if permit.is_err() {
                // This process is ending.
                return std::future::pending().await;
            }
            refresher.refresh(&account, guard.ticket).await;
            drop((guard, permit));
        });
    }

    async fn refresh(&self, account: &OpenAccount, ticket: RefreshTicket) {
        let current = account.tokens.current();
        debug!(account = account.owner, generation = ticket.generation, "refreshing the access token");
        // It is this replica's turn until the new tokens are stored.
        let (_turn, result, was_sent) = match self.attempt(account, &current).await {
            RefreshAttempt::Made(turn, result) => (Some(turn), result, true),
            RefreshAttempt::Failed(failure) => (None, Err(failure), false),
            RefreshAttempt::Replaced => return self.notices.review(&account.owner),
            RefreshAttempt::Postponed(why) => return self.postpone(account, &why),
        };
        let result = match result {
            Err(Failure::Temporary(TemporaryCause::Unexplained, why)) => Err(self.classify(account, why).await),
            result => result,
        };
        self.metrics.refresh(result.as_ref().map_or_else(Failure::name, |_| "ok"));
        match result {
            Ok(tokens) => self.store(account, &current, tokens).await,
            Err(failure) => {
                let refusal = self.refusal(account, ticket.generation, &failure).await;
                let now = (self.context.now(), Instant::now());
                account.tokens.change(|state| state.failed(ticket, &failure, refusal, was_sent, now));
            }
        }
        self.notices.review(&account.owner);
    }

    /// Requests new tokens when everything is ready for that, and it is this account's and this replica's turn.
    async fn attempt(&self, account: &OpenAccount, current: &CurrentTokens) -> RefreshAttempt {
        let ready = match self.check_storage(account).await {
            Ok(()) => account.registration(current).await,
            Err(failure) => Err(failure),
        };
        let registration = match ready {
            Ok(registration) => registration,
            Err(failure) => return RefreshAttempt::Failed(failure),
        };
        let of_server = self.server_permits.of(account);
        let Ok(_permit) = timeout(TURN, of_server.all.acquire()).await else {
            return RefreshAttempt::Failed(too_many(account));
        };
        match refresh_turn::wait(&self.context, &self.passwords, account, current.generation).await {
            TurnOutcome::Own(turn) => {
                let result = self.request(account, &registration, current, &turn).await;
                RefreshAttempt::Made(turn, result)
            }
            TurnOutcome::Replaced => RefreshAttempt::Replaced,
            TurnOutcome::Postponed(why) => RefreshAttempt::Postponed(why),
        }
    }

    fn postpone(&self, account: &OpenAccount, why: &str) {
        self.metrics.refresh("postponed");
        debug!(account = account.owner, why, "the tokens of {} are not refreshed now: {why}", account.owner);
        let refusal = Refusal::new(Reason::Unavailable, format!("Try later: {why}."));
        account.tokens.change(|state| state.postponed(refusal, Instant::now()));
    }

    /// Classifies a refusal without a reason: the authorization has ended if a server that otherwise works repeats it.
    async fn classify(&self, account: &OpenAccount, why: String) -> Failure {
        let is_often = account.tokens.change(TokenState::count_unexplained);
        let works = match &account.endpoints.token {
            Some(endpoint) if is_often => account.connector.http.date(endpoint).await.is_ok(),
            _ => false,
        };
        if works {
            Failure::Ended(format!("{why}, again and again, as some servers answer when an authorization has ended"))
        } else {
            Failure::Temporary(TemporaryCause::Unexplained, why)
        }
    }

    /// Checks that new tokens can be stored, by writing the record unchanged. A refresh may invalidate the old refresh token, so
    /// there must be none if its outcome would be lost.
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
                let text = format!("postkey requested no new tokens, because it could not store them: {why}");
                Err(Failure::Temporary(TemporaryCause::Lasting(None), text))
            }
        }
    }

    /// Requests new tokens. Retries as long as that helps a client that waits; a client whose token still works need not wait.
    async fn request(
        &self,
        account: &OpenAccount,
        registration: &Registration,
        current: &CurrentTokens,
        turn: &RefreshLock,
    ) -> Result<TokenSet, Failure> {
        let request = account.grant_request(current);
        let is_needed =
            account.tokens.read(TokenState::is_refused) || !current.tokens.life.is_alive(self.context.now());
        let mut tries = Tries::begin();
        loop {
            let away = |error: VaultError| Failure::Temporary(TemporaryCause::Unreachable, error.to_string());
            turn.verify().await.map_err(away)?;
            let (http, clock) = (&account.connector.http, &self.context.clock);
            let outcome = request.renew(http, registration, Some(&current.tokens), clock).await;
            let Err(Failure::Temporary(cause, why)) = &outcome else { return outcome };
            let pause = tries.pause(*cause).filter(|_| is_needed || *cause == TemporaryCause::Lost);
            let Some(pause) = pause else { return outcome };
            debug!(account = account.owner, why, "requesting a token of {} again: {why}", account.owner);
            tokio::time::sleep(pause).await;
        }
    }

    /// Puts new tokens on stable storage, and only then into use. If the disk is full or fails, the vault has them in memory, and
    /// they are used from there.
    async fn store(&self, account: &OpenAccount, before: &CurrentTokens, tokens: TokenSet) {
        let (owner, stored, last) = (account.owner.clone(), tokens.clone(), before.generation);
        let generation = match self.context.in_vault(move |vault| vault.keep(&owner, last, &stored)).await {
            Ok(generation) => generation,
            Err(error) => {
                // After a new authorization, or none, the token is only for the logins that wait for this refresh. Otherwise the
                // new refresh token may be the only valid one, so postkey continues with it in memory.
                if !matches!(error, VaultError::Superseded(_) | VaultError::NoAccount(_)) {
                    let owner = &account.owner;
                    error!(account = owner, %error, "cannot store the new tokens of {owner}, they will be lost at a restart: {error}");
                }
                last + 1
            }
        };
        let opener = before.opener.clone();
        account.tokens.replace(&Arc::new(CurrentTokens {
            tokens,
            generation,
            secrets: before.secrets.clone(),
            opener,
        }));
    }

    /// The answer to clients after a failed refresh.
    async fn refusal(&self, account: &OpenAccount, generation: u64, failure: &Failure) -> Refusal {
        let address = &account.owner;
        // Without a network, a day would have a hundred such lines for each account.
        if account.tokens.read(|state| state.has_failed_like(failure)) {
            debug!(account = address, %failure, "still cannot refresh the access token of {address}: {failure}");
        } else {
            warn!(account = address, %failure, "cannot refresh the access token of {address}: {failure}");
        }
        match failure {
            Failure::Temporary(_, why) => Refusal::new(Reason::Unavailable, format!("Try later: {why}.")),
            Failure::Misconfigured(why) => Refusal::new(
                Reason::AuthorizationEnded,
                format!("The configuration for {address} must be corrected ({why}); then run `postkey reload`."),
            ),
            Failure::Forbidden(why) => Refusal::new(
                Reason::AuthorizationEnded,
                format!("An administrator of the provider of {address} must act ({why}); then run `postkey reload`."),
            ),
            Failure::Ended(why) => {
                self.store_end(account, generation, why).await;
                ended(address, why)
            }
        }
    }

    async fn store_end(&self, account: &OpenAccount, generation: u64, why: &str) {
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

/// The failure if other accounts take all of an authorization server's time.
fn too_many(account: &OpenAccount) -> Failure {
    let most = account.connector.provider.concurrent_refreshes;
    let text = format!(
        "{most} refreshes for other accounts are under way, and none has ended within {} seconds; raise \
         concurrent_refreshes of {} if its authorization server allows more",
        TURN.as_secs(),
        account.connector.provider.name
    );
    Failure::Temporary(TemporaryCause::Lasting(None), text)
}

/// The requests of one refresh.
struct Tries {
    begun: Instant,
    made: u32,
    was_lost: bool,
}

impl Tries {
    fn begin() -> Self {
        Self { begun: Instant::now(), made: 0, was_lost: false }
    }

    /// The pause before the next request; None if there should be no other.
    ///
    /// If an answer was lost, the request is repeated once, at once, with the same refresh token. The server may have
    /// invalidated that token; but it is the only one that we have, and servers that tolerate a second use do so for seconds.
    fn pause(&mut self, cause: TemporaryCause) -> Option<Duration> {
        self.made += 1;
        match cause {
            TemporaryCause::Lasting(_) | TemporaryCause::Unexplained => None,
            TemporaryCause::Lost => (!std::mem::replace(&mut self.was_lost, true)).then_some(Duration::ZERO),
            TemporaryCause::Unreachable | TemporaryCause::Faulty => {
                let is_useful = self.made < TRIES && self.begun.elapsed() < LAST_TRY;
                is_useful.then(|| random::shortened(PAUSE * self.made))
            }
        }
    }
}

#[cfg(test)]
mod tests;
