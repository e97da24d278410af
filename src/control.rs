//! Commands to the one who holds the vault: the running daemon, over its control socket, or this very process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;
use zeroize::Zeroizing;

use crate::broker::{Account, Broker};
use crate::clock::Moment;
use crate::exit::{Exit, Failed};
use crate::login::log_in;
use crate::protocol::{Protocol, Security};
use crate::secret::{Secret, Token};
use crate::token::{Life, TokenSet};
use crate::vault::password::Password;
use crate::vault::{Authorization, VaultError};
use crate::wire::Credentials;

/// The longest request or reply, in bytes; the longest real one is a token set of a few KiB.
const MOST: u64 = 256 * 1024;

/// How long a command may take to send its request.
const REQUEST: Duration = Duration::from_secs(5);

/// What a command asks for.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// What is served, and the state of every account.
    Status,
    /// Put in what an authorization has brought, and log in with it.
    Authorize(Box<Authorized>),
    /// Make a slot for another app password.
    AddSlot {
        /// Of which account.
        address: String,
        /// One of the account's app passwords.
        password: Carried,
        /// What the new slot is called.
        name: String,
        /// The new app password.
        new: Carried,
    },
    /// Remove a slot.
    RemoveSlot {
        /// Of which account.
        address: String,
        /// Which slot.
        name: String,
    },
    /// Remove an account.
    Forget {
        /// Which one.
        address: String,
    },
    /// Really log in to the provider, on each protocol.
    Test {
        /// To which account.
        address: String,
        /// One of its app passwords.
        password: Carried,
    },
    /// Read the configuration anew.
    Reload,
    /// What has been counted.
    Metrics,
    /// Log by this filter, in the syntax of `RUST_LOG`, until the next reload.
    Log(String),
}

/// Something that only the program as a whole can do, and where its outcome is waited for.
pub struct Order {
    /// [`Request::Reload`] or [`Request::Log`].
    pub request: Request,
    /// Takes the outcome.
    pub outcome: oneshot::Sender<Result<(), Failed>>,
}

/// What an authorization has brought, on its way to the vault.
#[derive(Serialize, Deserialize)]
pub struct Authorized {
    address: String,
    provider: String,
    client_id: Option<String>,
    client_secret: Option<Carried>,
    access: Carried,
    refresh: Option<Carried>,
    life: Life,
    scope: String,
    /// Name and app password of the first slot, for a new account.
    first: Option<(String, Carried)>,
}

