//! First logins: an unseen address of a domain that the configuration has an entry for is authorized by a person, and the
//! password of its first login becomes the account's first app password.
//!
//! Whoever logs in first need not be the person who is asked to consent. So the person has to show that the password is
//! theirs before they are sent to the provider, and has to sign in there as the very address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::warn;
use url::Url;

use super::{Broker, Reach, lock};
use crate::config::provider::Provider;
use crate::exit::{Exit, Failed};
use crate::notify::{Event, Notice};
use crate::oauth::authorization_code::{Pending, RedirectError};
use crate::oauth::{Failure, Registration};
use crate::vault::password::Password;
use crate::vault::{self, Authorization};
use crate::wire::{Credentials, Reason, Refusal};

/// How long a person has, from the first login to the consent.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How many may be awaited at a time: as many as a large office has people who set up their mail program at once.
const MOST: usize = 256;

/// How many may begin within [`MINUTE`]: a person is told of each.
const PER_MINUTE: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Wrong passwords on one page. After that, the next login begins anew.
const TRIES: u32 = 5;

/// What the slot of the first login's password is called.
const SLOT: &str = "main";

/// All first logins whose authorization is awaited.
#[derive(Default)]
pub(super) struct FirstLogins {
    /// By address.
    awaited: Mutex<HashMap<String, Awaited>>,
    /// When the last ones began.
    begun: Mutex<Vec<Instant>>,
    /// Where browsers come back to, by provider; empty as long as nobody waits for them there.
    redirect_uris: Mutex<HashMap<String, Url>>,
}

/// A first login whose authorization is awaited.
struct Awaited {
    /// Names its page.
    ticket: String,
    page: Url,
    password: Password,
    expires: Instant,
    /// Wrong passwords that its page may still take.
    tries: u32,
    /// The person has been sent to the provider.
    pending: Option<Pending>,
}

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
        *lock(&self.first_logins.redirect_uris) = uris;
    }

    /// Refuses the login to an address that is unseen and can be authorized now, and says where. Everything else passes.
    /// Nothing here depends on the password but whether it could be an app password at all.
    pub fn first_login(&self, credentials: &Credentials, is_local: bool) -> Result<(), Refusal> {
        let config = self.config();
        let address = config.address_of(&credentials.user);
        let is_open = config.domain_of(&address).is_some_and(|domain| is_local || domain.allow_remote);
        if !is_open || config.owner_of(&address) != address || self.vault().knows(&address) {
            return Ok(());
        }
        if !crate::config::is_address(&address) {
            return Ok(());
        }
        let page = self.first_logins.page(&address).map_or_else(|| self.begin(&address, credentials), Ok)?;
        let text = format!("To set this account up, open {page} in a browser, and then log in again.");
        Err(Refusal::new(Reason::AuthorizationAwaited, text))
    }

    /// Awaits a new authorization; its page.
    fn begin(&self, address: &str, credentials: &Credentials) -> Result<Url, Refusal> {
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
        self.first_logins.with(ticket, |address, _| address.to_owned())
    }

    /// The provider's page, for a person who knows the first login's password.
    pub async fn ask_consent(&self, ticket: &str, password: &Password) -> Result<Url, Unasked> {
        let address = self.first_logins.check(ticket, password)?;
        let pending = self.pending(&address).await.map_err(|failed| {
            warn!(account = address, why = failed.message, "nobody can be asked to authorize the account");
            Unasked::Failed
        })?;
        let url = pending.url.clone();
        let asked = self.first_logins.with(ticket, |_, awaited| awaited.pending = Some(pending));
        asked.map(|()| url).ok_or(Unasked::NotAwaited)
    }

    async fn pending(&self, address: &str) -> Result<Pending, Failed> {
        let (reach, provider) = self.provider_of(address)?;
        let registration = self.new_registration(address, &reach).map_err(no_tokens)?;
        let redirect_uri = self.first_logins.redirect_uri(&provider.name);
        let redirect_uri =
            redirect_uri.ok_or_else(|| Failed::new(Exit::Config, "no redirect URI leads back to this machine"))?;
        let endpoint = provider.endpoints.authorization.clone();
        let endpoint = endpoint.ok_or_else(|| Failed::new(Exit::Config, "there is no authorization endpoint"))?;
        Ok(Pending::begin(&provider, endpoint, &registration.client_id, redirect_uri, address))
    }

    /// Takes a browser back from the provider.
    pub async fn returned(&self, query: &str) -> Return {
        let Some((address, pending)) = self.first_logins.take(query) else { return Return::NotAwaited };
        match self.exchange(&address, pending, query).await {
            Ok(true) => Return::Authorized,
            Ok(false) => Return::SomebodyElse,
            Err(failed) => {
                warn!(account = address, why = failed.message, "a first login could not be authorized");
                Return::Failed
            }
        }
    }

    /// Makes the account, if it is this very address that has consented.
    async fn exchange(&self, address: &str, pending: Pending, query: &str) -> Result<bool, Failed> {
        let code = pending.code(query).map_err(|denied| Failed::new(Exit::NoPermission, denied))?;
        let (reach, provider) = self.provider_of(address)?;
        let registration = self.new_registration(address, &reach).map_err(no_tokens)?;
        let (tokens, identity) =
            pending.exchange(&reach.http, &registration, code, &self.clock).await.map_err(no_tokens)?;
        if !identity.is(address) {
            let other = identity.other_than(address).unwrap_or("somebody whom the provider does not name");
            warn!(account = address, other, "somebody else has signed in; the account is not authorized");
            return Ok(false);
        }
        let Some(password) = self.first_logins.password(address) else {
            return Err(Failed::new(Exit::Temporary, "it took too long"));
        };
        let (address, provider) = (address.to_owned(), provider.name);
        let authorization =
            Authorization { address: address.clone(), provider, client_id: None, client_secret: None, tokens };
        let begun = self.begin_account(authorization, (SLOT, password)).await;
        self.first_logins.end(&address);
        begun?;
        let reason = format!("{address} is authorized; its mail program can log in.");
        self.tell(Notice { event: Event::Settled, account: address, reason, url: None });
        Ok(true)
    }

    /// The provider of an address, with what the configuration says of its accounts.
    fn provider_of(&self, address: &str) -> Result<(Arc<Reach>, Provider), Failed> {
        let config = self.config();
        if config.domain_of(address).is_none() {
            return Err(Failed::new(Exit::Config, "its domain has no entry in the configuration any more"));
        }
        let name = config.provider_for(address).map(|provider| provider.name.clone()).unwrap_or_default();
        let reach = self.reach(&name)?;
        let mut provider = reach.provider.clone();
        provider.scope = config.account(address).scope.unwrap_or(provider.scope);
        Ok((reach, provider))
    }

    /// The registration for an account that the vault does not have.
    fn new_registration(&self, address: &str, reach: &Reach) -> Result<Registration, Failure> {
        let missing =
            |what: &str| Failure::Misconfigured(format!("the provider {} has no {what}", reach.provider.name));
        let client_id = self.config().account(address).client_id.or_else(|| reach.provider.client_id.clone());
        let token_endpoint = reach.provider.endpoints.token.clone().ok_or_else(|| missing("token_endpoint"))?;
        Ok(Registration {
            client_id: client_id.ok_or_else(|| missing("client_id"))?,
            client_secret: self.configured_secret(address, reach)?,
            token_endpoint,
        })
    }

    /// Wipes what is held for first logins that nobody has authorized in time. Never ends.
    pub async fn expire_first_logins(&self) {
        loop {
            sleep_until(Instant::now() + MINUTE).await;
            lock(&self.first_logins.awaited).retain(|_, awaited| Instant::now() < awaited.expires);
        }
    }
}

