//! The trace of the dialogues, which is safe to publish: the direction, verb or reply code, and size of each line.
//!
//! It shows only words from fixed lists and never copies the wire, so it cannot contain names or secrets, wherever in a
//! line they are. It does contain sizes, which show how long a password is.

use std::cell::RefCell;

use tracing::{Level, enabled, trace};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::protocol::Protocol;
use crate::wire::{Frame, split_word};

/// The target of the trace in the log.
const TARGET: &str = "dialogue";

/// Shown for a line that begins with none of the listed words.
const UNKNOWN: &str = "?";

/// Shown for a line or block that continues a command: a SASL message, a literal, and what follows one.
const DATA: &str = "data";

/// The commands of IMAP, POP3 and SMTP.
const COMMANDS: &str = "APOP AUTH AUTHENTICATE BDAT CAPA CAPABILITY DATA DELE EHLO ENABLE EXAMINE EXPN HELO HELP ID LAST LHLO \
    LIST LOGIN LOGOUT MAIL NAMESPACE NOOP PASS QUIT RCPT RETR RSET SELECT STARTTLS STAT STATUS STLS TOP UIDL USER VRFY";

/// How replies of IMAP and POP3 begin.
const STATUS: &str = "OK NO BAD BYE PREAUTH CAPABILITY ID ENABLED +OK -ERR + .";

/// Response codes of RFC 3501, RFC 5530 and RFC 2221; of RFC 2449, RFC 3206.
const CODES: &str = "ALERT AUTHENTICATIONFAILED AUTHORIZATIONFAILED CAPABILITY CLIENTBUG CONTACTADMIN EXPIRED INUSE LIMIT \
    PRIVACYREQUIRED REFERRAL SERVERBUG UNAVAILABLE AUTH IN-USE LOGIN-DELAY SYS/PERM SYS/TEMP";

/// The kind of peer at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracedPeer {
    /// A mail program, which sends commands.
    Client,
    /// A provider's server, which sends replies.
    Provider,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    From,
    To,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineKind {
    Command,
    Reply,
}

/// The trace of one connection.
pub struct Trace {
    protocol: Protocol,
    peer: TracedPeer,
    /// The next line from the sender of commands continues the last one, and may be anything.
    continues: bool,
}

tokio::task_local! {
    static OVERHEARD: RefCell<Vec<String>>;
}

/// Runs a future, and collects what its connections trace.
pub async fn overhear<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    let kept = async { (work.await, OVERHEARD.with(RefCell::take)) };
    OVERHEARD.scope(RefCell::default(), kept).await
}

/// Traces how many bytes were relayed between a client and its provider after the login.
pub fn relayed(protocol: Protocol, up: u64, down: u64) {
    tell(protocol, format!("relayed: {up} bytes to provider, {down} bytes to client"));
}

impl Trace {
    /// Starts the trace of a new connection.
    pub const fn new(protocol: Protocol, peer: TracedPeer) -> Self {
        Self { protocol, peer, continues: false }
    }

    /// Notes that the TLS handshake is done; a new dialogue follows.
    pub fn tls_started(self) -> Self {
        self.tell(Direction::From, "TLS", None);
        Self::new(self.protocol, self.peer)
    }

    /// Traces what the peer has sent.
    pub fn received(&mut self, frame: Frame<'_>) {
        if !is_read() {
            return;
        }
        let (bytes, shown) = match frame {
            Frame::Line(line) => (line, self.line(Direction::From, line)),
            Frame::Literal(bytes) => {
                self.continues = true;
                (bytes, DATA.to_owned())
            }
            Frame::Overlong(start) => {
                self.continues = false;
                (start, "overlong".to_owned())
            }
        };
        self.tell(Direction::From, &shown, Some(bytes.len()));
    }

    /// Traces what was sent to the peer, in whole lines.
    pub fn sent(&mut self, lines: &[u8]) {
        if !is_read() {
            return;
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let shown = self.line(Direction::To, line);
            self.tell(Direction::To, &shown, Some(line.len()));
        }
    }

