//! A postkey in this process with a provider, an authorized account, and mail programs that log in to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::clock::{Clock, Moment};
use postkey::config::Config;
use postkey::config::flow::Flow;
use postkey::config::provider::Discovered;
use postkey::control::{self, ControlRequest, Listening, NewAuthorization, Status};
use postkey::daemon::Daemon;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Authorization, Secrets, Vault};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::client::Client;
use super::process::{Ended, Process};
use super::{Options, Provider, canaries, tls};

/// The account of a house.
pub const ANN: &str = "ann@example.test";
/// A mailbox at the provider without an account.
pub const BEN: &str = "ben@example.test";
/// Another one.
pub const OFFICE: &str = "office@example.test";

/// How a listener or a server can be protected.
pub const SECURITIES: [Security; 3] = [Security::Clear, Security::StartTls, Security::Tls];

/// The longest wait for anything that has to happen. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The beginning of the houses' clock, and the life of their first tokens, in seconds.
const BEGINNING: u64 = 1_800_000_000;
pub const LIFE: u64 = 3600;

/// A provider, and a postkey whose listeners speak every protocol without TLS, with STARTTLS and with TLS.
pub struct House {
    pub provider: Provider,
    /// Ann's app password, as it was shown to her.
    pub password: String,
    pub config: Config,
    /// Its configuration file.
    pub file: PathBuf,
    pub folder: TempDir,
    pub identity: tls::Identity,
    daemon: Option<Daemon>,
    /// The ports of the running postkey, in this process or in a separate one.
    listening: Vec<Listening>,
    time: Arc<AtomicU64>,
    /// The place in the log of [`canaries`] at which this house begins.
    since: usize,
}

/// Whatever a test is about, no secret may be logged.
impl Drop for House {
    fn drop(&mut self) {
        if canaries::LISTENS && !std::thread::panicking() {
            let passwords = [self.password.clone(), self.password.replace('-', "")];
            let secrets = self.provider.secrets().into_iter().chain(passwords).filter(|secret| !secret.is_empty());
            canaries::assert_none(self.since, &secrets.collect::<Vec<_>>());
        }
    }
}

impl House {
    /// A house that reaches its provider with TLS.
    pub async fn open() -> Self {
        Self::with(Security::Tls, |config| config).await
    }

    /// A house that reaches its provider with this security, and whose configuration file `edit` has changed.
    pub async fn with(upstream: Security, edit: impl FnOnce(String) -> String) -> Self {
        let mut house = Self::furnished(upstream, edit).await;
        house.start().await;
        house
    }

    /// The same without a running daemon.
    pub async fn furnished(upstream: Security, edit: impl FnOnce(String) -> String) -> Self {
        Self::furnished_with(upstream, Options::default(), edit).await
    }

    /// The same with a provider of these options.
    pub async fn furnished_with(upstream: Security, options: Options, edit: impl FnOnce(String) -> String) -> Self {
        let mut house = Self::empty(upstream, options, edit).await;
        let password = Password::generate();
        house.password = String::from_utf8(password.expose()).unwrap();
        // Into the vault itself, because a running postkey would log in with it, and tests count logins.
        let vault = Vault::open(&house.config.state_dir).unwrap();
        vault.authorize(&house.grant(ANN), Some(("main", &password)), house.now()).unwrap();
        drop(vault);
        house
    }

