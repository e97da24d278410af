//! One client's connection, from its greeting to its end.

mod policy;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;
use tracing::info;

use crate::broker::guesses::PasswordAttempt;
use crate::broker::{ConnectionPermit, LoginRecord, Opened, Presence, Resolved};
use crate::downstream::{self, Downstream, Event, Offer, Tls};
use crate::login::{log_in, prepare_spare, take_spare};
use crate::net::connection::Connection;
use crate::net::listen::Socket;
use crate::net::peer::Peer;
use crate::net::strangers::{LogTopic, SessionPermit, Stranger};
use crate::net::trace::{self, Trace};
use crate::net::transport::Transport;
use crate::protocol::{Protocol, Security};
use crate::relay::{Ending, Relayed, Side, relay};
use crate::visit::Visit;
use crate::wire::{Acceptance, Capabilities, Credentials, Reason, Refusal, one_line};
pub use policy::ListenerPolicy;

/// How long a client may take to log in, with all its attempts. This is a deadline and not an idle timer: a byte now
/// and then does not extend it. The provider's time does not count.
const LOGIN: Duration = Duration::from_secs(60);

/// The number of logins that may fail on one connection. Thunderbird tries a wrong password three times.
const TRIES: u32 = 6;

/// How long to wait at a shutdown for a mail that is being sent. Many mail programs re-send an interrupted message, and
/// it arrives twice. Service managers wait 90 seconds.
const SENDING: Duration = Duration::from_secs(30);

/// The same for IMAP and POP3, which repeat their work after the next login.
const READING: Duration = Duration::from_secs(5);

/// The answer to clients when postkey stops.
const STOPPING: &str = "postkey is stopping.";

/// The answer to clients if there are too many sessions.
const NO_ROOM: &str = "postkey has too many sessions now; try later.";

#[derive(Debug, Default)]
pub struct End {
    /// The account, if the client has logged in.
    pub account: Option<String>,
    pub relayed: Relayed,
}

/// A client that may log in.
pub struct Newcomer {
    /// The address, and the user on this machine.
    pub peer: Peer,
    /// Its permit until the login.
    pub stranger: Stranger,
}

/// Serves one client to the end.
pub async fn serve(socket: Socket, newcomer: Newcomer, policy: &ListenerPolicy) -> (End, io::Result<()>) {
    // Boxed, so that a session that only relays does not keep the memory of the login.
    let logged_in = tokio::select! {
        logged_in = Box::pin(log_in_client(socket, &newcomer, policy)) => logged_in,
        () = newcomer.stranger.evicted() => Err(io::Error::other("evicted, because other connections needed its place")),
    };
    drop(newcomer);
    let LoggedIn { opened, presence, permit, client, server, session_permit } = match logged_in {
        Ok(Some(logged_in)) => logged_in,
        Ok(None) => return (End::default(), Ok(())),
        Err(error) => return (End::default(), Err(error)),
    };
    let (relayed, result) = relay(client, server, policy.ending(&opened)).await;
    trace::relayed(policy.protocol, relayed.up, relayed.down);
    drop((presence, permit, session_permit));
    (End { account: Some(opened.account.address.clone()), relayed }, result)
}

/// Rejects a client and closes, without waiting. A client that expects TLS from the first byte gets no words.
pub fn turn_away(socket: Socket, policy: &ListenerPolicy, why: &str) {
    let mut words = Vec::new();
    if policy.security != Security::Tls {
        let offer = Offer {
            host: policy.host.clone(),
            known: Capabilities::default(),
            tls: Tls::Absent,
            asks_login: policy.own.is_none(),
        };
        downstream::new(policy.protocol, offer).dismiss(why, &mut words);
    }
    socket.close_with(&words);
}

struct LoggedIn {
    opened: Opened,
    presence: Presence,
    permit: ConnectionPermit,
    client: Side,
    server: Side,
    session_permit: SessionPermit,
}

/// Greets, reads logins until one succeeds, and answers each. None if the client left without a login.
async fn log_in_client(socket: Socket, newcomer: &Newcomer, policy: &ListenerPolicy) -> io::Result<Option<LoggedIn>> {
    let mut client = Client::greet(socket, newcomer, policy).await?;
    let mut shutdown = policy.shutdown.clone();
    for _ in 0..TRIES {
        let Some((next, credentials)) = client.next_login(policy).await? else { return Ok(None) };
        client = next;
        let client_name = client.dialogue.client_name().map(str::to_owned);
        let (begun, login) = (Instant::now(), policy.broker.resolve(&credentials.user));
        let gone = Box::pin(client.connection.gone());
        let attempt = PasswordAttempt { source: newcomer.stranger.source(), gone };
        // Boxed, so that a connection that has not tried to log in does not use the memory of a login.
        let connection = &client.connection;
        let answer =
            Box::pin(answer(&login, &credentials, client_name.as_deref(), newcomer, attempt, connection, policy));
        let answer = tokio::select! {
            answer = answer => answer,
            // A refresh that is under way continues without us.
            () = shutdown.requested() => Err(Refusal::new(Reason::Unavailable, STOPPING)),
        };
        log_answer(&answer, policy.shown(&credentials.user, &login), begun.elapsed(), newcomer, policy);
        match answer {
            Ok(answered) => return client.accept(answered).await.map(Some),
            Err(refusal) => client.refuse(&refusal).await?,
        }
    }
    client.dismiss("Too many failed logins.").await?;
    Ok(None)
}

