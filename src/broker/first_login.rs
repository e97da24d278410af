//! First logins: an unseen address of a domain that the configuration has an entry for is authorized by a person, and a
//! password that its mail program has tried becomes the account's first app password.
//!
//! Whoever logs in first need not be the person who consents. So the one who decides is the one in whose browser the consent
//! ended: that browser alone gets a key, and the account is made with the password that is typed there with this key.
//! `docs/design/decisions/0007-first-login.md` says what this defends against.

mod attempt;
mod attempts;
mod consent;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;
use url::Url;

use super::accounts::Accounts;
use super::context::{Context, Resolved};
use super::notices::Notices;
use super::passwords::Passwords;
use crate::config::is_address;
use crate::exit::{Exit, Failed};
use crate::net::peer::{Peer, Source, Visitor};
use crate::notify::{Notice, NoticeEvent};
use crate::token::TokenSet;
use crate::vault::password::Password;
use crate::vault::{Authorization, Vault};
use crate::wire::{Credentials, Reason, Refusal};
use attempt::Attempt;
use attempts::Attempts;
use consent::{Consent, ConsentState};
use server::{AuthorizationRequest, AuthorizationServer};

/// The name of the first app password.
const SLOT: &str = "main";

/// How often to look for what has expired.
const TICK: Duration = Duration::from_secs(60);

/// How long a provider may take to revoke tokens that nobody will use.
const REVOCATION: Duration = Duration::from_secs(20);

