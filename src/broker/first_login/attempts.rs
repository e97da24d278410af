//! All first logins that wait for a person, and all consents that wait for a password: few, not for long, and few from one
//! source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use url::Url;

use super::super::context::lock;
use super::attempt::Attempt;
use super::consent::Consent;
use crate::net::peer::Source;
use crate::random;
use crate::vault::password::Password;
use crate::wire::{Reason, Refusal};

/// How many may wait at a time: as many as a large office has people who set up their mail program at once.
const MOST: usize = 256;

/// How many of them from one source: a webmail server logs in for many people.
const SHARE: usize = 16;

/// How many from a source and from what it belongs to. Other machines together leave room for this one.
const fn share(source: Source) -> usize {
    match source {
        Source::Site(_) => 2 * SHARE,
        Source::Elsewhere => MOST / 2,
        _ => SHARE,
    }
}

/// All first logins that wait for something.
#[derive(Default)]
pub struct Attempts {
    attempts: Mutex<Vec<Arc<Attempt>>>,
    /// By key.
    consents: Mutex<HashMap<String, Arc<Consent>>>,
    /// Where browsers come back to, by provider; empty as long as nobody waits for them there.
    redirect_uris: Mutex<HashMap<String, Url>>,
}

impl Attempts {
    pub(super) fn set_redirect_uris(&self, uris: HashMap<String, Url>) {
        *lock(&self.redirect_uris) = uris;
    }

    pub(super) fn redirect_uri(&self, provider: &str) -> Option<Url> {
        lock(&self.redirect_uris).get(provider).cloned()
    }

    /// The attempt of an address, from this source. Others have their own.
    pub(super) fn of(&self, address: &str, source: Source) -> Option<Arc<Attempt>> {
        self.find(|attempt| attempt.address == address && attempt.source == source)
    }

    /// The attempt of a page.
    pub(super) fn attempt(&self, ticket: &str) -> Option<Arc<Attempt>> {
        self.find(|attempt| attempt.ticket == ticket)
    }

    /// The attempt whose person comes back with this query.
    pub(super) fn asked(&self, query: &str) -> Option<Arc<Attempt>> {
        self.find(|attempt| attempt.has_asked(query))
    }

    fn find(&self, is_it: impl Fn(&Attempt) -> bool) -> Option<Arc<Attempt>> {
        lock(&self.attempts).iter().find(|attempt| attempt.is_open() && is_it(attempt)).cloned()
    }

    /// Begins an attempt; its page.
    pub(super) fn begin(
        &self,
        address: &str,
        provider: &str,
        password: Password,
        source: Source,
    ) -> Result<Url, Refusal> {
        let home = self.redirect_uri(provider).ok_or_else(|| {
            Refusal::new(Reason::AuthorizationEnded, format!("Run `postkey authorize {address}` to set it up."))
        })?;
        let mut attempts = lock(&self.attempts);
        attempts.retain(|attempt| attempt.is_open());
        let is_of = |source| attempts.iter().filter(move |attempt| attempt.source.and_wider().any(|one| one == source));
        if attempts.len() >= MOST || source.and_wider().any(|source| is_of(source).count() >= share(source)) {
            return Err(Refusal::new(Reason::Unavailable, "Try later: too many accounts wait to be set up."));
        }
        let attempt = Attempt::new(address, &home, password, source);
        let page = attempt.page.clone();
        attempts.push(Arc::new(attempt));
        Ok(page)
    }

    /// Ends this very attempt.
    pub(super) fn end(&self, attempt: &Attempt) {
        lock(&self.attempts).retain(|one| one.ticket != attempt.ticket);
    }

    /// Ends all attempts of an address that has an account now.
    pub(super) fn settle(&self, address: &str) {
        lock(&self.attempts).retain(|attempt| attempt.address != address);
    }

    /// Keeps a consent until its person confirms it; the key for that. None of it is kept where there are too many.
    pub(super) fn keep(&self, consent: Consent) -> Result<String, Arc<Consent>> {
        let (mut consents, consent) = (lock(&self.consents), Arc::new(consent));
        if consents.len() >= MOST {
            return Err(consent);
        }
        let key = random::name();
        consents.insert(key.clone(), consent);
        Ok(key)
    }

    /// The consent of this key, while there is time to confirm it.
    pub(super) fn consent(&self, key: &str) -> Option<Arc<Consent>> {
        lock(&self.consents).get(key).filter(|consent| consent.is_in_time()).cloned()
    }

    pub(super) fn drop_consent(&self, key: &str) {
        lock(&self.consents).remove(key);
    }

    /// Whether a consent of this address waits.
    pub(super) fn has_consent_of(&self, address: &str) -> bool {
        lock(&self.consents).values().any(|consent| consent.is_in_time() && consent.attempt.address == address)
    }

    /// Ends what has not been authorized in time; the consents among that.
    pub(super) fn expire(&self) -> Vec<Arc<Consent>> {
        lock(&self.attempts).retain(|attempt| attempt.is_open());
        lock(&self.consents).extract_if(|_, consent| !consent.is_in_time()).map(|(_, consent)| consent).collect()
    }

    /// Ends everything; the consents among that.
    pub(super) fn end_all(&self) -> Vec<Arc<Consent>> {
        lock(&self.attempts).clear();
        lock(&self.consents).drain().map(|(_, consent)| consent).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn begin(attempts: &Attempts, address: &str, source: Source) -> Result<Url, Refusal> {
        attempts.begin(address, "own", Password::read(b"some password"), source)
    }

    #[test]
    fn one_source_cannot_take_the_room_of_others() {
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
        assert_eq!(taken.count(), MOST / 2, "of other machines, however many networks they have");
        assert!(begin(&attempts, "ann@example.test", Source::User(1001)).is_ok());
        for source in 0..2 * MOST as u32 {
            let _refused = begin(&attempts, "ben@example.test", Source::User(10_000 + source));
        }
        assert_eq!(lock(&attempts.attempts).len(), MOST);
    }
}
