//! The SMTP submission server (RFC 5321, RFC 6409, RFC 3207, RFC 4954).

use tokio::io;

use super::connection::Connection;
use super::sasl::{self, Outcome};

/// The longest command, including its CRLF (RFC 5321 section 4.5.3.1.4).
const LONGEST_COMMAND: usize = 512;
/// The longest message, in bytes.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

struct Session {
    connection: Connection,
    /// Whether the client has said EHLO since the connection or TLS began.
    greeted: bool,
    logged_in: bool,
    /// The recipients so far, from MAIL to the end of DATA.
    transaction: Option<Vec<String>>,
}

/// Serves one connection until the client sends QUIT.
pub async fn serve(connection: Connection) -> io::Result<()> {
    let mut session = Session { connection, greeted: false, logged_in: false, transaction: None };
    session.connection.reply("220 localhost ESMTP ready").await?;
    loop {
        let line = session.connection.line().await?;
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let verb = verb.to_ascii_uppercase();
        if verb == "QUIT" {
            return session.connection.reply("221 2.0.0 bye").await;
        }
        let reply = match line.len() + 2 > LONGEST_COMMAND {
            true if verb == "AUTH" => "500 5.5.6 authentication exchange line too long".to_owned(),
            true => "500 5.5.2 line too long".to_owned(),
            false => session.obey(&verb, argument).await?,
        };
        session.connection.reply(&reply).await?;
        if reply == BEGIN_TLS {
            session.connection.start_tls().await?;
            session.greeted = false;
        }
    }
}

const BEGIN_TLS: &str = "220 2.0.0 begin";

impl Session {
    async fn obey(&mut self, verb: &str, argument: &str) -> io::Result<String> {
        let reply = match verb {
            "EHLO" if argument.is_empty() => "501 5.5.4 who are you?",
            "EHLO" => return Ok(self.greet()),
            "NOOP" => "250 2.0.0 fine",
            "RSET" => self.reset(),
            _ if !self.greeted => "503 5.5.1 EHLO first",
            "STARTTLS" if self.connection.offers_tls() => BEGIN_TLS,
            "AUTH" => return self.authenticate(argument).await,
            "MAIL" => self.mail(argument),
            "RCPT" => self.recipient(argument),
            "DATA" => return self.data().await,
            _ => "502 5.5.1 no such command",
        };
        Ok(reply.to_owned())
    }

    fn greet(&mut self) -> String {
        (self.greeted, self.transaction) = (true, None);
        let mut reply =
            format!("250-localhost\r\n250-PIPELINING\r\n250-SIZE {LARGEST_MESSAGE}\r\n250-ENHANCEDSTATUSCODES\r\n");
        if self.connection.secure {
            reply += &format!("250-AUTH {}\r\n", self.connection.settings().mechanism_names(""));
        } else if self.connection.offers_tls() {
            reply += "250-STARTTLS\r\n";
        }
        reply + "250 8BITMIME"
    }

    fn reset(&mut self) -> &'static str {
        self.transaction = None;
        "250 2.0.0 forgotten"
    }

    async fn authenticate(&mut self, argument: &str) -> io::Result<String> {
        if !self.connection.secure {
            return Ok("530 5.7.0 Must issue a STARTTLS command first".to_owned());
        }
        if self.logged_in {
            return Ok("503 5.5.1 logged in already".to_owned());
        }
        let (name, initial) = argument.split_once(' ').map_or((argument, None), |(name, text)| (name, Some(text)));
        let Some(mechanism) = self.connection.settings().mechanism(name) else {
            return Ok("504 5.5.4 no such mechanism".to_owned());
        };
        Ok(match sasl::exchange(&mut self.connection, mechanism, initial, "334 ").await? {
            Outcome::Accepted(_) => {
                self.logged_in = true;
                "235 2.7.0 logged in".to_owned()
            }
            Outcome::Denied => "535 5.7.8 Username and token not accepted".to_owned(),
            Outcome::Refused(text) => text,
            Outcome::Malformed(why) => format!("501 5.5.2 {why}"),
        })
    }

    fn mail(&mut self, argument: &str) -> &'static str {
        if !self.logged_in {
            return "530 5.7.0 authentication required";
        }
        if self.transaction.is_some() {
            return "503 5.5.1 one sender a message";
        }
        if path(argument, "FROM:").is_none() {
            return "501 5.5.4 MAIL FROM:<address>";
        }
        self.transaction = Some(Vec::new());
        "250 2.1.0 sender"
    }

    fn recipient(&mut self, argument: &str) -> &'static str {
        let Some(recipients) = &mut self.transaction else { return "503 5.5.1 MAIL first" };
        match path(argument, "TO:") {
            None => "501 5.5.4 RCPT TO:<address>",
            Some(address) if self.connection.service.mailboxes.has(address) => {
                recipients.push(address.to_owned());
                "250 2.1.5 recipient"
            }
            Some(_) => "550 5.1.1 no such mailbox",
        }
    }

    async fn data(&mut self) -> io::Result<String> {
        let Some(recipients) = self.transaction.take_if(|recipients| !recipients.is_empty()) else {
            return Ok("503 5.5.1 RCPT first".to_owned());
        };
        self.connection.reply("354 go ahead").await?;
        let message = self.message().await?;
        for address in recipients {
            self.connection.service.mailboxes.deliver(&address, &message, &[]);
        }
        Ok("250 2.0.0 delivered".to_owned())
    }

    /// The message up to CRLF dot CRLF, the only end, without the dots added to lines (RFC 5321 section 4.5.2).
    async fn message(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        while message.len() <= LARGEST_MESSAGE {
            let line = self.connection.text_line().await?;
            let at_beginning = message.is_empty() || message.ends_with(b"\r\n");
            match line.strip_prefix(b".").filter(|_| at_beginning) {
                Some(b"\r\n") => return Ok(message),
                Some(stuffed) => message.extend(stuffed),
                None => message.extend(line),
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a message larger than SIZE"))
    }
}

/// The address in `FROM:<address> parameters`, empty for the null sender.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    let (address, _) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    word.eq_ignore_ascii_case(keyword).then_some(address)
}
