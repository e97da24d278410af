//! SMTP submission (RFC 5321, RFC 6409, RFC 4954) before authentication, seen from the server.

use std::net::IpAddr;

use super::dialogue::{Downstream, Event, Offer, Tls, reply, shown, split_word, verb};
use super::exchange::{Exchange, SaslFailure, Step};
use super::manners::Manners;
use crate::wire::{Acceptance, Dialogue, Frame, Reason, Refusal, Want, printable, sasl};

/// The longest command line. RFC 5321 section 4.5.3.1.4 allows 512; an initial response with a long password needs
/// more.
const LINE: usize = 2048;

/// The provider's extensions that are hidden before the login: those that we announce ourselves, other ways to log in,
/// and those that concern the connection and not the mail.
///
/// REQUIRETLS (RFC 8689) promises TLS on a connection that may have none here. LIMITS (RFC 9422) is for a connection
/// without a login. PIPECONNECT is Exim's pipelining before the greeting. ETRN (RFC 1985) and ATRN (RFC 2645) start
/// queues for whoever connects. Names that begin with X are private to two servers (RFC 5321 section 2.2.2), and we are
/// neither: XCLIENT, XFORWARD, X-EXPS, X-ANONYMOUSTLS, X_PIPE_CONNECT.
const HIDDEN: &[&str] = &[
    "AUTH",
    "AUTH=",
    "STARTTLS",
    "CLIENTID",
    "BURL",
    "REQUIRETLS",
    "LIMITS",
    "PIPECONNECT",
    "TURN",
    "ETRN",
    "ATRN",
    "X*",
];

/// The dialogue with an SMTP client.
pub struct Smtp {
    offer: Offer,
    state: State,
    manners: Manners,
    client_name: Option<String>,
    /// The command that started a mail without a login; the provider has not seen it yet.
    mail: Vec<u8>,
}

/// The state of the dialogue: what it waits for.
enum State {
    /// A command. AUTH is accepted without EHLO, because printers send only HELO, and nothing at all after STARTTLS.
    Ready,
    /// The next line of an AUTH.
    Sasl(Exchange),
    /// The session's decision about a login.
    Decision,
    /// The end of the TLS handshake.
    Handshake,
    /// Nothing more; the dialogue is over.
    Over,
}

impl Dialogue for Smtp {
    type Event = Event;

    fn want(&self) -> Want {
        match &self.state {
            State::Ready => Want::Line { limit: LINE },
            State::Sasl(_) => Want::Line { limit: sasl::LINE_LIMIT },
            State::Decision | State::Handshake | State::Over => Want::Nothing,
        }
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        if self.manners.foreign(frame) {
            return self.hang_up();
        }
        match (&self.state, frame) {
            (State::Ready, Frame::Line(line)) => self.command(line, out),
            (State::Ready, Frame::Overlong(_)) => self.mistake("500 5.5.6 Line too long.", out),
            (State::Sasl(_), frame) => self.answer(frame, out),
            _ => None,
        }
    }
}

impl Downstream for Smtp {
    /// Greets with the word ESMTP, because some old agents send EHLO only then.
    fn greet(&mut self, out: &mut Vec<u8>) {
        reply(out, &format!("220 {} ESMTP postkey ready.", self.offer.host));
    }

    fn tls_started(&mut self) {
        *self = Self::new(Offer { tls: Tls::Active, ..self.offer.clone() });
    }

    /// The provider answers a mail that was started.
    fn accept(&mut self, _: &Acceptance, out: &mut Vec<u8>) {
        self.state = State::Over;
        if self.offer.asks_login {
            reply(out, "235 2.7.0 Authentication successful.");
        }
    }

    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        self.state = State::Ready;
        let status = if self.offer.asks_login { status } else { mail_status };
        refuse(status(refusal.reason), &refusal.text, out);
    }

    fn replay(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.mail)
    }

    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>) {
        self.state = State::Over;
        reply(out, &format!("421 4.3.2 {}", printable(why)));
    }

    fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }
}

impl Smtp {
    /// Creates a dialogue that has not greeted yet.
    pub fn new(offer: Offer) -> Self {
        Self { offer, state: State::Ready, manners: Manners::default(), client_name: None, mail: Vec::new() }
    }

    fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        let (word, argument) = split_word(line.trim_ascii_end());
        match (verb(word).as_str(), self.offer.tls) {
            ("EHLO", _) => self.ehlo(argument, out),
            ("HELO", _) => {
                self.client_name = name(argument);
                ok(&format!("250 {}", self.offer.host), out)
            }
            ("NOOP", _) => ok("250 2.0.0 Nothing done.", out),
            ("RSET", _) => ok("250 2.0.0 Nothing to reset.", out),
            ("HELP", _) if self.offer.asks_login => ok("214 2.0.0 Log in with AUTH PLAIN or AUTH LOGIN.", out),
            ("HELP", _) => ok("214 2.0.0 Send mail; no login is needed.", out),
            ("VRFY", _) => ok("252 2.1.5 Send mail and see.", out),
            ("EXPN", _) => ok("502 5.5.1 EXPN is not supported.", out),
            ("QUIT", _) => {
                ok("221 2.0.0 Bye.", out);
                self.hang_up()
            }
            ("STARTTLS", Tls::Offered) if argument.is_empty() => {
                self.state = State::Handshake;
                ok("220 2.0.0 Ready to start TLS.", out);
                Some(Event::StartTls)
            }
            ("STARTTLS", Tls::Offered) => self.mistake("501 5.5.4 STARTTLS takes no argument.", out),
            ("STARTTLS", _) => self.mistake("502 5.5.1 STARTTLS is not offered here.", out),
            ("AUTH", Tls::Offered) => self.mistake("538 5.7.11 Must issue a STARTTLS command first.", out),
            ("AUTH", _) if self.offer.asks_login => self.step(Exchange::begin(argument), out),
            // Some programs take 503 for an acceptance, which is right here.
            ("AUTH", _) => self.mistake("503 5.5.1 No login is needed here; go on with MAIL.", out),
            ("MAIL" | "RCPT" | "DATA" | "BDAT", Tls::Offered) => {
                self.mistake("530 5.7.0 Must issue a STARTTLS command first.", out)
            }
            ("MAIL", _) if !self.offer.asks_login => self.begin_mail(line),
            ("RCPT" | "DATA" | "BDAT", _) if !self.offer.asks_login => self.mistake("503 5.5.1 MAIL comes first.", out),
            ("MAIL" | "RCPT" | "DATA" | "BDAT", _) => self.mistake("530 5.7.0 Authentication required.", out),
            ("LHLO" | "XCLIENT" | "XFORWARD", _) => self.mistake("502 5.5.1 Command not supported.", out),
            _ => self.mistake("500 5.5.2 Unknown command.", out),
        }
    }

    /// Waits until the session has logged in; then the command goes to the provider.
    fn begin_mail(&mut self, line: &[u8]) -> Option<Event> {
        self.mail = [line, b"\r\n"].concat();
        self.state = State::Decision;
        Some(Event::Mail)
    }

    /// The second form of AUTH is for programs older than RFC 2554, which look for nothing else.
    fn ehlo(&mut self, argument: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        self.client_name = name(argument);
        let login: &[&str] = match (self.offer.tls, self.offer.asks_login) {
            (Tls::Offered, _) => &["STARTTLS"],
            (Tls::Absent | Tls::Active, true) => &["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"],
            (Tls::Absent | Tls::Active, false) => &[],
        };
        let mut lines = vec![self.offer.host.as_str()];
        lines.extend(shown(&self.offer.known, HIDDEN));
        lines.extend(login);
        let last = lines.pop().unwrap_or_default();
        lines.iter().for_each(|line| reply(out, &format!("250-{line}")));
        ok(&format!("250 {last}"), out)
    }

    fn answer(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Sasl(exchange) => self.step(exchange.take(frame), out),
            _ => None,
        }
    }

    /// Continues an AUTH.
    fn step(&mut self, step: Result<Step, SaslFailure>, out: &mut Vec<u8>) -> Option<Event> {
        match step {
            Ok(Step::Ask(exchange)) => {
                reply(out, &format!("334 {}", exchange.prompt()));
                self.state = State::Sasl(exchange);
                None
            }
            Ok(Step::Login(credentials)) => {
                self.state = State::Decision;
                Some(Event::Login(credentials))
            }
            Err(failure) => self.failed(failure, out),
        }
    }

    fn failed(&mut self, failure: SaslFailure, out: &mut Vec<u8>) -> Option<Event> {
        match failure {
            SaslFailure::Cancelled => self.mistake("501 5.5.2 AUTH cancelled.", out),
            SaslFailure::Malformed => self.mistake("501 5.5.2 Malformed AUTH.", out),
            SaslFailure::TooLong => self.mistake("500 5.5.6 Line too long.", out),
            SaslFailure::Mechanism => self.mistake("504 5.5.4 Unsupported mechanism.", out),
            SaslFailure::Credentials => {
                let refusal = Refusal::credentials();
                refuse(status(refusal.reason), &refusal.text, out);
                None
            }
        }
    }

    /// Answers a mistake. After too many, it says goodbye instead.
    fn mistake(&mut self, answer: &str, out: &mut Vec<u8>) -> Option<Event> {
        if self.manners.mistake() {
            reply(out, "421 4.7.0 Too many bad commands.");
            return self.hang_up();
        }
        reply(out, answer);
        None
    }

    fn hang_up(&mut self) -> Option<Event> {
        self.state = State::Over;
        Some(Event::HangUp)
    }
}

