//! B10. A provider's mail servers that send too much, or the wrong thing: the login ends in a temporary refusal, only a
//! server that may have the bearer gets it, and correct replies are understood however their bytes arrive.

use std::sync::{Arc, Mutex};

use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::house::{ANN, House, Way};

/// How each protocol says that a login may be tried again later, or that somebody has to act.
const REFUSED: [[&str; 2]; 3] =
    [["a NO [UNAVAILABLE]", "a NO [CONTACTADMIN]"], ["-ERR [SYS/TEMP]", "-ERR [SYS/PERM]"], ["454", "535"]];

/// The answers of a server.
#[derive(Clone)]
pub struct Script {
    /// The first key that a line contains decides the answer; "" is the greeting. `%` in an answer is the line's tag.
    answers: Vec<(String, Vec<u8>)>,
    /// The position at which every answer is cut in two.
    cut: usize,
}

impl Script {
    /// A server that behaves correctly.
    pub fn good(protocol: Protocol) -> Self {
        let answers: &[(&str, &str)] = match protocol {
            Protocol::Imap => &[
                ("", "* OK hi\r\n"),
                ("STARTTLS", "% OK go\r\n"),
                ("CAPABILITY", "* CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR\r\n% OK\r\n"),
                ("AUTHENTICATE", "* CAPABILITY IMAP4rev1\r\n% OK in\r\n"),
            ],
            Protocol::Pop3 => &[
                ("", "+OK hi\r\n"),
                ("STLS", "+OK go\r\n"),
                ("CAPA", "+OK\r\nSASL XOAUTH2\r\n.\r\n"),
                ("AUTH ", "+ \r\n"),
                ("dXNlc", "+OK in\r\n"),
            ],
            Protocol::Smtp => &[
                ("", "220-hi\r\n220 ho\r\n"),
                ("EHLO", "250-hi\r\n250-STARTTLS\r\n250 AUTH XOAUTH2\r\n"),
                ("STARTTLS", "220 go\r\n"),
                ("AUTH ", "235 in\r\n"),
            ],
        };
        let answers = answers.iter().map(|(key, answer)| ((*key).to_owned(), answer.as_bytes().to_vec()));
        Self { answers: answers.collect(), cut: usize::MAX }
    }

    /// The same with every answer cut in two.
    pub fn cut(self, cut: usize) -> Self {
        Self { cut, ..self }
    }

    /// The same with one other answer.
    pub fn with(mut self, key: &str, answer: impl AsRef<[u8]>) -> Self {
        self.answers.insert(0, (key.to_owned(), answer.as_ref().to_vec()));
        self
    }

    fn answer(&self, line: &str) -> Option<Vec<u8>> {
        let is_it = |key: &str| if line.is_empty() { key.is_empty() } else { !key.is_empty() && line.contains(key) };
        let (_, answer) = self.answers.iter().find(|(key, _)| is_it(key))?;
        let tag = line.split(' ').next().unwrap_or_default();
        match answer.iter().position(|&byte| byte == b'%') {
            Some(place) => Some([&answer[..place], tag.as_bytes(), &answer[place + 1..]].concat()),
            None => Some(answer.clone()),
        }
    }
}

/// A mail server with a script, for one protocol; the others are the house's own.
pub struct Server {
    protocol: Protocol,
    security: Security,
    port: u16,
    shared: Arc<Shared>,
    listener: Mutex<Option<TcpListener>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Option<Script>>,
    /// All lines that it received.
    heard: Mutex<Vec<String>>,
}

