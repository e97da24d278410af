//! A whole session without sockets: a client's bytes and the servers' bytes at both ends of the two dialogues.
//!
//! The session between them does what `src/session.rs` and `src/login.rs` do, in the same order.

use postkey::downstream::{self, Downstream, Event};
use postkey::protocol::{Protocol, Security};
use postkey::upstream::{self, Rejection, Upstream, Verdict};
use postkey::wire::{Acceptance, Reason, Refusal};

use super::client::{check, check_credentials, offer};
use super::cut::{self, Sizes, Wire};
use super::server::{approach, bearer, check_clear, check_out};

const USER: &str = "ann@example.test";
const PASSWORD: &[u8] = b"s3cret";

/// Separates the streams of an input. No text in UTF-8 contains it.
const SEPARATOR: u8 = 0xff;

/// As many as a client has on one connection.
const TRIES: usize = 6;

/// What was sent to whom.
#[derive(Default, PartialEq, Debug)]
struct Told {
    client: Vec<u8>,
    /// For each connection: before TLS, and with it.
    servers: Vec<(Vec<u8>, Vec<u8>)>,
    end: End,
}

#[derive(Default, PartialEq, Debug)]
enum End {
    /// The client sent nothing more.
    #[default]
    Left,
    /// The client was disconnected.
    HungUp,
    /// Something was sent before the client's TLS handshake.
    Injected,
    /// Both sides are in the relay: its first bytes from the client and from the server.
    Relay(Vec<u8>, Vec<u8>),
}

/// An input is five bytes of options and sizes, then streams: the client's, before TLS and with it, then the same for
/// each server that is connected to.
pub fn session(input: &[u8]) {
    let _relay = relayed(input);
}

/// The first bytes of the relay from the client and from the server, if the session gets there.
pub fn relayed(input: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let ([protocol, choice], sizes, bytes) = cut::options(input)?;
    let protocol = Protocol::ALL[usize::from(protocol) % 3];
    let streams: Vec<&[u8]> = bytes.split(|&byte| byte == SEPARATOR).collect();
    let whole = Session::run(protocol, choice, &streams, None);
    assert_eq!(whole, Session::run(protocol, choice, &streams, Some(sizes)), "the pieces make a difference");
    check(&whole.client, &streams[..streams.len().min(2)].concat());
    assert!(!contains(&whole.client, b"tok-123"), "the client has seen the token");
    for (clear, out) in &whole.servers {
        check_clear(clear);
        check_out(out);
    }
    let End::Relay(client, server) = whole.end else { return None };
    assert!(streams.iter().take(2).any(|stream| is_behind_a_line(&client, stream)), "the client's bytes");
    assert!(streams.iter().skip(2).any(|stream| is_behind_a_line(&server, stream)), "the server's bytes");
    Some((client, server))
}

/// Whether these are the last bytes of the stream, and only whole lines come before them.
fn is_behind_a_line(rest: &[u8], stream: &[u8]) -> bool {
    stream.strip_suffix(rest).is_some_and(|used| used.ends_with(b"\n"))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

struct Session<'a> {
    protocol: Protocol,
    choice: u8,
    sizes: Option<Sizes<'a>>,
    /// The streams of servers that were not connected to yet.
    servers: &'a [&'a [u8]],
    told: Told,
}

