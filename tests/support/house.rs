//! A postkey in this process with a provider of its own, an authorized account, and mail programs that log in to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::clock::{Clock, Moment};
use postkey::config::Config;
use postkey::config::flow::Flow;
use postkey::control::{self, Authorized, Listening, Reply, Request};
use postkey::daemon::Daemon;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Authorization, Secrets, Vault};
use tempfile::TempDir;

use super::client::Client;
use super::process::{Ended, Process};
use super::{Options, Provider, tls};

/// The account that a house has.
pub const ANN: &str = "ann@example.test";
/// A mailbox at the provider without an account.
pub const BEN: &str = "ben@example.test";
/// Another one.
pub const OFFICE: &str = "office@example.test";

/// How a listener or a server can be protected.
pub const SECURITIES: [Security; 3] = [Security::Clear, Security::StartTls, Security::Tls];

/// The longest wait for anything that has to happen: only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// When the houses' clock begins, and how long their first tokens live, in seconds.
const BEGINNING: u64 = 1_800_000_000;
pub const LIFE: u64 = 3600;

/// A provider, and a postkey whose listeners speak every protocol in clear, with STARTTLS and with TLS.
pub struct House {
    pub provider: Provider,
    /// Ann's app password, as it was shown to her.
    pub password: String,
    pub config: Config,
    /// Its configuration file.
    pub file: PathBuf,
    pub folder: TempDir,
    identity: tls::Identity,
    daemon: Option<Daemon>,
    /// The ports of the postkey that runs, in this process or as one of its own.
    listening: Vec<Listening>,
    time: Arc<AtomicU64>,
}

impl House {
    /// One that reaches its provider by TLS.
    pub async fn open() -> Self {
        Self::with(Security::Tls, |config| config).await
    }

    /// One that reaches its provider in this way, its configuration file changed by `edit`.
    pub async fn with(upstream: Security, edit: impl FnOnce(String) -> String) -> Self {
        let mut house = Self::furnished(upstream, edit).await;
        house.start().await;
        house
    }

    /// The same, and its postkey does not run yet.
    pub async fn furnished(upstream: Security, edit: impl FnOnce(String) -> String) -> Self {
        Self::furnished_with(upstream, Options::default(), edit).await
    }

    /// The same with such a provider.
    pub async fn furnished_with(upstream: Security, options: Options, edit: impl FnOnce(String) -> String) -> Self {
        let mut house = Self::empty(upstream, options, edit).await;
        let password = Password::generate();
        house.password = String::from_utf8(password.expose()).unwrap();
        // Into the vault itself: a running postkey would log in with it, and tests count logins.
        let vault = Vault::open(&house.config.state_dir).unwrap();
        vault.authorize(&house.grant(ANN), Some(("main", &password)), house.now()).unwrap();
        drop(vault);
        house
    }

    /// One without an account, whose postkey does not run yet.
    pub async fn empty(upstream: Security, options: Options, edit: impl FnOnce(String) -> String) -> Self {
        let provider = Provider::start(options).await;
        let (identity, folder) = (tls::identity(), TempDir::new().expect("a folder for temporary files"));
        std::fs::write(folder.path().join("cert.pem"), &identity.certificate_pem).unwrap();
        std::fs::write(folder.path().join("key.pem"), &identity.key_pem).unwrap();
        let file = folder.path().join("postkey.toml");
        let config = format!("state_dir = \"state\"\n{}\n{}", listeners(), provider.config_toml("own", upstream));
        std::fs::write(&file, edit(config)).unwrap();
        let config = Config::load(Some(&file)).expect("a configuration without mistakes");
        let time = Arc::new(AtomicU64::new(BEGINNING));
        Self {
            provider,
            password: String::new(),
            config,
            file,
            folder,
            identity,
            daemon: None,
            listening: Vec::new(),
            time,
        }
    }

    /// Starts postkey, which waits for one that has been stopped to let go of the vault.
    pub async fn start(&mut self) {
        let daemon = Daemon::start(self.config.clone(), Clock::Manual(Arc::clone(&self.time))).await;
        let daemon = daemon.unwrap_or_else(|failed| panic!("{}", failed.message));
        self.listening = daemon.listeners().to_vec();
        self.daemon = Some(daemon);
    }

