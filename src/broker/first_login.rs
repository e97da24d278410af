//! First logins: a mail program logs in to an unknown address of a domain in the configuration. A person authorizes the
//! account in a browser, and a password that the mail program has tried becomes its first app password.
//!
//! The first login may come from somebody else than the person who consents. So only the browser in which the consent ended
//! gets a key, and the account is created with the password that is typed there with this key.
//! `docs/design/decisions/0007-first-login.md` says what this defends against. If several replicas share the vault, each step may
//! reach another one of them (`handover.rs`).

mod attempt;
mod attempts;
mod carried;
mod confirmation;
mod handover;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};
use url::Url;

use super::accounts::Accounts;
use super::context::{Context, Resolved};
use super::guesses::PasswordAttempt;
use super::notices::Notices;
use super::passwords::Passwords;
use crate::config::is_address;
use crate::exit::{Exit, Failed};
use crate::net::peer::{Peer, Source, Visitor};
use crate::notify::{Notice, NoticeEvent};
use crate::oauth::authorization_code::state_of;
use crate::oauth::identity::Identity;
use crate::vault::VaultError;
use crate::vault::password::Password;
use crate::wire::{Credentials, Reason, Refusal};
use attempt::{Attempt, Consent};
use attempts::Attempts;
use handover::Handover;
use server::{AuthorizationRequest, AuthorizationServer};

/// How often to remove what has expired.
const TICK: Duration = Duration::from_secs(60);

/// Why a browser cannot continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No first login waits there, or no longer.
    NotAwaited,
    /// The browser belongs to another user of this machine than the mail program.
    OtherUser,
    /// Somebody else has signed in at the provider, or the provider does not say who.
    SomebodyElse,
    /// The account exists already.
    Exists,
    /// The mail program of this address has not tried this password. The person may type another one.
    WrongPassword(String),
    /// The person typed too many wrong passwords.
    TooManyWrong,
    /// Something else; the log says what.
    Failed,
}

/// How long a new account is authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorized {
    /// Until the provider ends it.
    Lasting,
    /// Until its access token expires, because there is no refresh token.
    Ending,
}

/// A consent that waits for its person to confirm it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub address: String,
    /// Shows that a password comes from the browser in which the consent ended. It must appear only on that page.
    pub key: String,
}

/// First logins, from the first password to the new account.
pub struct FirstLogins {
    context: Arc<Context>,
    accounts: Arc<Accounts>,
    passwords: Arc<Passwords>,
    notices: Arc<Notices>,
    attempts: Attempts,
    handover: Handover,
}

impl FirstLogins {
    pub(super) fn new(
        context: &Arc<Context>,
        accounts: &Arc<Accounts>,
        passwords: &Arc<Passwords>,
        notices: &Arc<Notices>,
    ) -> Self {
        Self {
            context: Arc::clone(context),
            accounts: Arc::clone(accounts),
            passwords: Arc::clone(passwords),
            notices: Arc::clone(notices),
            attempts: Attempts::default(),
            handover: Handover::new(context),
        }
    }

