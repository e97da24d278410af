//! SMTP submission (RFC 5321, RFC 6409, RFC 4954) before authentication, seen from the server.

use std::net::IpAddr;

use super::dialogue::{Commands, Offer, Reaction, Replies, Tls, shown, verb};
use super::exchange::Exchange;
use crate::wire::{Acceptance, Frame, Reason, Refusal, printable, put_line, split_word};

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

/// AUTH is accepted without EHLO, because printers send only HELO, and nothing at all after STARTTLS.
#[derive(Default)]
pub struct Smtp {
    client_name: Option<String>,
    /// The command that started a mail without a login; the provider has not seen it yet.
    mail: Vec<u8>,
}

impl Commands for Smtp {
    const REPLIES: Replies = Replies {
        challenge: "334",
        cancelled: "501 5.5.2 AUTH cancelled.",
        malformed: "501 5.5.2 Malformed AUTH.",
        too_long: "500 5.5.6 Line too long.",
        unknown_mechanism: "504 5.5.4 Unsupported mechanism.",
        too_many: "421 4.7.0 Too many bad commands.",
        goodbye: "421 4.3.2",
    };

    fn read(&mut self, frame: Frame<'_>, offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        let Frame::Line(line) = frame else { return Reaction::Mistake(Self::REPLIES.too_long) };
        let (word, argument) = split_word(line.trim_ascii_end());
        match (verb(word).as_str(), offer.tls) {
            ("EHLO", _) => {
                self.client_name = name(argument);
                ehlo(offer, out)
            }
            ("HELO", _) => {
                self.client_name = name(argument);
                ok(&format!("250 {}", offer.host), out)
            }
            ("NOOP", _) => ok("250 2.0.0 Nothing done.", out),
            ("RSET", _) => ok("250 2.0.0 Nothing to reset.", out),
            ("HELP", _) if offer.asks_login => ok("214 2.0.0 Log in with AUTH PLAIN or AUTH LOGIN.", out),
            ("HELP", _) => ok("214 2.0.0 Send mail; no login is needed.", out),
            ("VRFY", _) => ok("252 2.1.5 Send mail and see.", out),
            ("EXPN", _) => ok("502 5.5.1 EXPN is not supported.", out),
            ("QUIT", _) => {
                ok("221 2.0.0 Bye.", out);
                Reaction::HangUp
            }
            ("STARTTLS", Tls::Offered) if argument.is_empty() => {
                ok("220 2.0.0 Ready to start TLS.", out);
                Reaction::StartTls
            }
            ("STARTTLS", Tls::Offered) => Reaction::Mistake("501 5.5.4 STARTTLS takes no argument."),
            ("STARTTLS", _) => Reaction::Mistake("502 5.5.1 STARTTLS is not offered here."),
            ("AUTH", Tls::Offered) => Reaction::Mistake("538 5.7.11 Must issue a STARTTLS command first."),
            ("AUTH", _) if offer.asks_login => Reaction::Login(Exchange::begin(argument)),
            // Some programs take 503 for an acceptance, which is right here.
            ("AUTH", _) => Reaction::Mistake("503 5.5.1 No login is needed here; go on with MAIL."),
            ("MAIL" | "RCPT" | "DATA" | "BDAT", Tls::Offered) => {
                Reaction::Mistake("530 5.7.0 Must issue a STARTTLS command first.")
            }
            ("MAIL", _) if !offer.asks_login => {
                // The session logs in; then the command goes to the provider.
                self.mail = [line, b"\r\n"].concat();
                Reaction::Mail
            }
            ("RCPT" | "DATA" | "BDAT", _) if !offer.asks_login => Reaction::Mistake("503 5.5.1 MAIL comes first."),
            ("MAIL" | "RCPT" | "DATA" | "BDAT", _) => Reaction::Mistake("530 5.7.0 Authentication required."),
            ("LHLO" | "XCLIENT" | "XFORWARD", _) => Reaction::Mistake("502 5.5.1 Command not supported."),
            _ => Reaction::Mistake("500 5.5.2 Unknown command."),
        }
    }

    /// Greets with the word ESMTP, because some old agents send EHLO only then.
    fn greet(&self, offer: &Offer, out: &mut Vec<u8>) {
        put_line(out, &format!("220 {} ESMTP postkey ready.", offer.host));
    }

    /// The provider answers a mail that was started.
    fn accept(&self, _: &Acceptance, offer: &Offer, out: &mut Vec<u8>) {
        if offer.asks_login {
            put_line(out, "235 2.7.0 Authentication successful.");
        }
    }

    fn refuse(&self, refusal: &Refusal, is_mail: bool, out: &mut Vec<u8>) {
        let status = if is_mail { mail_status } else { status };
        put_line(out, &format!("{} {}", status(refusal.reason), printable(&refusal.text)));
    }

    fn replay(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.mail)
    }

    fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }
}

/// The second form of AUTH is for programs older than RFC 2554, which look for nothing else.
fn ehlo(offer: &Offer, out: &mut Vec<u8>) -> Reaction {
    let login: &[&str] = match (offer.tls, offer.asks_login) {
        (Tls::Offered, _) => &["STARTTLS"],
        (Tls::Absent | Tls::Active, true) => &["AUTH PLAIN LOGIN", "AUTH=PLAIN LOGIN"],
        (Tls::Absent | Tls::Active, false) => &[],
    };
    let mut lines = vec![offer.host.as_str()];
    lines.extend(shown(&offer.known, HIDDEN));
    lines.extend(login);
    let last = lines.pop().unwrap_or_default();
    lines.iter().for_each(|line| put_line(out, &format!("250-{line}")));
    ok(&format!("250 {last}"), out)
}

fn ok(line: &str, out: &mut Vec<u8>) -> Reaction {
    put_line(out, line);
    Reaction::Command
}

/// The status that refuses a mail without a login. What a person can fix is temporary, so that senders with a queue keep the mail
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

/// Rejects names whose last label is a number: servers take them for malformed addresses, although the grammar allows
/// them.
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
    fn only_domains_and_addresses_are_passed_on() {
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