impl<'a> Session<'a> {
    fn run(protocol: Protocol, choice: u8, streams: &'a [&'a [u8]], sizes: Option<Sizes<'a>>) -> Told {
        let servers = streams.get(2..).unwrap_or_default();
        let mut session = Self { protocol, choice, sizes, servers, told: Told::default() };
        let stream = |index: usize| streams.get(index).copied().unwrap_or_default();
        session.told.end = session.serve(stream(0), stream(1));
        session.told
    }

    fn serve(&mut self, clear: &'a [u8], protected: &'a [u8]) -> End {
        let mut client = Wire::new(clear, self.sizes);
        let mut dialogue = downstream::new(self.protocol, offer(self.choice));
        dialogue.greet(&mut self.told.client);
        for _ in 0..TRIES {
            let is_right = loop {
                match client.converse(&mut *dialogue, &mut self.told.client) {
                    None => return End::Left,
                    Some(Event::HangUp) => return End::HungUp,
                    Some(Event::StartTls) if !client.is_quiet() => return End::Injected,
                    Some(Event::StartTls) => {
                        client = Wire::new(protected, self.sizes);
                        dialogue.tls_started();
                    }
                    Some(Event::Mail) => break true,
                    Some(Event::Login(credentials)) => {
                        check_credentials(&credentials);
                        break credentials.user == USER && credentials.password.expose() == PASSWORD;
                    }
                }
            };
            match if is_right { self.log_in(&*dialogue) } else { Err(Refusal::credentials()) } {
                Ok((server, acceptance)) => {
                    dialogue.accept(&acceptance, &mut self.told.client);
                    return End::Relay(client.into_rest(), server.into_rest());
                }
                Err(refusal) => dialogue.refuse(&refusal, &mut self.told.client),
            }
        }
        dialogue.dismiss("Too many failed logins.", &mut self.told.client);
        End::HungUp
    }

    /// A refused token is replaced once.
    fn log_in(&mut self, client: &dyn Downstream) -> Result<(Wire<'a>, Acceptance), Refusal> {
        let name = client.client_name().unwrap_or("[127.0.0.1]").to_owned();
        match self.connect(&name)? {
            Answer::Accepted(wire, acceptance) => return Ok((wire, acceptance)),
            Answer::Rejected(it) if it.verdict == Verdict::Token => {}
            Answer::Rejected(it) => return Err(Refusal::new(Reason::Limit, it.said)),
        }
        match self.connect(&name)? {
            Answer::Accepted(wire, acceptance) => Ok((wire, acceptance)),
            Answer::Rejected(it) => Err(Refusal::new(Reason::TokenRefused, it.said)),
        }
    }

    fn connect(&mut self, name: &str) -> Result<Answer<'a>, Refusal> {
        let unavailable = |why: String| Refusal::new(Reason::Unavailable, why);
        let (streams, later) = self.servers.split_at(self.servers.len().min(2));
        self.servers = later;
        let stream = |index: usize| streams.get(index).copied().unwrap_or_default();
        let approach = approach(self.choice, name);
        let mut dialogue = upstream::new(self.protocol, approach.clone());
        let (mut wire, mut clear, mut out) = (Wire::new(stream(0), self.sizes), Vec::new(), Vec::new());
        if approach.security == Security::StartTls {
            match wire.converse(&mut *dialogue, &mut clear) {
                Some(upstream::Event::StartTls) if wire.is_quiet() => wire = Wire::new(stream(1), self.sizes),
                event => {
                    self.told.servers.push((clear, out));
                    return Err(unavailable(format!("{event:?}")));
                }
            }
        }
        let event = if clear.is_empty() { None } else { dialogue.tls_started(&mut out) };
        let answer = self.authenticate(event, &mut *dialogue, &mut wire, &mut out);
        self.told.servers.push((clear, out));
        match answer {
            Some(upstream::Event::Accepted(acceptance)) => Ok(Answer::Accepted(wire, acceptance)),
            Some(upstream::Event::Rejected(rejection)) => Ok(Answer::Rejected(rejection)),
            event => Err(unavailable(format!("{event:?}"))),
        }
    }

    /// The dialogue once the connection is protected; `event` has already come.
    fn authenticate(
        &self,
        event: Option<upstream::Event>,
        dialogue: &mut dyn Upstream,
        wire: &mut Wire<'a>,
        out: &mut Vec<u8>,
    ) -> Option<upstream::Event> {
        match event.or_else(|| wire.converse(dialogue, out)) {
            Some(upstream::Event::Ready(_)) => match dialogue.authenticate(bearer(self.choice), out) {
                Ok(()) => wire.converse(dialogue, out),
                Err(fault) => Some(upstream::Event::Unexpected(fault)),
            },
            event => event,
        }
    }
}

/// What a server answers to a bearer.
enum Answer<'a> {
    Accepted(Wire<'a>, Acceptance),
    Rejected(Rejection),
}
