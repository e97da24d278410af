//! The IMAP server (RFC 3501, RFC 2177, RFC 4959): one mailbox, INBOX, and the commands that old clients need.

use tokio::io;

use super::connection::Connection;
use super::imap_fetch::{self, Fetch};
use super::mailbox::Message;
use super::sasl::{self, Outcome};

/// The largest accepted literal, in bytes.
const LARGEST_LITERAL: usize = 64 * 1024 * 1024;

/// A command, with its literals taken out of its line.
struct Command {
    tag: String,
    /// In upper case, without `UID`.
    verb: String,
    /// Whether `UID` stood before the verb.
    by_uid: bool,
    /// Everything after the verb. It still contains the announcement of a literal.
    arguments: String,
    literals: Vec<Vec<u8>>,
}

struct Session {
    connection: Connection,
    /// The address of this mailbox, once logged in.
    address: Option<String>,
    /// The selected mailbox.
    view: Option<View>,
}

/// The selected mailbox as the client knows it.
struct View {
    /// The UIDs of its messages in order. A message's sequence number is its position, counted from 1.
    uids: Vec<u32>,
    read_only: bool,
}

/// Serves one connection until the client sends LOGOUT.
pub async fn serve(connection: Connection) -> io::Result<()> {
    let mut session = Session { connection, address: None, view: None };
    session.connection.reply("* OK ready").await?;
    loop {
        let Some(command) = session.command().await? else {
            session.connection.reply("* BAD that is no command").await?;
            continue;
        };
        let result = session.obey(&command).await?;
        session.connection.reply(&format!("{} {result}", command.tag)).await?;
        match command.verb.as_str() {
            "STARTTLS" if result.starts_with("OK") => session.connection.start_tls().await?,
            "LOGOUT" => return Ok(()),
            _ => {}
        }
    }
}

impl Session {
    /// Reads a command with all its literals.
    async fn command(&mut self) -> io::Result<Option<Command>> {
        let mut text = self.connection.line().await?;
        let mut literals = Vec::new();
        while let Some((size, waits)) = literal_announced(&text) {
            if size > LARGEST_LITERAL {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a literal too large"));
            }
            if waits {
                self.connection.reply("+ go ahead").await?;
            }
            literals.push(self.connection.exactly(size).await?);
            // The blank prevents an announcement at the end of one line from being read twice.
            text = text + " " + &self.connection.line().await?;
        }
        Ok(Command::parse(&text, literals))
    }

    /// Carries out the command. Returns the tagged answer without its tag.
    async fn obey(&mut self, command: &Command) -> io::Result<String> {
        let answer = match command.verb.as_str() {
            "CAPABILITY" => self.untagged(&format!("CAPABILITY {}", self.capabilities())).await?,
            "NOOP" | "CHECK" => self.catch_up().await?,
            "ID" => self.untagged("ID NIL").await?,
            "LOGOUT" => self.untagged("BYE").await?,
            "STARTTLS" if self.connection.offers_tls() => "OK begin",
            "AUTHENTICATE" => return self.authenticate(&command.arguments).await,
            "LOGIN" => "NO [AUTHENTICATIONFAILED] passwords are of no use here",
            verb => match self.address.clone() {
                Some(address) => return self.obey_owner(verb, command, &address).await,
                None => "BAD unknown, or not before login",
            },
        };
        Ok(answer.to_owned())
    }

