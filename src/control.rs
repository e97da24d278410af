//! Carries out the requests of commands, in the process that has the vault open: the daemon, which receives them over
//! its control socket, or the command itself.

mod message;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::broker::guesses::PasswordAttempt;
use crate::broker::{Broker, OpenAccount, Selection};
use crate::config::Listening;
use crate::examination::examine;
use crate::exit::{Exit, Failed};
use crate::login::log_in;
use crate::mutex::lock;
use crate::net::trace::overhear;
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::wire::Refusal;
pub use message::{ControlReply, ControlRequest, LoginTest, NewAuthorization, Status};

/// The longest request, in bytes; the longest real one is a record from a backup. A reply grows with the number of
/// accounts.
const MAX_REQUEST: u64 = 4 * 1024 * 1024;

/// How long a command may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that only the whole program can carry out: [`ControlRequest::Reload`], [`ControlRequest::Log`], and what
/// concerns the page in the browser.
pub struct PendingRequest {
    pub request: ControlRequest,
    pub outcome: oneshot::Sender<ControlReply>,
}

/// The requests that the daemon has to carry out itself.
pub struct DaemonRequests {
    /// For its main loop.
    pub program: mpsc::Receiver<PendingRequest>,
    /// About the page in the browser.
    pub page: mpsc::Receiver<PendingRequest>,
}

/// Carries out requests.
pub struct Control {
    pub broker: Arc<Broker>,
    listeners: Mutex<Vec<Listening>>,
    /// Leads to the daemon's main loop; None in a command.
    program: Option<mpsc::Sender<PendingRequest>>,
    /// Leads to the owner of the page in the browser; None in a command.
    page: Option<mpsc::Sender<PendingRequest>>,
}

impl Control {
    /// For a command that has opened the vault itself.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, listeners: Mutex::default(), program: None, page: None }
    }

    /// For the daemon, with the requests that it has to carry out itself.
    pub fn of_daemon(broker: Arc<Broker>) -> (Self, DaemonRequests) {
        let ((to_program, program), (to_page, page)) = (mpsc::channel(1), mpsc::channel(1));
        let control = Self { program: Some(to_program), page: Some(to_page), ..Self::new(broker) };
        (control, DaemonRequests { program, page })
    }

    pub fn set_listeners(&self, listeners: Vec<Listening>) {
        *lock(&self.listeners) = listeners;
    }

    pub async fn answer(&self, mut request: ControlRequest) -> ControlReply {
        let broker = &self.broker;
        if let Some(address) = request.address_mut() {
            *address = broker.resolve(address).address;
        }
        match request {
            ControlRequest::Greet => {
                let vault = &broker.context.vault;
                reply(vault.trouble().filter(|_| vault.has_unsaved()))
            }
            ControlRequest::Status => reply(self.status(&Selection::default())),
            ControlRequest::Select(selection) => reply(self.status(&selection)),
            ControlRequest::Census => reply(broker.census()),
            ControlRequest::Authorize(authorized) => {
                let is_tested = authorized.is_tested;
                let account = self.authorize(*authorized).await?;
                reply(if is_tested { self.test(&account).await } else { Vec::new() })
            }
            ControlRequest::AddSlot { address, password, name, new, limits } => {
                let (of, now, password) = (address.clone(), broker.context.now(), Password::read(password.expose()));
                broker.context.in_vault(move |vault| vault.add_slot(&of, &password, &name, &new, limits, now)).await?;
                broker.passwords.forget_correct(&address);
                reply(())
            }
            ControlRequest::RemoveSlot { address, name } => {
                let of = address.clone();
                let done = broker.context.in_vault(move |vault| vault.remove_slot(&of, &name)).await;
                broker.passwords.forget_correct(&address);
                reply(done?)
            }
            // A wrong password stops it, because the user wants the authorization revoked.
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
                broker.retry_now(&account);
                reply(self.test(&account).await)
            }
            ControlRequest::Examine { address, password } => {
                let opened = self.open(&address, password).await;
                reply(examine(broker, &address, opened).await)
            }
            ControlRequest::Metrics => reply(broker.metrics_text()),
            request @ (ControlRequest::Reload | ControlRequest::Log(_)) => {
                forward(self.program.as_ref(), request).await
            }
            request @ (ControlRequest::OpenPage { .. } | ControlRequest::ClosePage) => {
                forward(self.page.as_ref(), request).await
            }
        }
    }

    /// The listeners, and the state of the accounts that are selected.
    pub fn status(&self, selection: &Selection) -> Status {
        let vault = &self.broker.context.vault;
        let registered = vault.accounts().into_iter().filter_map(|account| {
            let discovered = account.discovered.as_ref().filter(|discovered| discovered.is_registered)?;
            Some((discovered.issuer.clone(), account.client_id.clone()?))
        });
        let is_selected = |address: &String| selection.has_damaged(address);
        Status {
            listeners: lock(&self.listeners).clone(),
            accounts: self.broker.statuses(selection),
            damaged: vault.damaged().into_iter().filter(is_selected).collect(),
            degraded: vault.trouble(),
            registered: registered.collect(),
            newer: vault.newer().into_iter().filter(is_selected).collect(),
        }
    }

    /// Opens an account, if there is an app password.
    async fn open(&self, address: &str, password: Option<Secret>) -> Option<Result<Arc<OpenAccount>, Refusal>> {
        Some(self.unlock(address, password?).await)
    }

    async fn unlock(&self, address: &str, password: Secret) -> Result<Arc<OpenAccount>, Refusal> {
        let login = self.broker.resolve(address);
        Ok(self.broker.passwords.unlock(&login, &password, PasswordAttempt::of_this_process()).await?.account)
    }

    /// Stores an authorization, and opens its account.
    ///
    /// # Errors
    ///
    /// Fails if the vault cannot store it.
    pub async fn authorize(&self, authorized: NewAuthorization) -> Result<Arc<OpenAccount>, Failed> {
        let NewAuthorization { mut authorization, name, first, .. } = authorized;
        authorization.address = self.broker.resolve(&authorization.address).address;
        self.broker.authorize(authorization, first.map(|first| (name, first))).await
    }

    async fn test(&self, account: &Arc<OpenAccount>) -> Vec<LoginTest> {
        let mut tests = Vec::new();
        for protocol in account.connector.provider.servers.keys() {
            tests.extend(self.try_login(account, *protocol).await);
        }
        tests
    }

    /// Logs in to one of the provider's servers, and out again. Returns None if the provider has no such server.
    pub async fn try_login(&self, account: &Arc<OpenAccount>, protocol: Protocol) -> Option<LoginTest> {
        let server = account.connector.provider.servers.get(&protocol)?;
        let login = async {
            let permit = self.broker.throttle.permit(account, protocol).await?;
            log_in(&self.broker, account, protocol, None, None, &permit).await
        };
        let (answer, dialogue) = overhear(login).await;
        let refused = answer.err().map(|refusal| refusal.text);
        let server = format!("{}:{}", server.host, server.port);
        let user = Some(account.user(protocol)).filter(|user| **user != account.address).cloned();
        Some(LoginTest { protocol, server, user, refused, dialogue })
    }
}

