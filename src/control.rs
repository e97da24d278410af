//! Commands to the one who holds the vault: the running daemon, over its control socket, or this very process.

mod message;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;
use zeroize::Zeroizing;

use crate::broker::guesses::Attempt;
use crate::broker::{Account, Broker};
use crate::examination::examine;
use crate::exit::{Exit, Failed};
use crate::login::log_in;
use crate::net::trace::overhear;
use crate::secret::Secret;
use crate::vault::VaultError;
use crate::vault::password::Password;
use crate::wire::Credentials;
pub use message::{
    AccountStatus, Authorized, Carried, FailureStatus, Listening, Probe, Reply, Request, SlotStatus, Status,
};

/// The longest request or reply, in bytes; the longest real one is a token set of a few KiB.
const MOST: u64 = 256 * 1024;

/// How long a command may take to send its request.
const REQUEST: Duration = Duration::from_secs(5);

/// Something that only the program as a whole can do, and where its outcome is waited for.
pub struct Order {
    /// [`Request::Reload`] or [`Request::Log`].
    pub request: Request,
    /// Takes the outcome.
    pub outcome: oneshot::Sender<Result<(), Failed>>,
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
            Request::AddSlot { address, password, name, new, limits } => {
                let (password, new) = (Password::read(password.0.expose()), Password::read(new.0.expose()));
                let (vault, now) = (Arc::clone(self.broker.vault()), self.broker.now());
                let of = address.clone();
                off_thread(move || vault.add_slot(&of, &password, &name, &new, limits, now)).await?;
                self.broker.withdraw(&address);
                Ok(Reply::Done)
            }
            Request::RemoveSlot { address, name } => {
                let (vault, of) = (Arc::clone(self.broker.vault()), address.clone());
                let done = off_thread(move || vault.remove_slot(&of, &name)).await;
                self.broker.withdraw(&address);
                done.map(|()| Reply::Done)
            }
            Request::Forget { address, password } => self.forget(&address, password.map(|carried| carried.0)).await,
            Request::Export { address } => {
                let vault = Arc::clone(self.broker.vault());
                let record = off_thread(move || vault.export(&address)).await?;
                // A record is JSON with a line of ASCII before it.
                Ok(Reply::Exported(String::from_utf8_lossy(&record).into_owned()))
            }
            Request::Restore { address, record, force } => {
                let (vault, of) = (Arc::clone(self.broker.vault()), address.clone());
                let restored = off_thread(move || vault.restore(&of, record.as_bytes(), force)).await;
                self.broker.forget(&address);
                restored.map(Reply::Restored)
            }
            Request::Examine { address, password } => {
                let opened = match password {
                    Some(Carried(password)) => {
                        let credentials = Credentials { user: address.clone(), password };
                        let opened = self.broker.unlock(&credentials, Attempt::of_this_process()).await;
                        Some(opened.map(|opened| opened.account))
                    }
                    None => None,
                };
                Ok(Reply::Examined(examine(&self.broker, &address, opened).await))
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
        let (vault, config) = (self.broker.vault(), self.broker.config());
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let accounts = vault.accounts().into_iter().map(|account| {
            let condition = self.broker.condition(&account);
            let aliases = config.aliases_of(&account.address);
            let mailboxes = config.shared_with(&account.address);
            AccountStatus { aliases, mailboxes, ..AccountStatus::new(&account, condition) }
        });
        let registered = vault.accounts().into_iter().filter_map(|account| {
            let discovered = account.discovered.as_ref().filter(|discovered| discovered.is_registered)?;
            Some((discovered.issuer.clone(), account.client_id.clone()?))
        });
        Status {
            listeners,
            accounts: accounts.collect(),
            damaged: vault.damaged(),
            degraded: vault.trouble(),
            registered: registered.collect(),
        }
    }

    async fn authorize(&self, authorized: Authorized) -> Result<Reply, Failed> {
        let (authorization, first) =
            authorized.open().ok_or_else(|| Failed::new(Exit::Data, "the tokens are not usable"))?;
        let account = self.broker.authorize(authorization, first).await?;
        Ok(Reply::Tested(self.probe(&account).await))
    }

    /// A wrong password stops it: whoever gives one wants the authorization withdrawn.
    async fn forget(&self, address: &str, password: Option<Secret>) -> Result<Reply, Failed> {
        let opened = match password {
            Some(password) => {
                let credentials = Credentials { user: address.to_owned(), password };
                Some(self.broker.unlock(&credentials, Attempt::of_this_process()).await?.account)
            }
            None => None,
        };
        self.broker.forget_account(address, opened).await.map(Reply::Forgotten)
    }

    async fn test(&self, address: &str, password: Secret) -> Result<Reply, Failed> {
        let credentials = Credentials { user: address.to_owned(), password };
        let opened = self.broker.unlock(&credentials, Attempt::of_this_process()).await?;
        self.broker.insist(&opened.account).await;
        Ok(Reply::Tested(self.probe(&opened.account).await))
    }

    /// Logs in to each of the provider's servers, and leaves again.
    async fn probe(&self, account: &Arc<Account>) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (protocol, server) in &account.reach.provider.servers {
            let (answer, dialogue) = overhear(log_in(&self.broker, account, *protocol, None)).await;
            let refused = answer.err().map(|refusal| refusal.text);
            let server = format!("{}:{}", server.host, server.port);
            let user = Some(account.user(*protocol)).filter(|user| **user != account.address).cloned();
            probes.push(Probe { protocol: protocol.name().to_owned(), server, user, refused, dialogue });
        }
        probes
    }
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

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, Failed> {
    Ok(tokio::task::spawn_blocking(work).await.unwrap_or(Err(VaultError::Interrupted))?)
}
