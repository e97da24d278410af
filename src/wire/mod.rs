//! The contract of a dialogue, and the types that both sides of a session share.
//!
//! Everything in `wire`, `downstream` and `upstream` is pure: bytes in, bytes and events out. No sockets, no clock.

pub mod framer;
pub mod proxy_header;
mod redactor;

use crate::exit::{Exit, Failed};
use crate::protocol::Mechanism;
use crate::secret::{Secret, Token};
pub use redactor::Redactor;

/// The input that a dialogue waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A line of at most `limit` bytes, its end not counted.
    Line {
        /// The longest line to read, in bytes.
        limit: usize,
    },
    /// Exactly this many bytes (an IMAP literal, RFC 3501 section 4.3).
    Literal(usize),
    /// Nothing until the session has acted. What arrives stays in the framer.
    Nothing,
}

/// A piece of input that the framer hands to a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A line without its CRLF or LF.
    Line(&'a [u8]),
    /// The bytes of a literal.
    Literal(&'a [u8]),
    /// The first bytes of a line that was longer than the limit; the rest was dropped.
    /// A TLS handshake where a line should begin counts as one ([`framer::begins_tls`]).
    Overlong(&'a [u8]),
}

/// One side of a session before it becomes a relay: a state machine fed with frames.
///
/// `feed` returns no error: a client's mistake is answered in its own protocol, a provider's is an event to decide
/// about.
pub trait Dialogue: Send {
    /// An event that the session has to act on.
    type Event;
    fn want(&self) -> Want;
    /// Handles one frame of the wanted kind, and appends the answer to `out`.
    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Self::Event>;
}

/// The user name and password of a login (RFC 4616).
#[derive(Clone)]
pub struct Credentials {
    /// The login name, as typed: valid UTF-8 of at most 255 bytes without control characters.
    pub user: String,
    /// The account to open, if the client names one beside the user (RFC 4616's authorization identity).
    pub acts_as: Option<String>,
    /// The password: 1 to 1024 bytes without NUL.
    pub password: Secret,
}

impl Credentials {
    /// Checks what a client sent. None if no account and no password can have this form.
    pub fn parse(user: &[u8], password: &[u8]) -> Option<Self> {
        let user = Self::name(user)?;
        let password_fits = (1..=1024).contains(&password.len()) && !password.contains(&0);
        password_fits.then(|| Self::new(user, Secret::new(password.to_owned())))
    }

    /// Creates credentials from a user, and a password that was already checked.
    pub const fn new(user: String, password: Secret) -> Self {
        Self { user, acts_as: None, password }
    }

    /// Checks a name that a client sent. None if no account can have it.
    pub fn name(name: &[u8]) -> Option<String> {
        let name = std::str::from_utf8(name).ok()?;
        let fits = (1..=255).contains(&name.len()) && !name.chars().any(char::is_control);
        fits.then(|| name.to_owned())
    }
}

/// The access token that is sent to the provider to log in (RFC 6750), and its user.
#[derive(Clone)]
pub struct Bearer {
    /// The mailbox to open, as the provider names it.
    pub user: String,
    pub token: Token,
    /// The allowed mechanisms, the best first. The first that the provider offers is used.
    pub mechanisms: Vec<Mechanism>,
}

/// A server's capabilities, one entry per IMAP capability, POP3 CAPA line or SMTP EHLO line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub Vec<String>);

impl Capabilities {
    /// Whether an entry is exactly this word, or begins with it and a blank. Case does not matter.
    pub fn has(&self, word: &str) -> bool {
        self.arguments(word).is_some()
    }

    /// The rest of the entry that begins with `word`; "" if nothing follows it.
    pub fn arguments(&self, word: &str) -> Option<&str> {
        self.0.iter().find_map(|entry| {
            let (name, rest) = entry.split_once(' ').unwrap_or((entry, ""));
            name.eq_ignore_ascii_case(word).then_some(rest)
        })
    }
}

/// The provider's acceptance of a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// The capabilities after the login, if the server sent them with its acceptance (IMAP usually does).
    pub capabilities: Option<Capabilities>,
    /// Alerts for the person (IMAP's ALERT, RFC 3501 section 7.1), printable.
    pub alerts: Vec<String>,
}

/// Why a login is refused. Each protocol has its own code for each reason (RFC 5530, RFC 3206, RFC 4954).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Unknown account or wrong password, which look the same from outside.
    Credentials,
    /// The client wants to act as somebody other than the user who logged in.
    SomebodyElse,
    /// The authorization has ended; a person has to authorize the account again.
    AuthorizationEnded,
    /// A first login. It will work as soon as a person has authorized the account.
    AuthorizationAwaited,
    /// The provider refused a token that it had just issued.
    TokenRefused,
    /// A temporary problem of the network, the authorization server or the mail server.
    Unavailable,
    /// The provider's limit on connections, logins or bytes is reached.
    Limit,
    /// The provider has disabled this protocol or this mailbox for the account.
    Forbidden,
    /// The provider's server permanently refuses connections, before it has seen any credentials.
    ServerRefuses,
}

impl Reason {
    /// The reason's name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::SomebodyElse => "somebody-else",
            Self::AuthorizationEnded => "authorization-ended",
            Self::AuthorizationAwaited => "authorization-awaited",
            Self::TokenRefused => "token-refused",
            Self::Unavailable => "unavailable",
            Self::Limit => "limit",
            Self::Forbidden => "forbidden",
            Self::ServerRefuses => "server-refuses",
        }
    }
}

