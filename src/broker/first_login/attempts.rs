//! All first logins that wait for a person, and all consents that wait for a password. Their number is limited, also for each
//! source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use url::Url;

use super::attempt::{Attempt, Consent};
use crate::mutex::lock;
use crate::net::peer::Source;
use crate::vault::password::Password;
use crate::wire::{Reason, Refusal};

/// How many may wait at a time: as many as people in a large office set up their mail programs at once.
const MOST: usize = 256;

/// How many of them may be from one source, because a webmail server logs in for many people.
const SHARE: usize = 16;

/// How many may be from this source. Other machines together leave room for this one.
const fn limit(source: Source) -> usize {
    match source {
        Source::Site(_) => 2 * SHARE,
        Source::Elsewhere => MOST / 2,
        _ => SHARE,
    }
}

/// All first logins that wait.
#[derive(Default)]
pub struct Attempts {
    attempts: Mutex<Vec<Arc<Attempt>>>,
    /// By key.
    consents: Mutex<HashMap<String, Arc<Consent>>>,
    /// By provider; empty while postkey does not listen there.
    redirect_uris: Mutex<HashMap<String, Url>>,
}

impl Attempts {
    pub(super) fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        *lock(&self.redirect_uris) = uris;
    }

    pub(super) fn redirect_uri(&self, provider: &str) -> Option<Url> {
        lock(&self.redirect_uris).get(provider).cloned()
    }

    /// The attempts of this address from this source. Each source has its own, and several only if they began at several
    /// replicas.
    pub(super) fn attempts_of(&self, address: &str, source: Source) -> Vec<Arc<Attempt>> {
        let is_it =
            |attempt: &&Arc<Attempt>| attempt.is_open() && attempt.address == address && attempt.source == source;
        lock(&self.attempts).iter().filter(is_it).cloned().collect()
    }

    /// The attempt of this address from this source whose mail program has tried this password.
    pub(super) fn attempt_with(&self, address: &str, source: Source, password: &Password) -> Option<Arc<Attempt>> {
        self.attempts_of(address, source).into_iter().find(|attempt| attempt.has_password(password))
    }

    pub(super) fn attempt_by_ticket(&self, ticket: &str) -> Option<Arc<Attempt>> {
        self.find(|attempt| attempt.ticket == ticket)
    }

    /// The attempt with a request that this query answers.
    pub(super) fn attempt_by_answer(&self, query: &str) -> Option<Arc<Attempt>> {
        self.find(|attempt| attempt.has_answer(query))
    }

    fn find(&self, is_it: impl Fn(&Attempt) -> bool) -> Option<Arc<Attempt>> {
        lock(&self.attempts).iter().find(|attempt| attempt.is_open() && is_it(attempt)).cloned()
    }

    /// Begins an attempt.
    pub(super) fn begin(
        &self,
        address: &str,
        provider: &str,
        password: Password,
        source: Source,
    ) -> Result<Arc<Attempt>, Refusal> {
        let redirect_uri = self.redirect_uri(provider).ok_or_else(|| {
            Refusal::new(Reason::AuthorizationEnded, format!("Run `postkey authorize {address}` to set it up."))
        })?;
        let mut attempts = lock(&self.attempts);
        attempts.retain(|attempt| attempt.is_open());
        let is_of = |source| attempts.iter().filter(move |attempt| attempt.source.and_wider().any(|one| one == source));
        if attempts.len() >= MOST || source.and_wider().any(|source| is_of(source).count() >= limit(source)) {
            return Err(Refusal::new(Reason::Unavailable, "Too many accounts wait to be set up; try later."));
        }
        let attempt = Arc::new(Attempt::new(address, &redirect_uri, password, source));
        attempts.push(Arc::clone(&attempt));
        Ok(attempt)
    }

    /// Adds an attempt that began at another replica, unless it is here already. If there is no room, it is only returned.
    pub(super) fn adopt(&self, attempt: Attempt) -> Arc<Attempt> {
        let mut attempts = lock(&self.attempts);
        attempts.retain(|attempt| attempt.is_open());
        if let Some(known) = attempts.iter().find(|known| known.ticket == attempt.ticket) {
            return Arc::clone(known);
        }
        let attempt = Arc::new(attempt);
        if attempts.len() < MOST {
            attempts.push(Arc::clone(&attempt));
        }
        attempt
    }

    pub(super) fn end(&self, attempt: &Attempt) {
        lock(&self.attempts).retain(|one| one.ticket != attempt.ticket);
    }

    /// Ends all attempts of an address, because it has an account now.
    pub(super) fn end_all_of(&self, address: &str) {
        lock(&self.attempts).retain(|attempt| attempt.address != address);
    }

    /// Adds a consent, unless there are too many. `key` is that with which a person confirms it.
    pub(super) fn add_consent(&self, key: &str, consent: &Arc<Consent>) -> bool {
        let mut consents = lock(&self.consents);
        let has_room = consents.len() < MOST;
        if has_room {
            consents.insert(key.to_owned(), Arc::clone(consent));
        }
        has_room
    }

    pub(super) fn consent(&self, key: &str) -> Option<Arc<Consent>> {
        lock(&self.consents).get(key).filter(|consent| consent.is_open()).cloned()
    }

    pub(super) fn drop_consent(&self, key: &str) {
        lock(&self.consents).remove(key);
    }

    pub(super) fn has_consent_of(&self, address: &str) -> bool {
        lock(&self.consents).values().any(|consent| consent.is_open() && consent.attempt.address == address)
    }

    /// Removes what has expired. Returns the consents, by key.
    pub(super) fn remove_expired(&self) -> Vec<(String, Arc<Consent>)> {
        lock(&self.attempts).retain(|attempt| attempt.is_open());
        lock(&self.consents).extract_if(|_, consent| !consent.is_open()).collect()
    }

    /// Removes everything. Returns the consents, by key.
    pub(super) fn remove_all(&self) -> Vec<(String, Arc<Consent>)> {
        lock(&self.attempts).clear();
        lock(&self.consents).drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn begin(attempts: &Attempts, address: &str, source: Source) -> Result<Arc<Attempt>, Refusal> {
        attempts.begin(address, "own", Password::read(b"some password"), source)
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let attempts = Attempts::default();
        attempts.set_redirect_uris([("own".to_owned(), Url::parse("http://127.0.0.1:1/").unwrap())].into());
        for number in 0..2 * SHARE {
            let page = begin(&attempts, &format!("u{number}@example.test"), Source::User(1234));
            assert_eq!(page.is_ok(), number < SHARE);
        }
        assert!(begin(&attempts, "ann@example.test", Source::User(1000)).is_ok());
        let networks = |site: u16| (0..MOST as u16).map(move |network| [0x2001, 0xdb8, site, network, 0, 0, 0, 1]);
        let remote = (0..MOST as u16).flat_map(networks).take(MOST * MOST / 4);
        let taken = remote.filter(|&network| {
            let source = Source::of_address(Ipv6Addr::from(network).into());
            begin(&attempts, &format!("u{}-{}@example.test", network[2], network[3]), source).is_ok()
        });
        assert_eq!(taken.count(), MOST / 2, "other machines, however many networks they have");
        assert!(begin(&attempts, "ann@example.test", Source::User(1001)).is_ok());
        for source in 0..2 * MOST as u32 {
            let _refused = begin(&attempts, "ben@example.test", Source::User(10_000 + source));
        }
        assert_eq!(lock(&attempts.attempts).len(), MOST);
    }
}