impl Server {
    pub async fn start(protocol: Protocol, security: Security) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            protocol,
            security,
            port,
            shared: Arc::default(),
            listener: Mutex::new(Some(listener)),
            tasks: Mutex::default(),
        }
    }

    /// A house whose provider has this server.
    pub async fn house(&self) -> House {
        let (port, name, security) = (self.port, self.protocol.name(), self.security);
        let house = House::with(security, |config| {
            let (before, section) = config.split_once(&format!("[provider.own.{name}]\n")).unwrap();
            let after = section.split_once("\n[").map_or("", |(_, after)| after);
            let security = security.name();
            let own =
                format!("[provider.own.{name}]\nhost = \"localhost\"\nport = {port}\nsecurity = \"{security}\"\n");
            if after.is_empty() { format!("{before}{own}") } else { format!("{before}{own}\n[{after}") }
        })
        .await;
        let listener = self.listener.lock().unwrap().take().unwrap();
        let (shared, acceptor) = (Arc::clone(&self.shared), house.provider.acceptor());
        self.tasks.lock().unwrap().spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                sessions.spawn(serve(socket, security, acceptor.clone(), Arc::clone(&shared)));
                while sessions.try_join_next().is_some() {}
            }
        });
        house
    }

    /// Sets its answers from now on.
    pub fn says(&self, script: Script) {
        *self.shared.script.lock().unwrap() = Some(script);
        self.shared.heard.lock().unwrap().clear();
    }

    /// A login is refused temporarily, and the server has not received the bearer.
    pub async fn refuses_bearer(&self, house: &House, what: &str) {
        let heard = self.refuses(house, what).await;
        let bearer = |line: &String| line.contains("AUTH") || line.len() > 100;
        assert!(!heard.iter().any(bearer), "{} {what}: {heard:?}", self.protocol);
    }

    /// A login is refused temporarily. Returns what the server has received.
    async fn refuses(&self, house: &House, what: &str) -> Vec<String> {
        let reply = house.try_login(self.protocol).await;
        let refused = REFUSED[self.protocol as usize].iter().any(|words| reply.starts_with(words));
        assert!(refused, "{} {what}: {reply}", self.protocol);
        self.shared.heard.lock().unwrap().clone()
    }
}

async fn serve(socket: TcpStream, security: Security, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let script = shared.script.lock().unwrap().clone().expect("it has been told what to say");
    if security == Security::Tls {
        let Ok(stream) = acceptor.accept(socket).await else { return };
        drop(talk(BufReader::new(stream), &script, &shared, "").await);
        return;
    }
    socket.set_nodelay(true).unwrap();
    let Some((stream, line)) = talk(BufReader::new(socket), &script, &shared, "").await else { return };
    if line.ends_with("STARTTLS") || line.ends_with("STLS") {
        let Ok(stream) = acceptor.accept(stream.into_inner()).await else { return };
        drop(talk(BufReader::new(stream), &script, &shared, "quiet").await);
    }
}