    /// Sets the redirect URIs by provider. Without one, nobody can authorize an account.
    pub fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        self.attempts.set_redirect_uris(uris);
    }

    /// Refuses the login to an unknown address that can be authorized now, and names the page. Other logins pass. The page
    /// depends only on the address and the source, unless they have begun at several replicas with several passwords.
    pub async fn refuse(
        &self,
        login: &Resolved,
        credentials: &Credentials,
        peer: &Peer,
        guess: &mut PasswordAttempt<'_>,
    ) -> Result<(), Refusal> {
        let (config, address) = (&login.config, &login.address);
        let is_allowed = config.domain_of(address).is_some_and(|domain| peer.is_local() || domain.allow_remote);
        if !is_allowed || login.is_known || login.owner != *address || !is_address(address) {
            return Ok(());
        }
        let password = Password::chosen(credentials.password.expose())
            .map_err(|error| Refusal::new(Reason::Credentials, format!("Choose a new password: {error}.")))?;
        let source = Source::of(peer);
        self.follow_ends(address, source).await.map_err(put_off)?;
        let (attempt, is_new) = match self.attempts.attempt_with(address, source, &password) {
            Some(attempt) => (attempt, false),
            None if self.handover.is_shared() => self.join_anywhere(login, &password, source, guess).await?,
            None => self.join(login, &password, source)?,
        };
        if is_new {
            self.announce(&attempt);
        }
        let text = format!("To set this account up, open {} in a browser, and then log in again.", attempt.page);
        Err(Refusal::new(Reason::AuthorizationAwaited, text))
    }

    /// Adds a password to the attempt of this address, or begins one. Returns whether it is new.
    fn join(&self, login: &Resolved, password: &Password, source: Source) -> Result<(Arc<Attempt>, bool), Refusal> {
        if let Some(attempt) = self.attempts.attempts_of(&login.address, source).into_iter().next() {
            attempt.add_password(password.clone());
            return Ok((attempt, false));
        }
        let provider = login.provider().map_or("", |provider| &provider.name);
        let attempt = self.attempts.begin(&login.address, provider, password.clone(), source)?;
        Ok((attempt, true))
    }

    /// The same if other replicas share the vault: the mail program may have tried this password at one of them.
    async fn join_anywhere(
        &self,
        login: &Resolved,
        password: &Password,
        source: Source,
        guess: &mut PasswordAttempt<'_>,
    ) -> Result<(Arc<Attempt>, bool), Refusal> {
        let address = &login.address;
        let check = self.passwords.turn_of(address, password, guess).await?;
        let key = self.handover.key_of_password(address, source, password, Some(check)).await.map_err(put_off)?;
        if let Some(attempt) = self.handover.attempt_with(&key).await.map_err(put_off)? {
            let attempt = self.attempts.adopt(attempt);
            attempt.add_password(password.clone());
            return Ok((attempt, false));
        }
        let (attempt, is_new) = self.join(login, password, source)?;
        if let Err(error) = self.handover.leave_attempt(&attempt, &key).await {
            // The page would work only here. The next login begins again.
            self.attempts.end(&attempt);
            return Err(put_off(error));
        }
        Ok((attempt, is_new))
    }

    /// Ends the attempts of this address that another replica has ended.
    async fn follow_ends(&self, address: &str, source: Source) -> Result<(), VaultError> {
        if self.handover.is_shared() {
            for attempt in self.attempts.attempts_of(address, source) {
                if self.handover.attempt_by_ticket(&attempt.ticket).await?.is_none() {
                    self.attempts.end(&attempt);
                }
            }
        }
        Ok(())
    }

    /// Tells that a person is awaited.
    fn announce(&self, attempt: &Attempt) {
        let Attempt { address, page, .. } = attempt;
        info!(account = address, %page, "first login to {address}: a person has to authorize the account on {page}");
        let reason = format!("A mail program wants to log in to {address}. If it is yours, open {page} in a browser.");
        self.notify(NoticeEvent::PersonNeeded, address, reason, Some(page.clone()));
    }

    fn notify(&self, event: NoticeEvent, address: &str, reason: String, url: Option<Url>) {
        self.notices.send_first_login(Notice { event, account: address.to_owned(), reason, url });
    }

    /// The address whose first login waits on this page.
    ///
    /// # Errors
    ///
    /// The browser cannot continue.
    pub async fn awaited(&self, ticket: &str, visitor: Visitor) -> Result<String, Refused> {
        Ok(self.attempt(ticket, visitor).await?.address.clone())
    }

    async fn attempt(&self, ticket: &str, visitor: Visitor) -> Result<Arc<Attempt>, Refused> {
        let attempt = match self.handover.is_shared() {
            false => self.attempts.attempt_by_ticket(ticket),
            // Another replica may have ended it.
            true => {
                let found = self.handover.attempt_by_ticket(ticket).await.map_err(|error| away(&error))?;
                found.map(|attempt| self.attempts.adopt(attempt))
            }
        };
        let attempt = attempt.ok_or(Refused::NotAwaited)?;
        self.check(&attempt, visitor)?;
        Ok(attempt)
    }

    fn check(&self, attempt: &Attempt, visitor: Visitor) -> Result<(), Refused> {
        match attempt.is_for(visitor) {
            true if self.context.vault.knows(&attempt.address) => Err(Refused::Exists),
            true => Ok(()),
            false => Err(Refused::OtherUser),
        }
    }

    /// The provider's page, with a new authorization request.
    ///
    /// # Errors
    ///
    /// The account cannot be authorized.
    pub async fn ask_consent(&self, ticket: &str, visitor: Visitor) -> Result<Url, Refused> {
        let attempt = self.attempt(ticket, visitor).await?;
        let request = self.request(&attempt.address).await.map_err(|failed| refuse(&attempt, &failed))?;
        self.handover.leave_request(&attempt, &request.pending).await.map_err(|error| away(&error))?;
        let url = request.pending.url.clone();
        attempt.add_request(request);
        Ok(url)
    }

    async fn request(&self, address: &str) -> Result<AuthorizationRequest, Failed> {
        let server = self.server(address).await?;
        let redirect_uri = self.attempts.redirect_uri(server.provider());
        let redirect_uri = redirect_uri.ok_or_else(|| {
            Failed::new(Exit::Config, "the redirect_uri of its provider does not lead to this machine")
        })?;
        server.request(address, &redirect_uri)
    }

    async fn server(&self, address: &str) -> Result<AuthorizationServer, Failed> {
        AuthorizationServer::find(&self.accounts, &self.context.config(), address).await
    }

    /// Handles the return of a browser from the provider. Only this browser gets the confirmation. If it disconnects, the exchange
    /// continues, so that its tokens are stored or revoked.
    ///
    /// # Errors
    ///
    /// The browser cannot continue.
    pub async fn returned(self: &Arc<Self>, query: &str, visitor: Visitor) -> Result<Confirmation, Refused> {
        let attempt = match self.attempts.attempt_by_answer(query) {
            Some(attempt) => attempt,
            None => self.answered_elsewhere(query).await?,
        };
        self.check(&attempt, visitor)?;
        let turn = attempt.begin_exchange().await;
        // Of two browsers with the same answer, the second is refused.
        let request = attempt.take_request(query).ok_or(Refused::NotAwaited)?;
        let is_ours = self.handover.take_request(&request.pending.state()).await;
        if !is_ours.map_err(|error| away(&error))? {
            return Err(Refused::NotAwaited);
        }
        let (first_logins, query) = (Arc::clone(self), query.to_owned());
        let exchanged = tokio::spawn(async move {
            let confirmation = first_logins.exchange(attempt, request, &query).await;
            drop(turn);
            confirmation
        });
        exchanged.await.unwrap_or(Err(Refused::Failed))
    }

    /// The attempt whose request this query answers, if another replica has made the request.
    async fn answered_elsewhere(&self, query: &str) -> Result<Arc<Attempt>, Refused> {
        let state = state_of(query).ok_or(Refused::NotAwaited)?;
        let found = self.handover.request(&state).await.map_err(|error| away(&error))?;
        let (attempt, pending) = found.ok_or(Refused::NotAwaited)?;
        let attempt = self.attempts.adopt(attempt);
        let server = self.server(&attempt.address).await.map_err(|failed| refuse(&attempt, &failed))?;
        attempt.add_request(AuthorizationRequest { pending, server });
        Ok(attempt)
    }

    /// Exchanges the code. Keeps the tokens if exactly this address has signed in, and a first refresh works.
    async fn exchange(
        self: &Arc<Self>,
        attempt: Arc<Attempt>,
        request: AuthorizationRequest,
        query: &str,
    ) -> Result<Confirmation, Refused> {
        let account = &attempt.address;
        let exchanged = request.exchange(query, &self.context.clock).await;
        let (server, tokens, identity) = exchanged.map_err(|failed| refuse(&attempt, &failed))?;
        if !identity.is(account) {
            log_identity(&attempt, &identity);
            self.revoke_later(server, identity.other_than(account).unwrap_or(account).to_owned(), tokens);
            return Err(Refused::SomebodyElse);
        }
        let first = tokens.clone();
        let (tokens, end) = match server.try_out(account, tokens, &self.context.clock).await {
            Ok(tried) => tried,
            Err(failed) => {
                log_failure(account, &failed.message);
                self.revoke_later(server, account.clone(), first);
                return Err(Refused::Failed);
            }
        };
        let consent = Arc::new(Consent::new(Arc::clone(&attempt), server, tokens, end));
        match self.keep(&consent).await {
            Ok(key) => Ok(Confirmation { address: account.clone(), key }),
            Err(why) => {
                log_failure(account, &why);
                self.revoke_consent(&consent, &mut *consent.state.lock().await).await;
                Err(Refused::Failed)
            }
        }
    }

    /// Ends first logins that nobody has authorized in time. Never returns.
    pub async fn expire(self: Arc<Self>) {
        loop {
            sleep(TICK).await;
            self.revoke_all(self.attempts.remove_expired()).await;
        }
    }

    /// Revokes all unconfirmed consents, because postkey is stopping. Other replicas can still use them.
    pub async fn end(self: &Arc<Self>) {
        let consents = self.attempts.remove_all();
        if !self.handover.has_others() {
            self.revoke_all(consents).await;
        }
    }
}