/// Why a visit does not lead on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing is awaited there, or not any more.
    NotAwaited,
    /// The mail program belongs to another user of this machine than the browser.
    OtherUser,
    /// Somebody else has signed in at the provider, or the provider does not tell who.
    SomebodyElse,
    /// The account exists by now.
    Exists,
    /// The mail program of this address has not tried this password; another may be typed.
    WrongPassword(String),
    /// The last of several wrong passwords.
    TooManyWrong,
    /// Something that the log tells.
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
    /// Whose account is to be made.
    pub address: String,
    /// What shows that a password comes from the browser in which the consent ended. It belongs on that page alone.
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

    /// Sets where browsers come back to, by provider. Without it nobody can be asked.
    pub fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        self.attempts.set_redirect_uris(uris);
    }

    /// Refuses the login to an address that is unseen and can be authorized now, and names the page. Everything else passes.
    /// Nothing in the answer depends on the password, except whether it could be an app password at all.
    pub fn refuse(&self, login: &Resolved, credentials: &Credentials, peer: &Peer) -> Result<(), Refusal> {
        let (config, address) = (&login.config, &login.address);
        let is_open = config.domain_of(address).is_some_and(|domain| peer.is_local() || domain.allow_remote);
        if !is_open || login.is_known || login.owner != *address || !is_address(address) {
            return Ok(());
        }
        let password = Password::chosen(credentials.password.expose())
            .map_err(|error| Refusal::new(Reason::Credentials, format!("Choose a new password: {error}.")))?;
        let source = Source::of(peer);
        let page = match self.attempts.of(address, source) {
            Some(attempt) => attempt.try_password(password).clone(),
            None => self.await_authorization(login, password, source)?,
        };
        let text = format!("To set this account up, open {page} in a browser, and then log in again.");
        Err(Refusal::new(Reason::AuthorizationAwaited, text))
    }

    /// Begins to wait for a person; the page for them.
    fn await_authorization(&self, login: &Resolved, password: Password, source: Source) -> Result<Url, Refusal> {
        let (address, provider) = (&login.address, login.provider().map_or("", |provider| &provider.name));
        let page = self.attempts.begin(address, provider, password, source)?;
        warn!(account = address, %page, "first login to {address}: a person has to authorize the account on {page}");
        let reason = format!("A mail program wants to log in to {address}. If it is yours, open {page} in a browser.");
        self.notify(NoticeEvent::PersonNeeded, address, reason, Some(page.clone()));
        Ok(page)
    }

    fn notify(&self, event: NoticeEvent, address: &str, reason: String, url: Option<Url>) {
        self.notices.send_first_login(Notice { event, account: address.to_owned(), reason, url });
    }

    /// The address that a page is about.
    ///
    /// # Errors
    ///
    /// Why the page leads nowhere.
    pub fn awaited(&self, ticket: &str, visitor: Visitor) -> Result<String, Refused> {
        Ok(self.attempt(ticket, visitor)?.address.clone())
    }

    fn attempt(&self, ticket: &str, visitor: Visitor) -> Result<Arc<Attempt>, Refused> {
        let attempt = self.attempts.attempt(ticket).ok_or(Refused::NotAwaited)?;
        self.judge(&attempt, visitor)?;
        Ok(attempt)
    }

    fn judge(&self, attempt: &Attempt, visitor: Visitor) -> Result<(), Refused> {
        match attempt.is_for(visitor) {
            true if self.context.vault.knows(&attempt.address) => Err(Refused::Exists),
            true => Ok(()),
            false => Err(Refused::OtherUser),
        }
    }

    /// The provider's page. Each call is a new authorization request.
    ///
    /// # Errors
    ///
    /// Why nobody can be asked.
    pub async fn ask_consent(&self, ticket: &str, visitor: Visitor) -> Result<Url, Refused> {
        let attempt = self.attempt(ticket, visitor)?;
        match self.asked(&attempt.address).await {
            Ok(asked) => Ok(attempt.ask(asked)),
            Err(failed) => {
                let account = &attempt.address;
                let why = &failed.message;
                if attempt.may_tell() {
                    warn!(account, why, "first login to {account} cannot be authorized: {why}");
                }
                Err(Refused::Failed)
            }
        }
    }

    async fn asked(&self, address: &str) -> Result<AuthorizationRequest, Failed> {
        let server = AuthorizationServer::find(&self.accounts, &self.context.config(), address).await?;
        let redirect_uri = self.attempts.redirect_uri(server.provider());
        let redirect_uri =
            redirect_uri.ok_or_else(|| Failed::new(Exit::Config, "its redirect_uri does not lead to this machine"))?;
        server.ask(address, &redirect_uri)
    }

    /// Takes a browser back from the provider. What comes of it is for that very browser. A browser that hangs up ends nothing:
    /// tokens that are on their way are kept, or given back.
    ///
    /// # Errors
    ///
    /// Why there is nothing to confirm.
    pub async fn returned(self: &Arc<Self>, query: &str, visitor: Visitor) -> Result<Confirmation, Refused> {
        let attempt = self.attempts.asked(query).ok_or(Refused::NotAwaited)?;
        self.judge(&attempt, visitor)?;
        let turn = attempt.exchange().await;
        // Of two browsers that bring the same answer, one is the first.
        let asked = attempt.take(query).ok_or(Refused::NotAwaited)?;
        let (first_logins, query) = (Arc::clone(self), query.to_owned());
        let exchanged = tokio::spawn(async move {
            let confirmation = first_logins.exchange(attempt, asked, &query).await;
            drop(turn);
            confirmation
        });
        exchanged.await.unwrap_or(Err(Refused::Failed))
    }

    /// Exchanges the code, and keeps the tokens if it is this very address that has consented, and they last as far as can be
    /// known now.
    async fn exchange(
        self: &Arc<Self>,
        attempt: Arc<Attempt>,
        asked: AuthorizationRequest,
        query: &str,
    ) -> Result<Confirmation, Refused> {
        let account = &attempt.address;
        let (server, tokens, identity) = asked.exchange(query, &self.context.clock).await.map_err(|failed| {
            let why = &failed.message;
            if attempt.may_tell() {
                warn!(account, why, "first login to {account} not authorized: {why}");
            }
            Refused::Failed
        })?;
        if !identity.is(account) {
            let other = identity.other_than(account);
            let why = match other {
                Some(_) => "somebody else has signed in",
                None if identity.is_nobody() => {
                    "the provider does not tell who has signed in; add openid and email to scope"
                }
                None => {
                    "the provider has not verified this address; put your tenant's id in place of organizations in the \
                     endpoints, or have the provider send email_verified or xms_edov"
                }
            };
            if attempt.may_tell() {
                let who = other.map(|other| format!(" ({other})")).unwrap_or_default();
                warn!(account, other, why, "first login to {account} not authorized: {why}{who}");
            }
            self.give_back(server, other.unwrap_or(account).to_owned(), tokens);
            return Err(Refused::SomebodyElse);
        }
        let first = tokens.clone();
        let (tokens, end) = match server.try_out(account, tokens, &self.context.clock).await {
            Ok(tried) => tried,
            Err(Failed { message: why, .. }) => {
                warn!(account, why, "first login to {account} not authorized: {why}");
                self.give_back(server, account.clone(), first);
                return Err(Refused::Failed);
            }
        };
        let consent = Consent::new(Arc::clone(&attempt), server, tokens, end);
        match self.attempts.keep(consent) {
            Ok(key) => Ok(Confirmation { address: account.clone(), key }),
            Err(consent) => {
                warn!(account, "first login to {account} not authorized: too many others wait to be confirmed");
                self.give_back_all(vec![consent]).await;
                Err(Refused::Failed)
            }
        }
    }

    /// Makes the account, if this is a password that its mail program has tried, and the key is that of the consent.
    ///
    /// # Errors
    ///
    /// Why there is no account.
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
        // A browser that hangs up does not leave an account half made.
        let decided = tokio::spawn(async move { first_logins.decide(&consent, &key, &password).await });
        decided.await.unwrap_or(Err(Refused::Failed))
    }

    /// Two posts of the same page come one after the other, and the second is told what became of the first.
    async fn decide(
        self: &Arc<Self>,
        consent: &Consent,
        key: &str,
        password: &Password,
    ) -> Result<Authorized, Refused> {
        let lasts = if consent.end.is_none() { Authorized::Lasting } else { Authorized::Ending };
        let attempt = &consent.attempt;
        let mut state = consent.state.lock().await;
        let tokens = match &mut *state {
            ConsentState::Authorized => return Ok(lasts),
            ConsentState::Closed => return Err(Refused::NotAwaited),
            ConsentState::Open { tokens, .. } if attempt.has_tried(password) => tokens.clone(),
            ConsentState::Open { tries_left, .. } if *tries_left > 1 => {
                *tries_left -= 1;
                return Err(Refused::WrongPassword(attempt.address.clone()));
            }
            ConsentState::Open { .. } => {
                warn!(
                    account = attempt.address,
                    "first login to {} not authorized: the person typed too many wrong passwords of the mail program",
                    attempt.address
                );
                self.attempts.end(attempt);
                return Err(self.close(consent, key, &mut state, Refused::TooManyWrong));
            }
        };
        if self.context.config().domain_of(&attempt.address).is_none() {
            return Err(self.close(consent, key, &mut state, Refused::NotAwaited));
        }
        let authorization = consent.server.authorization(&attempt.address, tokens);
        if let Err(failed) = self.begin_account(authorization, password.clone()).await {
            let (account, why) = (&attempt.address, &failed.message);
            warn!(account, why, "first login to {account} not authorized: {why}");
            let exists = self.context.vault.knows(&attempt.address);
            return Err(if exists { self.close(consent, key, &mut state, Refused::Exists) } else { Refused::Failed });
        }
        *state = ConsentState::Authorized;
        self.attempts.settle(&attempt.address);
        let mut reason = format!("{} is authorized; its mail program can log in.", attempt.address);
        if let Some(end) = &consent.end {
            reason = format!("{reason} But {end}.");
        }
        self.notify(NoticeEvent::Settled, &attempt.address, reason, None);
        Ok(lasts)
    }

    /// Puts in a new account; one that is there stays as it is.
    async fn begin_account(&self, authorization: Authorization, password: Password) -> Result<(), Failed> {
        let now = self.context.now();
        let begin = move |vault: &Arc<Vault>| {
            vault.begin(&authorization, (SLOT, &password), now).map(|generation| (authorization, generation))
        };
        let (authorization, generation) = self.context.in_vault(begin).await?;
        self.passwords.open_authorized(authorization, generation)?;
        self.notices.review();
        Ok(())
    }

    /// Ends a consent that will not be used.
    fn close(self: &Arc<Self>, consent: &Consent, key: &str, state: &mut ConsentState, why: Refused) -> Refused {
        self.attempts.drop_consent(key);
        if let ConsentState::Open { tokens, .. } = std::mem::replace(state, ConsentState::Closed) {
            self.give_back(consent.server.clone(), consent.attempt.address.clone(), tokens);
        }
        why
    }

    /// Revokes tokens that nobody will use. No page waits for it.
    fn give_back(self: &Arc<Self>, server: AuthorizationServer, whose: String, tokens: TokenSet) {
        let first_logins = Arc::clone(self);
        tokio::spawn(async move { first_logins.revoke_unused(&server, &whose, &tokens).await });
    }

    /// Not those of a person who has another authorization here: some providers end all with one.
    async fn revoke_unused(&self, server: &AuthorizationServer, whose: &str, tokens: &TokenSet) {
        if self.context.vault.knows(whose) || self.attempts.has_consent_of(whose) {
            return;
        }
        match timeout(REVOCATION, server.revoke(tokens, &self.context.clock)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                warn!(account = whose, %failure, "cannot revoke an unused authorization of {whose}: {failure}")
            }
            Err(_) => warn!(
                account = whose,
                "cannot revoke an unused authorization of {whose} within {} s",
                REVOCATION.as_secs()
            ),
        }
    }

    async fn give_back_all(self: &Arc<Self>, consents: Vec<Arc<Consent>>) {
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

    /// Gives up first logins that nobody has authorized in time. Never ends.
    pub async fn expire(self: Arc<Self>) {
        loop {
            sleep(TICK).await;
            self.give_back_all(self.attempts.expire()).await;
        }
    }

    /// Gives all consents back that nobody has confirmed: postkey ends.
    pub async fn end(self: &Arc<Self>) {
        self.give_back_all(self.attempts.end_all()).await;
    }
}
