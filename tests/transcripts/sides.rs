//! The two sides of a transcript: what its words mean to the dialogue with a client, and to the one with a provider.

use std::collections::BTreeMap;

use postkey::downstream::{self, Downstream, Offer, Tls};
use postkey::protocol::{Mechanism, Protocol, Security};
use postkey::secret::Token;
use postkey::upstream::{self, Approach, Fault, Rejection, Upstream};
use postkey::wire::{Acceptance, Bearer, Capabilities, Frame, Reason, Refusal, Want};

use super::latin1;

/// A dialogue as a transcript sees it.
pub trait Subject {
    fn want(&self) -> Want;
    /// Feeds one frame. Returns an event in the transcript's words.
    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Vec<String>>;
    /// Does what the session does.
    fn act(&mut self, words: &[&str], out: &mut Vec<u8>) -> Act;
}

/// The result of an act.
pub enum Act {
    /// It is done.
    Done,
    /// It brought an event at once.
    Event(Vec<String>),
    /// The words are not an act, so they are an event to wait for.
    Unknown,
}

/// Options of a transcript's header line.
pub type Options = BTreeMap<String, String>;

/// The side that a header line is about, and what it sends first.
pub fn subject(role: &str, protocol: Protocol, options: &Options, out: &mut Vec<u8>) -> Option<Box<dyn Subject>> {
    match role {
        "downstream" => Some(Box::new(ClientSide::new(protocol, options, out))),
        "upstream" => Some(Box::new(ProviderSide::new(protocol, options))),
        _ => None,
    }
}

/// Our side towards the client. Options: `tls=absent|offered|active`, `known="..;.."`, `login=none`.
struct ClientSide(Box<dyn Downstream>);

impl ClientSide {
    fn new(protocol: Protocol, options: &Options, out: &mut Vec<u8>) -> Self {
        let tls = match options.get("tls").map(String::as_str) {
            Some("offered") => Tls::Offered,
            Some("active") => Tls::Active,
            _ => Tls::Absent,
        };
        let known = capabilities(options.get("known").map_or("", String::as_str));
        let asks_login = options.get("login").is_none_or(|login| login != "none");
        let mut dialogue = downstream::new(protocol, Offer { host: "mail.test".into(), known, tls, asks_login });
        dialogue.greet(out);
        Self(dialogue)
    }
}

impl Subject for ClientSide {
    fn want(&self) -> Want {
        self.0.want()
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Vec<String>> {
        let mut words = match self.0.feed(frame, out)? {
            downstream::Event::StartTls => vec!["starttls".into()],
            downstream::Event::Mail => vec!["mail".into()],
            downstream::Event::HangUp => vec!["hang".into(), "up".into()],
            downstream::Event::Login(it) => {
                let acts_as = it.acts_as.iter().flat_map(|name| ["as".to_owned(), name.clone()]);
                let words = ["login".into(), latin1(it.user.as_bytes()), latin1(it.password.expose())];
                words.into_iter().chain(acts_as).collect()
            }
        };
        if let (Some(name), Some("login" | "mail")) = (self.0.client_name(), words.first().map(String::as_str)) {
            words.extend(["from".into(), name.into()]);
        }
        Some(words)
    }

    fn act(&mut self, words: &[&str], out: &mut Vec<u8>) -> Act {
        let (words, alerts) = without_alerts(words);
        match words {
            ["accept"] => self.0.accept(&Acceptance { capabilities: None, alerts }, out),
            ["accept", list] => self.0.accept(&Acceptance { capabilities: Some(capabilities(list)), alerts }, out),
            ["refuse", "credentials"] => self.0.refuse(&Refusal::credentials(), out),
            ["refuse", reason, text] => {
                self.0.refuse(&Refusal { alerts, ..Refusal::new(self::reason(reason), *text) }, out);
            }
            ["dismiss", why] => self.0.dismiss(why, out),
            ["tls", "started"] => self.0.tls_started(),
            ["replay", text] => assert_eq!(latin1(&self.0.replay()), *text),
            _ => return Act::Unknown,
        }
        Act::Done
    }
}

/// The words of an act, and the alerts after them.
fn without_alerts<'a, 'b>(words: &'a [&'b str]) -> (&'a [&'b str], Vec<String>) {
    let end = words.iter().position(|word| *word == "alert").unwrap_or(words.len());
    let (words, alerts) = words.split_at(end);
    (words, alerts.chunks(2).filter_map(|pair| pair.get(1)).map(ToString::to_string).collect())
}