/// The database cannot be used, so this replica does not know what another one has begun.
fn away(error: &VaultError) -> Refused {
    warn!(%error, "a first login cannot continue: {error}");
    Refused::Failed
}

/// The same for a mail program.
fn put_off(error: VaultError) -> Refusal {
    Refusal::new(Reason::Unavailable, format!("postkey cannot set this up now: {error}."))
}

fn log_failure(account: &str, why: &str) {
    warn!(account, why, "first login to {account} not authorized: {why}");
}

/// Logs a failure that a stranger can cause, unless there were too many lines about this attempt.
fn refuse(attempt: &Attempt, failed: &Failed) -> Refused {
    if attempt.may_log() {
        log_failure(&attempt.address, &failed.message);
    }
    Refused::Failed
}

/// Logs why the person who has signed in is not known to be this address.
fn log_identity(attempt: &Attempt, identity: &Identity) {
    let account = &attempt.address;
    let other = identity.other_than(account);
    let why = match other {
        Some(_) => "somebody else has signed in",
        None if identity.is_nobody() => "the provider does not say who has signed in; add openid and email to scope",
        None => {
            "the provider has not verified this address; replace organizations in the endpoints by your tenant's id, or have \
             the provider send email_verified or xms_edov"
        }
    };
    if attempt.may_log() {
        let who = other.map(|other| format!(" ({other})")).unwrap_or_default();
        warn!(account, other, why, "first login to {account} not authorized: {why}{who}");
    }
}