    /// The commands of the authenticated state.
    async fn obey_owner(&mut self, verb: &str, command: &Command, address: &str) -> io::Result<String> {
        let answer = match verb {
            "LIST" | "LSUB" if command.arguments.ends_with(r#" """#) => {
                self.untagged(r#"LIST (\Noselect) "/" """#).await?
            }
            "LIST" | "LSUB" => self.untagged(&format!(r#"{verb} () "/" INBOX"#)).await?,
            "SELECT" | "EXAMINE" | "STATUS" | "APPEND" if !is_inbox(&command.arguments) => {
                "NO [NONEXISTENT] there is only INBOX"
            }
            "SELECT" | "EXAMINE" => self.select(address, verb == "EXAMINE").await?,
            "STATUS" => self.status(address).await?,
            "APPEND" => self.append(command, address).await?,
            _ if self.view.is_none() => "BAD unknown, or not without a mailbox",
            "FETCH" => self.fetch(command, address).await?,
            "STORE" => self.store(command, address).await?,
            "SEARCH" => self.search(command, address).await?,
            "EXPUNGE" | "CLOSE" => self.expunge(address, verb == "CLOSE").await?,
            "IDLE" => self.idle().await?,
            _ => "BAD unknown",
        };
        Ok(answer.to_owned())
    }

    async fn untagged(&mut self, line: &str) -> io::Result<&'static str> {
        self.connection.reply(&format!("* {line}")).await?;
        Ok("OK done")
    }

    fn capabilities(&self) -> String {
        let settings = self.connection.settings();
        let mut list = "IMAP4rev1 ID IDLE LITERAL+".to_owned();
        if settings.sasl_ir {
            list += " SASL-IR";
        }
        if self.connection.offers_tls() {
            list += " STARTTLS";
        }
        match (&self.address, self.connection.secure) {
            (Some(_), _) => list,
            (None, true) => format!("{list} LOGINDISABLED {}", settings.mechanism_names("AUTH=")),
            (None, false) => format!("{list} LOGINDISABLED"),
        }
    }

    async fn authenticate(&mut self, arguments: &str) -> io::Result<String> {
        let settings = self.connection.settings();
        let (name, initial) = arguments.split_once(' ').map_or((arguments, None), |(name, text)| (name, Some(text)));
        if !self.connection.secure {
            return Ok("NO [PRIVACYREQUIRED] not without TLS".to_owned());
        }
        if self.address.is_some() || (initial.is_some() && !settings.sasl_ir) {
            return Ok("BAD not now, or not with an initial response".to_owned());
        }
        let Some(mechanism) = settings.mechanism(name) else { return Ok("NO no such mechanism".to_owned()) };
        Ok(match sasl::exchange(&mut self.connection, mechanism, initial, "+ ").await? {
            Outcome::Accepted(address) => {
                self.address = Some(address);
                format!("OK [CAPABILITY {}] logged in", self.capabilities())
            }
            Outcome::Denied => "NO [AUTHENTICATIONFAILED] Invalid credentials".to_owned(),
            Outcome::Refused(text) => text,
            Outcome::Malformed(why) => format!("BAD {why}"),
        })
    }

    fn messages(&self, address: &str) -> Vec<Message> {
        self.connection.service.mailboxes.messages(address)
    }

    async fn select(&mut self, address: &str, read_only: bool) -> io::Result<&'static str> {
        let uids: Vec<_> = self.messages(address).iter().map(|message| message.uid).collect();
        let next = self.connection.service.mailboxes.next_uid(address);
        let flags = r"(\Answered \Flagged \Deleted \Seen \Draft)";
        let exists = uids.len();
        self.view = Some(View { uids, read_only });
        let lines = format!(
            "* FLAGS {flags}\r\n* OK [PERMANENTFLAGS {flags}] kept\r\n* {exists} EXISTS\r\n* 0 RECENT\r\n\
             * OK [UIDVALIDITY 1] always\r\n* OK [UIDNEXT {next}] next"
        );
        self.connection.reply(&lines).await?;
        Ok(if read_only { "OK [READ-ONLY] selected" } else { "OK [READ-WRITE] selected" })
    }

    /// Everything that can be requested.
    async fn status(&mut self, address: &str) -> io::Result<&'static str> {
        let messages = self.messages(address);
        let unseen = messages.iter().filter(|message| !message.has(r"\Seen")).count();
        let (count, next) = (messages.len(), self.connection.service.mailboxes.next_uid(address));
        let numbers = format!("MESSAGES {count} RECENT 0 UIDNEXT {next} UIDVALIDITY 1 UNSEEN {unseen}");
        self.untagged(&format!("STATUS INBOX ({numbers})")).await
    }

