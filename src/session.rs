//! One client's connection, from its greeting to its end.

mod door;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::info;

use crate::broker::guesses::{Attempt, Source};
use crate::broker::{Opened, Presence};
use crate::downstream::{self, Downstream, Event, Offer, Tls};
use crate::login::log_in;
use crate::net::connection::Connection;
use crate::net::listen::Socket;
use crate::net::peer::Peer;
use crate::net::trace::{self, Trace};
use crate::net::transport::Transport;
use crate::protocol::{Protocol, Security};
use crate::relay::{Ending, Relayed, Side, relay};
use crate::wire::{Acceptance, Credentials, Reason, Refusal};
pub use door::Door;

/// How long a client may take to log in, all its tries together. A deadline and not an idle timer: a byte now and then
/// does not extend it. The provider's time does not count.
const LOGIN: Duration = Duration::from_secs(60);

/// Logins that may fail on one connection. Thunderbird makes three of one wrong password.
const TRIES: u32 = 6;

/// How long a mail that is being sent may take when postkey stops; a half is sent twice by many mail programs, so it is
/// worth a wait. Service managers wait 90 seconds.
const SENDING: Duration = Duration::from_secs(30);

/// The same for what IMAP and POP3 do: it is done again after the next login.
const READING: Duration = Duration::from_secs(5);

/// What clients are told when postkey stops.
const STOPPING: &str = "postkey is stopping.";

/// How long it may take to tell a client that there is no room: a TLS handshake on this machine or the next.
const TURN_AWAY: Duration = Duration::from_secs(1);

/// How a session ended.
#[derive(Debug, Default)]
pub struct End {
    /// The account, if the client has logged in.
    pub account: Option<String>,
    /// What was relayed.
    pub relayed: Relayed,
}

/// Serves one client to the end.
pub async fn serve(socket: Socket, door: &Door) -> (End, io::Result<()>) {
    // Apart, so that a session that only relays holds none of what the login needed.
    let logged_in = match Box::pin(log_in_client(socket, door)).await {
        Ok(Some(logged_in)) => logged_in,
        Ok(None) => return (End::default(), Ok(())),
        Err(error) => return (End::default(), Err(error)),
    };
    let LoggedIn { opened, presence, client, server } = logged_in;
    let (relayed, result) = relay(client, server, door.ending(&opened)).await;
    trace::relayed(door.protocol, relayed.up, relayed.down);
    drop(presence);
    (End { account: Some(opened.account.address.clone()), relayed }, result)
}

/// Tells a client that there is no room for it now, in its protocol's temporary code, and closes.
pub async fn turn_away(socket: Socket, door: &Door) -> io::Result<()> {
    let dismissed = async { Client::open(socket, door).await?.dismiss("postkey has no room now; try later.").await };
    timeout(TURN_AWAY, dismissed).await?
}

struct LoggedIn {
    opened: Opened,
    presence: Presence,
    client: Side,
    server: Side,
}

/// Greets, reads logins until one succeeds, and answers each. None if the client left without.
async fn log_in_client(socket: Socket, door: &Door) -> io::Result<Option<LoggedIn>> {
    let peer = Peer::of(&socket)?;
    if !door.users.allow(peer.user) {
        info!(uid = peer.user, "turned away: this listener is not for this user");
        let stranger = Client::open(socket, door).await?;
        return stranger.dismiss("This port of postkey is not for your user.").await.map(|()| None);
    }
    let mut client = Client::greet(socket, door).await?;
    let mut stop = door.stop.clone();
    for tries in 0..TRIES {
        let Some((next, credentials)) = client.next_login(door).await? else { return Ok(None) };
        client = next;
        let client_name = client.dialogue.client_name().map(str::to_owned);
        let begun = Instant::now();
        let gone = Box::pin(client.connection.gone());
        let attempt = Attempt { source: Source::of(&peer), is_first: tries == 0, gone };
        let answer = tokio::select! {
            answer = answer(&credentials, client_name.as_deref(), &peer, attempt, door) => answer,
            // A refresh that is under way goes on without us.
            () = stop.said() => Err(Refusal::new(Reason::Unavailable, STOPPING)),
        };
        let milliseconds = begun.elapsed().as_millis();
        let result = answer.as_ref().map_or_else(|refusal| refusal.reason.name(), |_| "ok");
        door.broker.metrics().login(door.protocol, result);
        match answer {
            Ok((opened, server, acceptance)) => {
                let (account, app_password) = (&opened.account, &opened.slot.name);
                info!(
                    account = account.address,
                    delegate = account.delegate(),
                    app_password,
                    uid = peer.user,
                    milliseconds,
                    "logged in"
                );
                return client.accept(opened, server, &acceptance).await.map(Some);
            }
            Err(refusal) => {
                info!(
                    account = credentials.user,
                    reason = refusal.reason.name(),
                    why = refusal.text,
                    uid = peer.user,
                    milliseconds,
                    "login refused"
                );
                client.refuse(&refusal).await?;
            }
        }
    }
    client.dismiss("Too many failed logins.").await?;
    Ok(None)
}

