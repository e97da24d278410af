//! First logins: an unseen address of a domain that the configuration has an entry for is authorized by a person, and the
//! password of its first login becomes the account's first app password.
//!
//! Whoever logs in first need not be the person who is asked to consent. So the person has to show that the password is
//! theirs before they are sent to the provider, and has to sign in there as the very address.

mod awaited;
mod server;

use std::collections::HashMap;

use tokio::time::sleep;
use tracing::warn;
use url::Url;

use super::Broker;
use crate::config::is_address;
use crate::exit::{Exit, Failed};
use crate::notify::{Event, Notice};
use crate::vault::password::Password;
use crate::wire::{Credentials, Reason, Refusal};
pub(super) use awaited::FirstLogins;
use awaited::MINUTE;
use server::{Asked, Server};

/// What the slot of the first login's password is called.
const SLOT: &str = "main";

/// Why a page does not lead on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Nothing is awaited there, or not any more.
    NotAwaited,
    /// This is not the first login's password.
    WrongPassword,
    /// Something that the log tells.
    Failed,
}

/// What came of a browser's return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// The account is authorized.
    Authorized,
    /// Somebody else has signed in, or nobody tells who; the page can be opened again.
    SomebodyElse,
    /// It did not work; the page can be opened again.
    Failed,
    /// It belongs to nothing that is awaited.
    NotAwaited,
}

impl Broker {
    /// Says where browsers come back to, by provider. Without it nobody can be asked.
    pub fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        self.first_logins.set_redirect_uris(uris);
    }

    /// Refuses the login to an address that is unseen and can be authorized now, and says where. Everything else passes.
    /// Nothing here depends on the password but whether it could be an app password at all.
    pub fn first_login(&self, credentials: &Credentials, is_local: bool) -> Result<(), Refusal> {
        let config = self.config();
        let address = config.address_of(&credentials.user);
        let is_open = config.domain_of(&address).is_some_and(|domain| is_local || domain.allow_remote);
        if !is_open || config.owner_of(&address) != address || !is_address(&address) || self.vault.knows(&address) {
            return Ok(());
        }
        let page = match self.first_logins.page(&address) {
            Some(page) => page,
            None => self.await_authorization(&address, credentials)?,
        };
        let text = format!("To set this account up, open {page} in a browser, and then log in again.");
        Err(Refusal::new(Reason::AuthorizationAwaited, text))
    }

    /// Begins to await a person; the page for them.
    fn await_authorization(&self, address: &str, credentials: &Credentials) -> Result<Url, Refusal> {
        let password = Password::chosen(credentials.password.expose())
            .map_err(|error| Refusal::new(Reason::Credentials, format!("Choose a new password: {error}.")))?;
        let config = self.config();
        let provider = config.provider_for(address).map(|provider| provider.name.clone()).unwrap_or_default();
        let page = self.first_logins.begin(address, &provider, password)?;
        warn!(account = address, %page, "a first login; a person has to authorize the account on this page");
        let reason = format!("A mail program wants to log in to {address}. If it is yours, open {page} in a browser.");
        let account = address.to_owned();
        self.tell(Notice { event: Event::PersonNeeded, account, reason, url: Some(page.clone()) });
        Ok(page)
    }

    /// For whom a page asks; None if it is not awaited.
    pub fn awaited(&self, ticket: &str) -> Option<String> {
        self.first_logins.address(ticket)
    }

    /// The provider's page, for a person who knows the first login's password.
    pub async fn ask_consent(&self, ticket: &str, password: &Password) -> Result<Url, Unasked> {
        let address = self.first_logins.check(ticket, password)?;
        let asked = self.asked(&address).await.map_err(|failed| {
            warn!(account = address, why = failed.message, "nobody can be asked to authorize the account");
            Unasked::Failed
        })?;
        let url = asked.pending.url.clone();
        if self.first_logins.ask(ticket, asked) { Ok(url) } else { Err(Unasked::NotAwaited) }
    }

    async fn asked(&self, address: &str) -> Result<Asked, Failed> {
        let server = Server::find(self, address).await?;
        let redirect_uri = self.first_logins.redirect_uri(server.provider());
        let redirect_uri =
            redirect_uri.ok_or_else(|| Failed::new(Exit::Config, "its redirect_uri does not lead to this machine"))?;
        server.ask(address, &redirect_uri)
    }

    /// Takes a browser back from the provider.
    pub async fn returned(&self, query: &str) -> Return {
        let Some((address, asked)) = self.first_logins.take(query) else { return Return::NotAwaited };
        match self.consented(&address, asked, query).await {
            Ok(true) => Return::Authorized,
            Ok(false) => Return::SomebodyElse,
            Err(failed) => {
                warn!(account = address, why = failed.message, "a first login could not be authorized");
                Return::Failed
            }
        }
    }

    /// Makes the account, if it is this very address that has consented.
    async fn consented(&self, address: &str, asked: Asked, query: &str) -> Result<bool, Failed> {
        let (server, tokens, identity) = asked.exchange(query, &self.clock).await?;
        if !identity.is(address) {
            let other = identity.other_than(address).unwrap_or("somebody whom the provider does not name");
            warn!(account = address, other, "somebody else has signed in; the account is not authorized");
            return Ok(false);
        }
        let password = self.first_logins.password(address);
        let password = password.ok_or_else(|| Failed::new(Exit::Temporary, "it took too long"))?;
        let begun = self.begin_account(server.authorization(address, tokens), (SLOT, password)).await;
        self.first_logins.end(address);
        begun?;
        let (account, reason) = (address.to_owned(), format!("{address} is authorized; its mail program can log in."));
        self.tell(Notice { event: Event::Settled, account, reason, url: None });
        Ok(true)
    }

    /// Wipes what is held for first logins that nobody has authorized in time. Never ends.
    pub async fn expire_first_logins(&self) {
        loop {
            sleep(MINUTE).await;
            self.first_logins.expire();
        }
    }
}