    async fn append(&mut self, command: &Command, address: &str) -> io::Result<&'static str> {
        let Some(message) = command.literals.last() else { return Ok("BAD a literal is missing") };
        let flags = imap_fetch::flags(&command.arguments);
        self.connection.service.mailboxes.deliver(address, message, &flags);
        self.catch_up().await
    }

    /// Reports which messages the selected mailbox has lost and gained.
    async fn catch_up(&mut self) -> io::Result<&'static str> {
        let (Some(address), Some(view)) = (&self.address, &mut self.view) else { return Ok("OK done") };
        let messages = self.connection.service.mailboxes.messages(address);
        let now: Vec<_> = messages.iter().map(|message| message.uid).collect();
        let mut news = String::new();
        while let Some(place) = view.uids.iter().position(|uid| !now.contains(uid)) {
            view.uids.remove(place);
            news += &format!("* {} EXPUNGE\r\n", place + 1);
        }
        if view.uids != now {
            news += &format!("* {} EXISTS\r\n", now.len());
            view.uids = now;
        }
        self.connection.send(news.as_bytes()).await?;
        Ok("OK done")
    }

    /// The messages in a sequence set, with their sequence numbers; None if it is invalid.
    fn chosen(&self, set: &str, by_uid: bool, address: &str) -> Option<Vec<(usize, Message)>> {
        let uids = &self.view.as_ref()?.uids;
        let last = if by_uid { uids.last().map_or(0, |uid| *uid as usize) } else { uids.len() };
        let ranges = imap_fetch::sequence_set(set, last)?;
        let number_of = |uid: u32| uids.iter().position(|known| *known == uid).map(|place| place + 1);
        let numbered = self.messages(address).into_iter().filter_map(|one| Some((number_of(one.uid)?, one)));
        let wanted = |number: usize| ranges.iter().any(|range| range.contains(&number));
        Some(numbered.filter(|(number, one)| wanted(if by_uid { one.uid as usize } else { *number })).collect())
    }

    async fn fetch(&mut self, command: &Command, address: &str) -> io::Result<&'static str> {
        let (set, items) = command.arguments.split_once(' ').unwrap_or_default();
        let (Some(chosen), Some(mut fetch)) = (self.chosen(set, command.by_uid, address), Fetch::parse(items)) else {
            return Ok("BAD what to fetch?");
        };
        fetch.uid |= command.by_uid;
        let marks_seen = fetch.marks_seen && !self.view.as_ref().is_some_and(|view| view.read_only);
        for (number, mut message) in chosen {
            if marks_seen && !message.has(r"\Seen") {
                message.flags.push(r"\Seen".to_owned());
                self.connection.service.mailboxes.keep_flags(address, &message);
            }
            self.connection.send(&fetch.response(number, &message)).await?;
        }
        Ok("OK done")
    }

    async fn store(&mut self, command: &Command, address: &str) -> io::Result<&'static str> {
        let (set, rest) = command.arguments.split_once(' ').unwrap_or_default();
        let (item, _) = rest.split_once(' ').unwrap_or_default();
        let flags = imap_fetch::flags(rest);
        let Some(chosen) = self.chosen(set, command.by_uid, address) else { return Ok("BAD which messages?") };
        if self.view.as_ref().is_some_and(|view| view.read_only) {
            return Ok("NO read-only");
        }
        let item = item.to_ascii_uppercase();
        let (action, silent) = item.strip_suffix(".SILENT").map_or((item.as_str(), false), |action| (action, true));
        for (number, mut message) in chosen {
            match action {
                "FLAGS" => message.flags = flags.clone(),
                "+FLAGS" | "-FLAGS" => message.flags.retain(|flag| !flags.contains(flag)),
                _ => return Ok("BAD FLAGS, +FLAGS or -FLAGS"),
            }
            if action == "+FLAGS" {
                message.flags.extend(flags.clone());
            }
            self.connection.service.mailboxes.keep_flags(address, &message);
            if !silent {
                let answer = Fetch::of_flags(command.by_uid).response(number, &message);
                self.connection.send(&answer).await?;
            }
        }
        Ok("OK done")
    }

    /// SEARCH ALL, UNSEEN, DELETED or a set of UIDs: what clients send when they open a mailbox.
    async fn search(&mut self, command: &Command, address: &str) -> io::Result<&'static str> {
        let key = command.arguments.to_ascii_uppercase();
        let set = key.strip_prefix("UID ");
        let Some(chosen) = self.chosen(set.unwrap_or("1:*"), set.is_some(), address) else {
            return Ok("BAD which messages?");
        };
        let mut found = String::from("SEARCH");
        for (number, message) in chosen {
            let fits = match key.as_str() {
                "UNSEEN" => !message.has(r"\Seen"),
                "DELETED" => message.has(r"\Deleted"),
                _ if key == "ALL" || set.is_some() => true,
                _ => return Ok("BAD that key is unknown"),
            };
            if fits {
                found += &format!(" {}", if command.by_uid { message.uid as usize } else { number });
            }
        }
        self.untagged(&found).await
    }

    /// EXPUNGE, or CLOSE, which does the same without reporting it.
    async fn expunge(&mut self, address: &str, close: bool) -> io::Result<&'static str> {
        let deleted = self.messages(address).into_iter().filter(|message| message.has(r"\Deleted"));
        let uids: Vec<_> = deleted.map(|message| message.uid).collect();
        if !self.view.as_ref().is_some_and(|view| view.read_only) {
            self.connection.service.mailboxes.remove(address, &uids);
        }
        if close {
            self.view = None;
        }
        self.catch_up().await
    }

    /// RFC 2177.
    async fn idle(&mut self) -> io::Result<&'static str> {
        let mut changes = self.connection.service.mailboxes.watch();
        self.connection.reply("+ idling").await?;
        loop {
            self.catch_up().await?;
            tokio::select! {
                arrived = self.connection.readable() => { arrived?; break }
                _ = changes.changed() => {}
            }
        }
        let end = self.connection.line().await?;
        Ok(if end.eq_ignore_ascii_case("DONE") { "OK done" } else { "BAD DONE was expected" })
    }
}