/// Counts and logs the answer to a login. `name` is the login name as the log may show it.
fn log_answer(
    answer: &Result<Answered, Refusal>,
    name: String,
    time: Duration,
    newcomer: &Newcomer,
    policy: &ListenerPolicy,
) {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let result = answer.as_ref().map_or_else(|refusal| refusal.reason.name(), |_| "ok");
    policy.broker.metrics.login(policy.protocol, result);
    let (from, protocol) = (newcomer.peer, policy.protocol);
    policy.broker.journal.add(LoginRecord {
        number: 0,
        at: policy.broker.context.now(),
        account: answer.as_ref().map_or_else(|_| name.clone(), |answered| answered.opened.account.address.clone()),
        protocol,
        from: from.to_string(),
        refused: answer.as_ref().err().map(|refusal| one_line(&refusal.text)),
    });
    match answer {
        Ok(Answered { opened: Opened { account, slot }, .. }) => {
            let (address, app_password) = (&account.address, &slot.name);
            info!(
                account = address,
                delegate = account.delegate(),
                app_password,
                uid = from.user,
                milliseconds,
                "{address} logged in by {protocol} from {from} in {milliseconds} ms (app password {app_password})"
            );
        }
        Err(refusal) if newcomer.stranger.may_log(LogTopic::Refusal) => {
            let (account, why) = (name, one_line(&refusal.text));
            info!(
                account,
                reason = refusal.reason.name(),
                why,
                uid = from.user,
                milliseconds,
                "login of {account} by {protocol} from {from} refused after {milliseconds} ms: {why}"
            );
        }
        Err(_) => {}
    }
}

/// The result of a successful login.
struct Answered {
    opened: Opened,
    permit: ConnectionPermit,
    server: Visit,
    acceptance: Acceptance,
    session_permit: SessionPermit,
}

/// Checks the client and its password first; only then contacts the provider. An unknown address may be one that a
/// person can authorize now.
async fn answer(
    login: &Resolved,
    credentials: &Credentials,
    client_name: Option<&str>,
    newcomer: &Newcomer,
    mut attempt: PasswordAttempt<'_>,
    client: &Connection,
    policy: &ListenerPolicy,
) -> Result<Answered, Refusal> {
    let Newcomer { peer, stranger } = newcomer;
    let forbidden = |why| Refusal::new(Reason::Forbidden, why);
    if !login.allows(peer.user) {
        return Err(forbidden("This account is not for your user on this machine."));
    }
    if policy.serves_login(login) {
        policy.broker.first_logins.refuse(login, credentials, peer, &mut attempt).await?;
    }
    let opened = policy.broker.passwords.unlock(login, &credentials.password, attempt).await?;
    if credentials.acts_as.as_ref().is_some_and(|name| policy.broker.resolve(name).address != login.address) {
        return Err(Refusal::new(Reason::SomebodyElse, "Only your own mailbox can be opened."));
    }
    if !opened.slot.limits.allow(policy.protocol, peer.user) {
        return Err(forbidden("This app password is not for this protocol, or not for your user."));
    }
    if !policy.serves(&opened.account.address, &opened.account.connector.provider.name) {
        return Err(forbidden("This account is not served on this port of postkey."));
    }
    let session_permit = stranger.enter().ok_or_else(|| Refusal::new(Reason::Unavailable, NO_ROOM))?;
    let login = async {
        let permit = tokio::select! {
            biased;
            permit = policy.broker.throttle.permit(&opened.account, policy.protocol) => permit?,
            // A client that disconnects makes room for the next one.
            () = client.gone() => return Err(Refusal::new(Reason::Limit, "The mail program disconnected while it waited.")),
        };
        let spare = take_spare(&opened.account, policy.protocol, client_name);
        let (server, acceptance) =
            log_in(&policy.broker, &opened.account, policy.protocol, client_name, spare, &permit).await?;
        prepare_spare(&policy.broker, &opened.account, policy.protocol, client_name, policy.shutdown.clone());
        Ok((permit, server, acceptance))
    };
    match login.await {
        Ok((permit, server, acceptance)) => Ok(Answered { opened, permit, server, acceptance, session_permit }),
        Err(refusal) => {
            stranger.wait_again();
            Err(refusal)
        }
    }
}