    /// A house without an account and without a running daemon.
    pub async fn empty(upstream: Security, options: Options, edit: impl FnOnce(String) -> String) -> Self {
        let since = if canaries::LISTENS { canaries::listen() } else { 0 };
        let provider = Provider::start(options).await;
        let (identity, folder) = (tls::identity(), TempDir::new().expect("a folder for temporary files"));
        std::fs::write(folder.path().join("cert.pem"), &identity.certificate_pem).unwrap();
        std::fs::write(folder.path().join("key.pem"), &identity.key_pem).unwrap();
        let file = folder.path().join("postkey.toml");
        let config = format!("state_dir = \"state\"\n{}\n{}", listeners(), provider.config_toml("own", upstream));
        let mut config = edit(config);
        if canaries::LISTENS && !config.contains("log = ") {
            config = format!("log = \"trace\"\n{config}");
        }
        std::fs::write(&file, config).unwrap();
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
            since,
        }
    }

    /// Starts postkey, which waits until a stopped one has closed the vault.
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

    /// Ends postkey without a stop and starts it again, once the last session of the old one has closed the vault.
    pub async fn restart(&mut self) {
        self.daemon = None;
        let is_free = || std::fs::File::open(&self.config.state_dir).unwrap().try_lock().is_ok();
        until("the end of the postkey before", async || is_free()).await;
        self.start().await;
    }

    /// Makes postkey read its configuration again, changed or not.
    pub async fn reload(&mut self) {
        let daemon = self.daemon.as_mut().expect("a postkey that runs");
        daemon.reload(self.config.clone()).await.unwrap_or_else(|failed| panic!("{}", failed.message));
    }

    /// Asks a postkey in a separate process for its ports.
    pub async fn look(&mut self) {
        self.listening = self.status().await.listeners;
    }

    /// Starts a command of the program with its configuration, and does not wait for its end.
    pub fn begin(&self, arguments: &[&str]) -> Process {
        let file = self.file.to_str().unwrap();
        Process::start(self.folder.path(), &[&["--config", file], arguments].concat())
    }

    /// The same as another user, which only root can do.
    pub fn begin_as(&self, user: u32, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let file = self.file.to_str().unwrap();
        Process::start_as(user, self.folder.path(), &[&["--config", file], arguments].concat(), environment)
    }

    /// Runs a command to its end; `input` is its standard input.
    pub fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut process = self.begin(arguments);
        process.say(input);
        process.end()
    }

    /// The same beside a postkey in this process, which has to continue meanwhile.
    pub async fn run_beside(&self, arguments: &[&str], input: &str) -> Ended {
        let mut process = self.begin(arguments);
        process.say(input);
        tokio::task::spawn_blocking(|| process.end()).await.unwrap()
    }

    /// Runs the daemon in a separate process, and waits until it serves.
    pub async fn serve(&mut self) -> Process {
        self.serve_with(&[]).await
    }

    /// The same with these additional environment variables.
    pub async fn serve_with(&mut self, environment: &[(&str, &str)]) -> Process {
        let process = Process::start_with(self.folder.path(), &["--config", self.file.to_str().unwrap()], environment);
        self.await_service(process).await
    }

    /// The same from a shell that does something first.
    pub async fn serve_by(&mut self, preparation: &str) -> Process {
        let file = self.file.to_str().unwrap().to_owned();
        self.await_service(Process::start_by(preparation, self.folder.path(), &["--config", &file], &[])).await
    }

    /// The same with these options.
    pub async fn serve_as(&mut self, options: &[&str]) -> Process {
        let process = self.begin(options);
        self.await_service(process).await
    }

    async fn await_service(&mut self, process: Process) -> Process {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.listening = loop {
            if let Ok(Some(Ok(status))) = control::ask(&self.config.control_socket, None, &ControlRequest::Status).await
            {
                break control::read::<Status>(status).unwrap_or_else(|failed| panic!("{}", failed.message)).listeners;
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not serve: {}", process.terminate().err);
            breath().await;
        };
        process
    }

    /// Lets time pass for postkey, but not for its provider.
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

    /// Gives the running postkey a new grant, with which it logs in to each of the provider's servers at once.
    pub async fn authorize(&self, address: &str, first: Option<(&str, &Password)>) {
        let name = first.map(|(name, _)| name.to_owned()).unwrap_or_default();
        let first = first.map(|(_, password)| password.clone());
        let authorized = NewAuthorization { authorization: self.grant(address), name, first };
        self.command(&ControlRequest::Authorize(Box::new(authorized))).await;
    }

    /// The same with this information about the authorization server.
    pub async fn authorize_as_found(&self, address: &str, discovered: Discovered) {
        let authorization = Authorization { discovered: Some(discovered), ..self.grant(address) };
        let authorized = NewAuthorization { authorization, name: String::new(), first: None };
        let request = ControlRequest::Authorize(Box::new(authorized));
        let _may_be_refused = control::ask(&self.config.control_socket, None, &request).await;
    }

    /// Sends a request to the daemon.
    pub async fn command(&self, request: &ControlRequest) -> serde_json::Value {
        match control::ask(&self.config.control_socket, None, request).await {
            Ok(Some(Err(failed))) => panic!("{}", failed.message),
            Ok(Some(Ok(answer))) => answer,
            other => panic!("no reply: {other:?}"),
        }
    }

    /// What `postkey status` shows.
    pub async fn status(&self) -> Status {
        serde_json::from_value(self.command(&ControlRequest::Status).await).unwrap()
    }

    /// What `postkey metrics` shows.
    pub async fn metrics(&self) -> String {
        serde_json::from_value(self.command(&ControlRequest::Metrics).await).unwrap()
    }

    /// Ann's records in the vault, as `status` shows them.
    pub async fn state(&self) -> serde_json::Value {
        self.command(&ControlRequest::Status).await["accounts"][0].clone()
    }

    /// Both copies of the vault, byte for byte: sled's log, and the records' files by their names.
    pub fn vault_bytes(&self) -> Vec<u8> {
        let read = |path| std::fs::read(path).expect("the vault");
        let entries = std::fs::read_dir(self.config.state_dir.join("copies")).expect("the vault");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().fold(read(self.config.state_dir.join("sled/db")), |all, file| [all, read(file)].concat())
    }

    /// The port of a listener. If several are alike, it is the last one in the configuration.
    pub fn port(&self, protocol: Protocol, security: Security) -> u16 {
        let alike = |one: &&Listening| (one.protocol, one.security) == (protocol, security);
        let mut ports = self.listening.iter().filter(alike).filter_map(|one| one.address.tcp());
        ports.next_back().expect("postkey runs, and has one of each").port()
    }

    /// A connected mail program: with TLS if the listener has it, greeted, and in SMTP after EHLO.
    pub async fn program(&self, protocol: Protocol, security: Security) -> Program {
        Program::connect(self.port(protocol, security), protocol, security, &self.identity).await
    }

    /// A connection on which nothing has been sent but the greeting; with STARTTLS, nothing since the handshake.
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

    /// A mail program without TLS that has logged in with Ann's app password.
    pub async fn logged_in(&self, protocol: Protocol) -> Program {
        let mut program = self.program(protocol, Security::Clear).await;
        let reply = program.log_in(Way::Plain, ANN, &self.password).await;
        assert!(accepted(protocol, &reply), "{reply}");
        program
    }

    /// The answer to a login with Ann's app password, without TLS and on a separate connection.
    pub async fn try_login(&self, protocol: Protocol) -> String {
        self.program(protocol, Security::Clear).await.log_in(Way::Plain, ANN, &self.password).await
    }
}