impl FirstLogins {
    /// The page of an address that is awaited already.
    fn page(&self, address: &str) -> Option<Url> {
        let awaited = lock(&self.awaited);
        awaited.get(address).filter(|awaited| Instant::now() < awaited.expires).map(|awaited| awaited.page.clone())
    }

    fn redirect_uri(&self, provider: &str) -> Option<Url> {
        lock(&self.redirect_uris).get(provider).cloned()
    }

    /// Begins to await an address; its page.
    fn begin(&self, address: &str, provider: &str, password: Password) -> Result<Url, Refusal> {
        let now = Instant::now();
        let mut page = self.redirect_uri(provider).ok_or_else(|| {
            Refusal::new(Reason::AuthorizationEnded, format!("Run `postkey authorize {address}` to set it up."))
        })?;
        let ticket: String = vault::random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        page.query_pairs_mut().append_pair("authorize", &ticket);
        let mut awaited = lock(&self.awaited);
        awaited.retain(|_, awaited| now < awaited.expires);
        if awaited.len() >= MOST || !self.may_begin(now) {
            return Err(Refusal::new(Reason::Unavailable, "Try later: too many accounts wait to be set up."));
        }
        let entry =
            Awaited { ticket, page: page.clone(), password, expires: now + PATIENCE, tries: TRIES, pending: None };
        awaited.insert(address.to_owned(), entry);
        Ok(page)
    }

    fn may_begin(&self, now: Instant) -> bool {
        let mut begun = lock(&self.begun);
        begun.retain(|at| now.duration_since(*at) < MINUTE);
        let may = begun.len() < PER_MINUTE;
        begun.extend(may.then_some(now));
        may
    }

    /// Does something with the one that this ticket names.
    fn with<T>(&self, ticket: &str, work: impl FnOnce(&str, &mut Awaited) -> T) -> Option<T> {
        let mut awaited = lock(&self.awaited);
        let is_it = |awaited: &Awaited| awaited.ticket == ticket && Instant::now() < awaited.expires;
        awaited.iter_mut().find(|(_, awaited)| is_it(awaited)).map(|(address, awaited)| work(address, awaited))
    }

    /// Whether the password is the first login's; for which address.
    fn check(&self, ticket: &str, password: &Password) -> Result<String, Unasked> {
        let checked = self.with(ticket, |address, awaited| match awaited.password.same_as(password) {
            true => Ok(address.to_owned()),
            false => {
                awaited.tries = awaited.tries.saturating_sub(1);
                Err((address.to_owned(), awaited.tries))
            }
        });
        match checked.ok_or(Unasked::NotAwaited)? {
            Ok(address) => Ok(address),
            Err((address, left)) => {
                if left == 0 {
                    self.end(&address);
                }
                Err(Unasked::WrongPassword)
            }
        }
    }

    /// The one whose answer a browser brings back. A code can be used once, so the person is asked anew if nothing comes of
    /// it.
    fn take(&self, query: &str) -> Option<(String, Pending)> {
        let mut awaited = lock(&self.awaited);
        awaited.retain(|_, awaited| Instant::now() < awaited.expires);
        awaited.iter_mut().find_map(|(address, awaited)| match awaited.pending.as_ref()?.code(query) {
            Ok(_) | Err(RedirectError::Denied(_)) => Some((address.clone(), awaited.pending.take()?)),
            Err(_) => None,
        })
    }

    fn password(&self, address: &str) -> Option<Password> {
        lock(&self.awaited).get(address).map(|awaited| awaited.password.clone())
    }

    /// Awaits it no more.
    fn end(&self, address: &str) {
        lock(&self.awaited).remove(address);
    }
}

fn no_tokens(failure: Failure) -> Failed {
    Failed::new(Exit::Unavailable, failure)
}
