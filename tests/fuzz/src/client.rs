//! A client's commands, and what it must never receive.

use postkey::downstream::{self, Event, Offer, Tls};
use postkey::protocol::Protocol;
use postkey::wire::{Acceptance, Capabilities, Credentials, Refusal};

use super::cut::{self, Sizes, Wire};

/// The outcome of a client's bytes.
#[derive(PartialEq, Debug)]
struct Heard {
    out: Vec<u8>,
    logins: Vec<(String, Vec<u8>)>,
    /// The bytes after the accepted login; None if none was accepted.
    rest: Option<Vec<u8>>,
}

/// Feeds the same bytes whole and in pieces to a session that refuses all logins except those of `a...`.
pub fn commands(protocol: Protocol, input: &[u8]) {
    let Some(([choice], sizes, bytes)) = cut::options(input) else { return };
    let whole = hear(protocol, choice, bytes, None);
    assert_eq!(whole, hear(protocol, choice, bytes, Some(sizes)), "the pieces make a difference");
    check(&whole.out, bytes);
    assert!(whole.rest.is_none_or(|rest| bytes.ends_with(&rest)), "the relay does not get what was sent");
}

fn hear(protocol: Protocol, choice: u8, bytes: &[u8], sizes: Option<Sizes<'_>>) -> Heard {
    let mut dialogue = downstream::new(protocol, offer(choice));
    let mut wire = Wire::new(bytes, sizes);
    let (mut out, mut logins, mut rest) = (Vec::new(), Vec::new(), None);
    dialogue.greet(&mut out);
    while let Some(event) = wire.converse(&mut *dialogue, &mut out) {
        match event {
            Event::HangUp => break,
            // What follows is treated as if it came with TLS; `session` is more exact.
            Event::StartTls => dialogue.tls_started(),
            Event::Login(credentials) => {
                check_credentials(&credentials);
                logins.push((credentials.user.clone(), credentials.password.expose().to_vec()));
                if credentials.user.starts_with('a') {
                    dialogue.accept(&Acceptance::default(), &mut out);
                    rest = Some(wire.into_rest());
                    break;
                }
                dialogue.refuse(&Refusal::credentials(), &mut out);
            }
            Event::Mail => {
                dialogue.accept(&Acceptance::default(), &mut out);
                check_replay(&dialogue.replay());
                rest = Some(wire.into_rest());
                break;
            }
        }
    }
    Heard { out, logins, rest }
}

/// Any kind of listener, before and after postkey knows the provider's server.
pub fn offer(choice: u8) -> Offer {
    let tls = [Tls::Absent, Tls::Offered, Tls::Active][usize::from(choice) % 3];
    let known = if choice < 128 { vec![] } else { vec!["IDLE".into(), "SIZE 1000".into(), "UNAUTHENTICATE".into()] };
    Offer { host: "mail.test".into(), known: Capabilities(known), tls, asks_login: choice & 0x40 == 0 }
}

/// Nothing in a user name can end a field or a line (RFC 4616, and the fields of XOAUTH2).
pub fn check_credentials(credentials: &Credentials) {
    let (user, password) = (&credentials.user, credentials.password.expose());
    assert!((1..=255).contains(&user.len()) && !user.chars().any(char::is_control), "user name {user:?}");
    assert!((1..=1024).contains(&password.len()) && !password.contains(&0), "password");
}

/// A mail begins with one command, whatever came before it.
pub fn check_replay(replay: &[u8]) {
    let line = replay.strip_suffix(b"\r\n").expect("a whole line");
    assert!(line.to_ascii_uppercase().starts_with(b"MAIL") && !line.contains(&b'\n'), "{}", replay.escape_ascii());
}

/// Whatever a client sends, it receives short lines of printable ASCII, and not much for each of its own.
pub fn check(out: &[u8], sent: &[u8]) {
    assert!(out.ends_with(b"\r\n"));
    for line in out.split_inclusive(|&byte| byte == b'\n') {
        let text = line.strip_suffix(b"\r\n").expect("a line of its own");
        assert!(text.len() <= 510 && text.iter().all(|byte| matches!(byte, b' '..=b'~')), "{}", line.escape_ascii());
    }
    let lines = sent.iter().filter(|&&byte| byte == b'\n').count() + 2;
    assert!(out.len() <= 600 * lines, "{} bytes in answer to {lines} lines", out.len());
}
