//! One first login that waits for a person: all that belongs to it travels with it.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

use super::super::context::lock;
use super::server::AuthorizationRequest;
use crate::net::peer::{Source, Visitor};
use crate::oauth::authorization_code::RedirectError;
use crate::random;
use crate::vault::password::Password;

/// How long a person has, from the first login to the return from the provider.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Passwords and authorization requests that an attempt holds at most.
const FEW: usize = 16;

/// Exchanges of an attempt at a time: they go on when the browser has gone, so browsers do not bound them.
const EXCHANGES: usize = 4;

/// What the log tells of an attempt that comes to nothing, in lines.
const LINES: u32 = 20;

/// The users who are persons (`UID_MIN` and `UID_MAX`, login.defs(5)). Others log in for somebody: fetchmail's user, a
/// container's.
const PERSONS: RangeInclusive<u32> = 1000..=60000;

/// A first login that waits for a person.
pub struct Attempt {
    /// Names its page. It may stand in the log and in a mail.
    pub ticket: String,
    pub address: String,
    pub page: Url,
    /// Where the mail program connects from.
    pub source: Source,
    expires: Instant,
    /// The passwords that the mail program has tried. A person may have corrected one.
    tried: Mutex<Few<Password>>,
    /// The requests with which a person was sent to the provider.
    asked: Mutex<Few<AuthorizationRequest>>,
    exchanges: Arc<Semaphore>,
    lines_left: AtomicU32,
}

impl Attempt {
    /// Begins one; `home` is where browsers come back to.
    pub fn new(address: &str, home: &Url, password: Password, source: Source) -> Self {
        let ticket = random::name();
        let mut page = home.clone();
        page.query_pairs_mut().append_pair("authorize", &ticket);
        let mut tried = Few::default();
        tried.push(password);
        Self {
            ticket,
            address: address.to_owned(),
            page,
            source,
            expires: Instant::now() + PATIENCE,
            tried: Mutex::new(tried),
            asked: Mutex::default(),
            exchanges: Arc::new(Semaphore::new(EXCHANGES)),
            lines_left: AtomicU32::new(LINES),
        }
    }

    /// Whether it still waits.
    pub fn is_open(&self) -> bool {
        Instant::now() < self.expires
    }

    /// Whether this may be a browser of the person whose mail program has logged in. Root could do all that is done here
    /// anyway.
    pub fn is_for(&self, visitor: Visitor) -> bool {
        match self.source {
            Source::User(person) if PERSONS.contains(&person) => visitor.may_be(|user| user == person || user == 0),
            _ => true,
        }
    }

    /// Notes one more password of the mail program; the page to name.
    pub fn try_password(&self, password: Password) -> &Url {
        let mut tried = lock(&self.tried);
        if !tried.0.iter().any(|one| one.same_as(&password)) {
            tried.push(password);
        }
        &self.page
    }

    /// Whether the mail program has tried this password.
    pub fn has_tried(&self, password: &Password) -> bool {
        lock(&self.tried).0.iter().any(|one| one.same_as(password))
    }

    /// Waits until there is room for another exchange, which has it until this is dropped.
    pub async fn exchange(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.exchanges).acquire_owned().await.ok()
    }

    /// Whether the log has room for one more line about it.
    pub fn may_tell(&self) -> bool {
        self.lines_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Notes a request; where it sends the person.
    pub fn ask(&self, asked: AuthorizationRequest) -> Url {
        let url = asked.pending.url.clone();
        lock(&self.asked).push(asked);
        url
    }

    /// Whether a browser's query answers one of the requests.
    pub fn has_asked(&self, query: &str) -> bool {
        lock(&self.asked).0.iter().any(|asked| is_answered(asked, query))
    }

    /// The request that a browser's query answers. A code can be used once, so it is not awaited any more.
    pub fn take(&self, query: &str) -> Option<AuthorizationRequest> {
        let asked = &mut lock(&self.asked).0;
        let place = asked.iter().position(|asked| is_answered(asked, query))?;
        Some(asked.remove(place))
    }
}

fn is_answered(asked: &AuthorizationRequest, query: &str) -> bool {
    matches!(asked.pending.code(query), Ok(_) | Err(RedirectError::Denied(_)))
}

/// The first and the last ones of many: however many a stranger adds, those of a person who came before stay, and those of
/// one who comes after count.
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Few<T> {
    fn push(&mut self, one: T) {
        if self.0.len() >= FEW {
            self.0.remove(FEW / 2);
        }
        self.0.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(source: Source) -> Attempt {
        let home = Url::parse("http://127.0.0.1:1/").unwrap();
        Attempt::new("ann@example.test", &home, Password::read(b"first password"), source)
    }

    #[test]
    fn a_persons_attempt_is_for_browsers_of_that_person_and_root() {
        let anns = attempt(Source::User(1000));
        for (visitor, expected) in [
            (Visitor::User(1000), true),
            (Visitor::User(0), true),
            (Visitor::Unknown, true),
            (Visitor::User(1001), false),
            (Visitor::Nobody, false),
        ] {
            assert_eq!(anns.is_for(visitor), expected, "{visitor:?}");
        }
        let address = Source::Address("192.0.2.1".parse().unwrap());
        for source in [Source::User(0), Source::User(110), Source::User(100_033), Source::User(65_534), address] {
            assert!(attempt(source).is_for(Visitor::User(1001)), "{source:?} logs in for somebody");
        }
    }

    #[test]
    fn a_flood_pushes_out_neither_the_first_password_nor_the_last() {
        let attempt = attempt(Source::User(0));
        for guess in 0..100 {
            attempt.try_password(Password::read(format!("guess {guess}").as_bytes()));
        }
        attempt.try_password(Password::read(b"corrected password"));
        assert!(attempt.has_tried(&Password::read(b"first password")));
        assert!(attempt.has_tried(&Password::read(b"corrected password")));
        assert!(!attempt.has_tried(&Password::read(b"guess 50")));
        assert_eq!(lock(&attempt.tried).0.len(), FEW);
    }
}
