//! A mail program of those that support only passwords.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};

use super::client::Client;
use super::tls;

/// How a mail program logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// IMAP's LOGIN, POP3's USER and PASS; in SMTP, which has none, AUTH PLAIN.
    Own,
    /// SASL PLAIN with an initial response.
    Plain,
    /// SASL PLAIN, with its message on a separate line.
    PlainInTwo,
    /// SASL LOGIN.
    Login,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Own, Self::Plain, Self::PlainInTwo, Self::Login];
}

/// A mail program that supports only passwords. Its IMAP tag is always `a`.
pub struct Program {
    pub client: Client,
    pub protocol: Protocol,
}

impl Program {
    /// Connects to a port of postkey.
    pub async fn connect(port: u16, protocol: Protocol, security: Security, identity: &tls::Identity) -> Self {
        let mut client = Client::clear(port).await;
        if security == Security::Tls {
            client = client.protect(identity).await;
        }
        let mut program = Self::over(client, protocol).await;
        if security == Security::StartTls {
            program.client.say(["a STARTTLS", "STLS", "STARTTLS"][protocol as usize]).await;
            program.client.expect(["a OK", "+OK", "220"][protocol as usize]).await;
            program.client = program.client.protect(identity).await;
            program.ehlo().await;
        }
        program
    }

    /// Takes over a connection on which nothing has been read yet.
    pub async fn over(mut client: Client, protocol: Protocol) -> Self {
        client.expect(["* OK", "+OK", "220"][protocol as usize]).await;
        let mut program = Self { client, protocol };
        program.ehlo().await;
        program
    }

    async fn ehlo(&mut self) {
        if self.protocol == Protocol::Smtp {
            self.client.say("EHLO client.example.test").await;
            while self.client.line().await.starts_with("250-") {}
        }
    }

    /// Tries to log in. Returns the last line of the answer.
    pub async fn log_in(&mut self, way: Way, user: &str, password: &str) -> String {
        let auth = ["a AUTHENTICATE", "AUTH", "AUTH"][self.protocol as usize];
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let plain = encode(&format!("\0{user}\0{password}"));
        let steps = match (way, self.protocol) {
            (Way::Own, Protocol::Imap) => vec![format!("a LOGIN \"{user}\" \"{password}\"")],
            (Way::Own, Protocol::Pop3) => vec![format!("USER {user}"), format!("PASS {password}")],
            (Way::Own, Protocol::Smtp) | (Way::Plain, _) => vec![format!("{auth} PLAIN {plain}")],
            (Way::PlainInTwo, _) => vec![format!("{auth} PLAIN"), plain],
            (Way::Login, _) => vec![format!("{auth} LOGIN"), encode(user), encode(password)],
        };
        let mut reply = String::new();
        for step in steps {
            reply = self.client.ask(&step).await;
        }
        reply
    }

    /// Sends a command for which one has to be logged in at the provider.
    pub async fn prove(&mut self) {
        let (command, reply) = [("a STATUS INBOX (MESSAGES)", "* STATUS"), ("STAT", "+OK"), ("MAIL FROM:<>", "250")]
            [self.protocol as usize];
        self.client.say(command).await;
        self.client.expect(reply).await;
        if self.protocol == Protocol::Imap {
            self.client.expect("a OK").await;
        }
    }

    /// Sends a message; its lines end in CRLF.
    pub async fn send_mail(&mut self, to: &str, message: &[u8]) {
        for (command, reply) in [("MAIL FROM:<>", "250"), (&*format!("RCPT TO:<{to}>"), "250"), ("DATA", "354")] {
            self.client.say(command).await;
            self.client.expect(reply).await;
        }
        self.client.send(&stuffed(message)).await;
        self.client.expect("250").await;
    }

    /// The first message of the mailbox, by IMAP or POP3.
    pub async fn first_message(&mut self, size: usize) -> Vec<u8> {
        if self.protocol == Protocol::Imap {
            self.client.run("a SELECT INBOX").await;
            self.client.say("a FETCH 1 BODY.PEEK[]").await;
            self.client.expect(&format!("* 1 FETCH (BODY[] {{{size}}}")).await;
            let message = self.client.exactly(size).await;
            self.client.expect(")").await;
            self.client.expect("a OK").await;
            return message;
        }
        self.client.say("RETR 1").await;
        self.client.expect("+OK").await;
        let mut message = Vec::new();
        while !message.ends_with(b"\r\n.\r\n") {
            message.extend(self.client.exactly(1).await);
        }
        message
    }
}

/// A message as SMTP sends it and POP3 shows it.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") && (sent.is_empty() || sent.ends_with(b"\r\n")) {
            sent.push(b'.');
        }
        sent.extend(line);
    }
    sent.extend(b".\r\n");
    sent
}

/// Whether a login's answer accepts it.
pub fn accepted(protocol: Protocol, reply: &str) -> bool {
    reply.starts_with(["a OK", "+OK", "235"][protocol as usize])
}
