//! Commands to the one who holds the vault: the running daemon, over its control socket, or this very process.

mod carried;
mod message;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::broker::guesses::PasswordAttempt;
use crate::broker::{Broker, OpenAccount};
use crate::examination::examine;
use crate::exit::{Exit, Failed};
use crate::login::log_in;
use crate::net::trace::overhear;
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::wire::Refusal;
pub use message::{ControlReply, ControlRequest, Listening, LoginTest, NewAuthorization, Status};

/// The longest request, in bytes; the longest real one is a record from a backup. A reply may be as long as there are accounts.
const MOST: u64 = 4 * 1024 * 1024;

/// How long a command may take to send its request.
const REQUEST: Duration = Duration::from_secs(5);

/// Something that only the program as a whole can do, and where its outcome is waited for.
pub struct PendingRequest {
    /// [`ControlRequest::Reload`] or [`ControlRequest::Log`].
    pub request: ControlRequest,
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
    requests: Option<mpsc::Sender<PendingRequest>>,
}

impl Control {
    /// For a process that is no daemon.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, listeners: Mutex::default(), requests: None }
    }

    /// For a daemon, and what it is ordered to do.
    pub fn of_daemon(broker: Arc<Broker>) -> (Self, mpsc::Receiver<PendingRequest>) {
        let (sender, requests) = mpsc::channel(1);
        (Self { requests: Some(sender), ..Self::new(broker) }, requests)
    }

    /// Notes which ports are open now.
    pub fn set_listeners(&self, listeners: Vec<Listening>) {
        *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Does one thing.
    pub async fn answer(&self, mut request: ControlRequest) -> ControlReply {
        let broker = &self.broker;
        if let Some(address) = request.address_mut() {
            *address = broker.resolve(address).address;
        }
        match request {
            ControlRequest::Greet => reply(broker.context.vault.trouble()),
            ControlRequest::Status => reply(self.status()),
            ControlRequest::Authorize(authorized) => {
                let NewAuthorization { authorization, name, first } = *authorized;
                let account = broker.authorize(authorization, first.map(|first| (name, first))).await?;
                reply(self.probe(&account).await)
            }
            ControlRequest::AddSlot { address, password, name, new, limits } => {
                let (of, now, password) = (address.clone(), broker.context.now(), Password::read(password.expose()));
                broker.context.in_vault(move |vault| vault.add_slot(&of, &password, &name, &new, limits, now)).await?;
                broker.passwords.withdraw(&address);
                reply(())
            }
            ControlRequest::RemoveSlot { address, name } => {
                let of = address.clone();
                let done = broker.context.in_vault(move |vault| vault.remove_slot(&of, &name)).await;
                broker.passwords.withdraw(&address);
                reply(done?)
            }
            // A wrong password stops it: whoever gives one wants the authorization revoked.
            ControlRequest::Forget { address, password } => {
                let opened = self.open(&address, password).await.transpose()?;
                reply(broker.forget_account(&address, opened).await?)
            }
            ControlRequest::Export { address } => {
                let record = broker.context.in_vault(move |vault| vault.export(&address)).await?;
                // A record is JSON with a line of ASCII before it.
                reply(String::from_utf8_lossy(&record))
            }
            ControlRequest::Restore { address, record, force } => {
                let of = address.clone();
                let restored = broker.context.in_vault(move |vault| vault.restore(&of, record.as_bytes(), force)).await;
                broker.passwords.close(&address);
                reply(restored?)
            }
            ControlRequest::Test { address, password } => {
                let account = self.unlock(&address, password).await?;
                broker.insist(&account);
                reply(self.probe(&account).await)
            }
            ControlRequest::Examine { address, password } => {
                let opened = self.open(&address, password).await;
                reply(examine(broker, &address, opened).await)
            }
            ControlRequest::Metrics => reply(broker.metrics_text()),
            request @ (ControlRequest::Reload | ControlRequest::Log(_)) => reply(self.order(request).await?),
        }
    }

    async fn order(&self, request: ControlRequest) -> Result<(), Failed> {
        let gone = || Failed::new(Exit::Unavailable, "no daemon runs; `postkey` starts it");
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        let (outcome, result) = oneshot::channel();
        requests.send(PendingRequest { request, outcome }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// What is served, and how the accounts are.
    pub fn status(&self) -> Status {
        let vault = &self.broker.context.vault;
        let registered = vault.accounts().into_iter().filter_map(|account| {
            let discovered = account.discovered.as_ref().filter(|discovered| discovered.is_registered)?;
            Some((discovered.issuer.clone(), account.client_id.clone()?))
        });
        Status {
            listeners: self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            accounts: self.broker.statuses(),
            damaged: vault.damaged(),
            degraded: vault.trouble(),
            registered: registered.collect(),
            newer: vault.newer(),
        }
    }

    /// Opens an account where somebody has given an app password.
    async fn open(&self, address: &str, password: Option<Secret>) -> Option<Result<Arc<OpenAccount>, Refusal>> {
        Some(self.unlock(address, password?).await)
    }

    async fn unlock(&self, address: &str, password: Secret) -> Result<Arc<OpenAccount>, Refusal> {
        let login = self.broker.resolve(address);
        Ok(self.broker.passwords.unlock(&login, &password, PasswordAttempt::of_this_process()).await?.account)
    }

    /// Logs in to each of the provider's servers, and leaves again.
    async fn probe(&self, account: &Arc<OpenAccount>) -> Vec<LoginTest> {
        let mut probes = Vec::new();
        for (protocol, server) in &account.connector.provider.servers {
            let login = async {
                let permit = self.broker.throttle.permit(account, *protocol).await?;
                log_in(&self.broker, account, *protocol, None, &permit).await
            };
            let (answer, dialogue) = overhear(login).await;
            let refused = answer.err().map(|refusal| refusal.text);
            let server = format!("{}:{}", server.host, server.port);
            let user = Some(account.user(*protocol)).filter(|user| **user != account.address).cloned();
            probes.push(LoginTest { protocol: *protocol, server, user, refused, dialogue });
        }
        probes
    }
}

fn reply(answer: impl Serialize) -> ControlReply {
    serde_json::to_value(answer).map_err(|error| Failed::new(Exit::Software, error))
}

/// Reads an answer as what the request is answered with.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failed> {
    let another = "the daemon's answer is of another kind; restart it, it may be of another version";
    serde_json::from_value(answer).map_err(|_| Failed::new(Exit::Software, another))
}

/// Takes one command from the control socket and answers it.
pub async fn serve(stream: UnixStream, control: Arc<Control>) {
    let user = stream.peer_cred().ok().map(|peer| peer.uid());
    if !may_command(user) {
        let who = user.map_or_else(|| "an unknown user".to_owned(), |user| format!("user {user}"));
        warn!(
            uid = user,
            "command of {who} on the control socket refused; only the daemon's user and root may give any"
        );
        return;
    }
    match answer_on(stream, &control).await {
        Ok(()) => {}
        // Its person has interrupted the command.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            debug!(%error, "a command on the control socket left before its answer");
        }
        Err(error) => warn!(%error, "cannot answer a command on the control socket: {error}"),
    }
}