    /// Stops postkey as a service manager does.
    pub async fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("postkey runs in this process");
        daemon.stop().await;
    }

    /// Ends postkey and starts it anew.
    pub async fn restart(&mut self) {
        self.daemon = None;
        self.start().await;
    }

    /// Has postkey read its configuration anew, changed or not.
    pub async fn reload(&mut self) {
        let daemon = self.daemon.as_mut().expect("a postkey that runs");
        daemon.reload(self.config.clone()).await.unwrap_or_else(|failed| panic!("{}", failed.message));
    }

    /// Asks postkey, which runs as a process of its own, for its ports.
    pub async fn look(&mut self) {
        let status = self.command(&Request::Status).await.status();
        self.listening = status.unwrap_or_else(|failed| panic!("{}", failed.message)).listeners;
    }

    /// Runs a command of the program, its configuration named, and does not wait for its end.
    pub fn begin(&self, arguments: &[&str]) -> Process {
        let file = self.file.to_str().unwrap();
        Process::start(self.folder.path(), &[&["--config", file], arguments].concat())
    }

    /// The same as another user, which only root can do.
    pub fn begin_as(&self, user: u32, arguments: &[&str]) -> Process {
        let file = self.file.to_str().unwrap();
        Process::start_as(user, self.folder.path(), &[&["--config", file], arguments].concat())
    }

    /// Runs a command to its end; `input` is what it reads.
    pub fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut process = self.begin(arguments);
        process.say(input);
        process.end()
    }

    /// The same beside a postkey in this process, which has to go on meanwhile.
    pub async fn run_beside(&self, arguments: &[&str], input: &str) -> Ended {
        let mut process = self.begin(arguments);
        process.say(input);
        tokio::task::spawn_blocking(|| process.end()).await.unwrap()
    }

    /// Runs the daemon as a process of its own, and waits until it serves.
    pub async fn serve(&mut self) -> Process {
        self.serve_with(&[]).await
    }

    /// The same with some more in its environment.
    pub async fn serve_with(&mut self, environment: &[(&str, &str)]) -> Process {
        let process = Process::start_with(self.folder.path(), &["--config", self.file.to_str().unwrap()], environment);
        self.await_service(process).await
    }

    /// The same with these options.
    pub async fn serve_as(&mut self, options: &[&str]) -> Process {
        let process = self.begin(options);
        self.await_service(process).await
    }

    async fn await_service(&mut self, process: Process) -> Process {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.listening = loop {
            if let Ok(Some(Reply::Status(status))) = control::ask(&self.config.control_socket, &Request::Status).await {
                break status.listeners;
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not serve: {}", process.terminate().err);
            breath().await;
        };
        process
    }

    /// Lets time pass for postkey, though not for its provider.
    pub fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The time now, for postkey.
    pub fn now(&self) -> Moment {
        Moment(self.time.load(Ordering::SeqCst))
    }

    /// A new grant of the provider.
    fn grant(&self, address: &str) -> Authorization {
        let (access, refresh) = self.provider.grant(address);
        let tokens = TokenSet {
            access: Token::parse(&access).unwrap(),
            refresh: Token::parse(&refresh),
            life: Life { issued: self.now(), expires: self.now().after(LIFE) },
            scope: String::new(),
        };
        let (address, provider) = (address.to_owned(), "own".to_owned());
        let (flow, secrets) = (Flow::AuthorizationCode, Secrets::default());
        Authorization { address, provider, flow, client_id: None, secrets, discovered: None, tokens }
    }

    /// Has the running postkey take a new grant, with which it logs in to each of the provider's servers at once.
    pub async fn authorize(&self, address: &str, first: Option<(&str, &Password)>) {
        let first = first.map(|(name, password)| (name.to_owned(), password));
        self.command(&Request::Authorize(Box::new(Authorized::new(&self.grant(address), first)))).await;
    }

    /// Has the daemon do something.
    pub async fn command(&self, request: &Request) -> Reply {
        match control::ask(&self.config.control_socket, request).await {
            Ok(Some(Reply::Failed(failed))) => panic!("{}", failed.message),
            Ok(Some(reply)) => reply,
            other => panic!("no reply: {other:?}"),
        }
    }

    /// Ann's records in the vault, as `status` sees them.
    pub async fn state(&self) -> serde_json::Value {
        serde_json::to_value(self.command(&Request::Status).await).unwrap()["Status"]["accounts"][0].clone()
    }

    /// The vault's log, byte for byte.
    pub fn vault_bytes(&self) -> Vec<u8> {
        std::fs::read(self.config.state_dir.join("sled/db")).expect("the vault")
    }

    /// The port of a listener; of several that are alike, the last in the configuration.
    pub fn port(&self, protocol: Protocol, security: Security) -> u16 {
        let is_it = |one: &&Listening| (&*one.protocol, &*one.security) == (protocol.name(), security.name());
        self.listening.iter().rfind(is_it).expect("postkey runs, and has one of each").address.port()
    }

    /// A mail program that is connected: under TLS where the listener has it, greeted, and in SMTP after EHLO.
    pub async fn program(&self, protocol: Protocol, security: Security) -> Program {
        Program::connect(self.port(protocol, security), protocol, security, &self.identity).await
    }

    /// A connection on which nothing has been said but the greeting; with STARTTLS nothing since the handshake.
    pub async fn greeted(&self, protocol: Protocol, security: Security) -> Client {
        let mut client = Client::clear(self.port(protocol, security)).await;
        if security == Security::StartTls {
            client.expect(["* OK", "+OK", "220"][protocol as usize]).await;
            client.say(["a STARTTLS", "STLS", "STARTTLS"][protocol as usize]).await;
            client.expect(["a OK", "+OK", "220"][protocol as usize]).await;
            return client.protect(&self.identity).await;
        }
        if security == Security::Tls {
            client = client.protect(&self.identity).await;
        }
        client.expect(["* OK", "+OK", "220"][protocol as usize]).await;
        client
    }

    /// A mail program in clear that has logged in with Ann's app password.
    pub async fn logged_in(&self, protocol: Protocol) -> Program {
        let mut program = self.program(protocol, Security::Clear).await;
        let reply = program.log_in(Way::Plain, ANN, &self.password).await;
        assert!(accepted(protocol, &reply), "{reply}");
        program
    }

    /// How a login with Ann's app password is answered, in clear and on a connection of its own.
    pub async fn try_login(&self, protocol: Protocol) -> String {
        self.program(protocol, Security::Clear).await.log_in(Way::Plain, ANN, &self.password).await
    }
}