impl Command {
    fn parse(text: &str, literals: Vec<Vec<u8>>) -> Option<Self> {
        let (tag, rest) = text.split_once(' ').filter(|(tag, _)| !tag.is_empty())?;
        let cut = |text: &str| {
            let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
            (word.to_ascii_uppercase(), rest.to_owned())
        };
        let (mut verb, mut arguments) = cut(rest);
        let by_uid = verb == "UID";
        if by_uid {
            (verb, arguments) = cut(&arguments);
        }
        let known = !by_uid || matches!(verb.as_str(), "FETCH" | "STORE" | "SEARCH");
        let verb = if known { verb } else { format!("UID {verb}") };
        Some(Self { tag: tag.to_owned(), verb, by_uid, arguments, literals })
    }
}

/// Size of the literal that a line ends with, and whether the client waits for a go (RFC 3501 section 4.3, RFC 7888).
fn literal_announced(line: &str) -> Option<(usize, bool)> {
    let (_, size) = line.strip_suffix('}')?.rsplit_once('{')?;
    let digits = size.strip_suffix('+');
    Some((digits.unwrap_or(size).parse().ok()?, digits.is_none()))
}

/// Whether the first argument is INBOX, quoted or not.
fn is_inbox(arguments: &str) -> bool {
    let name = arguments.split(' ').next().unwrap_or_default();
    name.trim_matches('"').eq_ignore_ascii_case("INBOX")
}
