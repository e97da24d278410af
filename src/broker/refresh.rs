//! Refreshing an account's tokens: one request for all who wait, and its outcome stored before it is used.

use std::sync::Arc;

use tracing::{debug, error, warn};

use super::account::{Account, Held, Wanted};
use super::patience::{Refreshes, Tries};
use super::{Broker, blocking, lock};
use crate::config::client::{Client, ClientAuthentication};
use crate::config::secret_source::SecretSource;
use crate::oauth::{Failure, Registration, Trouble};
use crate::token::TokenSet;
use crate::vault::{Ended, VaultError};
use crate::wire::{Reason, Refusal};

/// The journal's MESSAGE_ID by which monitoring can wait for an account that needs a person, sd-id128(3).
const PERSON_NEEDED: &str = "e6c40c79aa3e42549853498eea3870b1";

impl Broker {
    /// Waits for the refresh that is under way, and does one only if that did not help.
    pub(super) async fn refresh(
        &self,
        account: &Account,
        refused: Option<u64>,
        wanted: Wanted,
    ) -> Result<Arc<Held>, Refusal> {
        let mut refreshes = account.tokens.refreshing.lock().await;
        if let Some(held) = account.fresh(refused, wanted, self.clock.now()) {
            return Ok(held);
        }
        let outcome = match refreshes.standing(refused.is_some(), &self.config()) {
            Some(refusal) => Err(refusal),
            None => self.refresh_now(account, &mut refreshes, refused.is_some()).await,
        };
        match (outcome, account.alive(refused, self.clock.now())) {
            // The token that is there still works; better than a refusal.
            (Err(_), Some(held)) => Ok(held),
            (outcome, _) => outcome,
        }
    }

    async fn refresh_now(
        &self,
        account: &Account,
        refreshes: &mut Refreshes,
        forced: bool,
    ) -> Result<Arc<Held>, Refusal> {
        let ended = self.vault.account(&account.owner).and_then(|record| record.ended.clone());
        let insisted = refreshes.take_insisted();
        if let Some(ended) = ended.filter(|_| !insisted) {
            return Err(account.ended(&ended.why));
        }
        let (held, config) = (account.held(), self.config());
        debug!(account = account.owner, forced, "refreshing the access token");
        let (result, was_asked) = match self.registration(account, &held).await {
            Ok(registration) => (self.request(account, &registration, &held, forced).await, true),
            Err(failure) => (Err(failure), false),
        };
        refreshes.ended(forced);
        self.metrics.refresh(result.as_ref().map_or_else(Failure::name, |_| "ok"));
        match result {
            Ok(tokens) => {
                refreshes.succeeded();
                lock(&account.tokens.health).needed = None;
                let held = self.keep(account, &held, tokens).await;
                self.attention.notify_one();
                Ok(held)
            }
            Err(failure) => {
                let refusal = self.failed(account, held.generation, &failure).await;
                refreshes.failed(&failure, refusal.clone(), was_asked.then_some(config));
                Err(refusal)
            }
        }
    }

    /// Asks for new tokens, and asks again as far as that serves the client that waits; one whose token still works need
    /// not wait.
    async fn request(
        &self,
        account: &Account,
        registration: &Registration,
        held: &Held,
        forced: bool,
    ) -> Result<TokenSet, Failure> {
        let (reach, token) = (&account.reach, held.tokens.refresh.as_ref());
        let ask = account.ask(held);
        let needed = forced || !held.tokens.life.is_alive(self.clock.now());
        let mut tries = Tries::begin();
        loop {
            let outcome = ask.renew(&reach.http, registration, token, &self.clock).await;
            let Err(Failure::Temporary(trouble, why)) = &outcome else { return outcome };
            let pause = tries.pause(*trouble).filter(|_| needed || *trouble == Trouble::Lost);
            let Some(pause) = pause else { return outcome };
            warn!(account = account.owner, why, "asking the authorization server again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Puts new tokens on stable storage, and only then into use. While the disk is full or fails, the vault holds them in
    /// memory, and they are used from there.
    async fn keep(&self, account: &Account, before: &Held, tokens: TokenSet) -> Arc<Held> {
        let (vault, address, kept) = (Arc::clone(&self.vault), account.owner.clone(), tokens.clone());
        let last = before.generation;
        let generation = match blocking(move || vault.keep(&address, last, &kept)).await {
            Ok(generation) => generation,
            // For those who wait for this refresh its token is good; who comes next gets the new authorization's, or none.
            Err(VaultError::Superseded(_) | VaultError::NoAccount(_)) => last + 1,
            Err(error) => {
                // The new refresh token may be the only good one: better to go on with it in memory than to lose it.
                error!(account = account.owner, %error, "the new token could not be stored and will be lost at a restart");
                last + 1
            }
        };
        let held = Arc::new(Held { tokens, generation, secrets: before.secrets.clone() });
        *lock(&account.tokens.held) = Arc::clone(&held);
        held
    }

    /// What a failed refresh means for those who wait, and for those who come next.
    async fn failed(&self, account: &Account, generation: u64, failure: &Failure) -> Refusal {
        warn!(account = account.owner, %failure, "the access token cannot be refreshed");
        let address = &account.owner;
        let refusal = match failure {
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
                account.ended(why)
            }
        };
        let mut health = lock(&account.tokens.health);
        health.failure = Some((self.clock.now(), failure.to_string()));
        if !matches!(failure, Failure::Temporary(..)) {
            health.needed = Some(refusal.text.clone());
            self.attention.notify_one();
        }
        refusal
    }

    async fn note_end(&self, account: &Account, generation: u64, why: &str) {
        error!(
            message_id = PERSON_NEEDED,
            account = account.owner,
            why,
            "the authorization has ended; a person has to run `postkey authorize`"
        );
        let (vault, address) = (Arc::clone(&self.vault), account.owner.clone());
        let ended = Ended { at: self.clock.now(), why: why.to_owned() };
        if let Err(error) = blocking(move || vault.end(&address, generation, ended)).await {
            warn!(account = account.owner, %error, "that the authorization has ended could not be stored");
        }
    }

    /// The client as it is now, its secret read anew.
    pub(super) async fn registration(&self, account: &Account, held: &Held) -> Result<Registration, Failure> {
        let mut client = account.client.clone().unwrap_or_else(Client::nobody);
        if let Some(secret) = &held.secrets.client_secret {
            client.authentication = ClientAuthentication::Secret(SecretSource::Text(secret.clone()));
        }
        let token_endpoint = account.endpoints.token.as_ref().ok_or_else(|| {
            Failure::Misconfigured("its token endpoint is not known; authorize the account anew".to_owned())
        })?;
        Registration::new(&client, token_endpoint).await
    }
}