/// A secret on its way through the control socket, which only its owner can open: the one form in which a secret can be
/// serialized.
pub struct Carried(pub Secret);

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Authorize`] and [`Request::Test`]: what each of the provider's servers said.
    Tested(Vec<Probe>),
    /// To [`Request::Metrics`]: the text form of Prometheus.
    Metrics(String),
    /// It was not done.
    Failed(Failed),
}

/// What is served, and how the accounts are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The ports that are open; none if no daemon runs.
    pub listeners: Vec<Listening>,
    /// Every account.
    pub accounts: Vec<AccountStatus>,
    /// Addresses whose records in the vault cannot be read.
    pub damaged: Vec<String>,
}

/// An open port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listening {
    /// By its name in the configuration.
    pub protocol: String,
    /// Where.
    pub address: SocketAddr,
    /// By its name in the configuration.
    pub security: String,
}

/// The plain part of an account.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccountStatus {
    /// Its address, which is the login name.
    pub address: String,
    /// Its provider.
    pub provider: String,
    /// "ready", or "ended" when a person has to authorize it anew.
    pub state: String,
    /// Why it has ended.
    pub reason: Option<String>,
    /// When a person last authorized it.
    pub authorized: Moment,
    /// When the access token expires; it is refreshed at the first login after that.
    pub token_expires: Moment,
    /// Its app passwords' slots.
    pub slots: Vec<SlotStatus>,
}

/// The plain part of a slot.
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    /// What the user calls it.
    pub name: String,
    /// When it was made.
    pub created: Moment,
}

/// What a provider's server said to a login.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probe {
    /// By its name in the configuration.
    pub protocol: String,
    /// The server.
    pub server: String,
    /// What it said, if it did not let us in.
    pub refused: Option<String>,
}

impl Reply {
    /// The answer to [`Request::Status`].
    pub fn status(self) -> Result<Status, Failed> {
        if let Self::Status(status) = self { Ok(status) } else { Err(Self::of_another_kind()) }
    }

    /// The answer to [`Request::Authorize`] and [`Request::Test`].
    pub fn tested(self) -> Result<Vec<Probe>, Failed> {
        if let Self::Tested(probes) = self { Ok(probes) } else { Err(Self::of_another_kind()) }
    }

    fn of_another_kind() -> Failed {
        Failed::new(Exit::Software, "the daemon's answer is of another kind; restart it, it may be of another version")
    }
}

impl Authorized {
    /// Packs an authorization.
    pub fn new(authorization: &Authorization, first: Option<(String, &Password)>) -> Self {
        let token = |token: &Token| Carried(Secret::new(token.expose().as_bytes().to_vec()));
        let Authorization { address, provider, client_id, client_secret, tokens } = authorization;
        Self {
            address: address.clone(),
            provider: provider.clone(),
            client_id: client_id.clone(),
            client_secret: client_secret.clone().map(Carried),
            access: token(&tokens.access),
            refresh: tokens.refresh.as_ref().map(token),
            life: tokens.life,
            scope: tokens.scope.clone(),
            first: first.map(|(name, password)| (name, Carried(Secret::new(password.expose())))),
        }
    }

    /// Unpacks it. None if the tokens are none.
    fn open(self) -> Option<(Authorization, Option<(String, Password)>)> {
        let token = |carried: &Carried| Token::parse(std::str::from_utf8(carried.0.expose()).ok()?);
        let refresh = match &self.refresh {
            Some(carried) => Some(token(carried)?),
            None => None,
        };
        let tokens = TokenSet { access: token(&self.access)?, refresh, life: self.life, scope: self.scope };
        let authorization = Authorization {
            address: self.address,
            provider: self.provider,
            client_id: self.client_id,
            client_secret: self.client_secret.map(|carried| carried.0),
            tokens,
        };
        Some((authorization, self.first.map(|(name, carried)| (name, Password::read(carried.0.expose())))))
    }
}

/// Does what commands ask for.
pub struct Control {
    /// Owns the vault.
    pub broker: Arc<Broker>,
    /// The ports that are open.
    listeners: Mutex<Vec<Listening>>,
    /// Goes to the daemon; None if this is none.
    orders: Option<mpsc::Sender<Order>>,
}

impl Control {
    /// For a process that is no daemon.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, listeners: Mutex::default(), orders: None }
    }

    /// For a daemon, and what it is ordered to do.
    pub fn of_daemon(broker: Arc<Broker>) -> (Self, mpsc::Receiver<Order>) {
        let (sender, orders) = mpsc::channel(1);
        (Self { orders: Some(sender), ..Self::new(broker) }, orders)
    }

    /// Notes which ports are open now.
    pub fn set_listeners(&self, listeners: Vec<Listening>) {
        *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Does one thing.
    pub async fn answer(&self, request: Request) -> Reply {
        self.try_answer(request).await.unwrap_or_else(Reply::Failed)
    }

    async fn try_answer(&self, request: Request) -> Result<Reply, Failed> {
        match request {
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Authorize(authorized) => self.authorize(*authorized).await,
            Request::AddSlot { address, password, name, new } => {
                let (password, new) = (Password::read(password.0.expose()), Password::read(new.0.expose()));
                let (vault, now) = (Arc::clone(self.broker.vault()), self.broker.now());
                off_thread(move || vault.add_slot(&address, &password, &name, &new, now)).await
            }
            Request::RemoveSlot { address, name } => {
                let (vault, of) = (Arc::clone(self.broker.vault()), address.clone());
                let reply = off_thread(move || vault.remove_slot(&of, &name)).await;
                self.broker.withdraw(&address);
                reply
            }
            Request::Forget { address } => {
                let (vault, of) = (Arc::clone(self.broker.vault()), address.clone());
                let reply = off_thread(move || vault.forget(&of)).await;
                self.broker.forget(&address);
                reply
            }
            Request::Test { address, password } => self.test(&address, password.0).await,
            Request::Metrics => Ok(Reply::Metrics(self.broker.metrics_text())),
            request @ (Request::Reload | Request::Log(_)) => self.order(request).await,
        }
    }

    async fn order(&self, request: Request) -> Result<Reply, Failed> {
        let gone = || Failed::new(Exit::Unavailable, "no daemon runs; `postkey` starts it");
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        let (outcome, result) = oneshot::channel();
        orders.send(Order { request, outcome }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?.map(|()| Reply::Done)
    }

    /// What is served, and how the accounts are.
    pub fn status(&self) -> Status {
        let vault = self.broker.vault();
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let accounts = vault.accounts().into_iter().map(|account| AccountStatus {
            address: account.address.clone(),
            provider: account.provider.clone(),
            state: if account.ended.is_some() { "ended" } else { "ready" }.to_owned(),
            reason: account.ended.as_ref().map(|ended| ended.why.clone()),
            authorized: account.authorized,
            token_expires: account.life().expires,
            slots: account
                .slots
                .iter()
                .map(|slot| SlotStatus { name: slot.name.clone(), created: slot.created })
                .collect(),
        });
        Status { listeners, accounts: accounts.collect(), damaged: vault.damaged().to_vec() }
    }

    async fn authorize(&self, authorized: Authorized) -> Result<Reply, Failed> {
        let (authorization, first) =
            authorized.open().ok_or_else(|| Failed::new(Exit::Data, "the tokens are not usable"))?;
        let account = self.broker.authorize(authorization, first).await?;
        Ok(Reply::Tested(self.probe(&account).await))
    }

    async fn test(&self, address: &str, password: Secret) -> Result<Reply, Failed> {
        let credentials = Credentials { user: address.to_owned(), password };
        let account = self.broker.unlock(&credentials).await?;
        Ok(Reply::Tested(self.probe(&account).await))
    }

    /// Logs in to each of the provider's servers, and leaves again.
    async fn probe(&self, account: &Arc<Account>) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (protocol, server) in &account.reach.provider.servers {
            let refused = log_in(&self.broker, account, *protocol, None).await.err().map(|refusal| refusal.text);
            let server = format!("{}:{}", server.host, server.port);
            probes.push(Probe { protocol: protocol.name().to_owned(), server, refused });
        }
        probes
    }
}

impl Status {
    /// In one line: how many accounts there are, and who needs a person.
    pub fn summary(&self) -> String {
        let count = match self.accounts.len() {
            0 => "No account yet.".to_owned(),
            1 => "1 account.".to_owned(),
            count => format!("{count} accounts."),
        };
        let ended = self.accounts.iter().filter(|account| account.state == "ended");
        let needing: Vec<&str> =
            ended.map(|account| account.address.as_str()).chain(self.damaged.iter().map(String::as_str)).collect();
        match needing.len() {
            0 => count,
            _ => format!("{count} To be authorized by a person: {}.", needing.join(", ")),
        }
    }
}

impl Listening {
    /// An open port.
    pub fn new(protocol: Protocol, address: SocketAddr, security: Security) -> Self {
        Self { protocol: protocol.name().to_owned(), address, security: security.name().to_owned() }
    }
}

/// Makes the control socket. One that a dead daemon has left behind is replaced; the vault's lock tells that it is dead.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something that is no socket is in its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Takes one command from the control socket and answers it.
pub async fn serve(stream: UnixStream, control: Arc<Control>) {
    let result = match may_command(&stream) {
        true => answer_on(stream, &control).await,
        false => Err(io::ErrorKind::PermissionDenied.into()),
    };
    if let Err(error) = result {
        warn!(%error, "a command on the control socket failed");
    }
}

/// Whoever runs the daemon, and root.
fn may_command(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn answer_on(mut stream: UnixStream, control: &Control) -> io::Result<()> {
    let line = timeout(REQUEST, read_line(&mut stream)).await??;
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => control.answer(request).await,
        Err(_) => Reply::Failed(Failed::new(
            Exit::Software,
            "the daemon does not understand this command; restart it, it may be of another version",
        )),
    };
    write_line(&mut stream, &reply).await
}

/// Sends a request to the daemon and waits for its reply. None if no daemon listens there.
pub async fn ask(socket: &Path, request: &Request) -> io::Result<Option<Reply>> {
    let mut stream = match UnixStream::connect(socket).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        stream => stream?,
    };
    write_line(&mut stream, request).await?;
    let line = read_line(&mut stream).await?;
    serde_json::from_slice(&line).map(Some).map_err(|_| io::Error::other("the daemon's answer cannot be read"))
}

async fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = Zeroizing::new(serde_json::to_vec(message)?);
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::new());
    BufReader::new(stream.take(MOST)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

async fn off_thread(work: impl FnOnce() -> Result<(), VaultError> + Send + 'static) -> Result<Reply, Failed> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(VaultError::Interrupted))?;
    Ok(Reply::Done)
}

/// As base64: a password can be any bytes.
impl Serialize for Carried {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, self.0.expose()));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Carried {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text.as_bytes());
        bytes.map(|bytes| Self(Secret::new(bytes))).map_err(serde::de::Error::custom)
    }
}