/// Who comes and with what password first; then, and only then, the provider. An unseen address may be one that a person can
/// authorize now.
async fn answer(
    credentials: &Credentials,
    client_name: Option<&str>,
    peer: &Peer,
    attempt: Attempt<'_>,
    door: &Door,
) -> Result<(Opened, Connection, Acceptance), Refusal> {
    let forbidden = |why| Refusal::new(Reason::Forbidden, why);
    if !door.admits(&credentials.user, peer) {
        return Err(forbidden("This account is not for your user on this machine."));
    }
    if door.serves_name(&credentials.user) {
        door.broker.first_login(credentials, peer.is_local())?;
    }
    let opened = door.broker.unlock(credentials, attempt).await?;
    if !opened.slot.limits.allow(door.protocol, peer.user) {
        return Err(forbidden("This app password is not for this protocol, or not for your user."));
    }
    if !door.serves(&opened.account.address, &opened.account.reach.provider.name) {
        return Err(forbidden("This account is not served on this port of postkey."));
    }
    let (server, acceptance) = log_in(&door.broker, &opened.account, door.protocol, client_name).await?;
    Ok((opened, server, acceptance))
}

impl Door {
    /// How a session ends when postkey stops, or when its app password does not open its account any more.
    fn ending(&self, opened: &Opened) -> Ending {
        let limit = if self.protocol == Protocol::Smtp { SENDING } else { READING };
        let (broker, opened) = (Arc::clone(&self.broker), opened.clone());
        let withdrawn = Box::pin(async move { broker.withdrawn(&opened).await });
        Ending { stop: self.stop.clone(), limit, farewell: downstream::farewell(self.protocol), withdrawn }
    }
}

/// The client until it is logged in.
struct Client {
    connection: Connection,
    dialogue: Box<dyn Downstream>,
    /// The time it has left to log in.
    left: Duration,
}

impl Client {
    /// Greets at once, in our own name, with what we know the provider will offer.
    async fn greet(socket: Socket, door: &Door) -> io::Result<Self> {
        let mut client = Self::open(socket, door).await?;
        client.dialogue.greet(&mut client.connection.out);
        client.connection.flush().await?;
        Ok(client)
    }

    /// Under TLS where the listener has it from the first byte on; nothing has been said yet.
    async fn open(socket: Socket, door: &Door) -> io::Result<Self> {
        let trace = Trace::new(door.protocol, trace::Peer::Client);
        let mut connection = Connection::new(Transport::of_client(socket)?, trace);
        let tls = match (door.security, &door.tls) {
            (Security::Tls, Some(config)) => {
                connection = timeout(LOGIN, connection.accept_tls(Arc::clone(config))).await??;
                Tls::Active
            }
            (Security::StartTls, _) => Tls::Offered,
            _ => Tls::Absent,
        };
        let offer = Offer { host: door.host.clone(), known: door.known(), tls, asks_login: door.own.is_none() };
        Ok(Self { connection, dialogue: downstream::new(door.protocol, offer), left: LOGIN })
    }

    /// The client's next login, STARTTLS on the way; None once it has left, or was sent away.
    async fn next_login(mut self, door: &Door) -> io::Result<Option<(Self, Credentials)>> {
        let mut stop = door.stop.clone();
        loop {
            let begun = Instant::now();
            let heard = tokio::select! {
                heard = timeout(self.left, self.connection.converse(&mut *self.dialogue)) => heard,
                () = stop.said() => {
                    self.dismiss(STOPPING).await?;
                    return Ok(None);
                }
            };
            let Ok(event) = heard else {
                self.dismiss("Too slow to log in.").await?;
                return Ok(None);
            };
            self.left = self.left.saturating_sub(begun.elapsed());
            match (event?, &door.tls) {
                (Event::Login(credentials), _) => return Ok(Some((self, credentials))),
                (Event::Mail, _) if let Some(own) = &door.own => return Ok(Some((self, own.clone()))),
                (Event::StartTls, Some(config)) => {
                    self.connection = timeout(self.left, self.connection.accept_tls(Arc::clone(config))).await??;
                    self.dialogue.tls_started();
                }
                (Event::StartTls, None) | (Event::Mail | Event::HangUp, _) => {
                    self.connection.close().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// The provider's yes, in the client's words; what arrived behind the dialogue on both sides goes with it.
    async fn accept(mut self, opened: Opened, server: Connection, acceptance: &Acceptance) -> io::Result<LoggedIn> {
        self.dialogue.accept(acceptance, &mut self.connection.out);
        self.connection.flush().await?;
        let said = self.dialogue.replay();
        let [client, server] = [(self.connection, said), (server, Vec::new())].map(|(connection, mut said)| {
            let (transport, rest) = connection.into_parts();
            said.extend(rest);
            Side { transport, rest: said }
        });
        Ok(LoggedIn { presence: opened.account.presence(), opened, client, server })
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
