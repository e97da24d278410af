//! One first login: the attempt that waits for a person's consent, and the consent that waits for a password.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{self, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

use super::carried::{CarriedAttempt, CarriedConsent};
use super::server::{AuthorizationRequest, AuthorizationServer};
use crate::mutex::lock;
use crate::net::peer::{Source, Visitor};
use crate::oauth::authorization_code::RedirectError;
use crate::random;
use crate::token::TokenSet;
use crate::vault::password::Password;

/// How long a person has, from the first login to the return from the provider.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The number of passwords, and of authorization requests, that an attempt holds.
const FEW: usize = 16;

/// How many exchanges of an attempt run at a time. They continue without their browsers, so those do not limit them.
const EXCHANGES: usize = 4;

/// How many lines the log gets about an attempt that fails.
const LINES: u32 = 20;

/// The uids of persons (`UID_MIN` and `UID_MAX`, login.defs(5)). Others log in for somebody: fetchmail's user, a container's.
const PERSONS: RangeInclusive<u32> = 1000..=60000;

/// How long a person has to type the password. The page is open in front of them.
const CONFIRMATION: Duration = Duration::from_secs(5 * 60);

/// How many passwords a person may type.
const TRIES: u32 = 5;

/// A first login that waits for a person.
pub struct Attempt {
    /// Identifies its page. It may appear in the log and in a mail.
    pub ticket: String,
    pub address: String,
    pub page: Url,
    pub source: Source,
    expires: Instant,
    /// The passwords that the mail program has tried. Its user may have corrected one.
    passwords: Mutex<Few<Password>>,
    /// The requests with which a browser was sent to the provider.
    requests: Mutex<Few<AuthorizationRequest>>,
    exchanges: Arc<Semaphore>,
    lines_left: AtomicU32,
}

impl Attempt {
    pub fn new(address: &str, redirect_uri: &Url, password: Password, source: Source) -> Self {
        let ticket = random::name();
        let mut page = redirect_uri.clone();
        page.query_pairs_mut().append_pair("authorize", &ticket);
        let (address, seconds) = (address.to_owned(), PATIENCE.as_secs());
        let attempt = Self::continued(CarriedAttempt { ticket, address, page, source, seconds });
        attempt.add_password(password);
        attempt
    }

    /// Continues an attempt that began at another replica.
    pub fn continued(carried: CarriedAttempt) -> Self {
        let CarriedAttempt { ticket, address, page, source, seconds } = carried;
        Self {
            ticket,
            address,
            page,
            source,
            expires: Instant::now() + Duration::from_secs(seconds),
            passwords: Mutex::default(),
            requests: Mutex::default(),
            exchanges: Arc::new(Semaphore::new(EXCHANGES)),
            lines_left: AtomicU32::new(LINES),
        }
    }

    /// For another replica.
    pub fn carried(&self) -> CarriedAttempt {
        CarriedAttempt {
            ticket: self.ticket.clone(),
            address: self.address.clone(),
            page: self.page.clone(),
            source: self.source,
            seconds: self.left().as_secs(),
        }
    }

    pub fn is_open(&self) -> bool {
        !self.left().is_zero()
    }

    /// How long a person still has.
    pub fn left(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    /// Whether this may be a browser of the person whose mail program has logged in. Root is accepted, because it could create
    /// the account anyway.
    pub fn is_for(&self, visitor: Visitor) -> bool {
        match self.source {
            Source::User(person) if PERSONS.contains(&person) => visitor.may_be(|user| user == person || user == 0),
            _ => true,
        }
    }

    /// Adds a password that the mail program has tried.
    pub fn add_password(&self, password: Password) {
        let mut passwords = lock(&self.passwords);
        if !passwords.0.iter().any(|one| one.same_as(&password)) {
            passwords.push(password);
        }
    }

    /// Whether the mail program has tried this password.
    pub fn has_password(&self, password: &Password) -> bool {
        lock(&self.passwords).0.iter().any(|one| one.same_as(password))
    }

    /// Waits until another exchange may run. It holds the permit until it ends.
    pub async fn begin_exchange(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.exchanges).acquire_owned().await.ok()
    }

