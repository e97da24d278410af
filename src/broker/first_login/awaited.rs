//! First logins whose authorization is awaited: few, not for long, and one for an address.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::super::lock;
use super::Unasked;
use super::server::Asked;
use crate::oauth::authorization_code::RedirectError;
use crate::vault;
use crate::vault::password::Password;
use crate::wire::{Reason, Refusal};

/// How long a person has, from the first login to the consent.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How many may be awaited at a time: as many as a large office has people who set up their mail program at once.
const MOST: usize = 256;

/// How many may begin within [`MINUTE`]: a person is told of each.
const PER_MINUTE: usize = 30;
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Wrong passwords on one page. After that, the next login begins anew.
const TRIES: u32 = 5;

/// All first logins whose authorization is awaited.
#[derive(Default)]
pub(in crate::broker) struct FirstLogins {
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
    asked: Option<Asked>,
}

impl FirstLogins {
    pub(super) fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        *lock(&self.redirect_uris) = uris;
    }

    pub(super) fn redirect_uri(&self, provider: &str) -> Option<Url> {
        lock(&self.redirect_uris).get(provider).cloned()
    }

    /// The page of an address that is awaited already.
    pub(super) fn page(&self, address: &str) -> Option<Url> {
        let awaited = lock(&self.awaited);
        awaited.get(address).filter(|awaited| Instant::now() < awaited.expires).map(|awaited| awaited.page.clone())
    }

    /// Begins to await an address; its page.
    pub(super) fn begin(&self, address: &str, provider: &str, password: Password) -> Result<Url, Refusal> {
        let mut page = self.redirect_uri(provider).ok_or_else(|| {
            Refusal::new(Reason::AuthorizationEnded, format!("Run `postkey authorize {address}` to set it up."))
        })?;
        let ticket: String = vault::random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        page.query_pairs_mut().append_pair("authorize", &ticket);
        self.expire();
        let (mut awaited, now) = (lock(&self.awaited), Instant::now());
        if awaited.len() >= MOST || !self.may_begin(now) {
            return Err(Refusal::new(Reason::Unavailable, "Try later: too many accounts wait to be set up."));
        }
        let (expires, tries) = (now + PATIENCE, TRIES);
        let new = Awaited { ticket, page: page.clone(), password, expires, tries, asked: None };
        // Another login to this address may have been faster.
        Ok(awaited.entry(address.to_owned()).or_insert(new).page.clone())
    }

    fn may_begin(&self, now: Instant) -> bool {
        let mut begun = lock(&self.begun);
        begun.retain(|at| now.duration_since(*at) < MINUTE);
        let may = begun.len() < PER_MINUTE;
        begun.extend(may.then_some(now));
        may
    }

    /// For whom a page is.
    pub(super) fn address(&self, ticket: &str) -> Option<String> {
        self.with(ticket, |address, _| address.to_owned())
    }

    /// Notes that the person is sent to the provider; false if this is not awaited any more.
    pub(super) fn ask(&self, ticket: &str, asked: Asked) -> bool {
        self.with(ticket, |_, awaited| awaited.asked = Some(asked)).is_some()
    }

    fn with<T>(&self, ticket: &str, work: impl FnOnce(&str, &mut Awaited) -> T) -> Option<T> {
        let mut awaited = lock(&self.awaited);
        let is_it = |awaited: &Awaited| awaited.ticket == ticket && Instant::now() < awaited.expires;
        awaited.iter_mut().find(|(_, awaited)| is_it(awaited)).map(|(address, awaited)| work(address, awaited))
    }

    /// Whether the password is the first login's; for which address.
    pub(super) fn check(&self, ticket: &str, password: &Password) -> Result<String, Unasked> {
        let checked = self.with(ticket, |address, awaited| {
            let is_right = awaited.password.same_as(password);
            awaited.tries -= u32::from(!is_right && awaited.tries > 0);
            (address.to_owned(), is_right, awaited.tries)
        });
        match checked.ok_or(Unasked::NotAwaited)? {
            (address, true, _) => Ok(address),
            (address, false, left) => {
                if left == 0 {
                    self.end(&address);
                }
                Err(Unasked::WrongPassword)
            }
        }
    }

    /// The one whose answer a browser brings back. A code can be used once, so the person is asked anew if nothing comes of
    /// it.
    pub(super) fn take(&self, query: &str) -> Option<(String, Asked)> {
        self.expire();
        lock(&self.awaited).iter_mut().find_map(|(address, awaited)| {
            match awaited.asked.as_ref()?.pending.code(query) {
                Ok(_) | Err(RedirectError::Denied(_)) => Some((address.clone(), awaited.asked.take()?)),
                Err(_) => None,
            }
        })
    }

    /// The first login's password, if the address is still awaited.
    pub(super) fn password(&self, address: &str) -> Option<Password> {
        lock(&self.awaited).get(address).map(|awaited| awaited.password.clone())
    }

    /// Awaits it no more.
    pub(super) fn end(&self, address: &str) {
        lock(&self.awaited).remove(address);
    }

    /// Awaits no more what nobody has authorized in time.
    pub(super) fn expire(&self) {
        lock(&self.awaited).retain(|_, awaited| Instant::now() < awaited.expires);
    }
}