/// Whoever runs the daemon, and root.
fn may_command(user: Option<u32>) -> bool {
    user.is_some_and(|user| user == 0 || user == rustix::process::geteuid().as_raw())
}

async fn answer_on(mut stream: UnixStream, control: &Control) -> io::Result<()> {
    let line = timeout(REQUEST, read_line((&mut stream).take(MOST))).await??;
    if line.is_empty() {
        // Somebody has only looked whether a daemon is here, as root's commands do.
        return Ok(());
    }
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => control.answer(request).await,
        Err(_) => Err(Failed::new(
            Exit::Software,
            "the daemon does not understand this command; restart it, it may be of another version",
        )),
    };
    write_line(&mut stream, &reply).await
}

/// Sends a request to the daemon and waits for its reply. None if no daemon listens there. `owner` may run the daemon, beside
/// this user and root.
///
/// # Errors
///
/// Somebody else listens there, who is sent nothing; or the daemon does not answer.
pub async fn ask(socket: &Path, owner: Option<u32>, request: &ControlRequest) -> io::Result<Option<ControlReply>> {
    let mut stream = match UnixStream::connect(socket).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        stream => stream?,
    };
    judge_listener(stream.peer_cred()?.uid(), owner)?;
    write_line(&mut stream, request).await?;
    let line = read_line(&mut stream).await?;
    serde_json::from_slice(&line).map(Some).map_err(|_| io::Error::other("the daemon's answer cannot be read"))
}

/// A request may hold tokens and app passwords: they go to nobody who could not read them in the state folder.
fn judge_listener(listener: u32, owner: Option<u32>) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if [Some(own), Some(0), owner].contains(&Some(listener)) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the user with the id {listener} listens there, and postkey does not run as that user; \
         nothing was sent; remove that socket, or name another control_socket"
    )))
}

async fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = Zeroizing::new(serde_json::to_vec(message)?);
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_line(from: impl AsyncRead + Unpin) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::new());
    BufReader::new(from).read_until(b'\n', &mut line).await?;
    Ok(line)
}
