//! A postkey in this process with a provider, an authorized account, and mail programs that log in to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postkey::clock::{Clock, Moment};
use postkey::config::flow::Flow;
use postkey::config::provider::Discovered;
use postkey::config::{Config, Listening};
use postkey::control::{self, ControlRequest, NewAuthorization, Status};
use postkey::daemon::Daemon;
use postkey::net::systemd::Sockets;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Authorization, Secrets, Vault};
use tempfile::TempDir;

use super::client::Client;
use super::process::{Ended, Process};
pub use super::program::{Program, Way, accepted, stuffed};
use super::waiting::breath;
pub use super::waiting::{PATIENCE, free_port, rest, skip, until, until_skipping};
use super::{Options, Provider, canaries, tls};

/// The account of a house.
pub const ANN: &str = "ann@example.test";
/// A mailbox at the provider without an account.
pub const BEN: &str = "ben@example.test";
/// Another one.
pub const OFFICE: &str = "office@example.test";

/// How a listener or a server can be protected.
pub const SECURITIES: [Security; 3] = [Security::Clear, Security::StartTls, Security::Tls];

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
        let daemon =
            Daemon::start(self.config.clone(), Clock::Manual(Arc::clone(&self.time)), Sockets::default()).await;
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
                break control::read::<Status>(&status).unwrap_or_else(|failed| panic!("{}", failed.message)).listeners;
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

    /// Sets postkey's clock to the real time, for clients that check when a certificate is valid.
    pub fn set_clock(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        self.time.store(now.as_secs(), Ordering::SeqCst);
    }

    /// The time now, for postkey.
    pub fn now(&self) -> Moment {
        Moment(self.time.load(Ordering::SeqCst))
    }

    /// A new grant of the provider.
    pub fn grant(&self, address: &str) -> Authorization {
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
        let authorized = NewAuthorization { authorization: self.grant(address), name, first, is_tested: true };
        self.command(&ControlRequest::Authorize(Box::new(authorized))).await;
    }

    /// The same with this information about the authorization server.
    pub async fn authorize_as_found(&self, address: &str, discovered: Discovered) {
        let authorization = Authorization { discovered: Some(discovered), ..self.grant(address) };
        let authorized = NewAuthorization { authorization, name: String::new(), first: None, is_tested: true };
        let request = ControlRequest::Authorize(Box::new(authorized));
        let _may_be_refused = control::ask(&self.config.control_socket, None, &request).await;
    }

    /// Sends a request to the daemon.
    pub async fn command(&self, request: &ControlRequest) -> serde_json::Value {
        match control::ask(&self.config.control_socket, None, request).await {
            Ok(Some(Err(failed))) => panic!("{}", failed.message),
            Ok(Some(Ok(answer))) => serde_json::from_str(answer.get()).expect("JSON"),
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

/// A configuration whose provider gets no spare connections, for tests that count connections.
pub fn without_spares(config: &str) -> String {
    config.replace("[provider.own]\n", "[provider.own]\nspare_connection = 0\n")
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