    /// Traces that the peer has ended its side.
    pub fn ended(&self) {
        self.tell(Direction::From, "end", None);
    }

    /// The part of a line that can be shown at this point of the dialogue.
    fn line(&mut self, direction: Direction, line: &[u8]) -> String {
        let is_command = (self.peer == TracedPeer::Client) == (direction == Direction::From);
        let kind = if is_command { LineKind::Command } else { LineKind::Reply };
        if kind == LineKind::Command && std::mem::take(&mut self.continues) {
            return DATA.to_owned();
        }
        let shown = shown(self.protocol, kind, line);
        self.continues |= kind == LineKind::Reply && ["+", "334"].contains(&shown.as_str());
        shown
    }

    fn tell(&self, direction: Direction, shown: &str, bytes: Option<usize>) {
        let direction = if direction == Direction::From { "from" } else { "to" };
        let peer = if self.peer == TracedPeer::Client { "client" } else { "provider" };
        let bytes = bytes.map(|bytes| format!(", {bytes} bytes")).unwrap_or_default();
        tell(self.protocol, format!("{direction} {peer}: {shown}{bytes}"));
    }
}

/// The log filter for the trace and nothing else, because other lines name accounts.
pub fn filter() -> Targets {
    Targets::new().with_target(TARGET, LevelFilter::TRACE)
}

/// Whether anybody reads the trace. Most logins have none to write.
fn is_read() -> bool {
    enabled!(target: TARGET, Level::TRACE) || OVERHEARD.try_with(|_| ()).is_ok()
}

/// Logs without a parent span, because the session's span has the client's address. The task's number distinguishes
/// sessions.
fn tell(protocol: Protocol, line: String) {
    let session = tokio::task::try_id().map(tracing::field::display);
    trace!(target: TARGET, parent: None, protocol = protocol.name(), session, "{line}");
    // Usually nobody collects the trace.
    let _nobody = OVERHEARD.try_with(|lines| lines.borrow_mut().push(line));
}

/// The words of a line that are safe to show.
fn shown(protocol: Protocol, kind: LineKind, line: &[u8]) -> String {
    let (first, rest) = split_word(line);
    match (protocol, kind) {
        // An IMAP tag may be anything, so it is not shown; but `*` is.
        (Protocol::Imap, LineKind::Command) => listed(COMMANDS, split_word(rest).0).to_owned(),
        (Protocol::Imap, LineKind::Reply) if first == b"*" => format!("* {}", reply(rest)),
        (Protocol::Imap, LineKind::Reply) if first != b"+" => reply(rest),
        (Protocol::Imap | Protocol::Pop3, LineKind::Reply) => reply(line),
        (Protocol::Smtp, LineKind::Reply) => smtp_reply(line),
        (Protocol::Pop3 | Protocol::Smtp, LineKind::Command) => listed(COMMANDS, first).to_owned(),
    }
}

/// A status, and the response code in brackets after it.
fn reply(line: &[u8]) -> String {
    let (status, rest) = split_word(line);
    let status = listed(STATUS, status);
    let code = rest.strip_prefix(b"[").and_then(|rest| rest.split(|byte| b" ]".contains(byte)).next());
    match code.map(|code| listed(CODES, code)) {
        Some(code) if ![UNKNOWN, "+"].contains(&status) && code != UNKNOWN => format!("{status} [{code}]"),
        _ => status.to_owned(),
    }
}

/// The reply code and the enhanced status code (RFC 5321 section 4.2, RFC 3463), as numbers.
fn smtp_reply(line: &[u8]) -> String {
    let (code, rest) = line.split_at_checked(3).unwrap_or((line, b""));
    let code = number(code).filter(|code| (200..600).contains(code));
    let (Some(code), b"" | [b' ' | b'-', ..]) = (code, rest) else { return UNKNOWN.to_owned() };
    let enhanced: Vec<_> =
        split_word(rest.get(1..).unwrap_or_default()).0.split(|byte| *byte == b'.').map(number).collect();
    match *enhanced {
        [Some(class @ (2 | 4 | 5)), Some(subject @ 0..=7), Some(detail)] if class == code / 100 => {
            format!("{code} {class}.{subject}.{detail}")
        }
        _ => code.to_string(),
    }
}