/// A refused login: the reason, and a line for the person who reads the client's error box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, which decides the code that the client gets.
    pub reason: Reason,
    /// A clause that says what happened and what to do. The client gets it as [`printable`] text.
    pub text: String,
    /// Alerts for the person, as in [`Acceptance::alerts`].
    pub alerts: Vec<String>,
}

impl Refusal {
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), alerts: Vec::new() }
    }

    /// The one answer to unknown accounts and wrong passwords.
    pub fn credentials() -> Self {
        Self::new(Reason::Credentials, "Wrong user name or password.")
    }
}

/// The failure of a command that is refused like a login.
impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.reason {
            Reason::Credentials | Reason::SomebodyElse | Reason::AuthorizationEnded => Exit::NoPermission,
            Reason::TokenRefused | Reason::Forbidden | Reason::ServerRefuses => Exit::Unavailable,
            Reason::Unavailable | Reason::Limit | Reason::AuthorizationAwaited => Exit::Temporary,
        };
        Self::new(exit, refusal.text)
    }
}

/// Appends a line and its end.
pub fn put_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Splits off the first word. The rest begins after the blank.
pub fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = line.splitn(2, |&byte| byte == b' ');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Makes any text fit for one reply line, the log or a terminal: printable ASCII, at most 400 characters.
///
/// 400 leaves room for tag and code in the 510 bytes that old clients read (PHPMailer, RFC 5321 section 4.5.3.1.5).
pub fn printable(text: &str) -> String {
    let clean = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.trim().chars().take(400).map(clean).collect()
}

/// Makes text fit for one line of the log or of a terminal, by escaping everything that is not printable.
pub fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, letter| {
        match letter {
            '"' | '\'' | '\\' => line.push(letter),
            _ => line.extend(letter.escape_debug()),
        }
        line
    })
}

/// Makes a server's words fit to be shown, because a server may repeat what was sent to it.
pub fn quote(said: &str) -> String {
    printable(&without_tokens(said))
}

/// Removes what could be a token or a SASL message: runs of their characters that are longer than names and
/// identifiers. UUIDs have 36 characters; a slash separates the names of a path, of which only a longer one is
/// suspicious.
pub fn without_tokens(text: &str) -> String {
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '=' | '%');
    let of_base64 = |c: char| of_token(c) || c == '/';
    without_runs(&without_runs(text, 80, of_base64), 40, of_token)
}

fn without_runs(text: &str, length: usize, is_part: impl Fn(char) -> bool + Copy) -> String {
    let shorter = |run: &str| match run.trim_end_matches(|c| !is_part(c)).len() {
        long if long >= length => format!("...{}", run.get(long..).unwrap_or_default()),
        _ => run.to_owned(),
    };
    text.split_inclusive(|c| !is_part(c)).map(shorter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_stays_on_its_line() {
        assert_eq!(printable("a\r\nb\u{1b}[31m\u{1}é "), "a??b?[31m??");
        assert_eq!(printable(&"x".repeat(1000)).len(), 400);
    }

    #[test]
    fn one_line_keeps_letters_and_escapes_control_characters() {
        assert_eq!(one_line("jörg \"x\" \\ a\r\n\u{1b}[31m\u{202e}b"), r#"jörg "x" \ a\r\n\u{1b}[31m\u{202e}b"#);
    }

    #[test]
    fn what_could_be_a_token_is_removed() {
        let token = "eyJ0eXAiOiJKV1Qi_-0123456789abcdefghijklmnop";
        assert_eq!(quote(&format!("is '{token}' yours, {token}.{token}?")), "is '...' yours, .......?");
        let base64 = "dXNlcj1hbm4BYXV0aD1CZWFyZXI/".repeat(3);
        assert_eq!(quote(&format!("{base64} is not a command")), "... is not a command");
        let message = "dXNlcj1hbm5A".repeat(20);
        assert_eq!(quote(&format!("Unknown command '{message}='\u{7}")), "Unknown command '...'?");
        assert_eq!(quote(&format!("what is {message}")), "what is ...");
        let path =
            "client 01234567-89ab-cdef-0123-456789abcdef at https://help.example.test/mail/accounts/answer/78754";
        let harmless =
            "see https://example.test/ [LO2P265CA0001.GBRP265.PROD.OUTLOOK.COM 2026-11-01T00:00:00.000Z 08DE1B]";
        for text in [path, harmless] {
            assert_eq!(quote(text), text);
        }
    }

    #[test]
    fn credentials_cannot_smuggle_fields_or_lines() {
        for user in [&b""[..], b"a\x01auth=Bearer x", b"a\r\nb", b"a\0b", b"\xff", &[b'x'; 256]] {
            assert!(Credentials::parse(user, b"secret").is_none(), "{user:?}");
        }
        for password in [&b""[..], b"a\0b", &[b'x'; 1025]] {
            assert!(Credentials::parse(b"ann@example.com", password).is_none());
        }
        assert!(Credentials::parse("ann@exämple.com".as_bytes(), b"\xff\r\n").is_some());
    }

    #[test]
    fn capabilities_are_found_whatever_their_case() {
        let list = Capabilities(vec!["IMAP4rev1".into(), "SIZE 1000".into(), "STLS".into()]);
        assert!(list.has("imap4REV1") && list.has("STLS") && !list.has("IMAP4"));
        assert_eq!(list.arguments("size"), Some("1000"));
    }
}