/// Listeners without TLS, with STARTTLS and with TLS for each protocol.
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

/// Waits until the condition holds.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        breath().await;
    }
}

/// Waits until the condition holds, and lets this much time pass for all timers between two checks.
pub async fn until_skipping(what: &str, step: Duration, is_so: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        skip(step).await;
        if is_so().await {
            return;
        }
    }
    panic!("{what} did not happen");
}

async fn breath() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Lets time pass for all timers of this process: timeouts, and failures that stand for a while. It passes between two
/// moments in which nothing is under way. Otherwise a request under way, of which a busy machine has many, would time
/// out.
pub async fn skip(time: Duration) {
    rest().await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    rest().await;
}

/// A port that is free at all addresses and that no other process takes: this process gives each once, and the kernel
/// takes those of outgoing connections from 32768 on.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = 10_000 + (std::process::id() % 20_000) as u16;
    loop {
        let port = begin + GIVEN.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// There and back over loopback: more than a request with TLS through a proxy takes.
const WAYS: usize = 25;

/// Waits until everything under way in this runtime has ended, or waits for time to pass. Loopback is never faster than
/// we are, however busy the machine, and outside of it there are only threads to wait for.
pub async fn rest() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut near, mut far, deadline) = (near.unwrap(), far.unwrap().0, std::time::Instant::now() + PATIENCE);
    loop {
        for _ in 0..WAYS {
            near.write_u8(0).await.unwrap();
            far.read_u8().await.unwrap();
            far.write_u8(0).await.unwrap();
            near.read_u8().await.unwrap();
        }
        if !has_waited_for_a_thread().await && !looks_up() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "this process does not come to rest");
    }
}

/// Waits until none of the runtime's threads works on a file. Returns whether one did.
async fn has_waited_for_a_thread() -> bool {
    let begun = std::time::Instant::now();
    // A clock that stands still advances by itself when nothing else happens, which is at once unless such a thread
    // works.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_millis(1)).await;
    tokio::time::resume();
    begun.elapsed() >= Duration::from_millis(1)
}

/// Whether a thread of this process looks up a name, which postkey does outside of the runtime.
fn looks_up() -> bool {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path().join("comm"));
    names.filter_map(|name| std::fs::read_to_string(name).ok()).any(|name| name == "lookup\n")
}