/// A number of at most three digits.
fn number(digits: &[u8]) -> Option<u16> {
    let is_number = digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// The entry of the list that equals this word, ignoring case.
fn listed(list: &'static str, word: &[u8]) -> &'static str {
    list.split(' ').find(|entry| entry.as_bytes().eq_ignore_ascii_case(word)).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::LineKind::{Command, Reply};
    use super::*;
    use Protocol::{Imap, Pop3, Smtp};

    const TABLE: &[(Protocol, LineKind, &[u8], &str)] = &[
        (Imap, Command, b"a1 LOGIN \"ann@example.test\" \"hunter2\"", "LOGIN"),
        (Imap, Command, b"hunter2 authenticate PLAIN AGFubgBodW50ZXIy", "AUTHENTICATE"),
        (Imap, Command, b"a hunter2", "?"),
        (Imap, Command, b"hunter2", "?"),
        (Imap, Command, b"LOGIN", "?"),
        (Imap, Command, b"a LOGINhunter2", "?"),
        (Imap, Command, b"a LOGIN\tann\thunter2", "?"),
        (Imap, Command, b"AGFubgBodW50ZXIy", "?"),
        (Imap, Command, b"", "?"),
        (Imap, Command, b"\x16\x03\x01", "?"),
        (Imap, Reply, b"* OK [CAPABILITY IMAP4rev1 X-ANN] mail.example.test", "* OK [CAPABILITY]"),
        (Imap, Reply, b"* CAPABILITY IMAP4rev1 AUTH=XOAUTH2", "* CAPABILITY"),
        (Imap, Reply, b"+ eyJzdGF0dXMiOiI0MDEifQ==", "+"),
        (Imap, Reply, b"+", "+"),
        (Imap, Reply, b"hunter2 NO [AUTHENTICATIONFAILED] ann@example.test", "NO [AUTHENTICATIONFAILED]"),
        (Imap, Reply, b"a no [hunter2] no", "NO"),
        (Imap, Reply, b"a OK [REFERRAL imap://ann@example.test/] moved", "OK [REFERRAL]"),
        (Imap, Reply, b"* BYE ann@example.test", "* BYE"),
        (Imap, Reply, b"* hunter2 [ALERT] x", "* ?"),
        (Imap, Reply, b"\x1b[31m hunter2", "?"),
        (Pop3, Command, b"USER ann@example.test", "USER"),
        (Pop3, Command, b"pass hunter2", "PASS"),
        (Pop3, Command, b"hunter2", "?"),
        (Pop3, Command, b"PASShunter2", "?"),
        (Pop3, Command, b" hunter2 PASS", "?"),
        (Pop3, Command, b"AUTH XOAUTH2 dXNlcj1hbm4=", "AUTH"),
        (Pop3, Reply, b"+OK <1896.697170952@example.test>", "+OK"),
        (Pop3, Reply, b"+OK [TABPADIUAAxADIAMwA=]", "+OK"),
        (Pop3, Reply, b"-ERR [SYS/TEMP] ann@example.test", "-ERR [SYS/TEMP]"),
        (Pop3, Reply, b"-err [AUTH", "-ERR [AUTH]"),
        (Pop3, Reply, b"+ ", "+"),
        (Pop3, Reply, b"+eyJzdGF0dXMiOiI0MDEifQ==", "?"),
        (Pop3, Reply, b"SASL PLAIN hunter2", "?"),
        (Pop3, Reply, b".", "."),
        (Smtp, Command, b"EHLO anns-laptop.example.test", "EHLO"),
        (Smtp, Command, b"AUTH PLAIN AGFubgBodW50ZXIy", "AUTH"),
        (Smtp, Command, b"MAIL FROM:<ann@example.test>", "MAIL"),
        (Smtp, Command, b"hunter2 AUTH", "?"),
        (Smtp, Command, b"AUTH:hunter2", "?"),
        (Smtp, Command, b"GET / HTTP/1.1", "?"),
        (Smtp, Reply, b"220 mail.example.test ESMTP", "220"),
        (Smtp, Reply, b"250-AUTH PLAIN LOGIN", "250"),
        (Smtp, Reply, b"235 2.7.0 ann@example.test", "235 2.7.0"),
        (Smtp, Reply, b"535-5.7.8 no", "535 5.7.8"),
        (Smtp, Reply, b"535 5.7.139 no", "535 5.7.139"),
        (Smtp, Reply, b"535 5.7.hunter2 no", "535"),
        (Smtp, Reply, b"535 5.7.+1", "535"),
        (Smtp, Reply, b"535 9.7.1 no", "535"),
        (Smtp, Reply, b"535 2.7.1 no", "535"),
        (Smtp, Reply, b"334 4.1.2", "334"),
        (Smtp, Reply, b"535 5.7.1.hunter2", "535"),
        (Smtp, Reply, b"535", "535"),
        (Smtp, Reply, b"5357hunter2", "?"),
        (Smtp, Reply, b"+35 hunter2", "?"),
        (Smtp, Reply, b"999 hunter2", "?"),
        (Smtp, Reply, b"hunter2", "?"),
        (Smtp, Reply, "5\u{663}5 x".as_bytes(), "?"),
    ];

    #[test]
    fn only_listed_words_are_shown() {
        for (protocol, kind, line, expected) in TABLE {
            assert_eq!(shown(*protocol, *kind, line), *expected, "{}", String::from_utf8_lossy(line));
        }
    }

    /// The trace of a dialogue: lines that begin with `<` came from the peer.
    async fn traced(protocol: Protocol, peer: TracedPeer, dialogue: &[&str]) -> Vec<String> {
        let talk = async {
            let mut trace = Trace::new(protocol, peer);
            for line in dialogue {
                match line.split_at(1) {
                    ("<", line) => trace.received(Frame::Line(line.as_bytes())),
                    ("{", literal) => trace.received(Frame::Literal(literal.as_bytes())),
                    ("~", start) => trace.received(Frame::Overlong(start.as_bytes())),
                    (_, lines) => trace.sent(lines.as_bytes()),
                }
            }
        };
        let (_, lines) = overhear(talk).await;
        lines.iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
    }

    /// Each of these secrets is also the name of a command.
    #[tokio::test]
    async fn what_continues_a_command_is_not_shown() {
        let smtp =
            ["<AUTH LOGIN", ">334 VXNlcm5hbWU6\r\n", "<QUIT", ">334 UGFzc3dvcmQ6\r\n", "<DATA", ">535 x\r\n", "<QUIT"];
        let shown = ["AUTH, 10", "334, 16", "data, 4", "334, 16", "data, 4", "535, 5", "QUIT, 4"]
            .map(|it| format!("{it} bytes"));
        assert_eq!(traced(Smtp, TracedPeer::Client, &smtp).await, shown);
        let imap = ["<a LOGIN {3+}", "{ann", "< {4+}", "{a ID", "< NOOP", "<b NOOP"];
        let shown =
            ["LOGIN, 12", "data, 3", "data, 5", "data, 4", "data, 5", "NOOP, 6"].map(|it| format!("{it} bytes"));
        assert_eq!(traced(Imap, TracedPeer::Client, &imap).await, shown);
        let pop3 = [">AUTH XOAUTH2\r\n", "<+ ", ">QUIT\r\n", "<-ERR [AUTH] x", ">QUIT\r\n", "~+OK"];
        let shown = ["AUTH, 12", "+, 2", "data, 4", "-ERR [AUTH], 13", "QUIT, 4", "overlong, 3"]
            .map(|it| format!("{it} bytes"));
        assert_eq!(traced(Pop3, TracedPeer::Provider, &pop3).await, shown);
    }
}