fn capabilities(list: &str) -> Capabilities {
    Capabilities(list.split(';').filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
}

fn reason(word: &str) -> Reason {
    match word {
        "credentials" => Reason::Credentials,
        "somebody-else" => Reason::SomebodyElse,
        "authorization-ended" => Reason::AuthorizationEnded,
        "token-refused" => Reason::TokenRefused,
        "unavailable" => Reason::Unavailable,
        "limit" => Reason::Limit,
        "forbidden" => Reason::Forbidden,
        "server-refuses" => Reason::ServerRefuses,
        other => panic!("no reason: {other}"),
    }
}

/// Our side towards the provider. Options: `security=tls|starttls`, `name=..`, `other=..` (name), `known="..;.."`.
struct ProviderSide(Box<dyn Upstream>);

impl ProviderSide {
    fn new(protocol: Protocol, options: &Options) -> Self {
        let security = match options.get("security").map(String::as_str) {
            Some("starttls") => Security::StartTls,
            _ => Security::Tls,
        };
        let client_name = options.get("name").map_or("client.test", String::as_str).to_owned();
        let known = capabilities(options.get("known").map_or("", String::as_str));
        let other_name = options.get("other").cloned();
        Self(upstream::new(protocol, Approach { security, client_name, other_name, known }))
    }
}

impl Subject for ProviderSide {
    fn want(&self) -> Want {
        self.0.want()
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Vec<String>> {
        self.0.feed(frame, out).map(event_words)
    }

    fn act(&mut self, words: &[&str], out: &mut Vec<u8>) -> Act {
        match words {
            ["tls", "started"] => {
                if let Some(event) = self.0.tls_started(out) {
                    return Act::Event(event_words(event));
                }
            }
            ["authenticate", user, token, mechanisms] => {
                let token = Token::parse(token).expect("a token");
                let mechanisms = mechanisms.split(';').map(mechanism).collect();
                if let Err(fault) = self.0.authenticate(Bearer { user: (*user).into(), token, mechanisms }, out) {
                    return Act::Event(fault_words(fault));
                }
            }
            _ => return Act::Unknown,
        }
        Act::Done
    }
}

fn mechanism(name: &str) -> Mechanism {
    let known = [Mechanism::XOAuth2, Mechanism::OAuthBearer].into_iter().find(|it| it.name() == name);
    known.unwrap_or_else(|| panic!("no mechanism: {name}"))
}

fn event_words(event: upstream::Event) -> Vec<String> {
    match event {
        upstream::Event::StartTls => vec!["starttls".into()],
        upstream::Event::Ready(list) => vec!["ready".into(), list.0.join(";")],
        upstream::Event::Accepted(Acceptance { capabilities, alerts }) => {
            let list = capabilities.map(|list| list.0.join(";"));
            std::iter::once("accepted".into()).chain(list).chain(alert_words(alerts)).collect()
        }
        upstream::Event::Rejected(rejection) => rejection_words("rejected", rejection),
        upstream::Event::Unexpected(fault) => fault_words(fault),
    }
}

fn rejection_words(word: &str, Rejection { verdict, said, alerts, .. }: Rejection) -> Vec<String> {
    let words = [word.into(), format!("{verdict:?}").to_lowercase(), said];
    words.into_iter().chain(alert_words(alerts)).collect()
}

fn alert_words(alerts: Vec<String>) -> impl Iterator<Item = String> {
    alerts.into_iter().flat_map(|text| ["alert".into(), text])
}

fn fault_words(fault: Fault) -> Vec<String> {
    match fault {
        Fault::Refused(rejection) => rejection_words("refused", rejection),
        Fault::NoStartTls => vec!["no-starttls".into()],
        Fault::StartTlsLater => vec!["starttls-later".into()],
        Fault::PreAuth => vec!["preauth".into()],
        Fault::NoMechanism(offered) => vec!["no-mechanism".into(), offered],
        Fault::Protocol(what) => vec!["broken".into(), what.into()],
    }
}