/// A listener in clear, with STARTTLS and with TLS for each protocol.
fn listeners() -> String {
    let mut toml = String::new();
    for protocol in Protocol::ALL {
        for security in SECURITIES {
            let (protocol, name) = (protocol.name(), security.name());
            toml +=
                &format!("[[listener]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:0\"\nsecurity = \"{name}\"\n");
            if security != Security::Clear {
                toml += "certificate = \"cert.pem\"\nkey = \"key.pem\"\n";
            }
        }
    }
    toml
}

/// How a mail program logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// IMAP's LOGIN, POP3's USER and PASS; in SMTP, which has none, AUTH PLAIN.
    Own,
    /// SASL PLAIN with an initial response.
    Plain,
    /// SASL PLAIN, its message on a line of its own.
    PlainInTwo,
    /// SASL LOGIN.
    Login,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Own, Self::Plain, Self::PlainInTwo, Self::Login];
}

/// A mail program of those that know only passwords. Its IMAP tag is always `a`.
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
        client.expect(["* OK", "+OK", "220"][protocol as usize]).await;
        let mut program = Self { client, protocol };
        program.ehlo().await;
        if security == Security::StartTls {
            program.client.say(["a STARTTLS", "STLS", "STARTTLS"][protocol as usize]).await;
            program.client.expect(["a OK", "+OK", "220"][protocol as usize]).await;
            program.client = program.client.protect(identity).await;
            program.ehlo().await;
        }
        program
    }

    async fn ehlo(&mut self) {
        if self.protocol == Protocol::Smtp {
            self.client.say("EHLO client.example.test").await;
            while self.client.line().await.starts_with("250-") {}
        }
    }

    /// Tries to log in; the last line of the answer.
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

    /// Does something for which one has to be logged in at the provider.
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

/// Whether a login's answer is a yes.
pub fn accepted(protocol: Protocol, reply: &str) -> bool {
    reply.starts_with(["a OK", "+OK", "235"][protocol as usize])
}

/// Waits until it is so.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        breath().await;
    }
}

/// Waits until it is so, and lets so much time pass for all timers between two looks.
pub async fn until_skipping(what: &str, step: Duration, is_so: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        skip(step).await;
        breath().await;
        if is_so().await {
            return;
        }
    }
    panic!("{what} did not happen");
}

async fn breath() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Lets time pass for all timers of this process: timeouts, and failures that stand for a while.
pub async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