impl ListenerPolicy {
    /// How a session ends when postkey stops, or when its app password is removed.
    fn ending(&self, opened: &Opened) -> Ending {
        let limit = if self.protocol == Protocol::Smtp { SENDING } else { READING };
        let (broker, opened) = (Arc::clone(&self.broker), opened.clone());
        let removed = Box::pin(async move { broker.passwords.removed(&opened).await });
        Ending {
            shutdown: self.shutdown.clone(),
            limit,
            farewell: downstream::farewell(self.protocol, self.port_stays_open),
            removed,
        }
    }
}

/// A client that has not logged in.
struct Client<'a> {
    connection: Connection,
    dialogue: Box<dyn Downstream>,
    newcomer: &'a Newcomer,
}

impl<'a> Client<'a> {
    /// Greets at once, in our own name, with the known capabilities of the provider. Starts TLS first if the listener
    /// has it from the first byte on.
    async fn greet(socket: Socket, newcomer: &'a Newcomer, policy: &ListenerPolicy) -> io::Result<Self> {
        let trace = Trace::new(policy.protocol, trace::TracedPeer::Client);
        let mut connection = Connection::new(Transport::of_client(socket)?, trace, LOGIN);
        let tls = match (policy.security, &policy.tls) {
            (Security::Tls, Some(config)) => {
                connection = protect(connection, config, newcomer, policy.protocol).await?;
                Tls::Active
            }
            (Security::StartTls, _) => Tls::Offered,
            _ => Tls::Absent,
        };
        let offer = Offer { host: policy.host.clone(), known: policy.known(), tls, asks_login: policy.own.is_none() };
        let mut client = Self { connection, dialogue: downstream::new(policy.protocol, offer), newcomer };
        client.dialogue.greet(&mut client.connection.out);
        client.connection.flush().await?;
        Ok(client)
    }

    /// Waits for the client's next login, with STARTTLS on the way. None if the client has left or was dismissed.
    async fn next_login(mut self, policy: &ListenerPolicy) -> io::Result<Option<(Self, Credentials)>> {
        let mut shutdown = policy.shutdown.clone();
        loop {
            let event = tokio::select! {
                event = self.connection.converse(&mut *self.dialogue) => event,
                () = shutdown.requested() => return self.dismiss(STOPPING).await.map(|()| None),
            };
            if event.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                return self.dismiss("Too slow to log in.").await.map(|()| None);
            }
            match (event?, &policy.tls) {
                (Event::Login(credentials), _) => return Ok(Some((self, credentials))),
                (Event::Mail, _) if let Some(own) = &policy.own => return Ok(Some((self, own.clone()))),
                (Event::StartTls, Some(config)) => {
                    self.connection = protect(self.connection, config, self.newcomer, policy.protocol).await?;
                    self.dialogue.tls_started();
                }
                (Event::StartTls, None) | (Event::Mail | Event::HangUp, _) => {
                    self.log_unexpected_tls(policy);
                    return self.connection.close().await.map(|()| None);
                }
            }
        }
    }

    /// Logs TLS on a port without it, because some mail programs try TLS and do not report that it failed.
    fn log_unexpected_tls(&self, policy: &ListenerPolicy) {
        if self.connection.has_seen_tls() && self.newcomer.stranger.may_log(LogTopic::Tls) {
            info!(
                uid = self.newcomer.peer.user,
                "TLS from {} on a port for {} with {}; correct the security setting of the mail program",
                self.newcomer.peer,
                policy.protocol,
                policy.security
            );
        }
    }

    /// Passes the provider's acceptance to the client in its protocol, with what arrived after the dialogue on both
    /// sides.
    async fn accept(mut self, answered: Answered) -> io::Result<LoggedIn> {
        let Answered { opened, permit, mut server, acceptance, session_permit } = answered;
        self.dialogue.accept(&acceptance, &mut self.connection.out);
        self.connection.flush().await?;
        let side = |connection: Connection, mut rest: Vec<u8>| {
            let (transport, unread) = connection.into_parts();
            rest.extend(unread);
            Side { transport, rest }
        };
        let (client, server) = (side(self.connection, self.dialogue.replay()), side(server.take()?, Vec::new()));
        client.transport.logged_in()?;
        Ok(LoggedIn { presence: opened.account.presence(), permit, opened, client, server, session_permit })
    }

    async fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        self.dialogue.refuse(refusal, &mut self.connection.out);
        self.connection.flush().await
    }

    async fn dismiss(mut self, why: &str) -> io::Result<()> {
        self.dialogue.dismiss(why, &mut self.connection.out);
        self.connection.close().await
    }
}

/// Does the TLS handshake. The log says why if it fails.
async fn protect(
    connection: Connection,
    config: &Arc<ServerConfig>,
    newcomer: &Newcomer,
    protocol: Protocol,
) -> io::Result<Connection> {
    connection.accept_tls(Arc::clone(config)).await.inspect_err(|error| {
        if error.kind() != io::ErrorKind::ConnectionAborted && newcomer.stranger.may_log(LogTopic::Tls) {
            info!(uid = newcomer.peer.user, %error, "TLS handshake for {protocol} from {} failed: {error}", newcomer.peer);
        }
    })
}
