//! What can be changed while a provider runs, and what it records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postkey::protocol::{Mechanism, Protocol};
use serde_json::Value;

use super::assertions::Assertion;

/// How the servers behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an access token issued from now on is valid, according to `expires_in`.
    pub token_life: Duration,
    /// How much longer it is really valid.
    pub grace: Duration,
    /// How long an access token issued from now on is, in characters; a multiple of 4.
    pub token_length: usize,
    /// The number of random bytes in a refresh token issued from now on. The token has a third more characters.
    pub refresh_bytes: usize,
    /// Whether `expires_in` is a string, as some real servers have it.
    pub expires_in_as_text: bool,
    /// Whether every refresh brings a new refresh token and invalidates the old one (RFC 9700 section 4.14.2).
    pub rotate: bool,
    /// Whether a person's consent brings a refresh token.
    pub gives_refresh_tokens: bool,
    /// The error with which the browser is sent back, whatever is requested.
    pub authorization_error: Option<&'static str>,
    /// What the token endpoint does with a request.
    pub token_endpoint: TokenEndpoint,
    /// The scope in token responses, if not that of the grant.
    pub granted_scope: Option<String>,
    /// The claims of access tokens issued from now on, which then are JWTs.
    pub access_claims: Option<Value>,
    /// Claims of id_tokens, in addition to the usual ones or in their place.
    pub id_claims: Option<serde_json::Map<String, Value>>,
    /// How many seconds the authorization server's clock is ahead of ours.
    pub clock_ahead: i64,
    /// The error codes of the next answers of the token endpoint, or statuses in digits. An empty one is a normal
    /// answer.
    pub token_errors: VecDeque<&'static str>,
    /// How the answer of the device authorization endpoint differs from RFC 8628.
    pub device_answer: Value,
    /// The status with which the revocation endpoint answers. Any other than 200 revokes nothing.
    pub revocation_status: u16,
    /// What it publishes about itself.
    pub publishes: Publishes,
    /// Whether it names itself when the browser returns (RFC 9207).
    pub names_itself: bool,
    /// Whether a code is valid only with the verifier and the redirect URI of its request (RFC 7636 section 4.6).
    pub checks_codes: bool,
    /// The flaw of id_tokens, if they have one.
    pub id_token: IdToken,
    /// The IMAP server.
    pub imap: MailServer,
    /// The POP3 server.
    pub pop3: MailServer,
    /// The SMTP server.
    pub smtp: MailServer,
    /// Mailboxes that somebody else may read, each with this delegate. As at Microsoft, SMTP accepts only the
    /// delegate's own name.
    pub shared: Vec<(String, String)>,
}

impl Settings {
    /// The settings of one mail server.
    pub fn server(&self, protocol: Protocol) -> &MailServer {
        match protocol {
            Protocol::Imap => &self.imap,
            Protocol::Pop3 => &self.pop3,
            Protocol::Smtp => &self.smtp,
        }
    }

    /// The same, mutable.
    pub fn server_mut(&mut self, protocol: Protocol) -> &mut MailServer {
        match protocol {
            Protocol::Imap => &mut self.imap,
            Protocol::Pop3 => &mut self.pop3,
            Protocol::Smtp => &mut self.smtp,
        }
    }
}

/// A provider without any flaw: tokens for an hour, rotating refresh tokens, everything offered.
impl Default for Settings {
    fn default() -> Self {
        Self {
            token_life: Duration::from_secs(3600),
            grace: Duration::ZERO,
            token_length: 200,
            refresh_bytes: 32,
            expires_in_as_text: false,
            rotate: true,
            gives_refresh_tokens: true,
            authorization_error: None,
            token_endpoint: TokenEndpoint::Normal,
            granted_scope: None,
            access_claims: None,
            id_claims: None,
            clock_ahead: 0,
            token_errors: VecDeque::new(),
            device_answer: Value::Null,
            revocation_status: 200,
            publishes: Publishes::default(),
            names_itself: true,
            checks_codes: true,
            id_token: IdToken::default(),
            imap: MailServer::default(),
            pop3: MailServer::default(),
            smtp: MailServer::default(),
            shared: Vec::new(),
        }
    }
}

