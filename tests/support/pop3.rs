//! The POP3 server (RFC 1939, RFC 2449, RFC 2595, RFC 5034).

use tokio::io;

use super::connection::Connection;
use super::mailbox::Message;
use super::sasl::{self, Outcome};

/// The longest command, including its CRLF (RFC 2449 section 4). SASL responses on separate lines may be longer.
const LONGEST_COMMAND: usize = 255;

struct Session {
    connection: Connection,
    /// Set by the login.
    maildrop: Option<Maildrop>,
}

/// A mailbox as it was at the login.
struct Maildrop {
    address: String,
    messages: Vec<Message>,
    /// The UIDs of the messages to delete at QUIT.
    deleted: Vec<u32>,
}

/// Serves one connection until the client sends QUIT.
pub async fn serve(connection: Connection) -> io::Result<()> {
    let mut session = Session { connection, maildrop: None };
    session.connection.reply("+OK ready").await?;
    loop {
        let line = session.connection.line().await?;
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            _ if line.len() + 2 > LONGEST_COMMAND => session.connection.reply("-ERR line too long").await?,
            "QUIT" => return session.quit().await,
            "CAPA" => session.capabilities().await?,
            "STLS" => session.start_tls().await?,
            "AUTH" => session.authenticate(argument).await?,
            verb => {
                let answer = session.maildrop.as_mut().and_then(|maildrop| maildrop.answer(verb, argument));
                session.connection.send(&answer.unwrap_or_else(|| b"-ERR no\r\n".to_vec())).await?;
            }
        }
    }
}

impl Session {
    async fn capabilities(&mut self) -> io::Result<()> {
        let mut list = String::from("+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\n");
        if self.connection.secure {
            list += &format!("SASL {}\r\n", self.connection.settings().mechanism_names(""));
        } else if self.connection.offers_tls() {
            list += "STLS\r\n";
        }
        self.connection.reply(&(list + ".")).await
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        if !self.connection.offers_tls() {
            return self.connection.reply("-ERR no STLS here").await;
        }
        self.connection.reply("+OK begin").await?;
        self.connection.start_tls().await
    }

    async fn authenticate(&mut self, argument: &str) -> io::Result<()> {
        if !self.connection.secure {
            return self.connection.reply("-ERR not without TLS").await;
        }
        if self.maildrop.is_some() {
            return self.connection.reply("-ERR logged in already").await;
        }
        let (name, initial) = argument.split_once(' ').map_or((argument, None), |(name, text)| (name, Some(text)));
        let Some(mechanism) = self.connection.settings().mechanism(name) else {
            return self.connection.reply("-ERR no such mechanism").await;
        };
        let reply = match sasl::exchange(&mut self.connection, mechanism, initial, "+ ").await? {
            Outcome::Accepted(address) => {
                let messages = self.connection.service.mailboxes.messages(&address);
                self.maildrop = Some(Maildrop { address, messages, deleted: Vec::new() });
                "+OK logged in".to_owned()
            }
            Outcome::Denied => "-ERR [AUTH] Invalid credentials.".to_owned(),
            Outcome::Refused(text) => text,
            Outcome::Malformed(why) => format!("-ERR {why}"),
        };
        self.connection.reply(&reply).await
    }

    async fn quit(mut self) -> io::Result<()> {
        if let Some(maildrop) = self.maildrop {
            self.connection.service.mailboxes.remove(&maildrop.address, &maildrop.deleted);
        }
        self.connection.reply("+OK bye").await
    }
}

impl Maildrop {
    /// The whole answer to a command, or None if there is no such command or no such message.
    fn answer(&mut self, verb: &str, argument: &str) -> Option<Vec<u8>> {
        match (verb, argument) {
            ("STAT", "") => {
                let sizes: Vec<_> = self.listed().map(|(_, message)| message.bytes.len()).collect();
                Some(format!("+OK {} {}\r\n", sizes.len(), sizes.iter().sum::<usize>()).into_bytes())
            }
            ("LIST", _) => self.list(argument, |message| message.bytes.len().to_string()),
            ("UIDL", _) => self.list(argument, |message| format!("uid-{}", message.uid)),
            ("RETR", _) => Some(multi_line(&self.message(argument)?.bytes)),
            ("TOP", _) => {
                let (number, lines) = argument.split_once(' ')?;
                Some(multi_line(top(&self.message(number)?.bytes, lines.parse().ok()?)))
            }
            ("DELE", _) => {
                let uid = self.message(argument)?.uid;
                self.deleted.push(uid);
                Some(b"+OK\r\n".to_vec())
            }
            ("RSET", "") => {
                self.deleted.clear();
                Some(b"+OK\r\n".to_vec())
            }
            ("NOOP", "") => Some(b"+OK\r\n".to_vec()),
            _ => None,
        }
    }

    /// All messages that are not deleted, with their numbers.
    fn listed(&self) -> impl Iterator<Item = (usize, &Message)> {
        let kept = |(_, message): &(usize, &Message)| !self.deleted.contains(&message.uid);
        (1..).zip(&self.messages).filter(kept)
    }

    fn message(&self, number: &str) -> Option<&Message> {
        let number: usize = number.parse().ok()?;
        self.listed().find_map(|(other, message)| (other == number).then_some(message))
    }

    /// LIST and UIDL: one message in one line, or all of them.
    fn list(&self, argument: &str, tell: impl Fn(&Message) -> String) -> Option<Vec<u8>> {
        if !argument.is_empty() {
            return Some(format!("+OK {argument} {}\r\n", tell(self.message(argument)?)).into_bytes());
        }
        let lines: String = self.listed().map(|(number, message)| format!("{number} {}\r\n", tell(message))).collect();
        Some(format!("+OK\r\n{lines}.\r\n").into_bytes())
    }
}

/// The header, the empty line and so many lines of the body.
fn top(message: &[u8], lines: usize) -> &[u8] {
    let header = message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |end| end + 4);
    let body = message[header..].split_inclusive(|byte| *byte == b'\n').take(lines);
    &message[..header + body.map(<[u8]>::len).sum::<usize>()]
}

/// A message as an answer: dots doubled at the beginning of lines, a dot alone at the end (RFC 1939 section 3).
fn multi_line(message: &[u8]) -> Vec<u8> {
    let mut answer = b"+OK\r\n".to_vec();
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") && answer.ends_with(b"\r\n") {
            answer.push(b'.');
        }
        answer.extend(line);
    }
    if !answer.ends_with(b"\r\n") {
        answer.extend(b"\r\n");
    }
    answer.extend(b".\r\n");
    answer
}
