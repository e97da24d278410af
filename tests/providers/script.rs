//! A provider's file. `main.rs` explains its words.

use postkey::protocol::{Protocol, Security};

/// A provider.
pub struct Script {
    pub servers: Vec<Server>,
}

/// One of its mail servers.
#[derive(Clone)]
pub struct Server {
    pub protocol: Protocol,
    pub security: Security,
    pub greeting: Vec<String>,
    pub clear: Vec<String>,
    pub offers: Vec<String>,
    pub welcome: Vec<String>,
    /// The only name that it accepts, and its reply to any other.
    pub only_name: Option<(String, String)>,
    source: String,
    pub cases: Vec<Case>,
}

/// The place at which a server refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Before TLS, if the protocol begins with it.
    Connect,
    Greeting,
    #[default]
    Auth,
}

/// How a server refuses, and the expected result.
#[derive(Clone, Default)]
pub struct Case {
    pub name: String,
    source: String,
    pub place: Place,
    pub times: Option<usize>,
    pub challenge: Option<String>,
    pub reply: Vec<String>,
    pub leaves: bool,
    pub hears: String,
    pub words: Vec<String>,
    pub alerts: Vec<String>,
    pub refreshes: usize,
    pub rest: u64,
}

impl Script {
    pub fn read(text: &str) -> Result<Self, String> {
        let mut script = Self { servers: Vec::new() };
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            script.add(word, rest).map_err(|why| format!("line {number}: {why}"))?;
        }
        script.servers.iter().flat_map(|server| &server.cases).try_for_each(Case::check)?;
        Ok(script)
    }

    fn add(&mut self, word: &str, rest: &str) -> Result<(), String> {
        if word == "server" {
            self.servers.push(Server::new(rest).ok_or("a server has a protocol and a security")?);
            return Ok(());
        }
        let server = self.servers.last_mut().ok_or("no server has begun")?;
        if word == "case" {
            let source = server.source.clone();
            server.cases.push(Case { name: rest.to_owned(), source, ..Case::default() });
            return Ok(());
        }
        match server.cases.last_mut() {
            Some(case) => case.add(word, rest),
            None => server.add(word, rest),
        }
    }
}

impl Server {
    fn new(rest: &str) -> Option<Self> {
        let (protocol, security) = rest.split_once(' ')?;
        Some(Self {
            protocol: Protocol::ALL.into_iter().find(|one| one.name() == protocol)?,
            security: [Security::Tls, Security::StartTls].into_iter().find(|one| one.name() == security)?,
            greeting: Vec::new(),
            clear: Vec::new(),
            offers: Vec::new(),
            welcome: Vec::new(),
            only_name: None,
            source: String::new(),
            cases: Vec::new(),
        })
    }

    fn add(&mut self, word: &str, rest: &str) -> Result<(), String> {
        match word {
            "source" => rest.clone_into(&mut self.source),
            "greeting" => self.greeting.push(rest.to_owned()),
            "clear" => self.clear.push(rest.to_owned()),
            "offers" => self.offers.push(rest.to_owned()),
            "welcome" => self.welcome.push(rest.to_owned()),
            "only-name" => {
                let (name, reply) = rest.split_once(' ').ok_or("a name has a reply for all others")?;
                self.only_name = Some((name.to_owned(), reply.to_owned()));
            }
            _ => return Err(format!("there is no word {word}")),
        }
        Ok(())
    }
}

impl Case {
    fn add(&mut self, word: &str, rest: &str) -> Result<(), String> {
        match word {
            "source" => rest.clone_into(&mut self.source),
            "at" => {
                let places = [("connect", Place::Connect), ("greeting", Place::Greeting), ("auth", Place::Auth)];
                let place = places.into_iter().find(|(name, _)| *name == rest);
                self.place = place.ok_or_else(|| format!("there is no place {rest}"))?.1;
            }
            "times" => self.times = Some(number(rest)?),
            "challenge" => self.challenge = Some(rest.to_owned()),
            "reply" => self.reply.push(rest.to_owned()),
            "leaves" => self.leaves = true,
            "hears" => rest.clone_into(&mut self.hears),
            "words" => self.words.push(rest.to_owned()),
            "alert" => self.alerts.push(rest.to_owned()),
            "refreshes" => self.refreshes = number(rest)?,
            "rest" => self.rest = number(rest)?,
            _ => return Err(format!("there is no word {word}")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let why = match self {
            Self { reply, leaves: false, .. } if reply.is_empty() => "the server says nothing",
            Self { hears, .. } if hears.is_empty() => "it is not said what the client hears",
            Self { source, .. } if source.is_empty() => "it has no source",
            _ => return Ok(()),
        };
        Err(format!("{}: {why}", self.name))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