/// What the authorization server publishes about itself.
#[derive(Clone, Debug, Default)]
pub struct Publishes {
    /// Whether its metadata are in the place of RFC 8414, and in that of OpenID Connect.
    pub metadata: (bool, bool),
    /// Members of the metadata that differ from the correct ones; null removes one.
    pub instead: Vec<(&'static str, serde_json::Value)>,
    /// The number of blanks before the metadata.
    pub blanks: usize,
    /// Where the metadata's address redirects to.
    pub elsewhere: Option<String>,
    /// Whether its keys can be fetched.
    pub keys: bool,
    /// Whether userinfo says who owns a token.
    pub userinfo: bool,
    /// Whether a client may register itself, and whether it gets a secret.
    pub registers: Option<bool>,
}

/// How id_tokens are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdToken {
    /// Signed and correct.
    #[default]
    Good,
    /// There are none.
    None,
    /// They are signed with an unpublished key, under the name of the published one.
    Forged,
    /// They are not signed, and say so.
    Unsigned,
    /// They answer another request.
    OtherNonce,
    /// They are for another client.
    OtherAudience,
}

/// What the token endpoint does with a request.
#[derive(Clone, Debug)]
pub enum TokenEndpoint {
    /// Answers it.
    Normal,
    /// Waits, then answers it. A request that was abandoned meanwhile changes nothing.
    Delay(Duration),
    /// Waits for a permit of this gate, which a test adds, and then answers it.
    Gate(Arc<tokio::sync::Semaphore>),
    /// Answers with this status and an empty body.
    Status(u16),
    /// Answers with status 400 and this body, and the grant stays as it is. `{token}` in it is the refresh token that
    /// was sent.
    Refuse(serde_json::Value),
    /// Answers `invalid_grant`, and the grant stays as it is.
    InvalidGrant,
    /// Answers with a page and status 200, as a captive portal does.
    Html,
    /// Never answers, and changes nothing.
    Hang,
    /// Issues the tokens, but its answer never arrives.
    LoseAnswer,
}

/// How a mail server behaves.
#[derive(Clone, Debug)]
pub struct MailServer {
    /// The answer to every login, whatever the token: `NO [LIMIT] Too many.`, `-ERR [IN-USE] ..`, `454 4.7.0 ..`.
    /// `{token}` in it is the token that was sent.
    pub refuse_login: Option<String>,
    /// The answer to an invalid token, in place of an error challenge.
    pub denial: Option<String>,
    /// Whether each connection is closed at once.
    pub close_at_connect: bool,
    /// The delay of the greeting, or on a TLS port of the handshake before it.
    pub greeting_delay: Duration,
    /// Whether STARTTLS is offered and accepted on the port that has it.
    pub starttls: bool,
    /// Whether IMAP offers and accepts an initial response (RFC 4959).
    pub sasl_ir: bool,
    /// The offered and accepted mechanisms.
    pub mechanisms: Vec<Mechanism>,
    /// Those of them with which no token is accepted, as on some real servers.
    pub broken: Vec<Mechanism>,
    /// The delay of the answer to a login.
    pub login_delay: Duration,
}

impl MailServer {
    /// The offered mechanism of this name.
    pub(super) fn mechanism(&self, name: &str) -> Option<Mechanism> {
        self.mechanisms.iter().copied().find(|one| one.name().eq_ignore_ascii_case(name))
    }

    /// The names of the offered mechanisms, each after `prefix`, with blanks between them.
    pub(super) fn mechanism_names(&self, prefix: &str) -> String {
        let names: Vec<_> = self.mechanisms.iter().map(|one| format!("{prefix}{}", one.name())).collect();
        names.join(" ")
    }
}

impl Default for MailServer {
    fn default() -> Self {
        Self {
            refuse_login: None,
            denial: None,
            close_at_connect: false,
            greeting_delay: Duration::ZERO,
            starttls: true,
            sasl_ir: true,
            mechanisms: vec![Mechanism::XOAuth2, Mechanism::OAuthBearer],
            broken: Vec::new(),
            login_delay: Duration::ZERO,
        }
    }
}

/// What a provider records.
#[derive(Debug, Default)]
pub struct Log {
    /// The grant type of every token request, whatever its result.
    pub requests: Vec<String>,
    /// Every assertion that was found good.
    pub assertions: Vec<Assertion>,
    /// The scope of every token request.
    pub scopes: Vec<String>,
    /// The `token_type_hint` of every revocation request.
    pub revocations: Vec<String>,
    /// The protocol of every connection to a mail server.
    pub connections: Vec<Protocol>,
    /// Every SASL response to a mail server.
    pub attempts: Vec<Attempt>,
}

/// A login attempt at a mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The protocol.
    pub protocol: Protocol,
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The user name, in lower case.
    pub user: String,
    /// Whether it was accepted.
    pub accepted: bool,
}