/// Has another part of the daemon carry out a request.
async fn forward(to: Option<&mpsc::Sender<PendingRequest>>, request: ControlRequest) -> ControlReply {
    let (outcome, result) = oneshot::channel();
    let sent = to.ok_or_else(no_daemon)?.send(PendingRequest { request, outcome }).await;
    sent.map_err(|_| no_daemon())?;
    result.await.map_err(|_| no_daemon())?
}

pub fn reply(answer: impl Serialize) -> ControlReply {
    to_raw_value(&answer).map_err(|error| Failed::new(Exit::Software, error))
}

/// Reads an answer as the type that [`ControlRequest`] names.
pub fn read<T: DeserializeOwned>(answer: &RawValue) -> Result<T, Failed> {
    let message = "cannot read the daemon's answer; it may be another version of postkey, so restart it";
    serde_json::from_str(answer.get()).map_err(|_| Failed::new(Exit::Software, message))
}

pub fn no_daemon() -> Failed {
    Failed::new(Exit::Unavailable, "no daemon is running; start it with `postkey`")
}

/// Serves one connection to the control socket.
pub async fn serve(stream: UnixStream, control: Arc<Control>) {
    let user = stream.peer_cred().ok().map(|peer| peer.uid());
    if !may_command(user) {
        let who = user.map_or_else(|| "an unknown user".to_owned(), |user| format!("user {user}"));
        warn!(
            uid = user,
            "command from {who} on the control socket refused; only the daemon's user and root may send commands"
        );
        return;
    }
    match answer_one(stream, &control).await {
        Ok(()) => {}
        // The user has interrupted the command.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            debug!(%error, "a command disconnected from the control socket before its answer");
        }
        Err(error) => warn!(%error, "cannot answer a command on the control socket: {error}"),
    }
}

/// The daemon's user and root may send commands.
fn may_command(user: Option<u32>) -> bool {
    user.is_some_and(|user| user == 0 || user == rustix::process::geteuid().as_raw())
}

async fn answer_one(mut stream: UnixStream, control: &Control) -> io::Result<()> {
    let line = timeout(REQUEST_TIMEOUT, read_line((&mut stream).take(MAX_REQUEST))).await??;
    if line.is_empty() {
        // The client only checks whether a daemon is running, as root's commands do.
        return Ok(());
    }
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => control.answer(request).await,
        Err(_) => Err(Failed::new(
            Exit::Software,
            "the daemon does not know this command; it may be another version of postkey, so restart it",
        )),
    };
    write_line(&mut stream, &reply).await
}

/// Sends a request to the daemon and returns its reply; None if no daemon listens there. The daemon's user has to be
/// `owner`, this user or root.
///
/// # Errors
///
/// Fails if another user listens there, before anything is sent; or if the daemon does not answer.
pub async fn ask(socket: &Path, owner: Option<u32>, request: &ControlRequest) -> io::Result<Option<ControlReply>> {
    let mut stream = match UnixStream::connect(socket).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        stream => stream?,
    };
    check_listener(stream.peer_cred()?.uid(), owner)?;
    write_line(&mut stream, request).await?;
    let line = read_line(&mut stream).await?;
    serde_json::from_slice(&line).map(Some).map_err(|_| io::Error::other("cannot read the daemon's answer"))
}

/// A request may contain tokens and app passwords, so it is sent only to users who can read the state folder anyway.
fn check_listener(listener: u32, owner: Option<u32>) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if [Some(own), Some(0), owner].contains(&Some(listener)) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the socket belongs to uid {listener}, who does not run postkey, so nothing was sent; remove it, or set \
         another control_socket"
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