    /// Whether to log one more line about it.
    pub fn may_log(&self) -> bool {
        self.lines_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    pub fn add_request(&self, request: AuthorizationRequest) {
        lock(&self.requests).push(request);
    }

    /// Whether a browser's query answers one of the requests.
    pub fn has_answer(&self, query: &str) -> bool {
        lock(&self.requests).0.iter().any(|request| is_answer(query, request))
    }

    /// Removes the request that a browser's query answers, because a code can be used only once.
    pub fn take_request(&self, query: &str) -> Option<AuthorizationRequest> {
        let requests = &mut lock(&self.requests).0;
        let index = requests.iter().position(|request| is_answer(query, request))?;
        Some(requests.remove(index))
    }
}

fn is_answer(query: &str, request: &AuthorizationRequest) -> bool {
    matches!(request.pending.code(query), Ok(_) | Err(RedirectError::Denied(_)))
}

/// A person's consent that waits for the password. Its tokens are in memory, and sealed for other replicas with the key in the
/// person's form.
pub struct Consent {
    pub attempt: Arc<Attempt>,
    pub server: AuthorizationServer,
    /// Why mail stops when the access token expires, if it does.
    pub end: Option<String>,
    expires: Instant,
    /// Locked while a password is checked.
    pub state: sync::Mutex<ConsentState>,
}

/// The state of a consent.
pub enum ConsentState {
    /// The person may type a password.
    Open { tokens: TokenSet, tries_left: u32 },
    /// The account was created.
    Authorized,
    /// It will not be used.
    Closed,
}

impl Consent {
    pub fn new(attempt: Arc<Attempt>, server: AuthorizationServer, tokens: TokenSet, end: Option<String>) -> Self {
        Self::continued(attempt, server, tokens, end, CONFIRMATION)
    }

    /// Continues a consent that another replica has got, and that expires after this time.
    pub fn continued(
        attempt: Arc<Attempt>,
        server: AuthorizationServer,
        tokens: TokenSet,
        end: Option<String>,
        left: Duration,
    ) -> Self {
        let state = sync::Mutex::new(ConsentState::Open { tokens, tries_left: TRIES });
        Self { attempt, server, end, expires: Instant::now() + left, state }
    }

    pub fn is_open(&self) -> bool {
        !self.left().is_zero()
    }

    /// How long a person still has.
    pub fn left(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

impl Consent {
    /// For another replica; None if it is no longer open.
    pub async fn carried(&self) -> Option<CarriedConsent> {
        match &*self.state.lock().await {
            ConsentState::Open { tokens, .. } => Some(self.carried_with(tokens)),
            ConsentState::Authorized | ConsentState::Closed => None,
        }
    }

    pub fn carried_with(&self, tokens: &TokenSet) -> CarriedConsent {
        CarriedConsent { attempt: self.attempt.carried(), tokens: tokens.clone(), end: self.end.clone() }
    }
}

/// The first and the last of many values. However many a stranger adds, those that a person added before stay, and those that
/// a person adds later are kept, too.
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Few<T> {
    fn push(&mut self, value: T) {
        if self.0.len() >= FEW {
            self.0.remove(FEW / 2);
        }
        self.0.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(source: Source) -> Attempt {
        let redirect_uri = Url::parse("http://127.0.0.1:1/").unwrap();
        Attempt::new("ann@example.test", &redirect_uri, Password::read(b"first password"), source)
    }

    #[test]
    fn a_persons_attempt_accepts_browsers_of_that_person_and_root() {
        let attempt_of_ann = attempt(Source::User(1000));
        for (visitor, expected) in [
            (Visitor::User(1000), true),
            (Visitor::User(0), true),
            (Visitor::Unknown, true),
            (Visitor::User(1001), false),
            (Visitor::Nobody, false),
        ] {
            assert_eq!(attempt_of_ann.is_for(visitor), expected, "{visitor:?}");
        }
        let address = Source::Address("192.0.2.1".parse().unwrap());
        for source in [Source::User(0), Source::User(110), Source::User(100_033), Source::User(65_534), address] {
            assert!(attempt(source).is_for(Visitor::User(1001)), "{source:?} may log in for anybody");
        }
    }

    #[test]
    fn a_flood_removes_neither_the_first_password_nor_the_last() {
        let attempt = attempt(Source::User(0));
        for guess in 0..100 {
            attempt.add_password(Password::read(format!("guess {guess}").as_bytes()));
        }
        attempt.add_password(Password::read(b"corrected password"));
        assert!(attempt.has_password(&Password::read(b"first password")));
        assert!(attempt.has_password(&Password::read(b"corrected password")));
        assert!(!attempt.has_password(&Password::read(b"guess 50")));
        assert_eq!(lock(&attempt.passwords).0.len(), FEW);
    }
}
