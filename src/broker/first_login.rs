//! First logins: a mail program logs in to an unknown address of a domain in the configuration. A person authorizes the
//! account in a browser, and a password that the mail program has tried becomes its first app password.
//!
//! The first login may come from somebody else than the person who consents. So only the browser in which the consent ended
//! gets a key, and the account is created with the password that is typed there with this key.
//! `docs/design/decisions/0007-first-login.md` says what this defends against.

mod attempt;
mod attempts;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use url::Url;

use super::accounts::Accounts;
use super::context::{Context, Resolved};
use super::notices::Notices;
use super::passwords::Passwords;
use crate::config::is_address;
use crate::exit::{Exit, Failed};
use crate::net::peer::{Peer, Source, Visitor};
use crate::notify::{Notice, NoticeEvent};
use crate::oauth::identity::Identity;
use crate::token::TokenSet;
use crate::vault::password::Password;
use crate::vault::{Authorization, Vault};
use crate::wire::{Credentials, Reason, Refusal};
use attempt::{Attempt, Consent, ConsentState};
use attempts::Attempts;
use server::{AuthorizationRequest, AuthorizationServer};

/// The name of the first app password.
const SLOT: &str = "main";

/// How often to remove what has expired.
const TICK: Duration = Duration::from_secs(60);

