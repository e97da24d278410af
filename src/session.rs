//! One client's connection, from its greeting to its end.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::ServerConfig;
use tracing::info;

use crate::broker::guesses::{Attempt, Source};
use crate::broker::{Broker, Opened, Presence};
use crate::config::users::Users;
use crate::downstream::{self, Downstream, Event, Offer, Tls};
use crate::login::log_in;
use crate::net::connection::Connection;
use crate::net::peer::Peer;
use crate::net::trace::{self, Trace};
use crate::net::transport::Transport;
use crate::protocol::{Protocol, Security};
use crate::relay::{Ending, Relayed, Side, relay};
use crate::stop::Stop;
use crate::wire::{Acceptance, Capabilities, Credentials, Reason, Refusal};

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

/// What the sessions of one listener share.
pub struct Door {
    /// What is spoken.
    pub protocol: Protocol,
    /// How connections are protected.
    pub security: Security,
    /// For TLS, where the listener has it.
    pub tls: Option<Arc<ServerConfig>>,
    /// The one provider, or the one account, that is served here, where it is only one.
    pub provider: Option<String>,
    /// See `provider`.
    pub account: Option<String>,
    /// From where clients may come, where that is not from everywhere.
    pub allow_addresses: Option<Vec<IpNet>>,
    /// The login for clients that send mail without one, where they may.
    pub own: Option<Credentials>,
    /// The users of this machine who may connect.
    pub users: Users,
    /// Our name in greetings.
    pub host: String,
    /// Owns the accounts.
    pub broker: Arc<Broker>,
    /// Says when to stop.
    pub stop: Stop,
}

/// How a session ended.
#[derive(Debug, Default)]
pub struct End {
    /// The account, if the client has logged in.
    pub account: Option<String>,
    /// What was relayed.
    pub relayed: Relayed,
}

/// Serves one client to the end.
pub async fn serve(socket: TcpStream, door: &Door) -> (End, io::Result<()>) {
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
pub async fn turn_away(socket: TcpStream, door: &Door) -> io::Result<()> {
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
async fn log_in_client(socket: TcpStream, door: &Door) -> io::Result<Option<LoggedIn>> {
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
    /// What a client may be promised before it has said who it is: what the servers of all accounts that are served here
    /// offer. Nothing, as long as one of them has not been seen.
    fn known(&self) -> Capabilities {
        let config = self.broker.config();
        let only = self.account.as_ref().map(|only| config.owner_of(only));
        let accounts = self.broker.vault().accounts().into_iter().filter(|account| {
            only.is_none_or(|only| *only == account.address) && self.serves_provider(&account.provider)
        });
        let mut lists = accounts.map(|account| account.known.get(self.protocol.name()).cloned().unwrap_or_default());
        let mut common = lists.next().unwrap_or_default();
        for list in lists {
            common.retain(|entry| list.contains(entry));
        }
        Capabilities(common)
    }

    /// Whether a client from there may come.
    pub fn is_open_to(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_addresses.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// How a session ends when postkey stops, or when its app password does not open its account any more.
    fn ending(&self, opened: &Opened) -> Ending {
        let limit = if self.protocol == Protocol::Smtp { SENDING } else { READING };
        let (broker, opened) = (Arc::clone(&self.broker), opened.clone());
        let withdrawn = Box::pin(async move { broker.withdrawn(&opened).await });
        Ending { stop: self.stop.clone(), limit, farewell: downstream::farewell(self.protocol), withdrawn }
    }

    /// Whether the configuration lets this user of this machine try to log in to an account; a shared mailbox is
    /// opened by its delegate, who has a say, too.
    fn admits(&self, account: &str, peer: &Peer) -> bool {
        let config = self.broker.config();
        let address = config.address_of(account);
        let accounts = [config.account(&address), config.account(config.owner_of(&address))];
        accounts.iter().all(|account| account.users.allow(peer.user))
    }

    /// A listener may be for one account, or for one provider, only.
    fn serves(&self, account: &str, provider: &str) -> bool {
        self.account.as_ref().is_none_or(|only| only == account) && self.serves_provider(provider)
    }

    /// The same for what a client logs in as, which need not have an account yet.
    fn serves_name(&self, name: &str) -> bool {
        let config = self.broker.config();
        let address = config.address_of(name);
        config.provider_for(&address).is_some_and(|provider| self.serves(&address, &provider.name))
    }

    fn serves_provider(&self, provider: &str) -> bool {
        self.provider.as_ref().is_none_or(|only| only == provider)
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
    async fn greet(socket: TcpStream, door: &Door) -> io::Result<Self> {
        let mut client = Self::open(socket, door).await?;
        client.dialogue.greet(&mut client.connection.out);
        client.connection.flush().await?;
        Ok(client)
    }

    /// Under TLS where the listener has it from the first byte on; nothing has been said yet.
    async fn open(socket: TcpStream, door: &Door) -> io::Result<Self> {
        let mut connection = Connection::new(Transport::new(socket)?, Trace::new(door.protocol, trace::Peer::Client));
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
