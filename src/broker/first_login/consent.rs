//! A consent that waits for its person's password. Its tokens are in memory only.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::attempt::Attempt;
use super::server::AuthorizationServer;
use crate::token::TokenSet;

/// How long a person has to type the password. The page is before their eyes.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How many passwords a person may type.
const TRIES: u32 = 5;

/// An authorization by the owner of an address.
pub struct Consent {
    pub attempt: Arc<Attempt>,
    pub server: AuthorizationServer,
    /// Why mail stops when the access token expires, if it does.
    pub end: Option<String>,
    expires: Instant,
    /// Held while a password is being judged.
    pub state: Mutex<ConsentState>,
}

/// What has become of a consent.
pub enum ConsentState {
    /// Its person may type a password.
    Open { tokens: TokenSet, tries_left: u32 },
    /// The account is made.
    Authorized,
    /// It will not be used.
    Closed,
}

impl Consent {
    pub fn new(attempt: Arc<Attempt>, server: AuthorizationServer, tokens: TokenSet, end: Option<String>) -> Self {
        let state = Mutex::new(ConsentState::Open { tokens, tries_left: TRIES });
        Self { attempt, server, end, expires: Instant::now() + PATIENCE, state }
    }

    pub fn is_in_time(&self) -> bool {
        Instant::now() < self.expires
    }
}