fn ok(line: &str, out: &mut Vec<u8>) -> Option<Event> {
    reply(out, line);
    None
}

fn refuse(status: &str, text: &str, out: &mut Vec<u8>) {
    reply(out, &format!("{status} {}", printable(text)));
}

/// The same for a mail without a login. What a person can fix is temporary, so that senders with a queue keep the mail
/// until then.
const fn mail_status(reason: Reason) -> &'static str {
    match reason {
        Reason::Forbidden | Reason::SomebodyElse => "550 5.7.1",
        Reason::ServerRefuses => SERVER_REFUSES,
        Reason::Credentials | Reason::TokenRefused | Reason::AuthorizationEnded | Reason::AuthorizationAwaited => {
            "451 4.7.0"
        }
        Reason::Unavailable | Reason::Limit => "451 4.3.0",
    }
}

/// RFC 4954 section 6. 535 for everything that does not pass by itself, because clients know it, but not 525.
///
/// Never 503, which Python's smtplib takes for an acceptance; never 530, after which Java Mail tries STARTTLS.
const fn status(reason: Reason) -> &'static str {
    match reason {
        Reason::Credentials
        | Reason::SomebodyElse
        | Reason::TokenRefused
        | Reason::AuthorizationEnded
        | Reason::Forbidden => "535 5.7.8",
        Reason::Unavailable | Reason::Limit | Reason::AuthorizationAwaited => "454 4.7.0",
        Reason::ServerRefuses => SERVER_REFUSES,
    }
}

/// Permanent, so that no queue tries for days, and not about the password, which programs forget after a 535 (decision
/// 0013).
const SERVER_REFUSES: &str = "554 5.3.0";

/// The client's EHLO name, as it is passed to the provider: a domain, or an address literal (RFC 5321 sections 4.1.2
/// and 4.1.3). An address is understood in every form that programs write, and passed on in the standard form. Anything
/// else is not passed on, because strict servers refuse the login for it.
fn name(argument: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(argument.trim_ascii()).ok()?;
    match address(name) {
        Some(IpAddr::V4(address)) => Some(format!("[{address}]")),
        Some(IpAddr::V6(address)) => Some(format!("[IPv6:{address}]")),
        None => is_domain(name).then(|| name.to_owned()),
    }
}

/// Servers take names whose last label is a number for broken addresses, whatever the grammar says.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        let of_label = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && of_label && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 255 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

/// An IPv4 address that an IPv6 socket has mapped counts as IPv4.
fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let tagged = bare.split_at_checked(5).filter(|(tag, _)| tag.eq_ignore_ascii_case("IPv6:"));
    let address: IpAddr = match tagged {
        Some((_, address)) => IpAddr::V6(address.parse().ok()?),
        None => bare.parse().ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn only_domains_and_addresses_are_repeated() {
        for (said, repeated) in [
            ("mail.example.test", "mail.example.test"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("3com.example", "3com.example"),
            ("[127.0.0.1]", "[127.0.0.1]"),
            ("127.0.0.1", "[127.0.0.1]"),
            ("[IPv6:::1]", "[IPv6:::1]"),
            ("[ipv6:::1]", "[IPv6:::1]"),
            ("[::1]", "[IPv6:::1]"),
            ("fe80::1", "[IPv6:fe80::1]"),
            ("[IPv6:::ffff:10.0.4.47]", "[10.0.4.47]"),
            ("::ffff:10.0.4.47", "[10.0.4.47]"),
            (" pc.example ", "pc.example"),
        ] {
            assert_eq!(name(said.as_bytes()).as_deref(), Some(repeated), "{said}");
        }
        let long = ["x"; 200].join(".");
        for bad in [
            "",
            "OFFICE_PC",
            "shop_web_1.shop_internal",
            "a b",
            "-x",
            "x-",
            "a..b",
            "a.",
            "[127.0.0.1",
            "[300.0.0.1]",
            "300.0.0.1",
            "pc.7",
            "[fe80::1%eth0]",
            "[IPv6:10.0.4.47]",
            "[office]",
            "b\u{fc}ro.example",
            "a\x01b",
            "pc<1>",
            &long,
            &"x".repeat(64),
        ] {
            assert_eq!(name(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
