//! What a provider's server sends, and what it must never make us do.

use postkey::protocol::{Mechanism, Protocol, Security};
use postkey::secret::Token;
use postkey::upstream::{self, Approach, Event, Fault};
use postkey::wire::{Acceptance, Bearer, Capabilities};

use super::cut::{self, Sizes, Wire};

/// The outcome of a server's bytes.
#[derive(PartialEq, Debug)]
struct Heard {
    /// Before TLS.
    clear: Vec<u8>,
    /// With TLS.
    out: Vec<u8>,
    events: Vec<Event>,
    /// The bytes after the acceptance, if there was one.
    rest: Option<Vec<u8>>,
}

/// Feeds the same bytes whole and in pieces to a session that sends its bearer as soon as it can.
pub fn replies(protocol: Protocol, input: &[u8]) {
    let Some(([choice], sizes, bytes)) = cut::options(input) else { return };
    let whole = hear(protocol, choice, bytes, None);
    assert_eq!(whole, hear(protocol, choice, bytes, Some(sizes)), "the pieces make a difference");
    check_clear(&whole.clear);
    check_out(&whole.out);
    assert!(whole.events.len() <= 3, "{:?}", whole.events);
    whole.events.iter().for_each(check_event);
    assert!(whole.rest.is_none_or(|rest| bytes.ends_with(&rest)), "the relay does not get what was sent");
}

fn hear(protocol: Protocol, choice: u8, bytes: &[u8], sizes: Option<Sizes<'_>>) -> Heard {
    let mut dialogue = upstream::new(protocol, approach(choice, "client.test"));
    let mut wire = Wire::new(bytes, sizes);
    let (mut clear, mut out, mut events, mut rest) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut coming = None;
    while let Some(event) = coming.take().or_else(|| wire.converse(&mut *dialogue, &mut out)) {
        match &event {
            Event::StartTls => {
                clear = std::mem::take(&mut out);
                coming = dialogue.tls_started(&mut out);
            }
            Event::Ready(_) => coming = dialogue.authenticate(bearer(choice), &mut out).err().map(Event::Unexpected),
            Event::Accepted(_) | Event::Rejected(_) | Event::Unexpected(_) => {}
        }
        let goes_on = matches!(event, Event::StartTls | Event::Ready(_));
        let accepted = matches!(event, Event::Accepted(_));
        events.push(event);
        if !goes_on {
            rest = accepted.then(|| wire.into_rest());
            break;
        }
    }
    Heard { clear, out, events, rest }
}

/// Any way to a server, with known capabilities or without.
pub fn approach(choice: u8, client_name: &str) -> Approach {
    let security = if choice.is_multiple_of(2) { Security::Tls } else { Security::StartTls };
    let known =
        if choice < 192 { vec![] } else { vec!["AUTH=XOAUTH2".into(), "SASL XOAUTH2".into(), "SASL-IR".into()] };
    let other_name = (choice & 4 != 0).then(|| "other.test".into());
    Approach { security, client_name: client_name.into(), other_name, known: Capabilities(known) }
}

/// The bearer, which only the server may see, and only with TLS.
pub fn bearer(choice: u8) -> Bearer {
    let mut mechanisms = vec![Mechanism::XOAuth2, Mechanism::OAuthBearer];
    mechanisms.rotate_left(usize::from(choice & 2) / 2);
    Bearer { user: "ann@example.test".into(), token: Token::parse("tok-123").expect("a token"), mechanisms }
}

/// Before TLS, only a hello and STARTTLS may be sent.
pub fn check_clear(out: &[u8]) {
    let text = String::from_utf8_lossy(out);
    let harmless =
        |line: &str| line.starts_with("EHLO ") || line.ends_with("STARTTLS") || line == "CAPA" || line == "STLS";
    assert!(text.lines().all(harmless), "in clear: {text:?}");
}

/// A server receives some lines of ours, and the bearer at most once.
pub fn check_out(out: &[u8]) {
    assert!(out.len() < 1000 && (out.is_empty() || out.ends_with(b"\r\n")), "{}", out.escape_ascii());
    assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')), "{}", out.escape_ascii());
    let text = String::from_utf8_lossy(out);
    let messages =
        [Mechanism::XOAuth2, Mechanism::OAuthBearer].map(|mechanism| upstream::bearer_message(mechanism, &bearer(0)));
    let count: usize = messages.iter().map(|message| text.matches(message.as_str()).count()).sum();
    assert!(count <= 1, "the bearer was sent {count} times");
}

/// A server's words reach logs and clients, so they may contain nothing but printable ASCII.
fn check_event(event: &Event) {
    let words = match event {
        Event::Ready(Capabilities(list)) => list.concat(),
        Event::Accepted(Acceptance { capabilities, alerts }) => {
            capabilities.as_ref().map(|list| list.0.concat()).unwrap_or_default() + &alerts.concat()
        }
        Event::Rejected(rejection) | Event::Unexpected(Fault::Refused(rejection)) => {
            rejection.said.clone() + &rejection.alerts.concat()
        }
        Event::Unexpected(Fault::NoMechanism(said)) => said.clone(),
        Event::StartTls | Event::Unexpected(_) => String::new(),
    };
    assert!(words.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{words:?}");
}