/// How long a provider may take to revoke unused tokens.
const REVOCATION: Duration = Duration::from_secs(20);

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
        }
    }

    /// Sets the redirect URIs by provider. Without one, nobody can authorize an account.
    pub fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        self.attempts.set_redirect_uris(uris);
    }

    /// Refuses the login to an unknown address that can be authorized now, and names the page. Other logins pass. The answer
    /// depends on the password only if it cannot be an app password.
    pub fn refuse(&self, login: &Resolved, credentials: &Credentials, peer: &Peer) -> Result<(), Refusal> {
        let (config, address) = (&login.config, &login.address);
        let is_allowed = config.domain_of(address).is_some_and(|domain| peer.is_local() || domain.allow_remote);
        if !is_allowed || login.is_known || login.owner != *address || !is_address(address) {
            return Ok(());
        }
        let password = Password::chosen(credentials.password.expose())
            .map_err(|error| Refusal::new(Reason::Credentials, format!("Choose a new password: {error}.")))?;
        let source = Source::of(peer);
        let page = match self.attempts.attempt_of(address, source) {
            Some(attempt) => attempt.add_password(password).clone(),
            None => self.begin(login, password, source)?,
        };
        let text = format!("To set this account up, open {page} in a browser, and then log in again.");
        Err(Refusal::new(Reason::AuthorizationAwaited, text))
    }

    /// Begins to wait for a person. Returns the page for them.
    fn begin(&self, login: &Resolved, password: Password, source: Source) -> Result<Url, Refusal> {
        let (address, provider) = (&login.address, login.provider().map_or("", |provider| &provider.name));
        let page = self.attempts.begin(address, provider, password, source)?;
        info!(account = address, %page, "first login to {address}: a person has to authorize the account on {page}");
        let reason = format!("A mail program wants to log in to {address}. If it is yours, open {page} in a browser.");
        self.notify(NoticeEvent::PersonNeeded, address, reason, Some(page.clone()));
        Ok(page)
    }

    fn notify(&self, event: NoticeEvent, address: &str, reason: String, url: Option<Url>) {
        self.notices.send_first_login(Notice { event, account: address.to_owned(), reason, url });
    }

    /// The address whose first login waits on this page.
    ///
    /// # Errors
    ///
    /// The browser cannot continue.
    pub fn awaited(&self, ticket: &str, visitor: Visitor) -> Result<String, Refused> {
        Ok(self.attempt(ticket, visitor)?.address.clone())
    }

    fn attempt(&self, ticket: &str, visitor: Visitor) -> Result<Arc<Attempt>, Refused> {
        let attempt = self.attempts.attempt_by_ticket(ticket).ok_or(Refused::NotAwaited)?;
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
        let attempt = self.attempt(ticket, visitor)?;
        let request = self.request(&attempt.address).await.map_err(|failed| refuse(&attempt, &failed))?;
        Ok(attempt.add_request(request))
    }

    async fn request(&self, address: &str) -> Result<AuthorizationRequest, Failed> {
        let server = AuthorizationServer::find(&self.accounts, &self.context.config(), address).await?;
        let redirect_uri = self.attempts.redirect_uri(server.provider());
        let redirect_uri = redirect_uri.ok_or_else(|| {
            Failed::new(Exit::Config, "the redirect_uri of its provider does not lead to this machine")
        })?;
        server.request(address, &redirect_uri)
    }

    /// Handles the return of a browser from the provider. Only this browser gets the confirmation. If it disconnects, the exchange
    /// continues, so that its tokens are stored or revoked.
    ///
    /// # Errors
    ///
    /// The browser cannot continue.
    pub async fn returned(self: &Arc<Self>, query: &str, visitor: Visitor) -> Result<Confirmation, Refused> {
        let attempt = self.attempts.attempt_by_answer(query).ok_or(Refused::NotAwaited)?;
        self.check(&attempt, visitor)?;
        let turn = attempt.begin_exchange().await;
        // Of two browsers with the same answer, the second is refused.
        let request = attempt.take_request(query).ok_or(Refused::NotAwaited)?;
        let (first_logins, query) = (Arc::clone(self), query.to_owned());
        let exchanged = tokio::spawn(async move {
            let confirmation = first_logins.exchange(attempt, request, &query).await;
            drop(turn);
            confirmation
        });
        exchanged.await.unwrap_or(Err(Refused::Failed))
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
        let consent = Consent::new(Arc::clone(&attempt), server, tokens, end);
        match self.attempts.add_consent(consent) {
            Ok(key) => Ok(Confirmation { address: account.clone(), key }),
            Err(consent) => {
                log_failure(account, "too many others wait for a password");
                self.revoke_all(vec![consent]).await;
                Err(Refused::Failed)
            }
        }
    }

    /// Creates the account, if the key is that of a consent, and the mail program has tried this password.
    ///
    /// # Errors
    ///
    /// The account was not created.
    pub async fn confirm(
        self: &Arc<Self>,
        key: &str,
        password: Password,
        visitor: Visitor,
    ) -> Result<Authorized, Refused> {
        let consent = self.attempts.consent(key).ok_or(Refused::NotAwaited)?;
        if !consent.attempt.is_for(visitor) {
            return Err(Refused::OtherUser);
        }
        let (first_logins, key) = (Arc::clone(self), key.to_owned());
        // In a task, so that a browser that disconnects does not leave the account half created.
        let decided = tokio::spawn(async move { first_logins.decide(&consent, &key, &password).await });
        decided.await.unwrap_or(Err(Refused::Failed))
    }

    /// If the page is posted twice, the second post waits, and gets the result of the first.
    async fn decide(
        self: &Arc<Self>,
        consent: &Consent,
        key: &str,
        password: &Password,
    ) -> Result<Authorized, Refused> {
        let authorized = if consent.end.is_none() { Authorized::Lasting } else { Authorized::Ending };
        let attempt = &consent.attempt;
        let mut state = consent.state.lock().await;
        let tokens = match &mut *state {
            ConsentState::Authorized => return Ok(authorized),
            ConsentState::Closed => return Err(Refused::NotAwaited),
            ConsentState::Open { tokens, .. } if attempt.has_password(password) => tokens.clone(),
            ConsentState::Open { tries_left, .. } if *tries_left > 1 => {
                *tries_left -= 1;
                return Err(Refused::WrongPassword(attempt.address.clone()));
            }
            ConsentState::Open { .. } => {
                log_failure(&attempt.address, "the person typed too many wrong passwords");
                self.attempts.end(attempt);
                return Err(self.close(consent, key, &mut state, Refused::TooManyWrong));
            }
        };
        if self.context.config().domain_of(&attempt.address).is_none() {
            return Err(self.close(consent, key, &mut state, Refused::NotAwaited));
        }
        let authorization = consent.server.authorization(&attempt.address, tokens);
        if let Err(failed) = self.create_account(authorization, password.clone()).await {
            log_failure(&attempt.address, &failed.message);
            let exists = self.context.vault.knows(&attempt.address);
            return Err(if exists { self.close(consent, key, &mut state, Refused::Exists) } else { Refused::Failed });
        }
        *state = ConsentState::Authorized;
        self.attempts.end_all_of(&attempt.address);
        let mut reason = format!("{} is authorized; its mail program can log in.", attempt.address);
        if let Some(end) = &consent.end {
            reason = format!("{reason} But {end}.");
        }
        self.notify(NoticeEvent::Settled, &attempt.address, reason, None);
        Ok(authorized)
    }

    /// Stores a new account. An existing one stays as it is.
    async fn create_account(&self, authorization: Authorization, password: Password) -> Result<(), Failed> {
        let now = self.context.now();
        let begin = move |vault: &Arc<Vault>| {
            vault.begin(&authorization, (SLOT, &password), now).map(|generation| (authorization, generation))
        };
        let (authorization, generation) = self.context.in_vault(begin).await?;
        let account = self.passwords.open_authorized(authorization, generation)?;
        self.notices.review(&account.owner);
        Ok(())
    }

    /// Closes a consent that will not be used.
    fn close(self: &Arc<Self>, consent: &Consent, key: &str, state: &mut ConsentState, why: Refused) -> Refused {
        self.attempts.drop_consent(key);
        if let ConsentState::Open { tokens, .. } = std::mem::replace(state, ConsentState::Closed) {
            self.revoke_later(consent.server.clone(), consent.attempt.address.clone(), tokens);
        }
        why
    }

    /// Revokes unused tokens in the background.
    fn revoke_later(self: &Arc<Self>, server: AuthorizationServer, whose: String, tokens: TokenSet) {
        let first_logins = Arc::clone(self);
        tokio::spawn(async move { first_logins.revoke_unused(&server, &whose, &tokens).await });
    }

    /// Revokes unused tokens, unless the person has another authorization here, because some providers revoke all together.
    async fn revoke_unused(&self, server: &AuthorizationServer, whose: &str, tokens: &TokenSet) {
        if self.context.vault.knows(whose) || self.attempts.has_consent_of(whose) {
            return;
        }
        let revoked = timeout(REVOCATION, server.revoke(tokens, &self.context.clock)).await;
        let why = match revoked {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("the provider did not answer within {} s", REVOCATION.as_secs()),
        };
        warn!(account = whose, why, "cannot revoke an unused authorization of {whose}: {why}");
    }

    async fn revoke_all(self: &Arc<Self>, consents: Vec<Arc<Consent>>) {
        let mut all = JoinSet::new();
        for consent in consents {
            let first_logins = Arc::clone(self);
            all.spawn(async move {
                if let ConsentState::Open { tokens, .. } =
                    std::mem::replace(&mut *consent.state.lock().await, ConsentState::Closed)
                {
                    first_logins.revoke_unused(&consent.server, &consent.attempt.address, &tokens).await;
                }
            });
        }
        while all.join_next().await.is_some() {}
    }

    /// Ends first logins that nobody has authorized in time. Never returns.
    pub async fn expire(self: Arc<Self>) {
        loop {
            sleep(TICK).await;
            self.revoke_all(self.attempts.remove_expired()).await;
        }
    }

    /// Revokes all unconfirmed consents, because postkey is stopping.
    pub async fn end(self: &Arc<Self>) {
        self.revoke_all(self.attempts.remove_all()).await;
    }
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