/// Up to the end, or to the line with which TLS begins. Returns the connection and that line.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    script: &Script,
    shared: &Shared,
    greeting: &str,
) -> Option<(BufReader<S>, String)> {
    let mut line = String::new();
    if greeting.is_empty() {
        say(&mut stream, script, "").await?;
    }
    loop {
        line.clear();
        if !matches!(stream.read_line(&mut line).await, Ok(count) if count > 0) {
            return None;
        }
        shared.heard.lock().unwrap().push(line.clone());
        say(&mut stream, script, &line).await?;
        if line.trim_end().ends_with("STARTTLS") || line.trim_end().ends_with("STLS") {
            return Some((stream, line.trim_end().to_owned()));
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), script: &Script, line: &str) -> Option<()> {
    let Some(answer) = script.answer(line) else { return Some(()) };
    for piece in [&answer[..script.cut.min(answer.len())], &answer[script.cut.min(answer.len())..]] {
        stream.write_all(piece).await.ok()?;
        stream.flush().await.ok()?;
    }
    Some(())
}

#[tokio::test]
async fn correct_replies_are_understood_however_they_arrive() {
    for protocol in Protocol::ALL {
        for security in [Security::Tls, Security::StartTls] {
            let server = Server::start(protocol, security).await;
            let house = server.house().await;
            for cut in 0..60 {
                server.says(Script::good(protocol).cut(cut));
                house.logged_in(protocol).await;
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_sends_too_much_is_disconnected() {
    const MUCH: usize = 10_000_000;
    for protocol in Protocol::ALL {
        let server = Server::start(protocol, Security::Tls).await;
        let house = server.house().await;
        let (line, list, key) = [
            ("* OK hi\r\n", "* X\r\n", "CAPABILITY"),
            ("+OK hi\r\n", "X\r\n", "CAPA"),
            ("220-hi\r\n", "250-X\r\n", "EHLO"),
        ][protocol as usize];
        let list = [if protocol == Protocol::Pop3 { "+OK\r\n" } else { "" }, &list.repeat(1000)].concat();
        for (what, script) in [
            ("a greeting without end", Script::good(protocol).with("", vec![b'*'; MUCH])),
            ("greetings without end", Script::good(protocol).with("", line.repeat(MUCH / line.len()))),
            ("a thousand lines", Script::good(protocol).with(key, list)),
        ] {
            server.says(script);
            server.refuses_bearer(&house, what).await;
        }
        // Three, and then silence: whoever answers the third waits for nothing.
        let challenge = ["+ eyJ9\r\n", "+ eyJ9\r\n", "334 eyJ9\r\n"][protocol as usize];
        let key = ["AUTHENTICATE", "dXNlc", "AUTH "][protocol as usize];
        for count in [1000, 3] {
            server.says(Script::good(protocol).with(key, challenge.repeat(count)));
            server.refuses(&house, "challenges without end").await;
        }
    }
}

/// Except for what the person has to see.
#[tokio::test]
async fn unsolicited_replies_are_ignored() {
    let server = Server::start(Protocol::Imap, Security::Tls).await;
    let house = server.house().await;
    let between = "* 3 EXISTS\r\n* OK [ALERT] x\r\n* NO y\r\n* FLAGS (\\Seen)\r\n% OK in\r\n";
    for cut in 0..between.len() {
        server.says(Script::good(Protocol::Imap).cut(cut).with("AUTHENTICATE", between));
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        assert_eq!(program.log_in(Way::Plain, ANN, &house.password).await, "* OK [ALERT] x");
        program.client.expect("a OK Logged in.").await;
    }
}

#[tokio::test]
async fn a_server_that_breaks_its_protocol_does_not_get_the_bearer() {
    let lies: [&[(&str, &str)]; 3] = [
        &[
            ("", "* PREAUTH welcome\r\n"),
            ("", "P1 OK in\r\n"),
            ("", "+ \r\n"),
            ("CAPABILITY", "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n% OK\r\n"),
            ("CAPABILITY", "* CAPABILITY {9}\r\n% OK\r\n"),
            ("CAPABILITY", "% OK\r\n"),
            ("CAPABILITY", "P9 OK\r\n"),
        ],
        &[("", "+ \r\n"), ("", "OK hi\r\n"), ("CAPA", "+OK\r\nSASL PLAIN\r\n.\r\n")],
        &[
            ("", "235 in\r\n"),
            ("", "334 \r\n"),
            ("EHLO", "250 hi\r\n"),
            ("EHLO", "250-hi\r\n251 AUTH XOAUTH2\r\n"),
            ("EHLO", "250-hi\r\n250 AUTH PLAIN\r\n"),
            ("EHLO", "235 in\r\n"),
        ],
    ];
    for protocol in Protocol::ALL {
        let server = Server::start(protocol, Security::Tls).await;
        let house = server.house().await;
        for (key, lie) in lies[protocol as usize] {
            server.says(Script::good(protocol).with(key, lie));
            server.refuses_bearer(&house, lie).await;
        }
        // Acceptance of a mechanism that has received no message is no acceptance.
        let (key, yes) =
            [("AUTHENTICATE", "% OK in\r\n"), ("AUTH ", "+OK in\r\n"), ("AUTH ", "235 in\r\n")][protocol as usize];
        let mut script = Script::good(protocol).with(key, yes);
        if protocol == Protocol::Imap {
            script = script.with("CAPABILITY", "* CAPABILITY AUTH=XOAUTH2\r\n% OK\r\n");
        }
        server.says(script);
        if protocol != Protocol::Smtp {
            server.refuses(&house, yes).await;
        }
    }
}
