//! The provider's half of a login: token and dial side by side, then AUTH; a refused token gets one more try.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::broker::{Account, Broker, Held, Reach};
use crate::config::provider::Server;
use crate::metrics::{Metrics, Step};
use crate::net::connection::Connection;
use crate::net::trace::{Peer, Trace};
use crate::net::transport::Transport;
use crate::protocol::{Protocol, Security};
use crate::upstream::{self, Approach, Event, Fault, Rejection, Upstream, Verdict};
use crate::wire::{Acceptance, Bearer, Capabilities, Reason, Refusal};

/// How long a server may take until it is ready for AUTH: connect, TLS, greeting, capabilities.
const REACH: Duration = Duration::from_secs(15);

/// How long all of it may take, a refresh and a second try included. Mail programs give up after about a minute, and some
/// after 30 seconds. What is under way at the authorization server goes on, and is there for the next login. Servers delay
/// a no; Gmail has been seen to take 10 seconds.
const ALL: Duration = Duration::from_secs(30);

/// The name we give ourselves where the client has given none (RFC 5321 section 4.1.3).
const NAMELESS: &str = "[127.0.0.1]";

/// Logs in to the provider. The connection is ready for the relay then.
pub async fn log_in(
    broker: &Arc<Broker>,
    account: &Arc<Account>,
    protocol: Protocol,
    client_name: Option<&str>,
) -> Result<(Connection, Acceptance), Refusal> {
    let server = Target::new(&account.reach, broker.metrics(), protocol, client_name)?;
    let (mut refused, mut rejected, mut ask) = (None, None, false);
    loop {
        let heard = if ask { Capabilities::default() } else { account.heard(protocol) };
        let both = tokio::try_join!(server.bearer(broker, account, refused), server.reach(&heard));
        let (held, ready) = both.map_err(|refusal| match rejected.take() {
            // No newer token is asked for so soon, so the server's own no is the last word.
            Some(rejection) if refusal.reason == Reason::TokenRefused => server.rejected(&rejection),
            _ => refusal,
        })?;
        if ready.capabilities != heard {
            broker.learn(account, protocol, &ready.capabilities).await;
        }
        let answer =
            server.timed(Step::Auth, ready.authenticate(account.bearer(&held, protocol), server.deadline)).await;
        if !matches!(answer, Ok(Answer::Accepted(..))) {
            // The server may not be any more as it was heard to be.
            account.unlearn(protocol);
        }
        match answer {
            Ok(Answer::Accepted(connection, acceptance)) => {
                broker.worked(account, held.generation);
                return Ok((connection, acceptance));
            }
            Ok(Answer::Rejected(rejection)) if rejection.verdict == Verdict::Token && refused.is_none() => {
                debug!(
                    account = account.address,
                    delegate = account.delegate(),
                    said = rejection.said,
                    "the token was refused; trying a new one"
                );
                (refused, rejected) = (Some(held.generation), Some(rejection));
            }
            Ok(Answer::Rejected(rejection)) => return Err(server.rejected(&rejection)),
            Err(Trouble::Fault(Fault::NoMechanism(said))) if !heard.0.is_empty() => {
                debug!(account = account.address, said, "the mechanism was refused; asking for the list");
            }
            Err(trouble) => return Err(trouble.refusal(&server.server.host)),
        }
        ask = true;
    }
}

/// A provider's server for one protocol.
struct Target<'a> {
    reach: &'a Reach,
    metrics: &'a Metrics,
    protocol: Protocol,
    server: &'a Server,
    client_name: &'a str,
    /// When the client has to have its answer.
    deadline: Instant,
}

/// A server that waits for AUTH.
struct Ready {
    connection: Connection,
    dialogue: Box<dyn Upstream>,
    capabilities: Capabilities,
}

/// What a server says to a bearer.
enum Answer {
    Accepted(Connection, Acceptance),
    Rejected(Rejection),
}

impl<'a> Target<'a> {
    fn new(
        reach: &'a Reach,
        metrics: &'a Metrics,
        protocol: Protocol,
        client_name: Option<&'a str>,
    ) -> Result<Self, Refusal> {
        let Some(server) = reach.provider.servers.get(&protocol) else {
            let text =
                format!("The provider {} has no {protocol} server in postkey's configuration.", reach.provider.name);
            return Err(Refusal::new(Reason::Forbidden, text));
        };
        let client_name = client_name.unwrap_or(NAMELESS);
        Ok(Self { reach, metrics, protocol, server, client_name, deadline: Instant::now() + ALL })
    }

    /// A token, in time.
    async fn bearer(
        &self,
        broker: &Arc<Broker>,
        account: &Arc<Account>,
        refused: Option<u64>,
    ) -> Result<Arc<Held>, Refusal> {
        let late =
            |_| Err(Refusal::new(Reason::Unavailable, "Try later: the authorization server takes its time to answer."));
        timeout_at(self.deadline, broker.bearer(account, self.protocol, refused)).await.unwrap_or_else(late)
    }

    /// Connects, and gets the server ready for AUTH.
    async fn reach(&self, known: &Capabilities) -> Result<Ready, Refusal> {
        let deadline = self.deadline.min(Instant::now() + REACH);
        let ready = timeout_at(deadline, self.try_reach(known)).await.unwrap_or(Err(Trouble::Silent));
        ready.map_err(|trouble| trouble.refusal(&self.server.host))
    }

    async fn try_reach(&self, known: &Capabilities) -> Result<Ready, Trouble> {
        let Server { host, port, security } = self.server;
        let dial = Transport::dial(&self.reach.resolver, self.reach.proxy.as_ref(), host, *port);
        let transport = self.timed(Step::Connect, dial).await?;
        let mut connection = Connection::new(transport, Trace::new(self.protocol, Peer::Provider));
        if *security == Security::Tls {
            connection = self.timed(Step::Tls, connection.connect_tls(Arc::clone(&self.reach.tls), host)).await?;
        }
        let client_name = self.client_name.to_owned();
        let approach = Approach { security: *security, client_name, known: known.clone() };
        let mut dialogue = upstream::new(self.protocol, approach);
        let mut event = connection.converse(&mut *dialogue).await?;
        if event == Event::StartTls {
            connection = self.timed(Step::Tls, connection.connect_tls(Arc::clone(&self.reach.tls), host)).await?;
            event = match dialogue.tls_started(&mut connection.out) {
                Some(event) => event,
                None => connection.converse(&mut *dialogue).await?,
            };
        }
        match event {
            Event::Ready(capabilities) => Ok(Ready { connection, dialogue, capabilities }),
            event => Err(event.into()),
        }
    }

    /// Measures a step, unless it fails.
    async fn timed<T, E>(&self, step: Step, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let made = work.await?;
        self.metrics.upstream(self.protocol, step, begun.elapsed());
        Ok(made)
    }

    fn rejected(&self, rejection: &Rejection) -> Refusal {
        let (host, said, explanation) = (&self.server.host, &rejection.said, upstream::explain(&rejection.said));
        warn!(host, said, explanation, "the provider refuses the login");
        let (reason, meaning) = match rejection.verdict {
            Verdict::Token => (Reason::TokenRefused, "refuses this account's token"),
            Verdict::Limit => (Reason::Limit, "has had enough for now"),
            Verdict::Temporary => (Reason::Unavailable, "has trouble"),
            Verdict::Forbidden => (Reason::Forbidden, "does not let this account in"),
        };
        Refusal::new(reason, format!("{host} {meaning}: {}", upstream::explained(said)))
    }
}

impl Ready {
    /// Sends the bearer and waits for the answer.
    async fn authenticate(self, bearer: Bearer, deadline: Instant) -> Result<Answer, Trouble> {
        timeout_at(deadline, self.try_authenticate(bearer)).await.unwrap_or(Err(Trouble::Silent))
    }

    async fn try_authenticate(mut self, bearer: Bearer) -> Result<Answer, Trouble> {
        self.dialogue.authenticate(bearer, &mut self.connection.out).map_err(Trouble::Fault)?;
        match self.connection.converse(&mut *self.dialogue).await? {
            Event::Accepted(acceptance) => Ok(Answer::Accepted(self.connection, acceptance)),
            Event::Rejected(rejection) => Ok(Answer::Rejected(rejection)),
            event => Err(event.into()),
        }
    }
}

/// Why a server could not be talked to.
enum Trouble {
    /// It took too long.
    Silent,
    /// The network or TLS failed.
    Io(io::Error),
    /// It said something that ends the dialogue.
    Fault(Fault),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An event that does not belong where it came.
impl From<Event> for Trouble {
    fn from(event: Event) -> Self {
        Self::Fault(match event {
            Event::Unexpected(fault) => fault,
            _ => Fault::Protocol("it answers what was not asked"),
        })
    }
}

impl Trouble {
    fn refusal(self, host: &str) -> Refusal {
        let unavailable = |what: String| Refusal::new(Reason::Unavailable, format!("{host} {what}"));
        let refusal = match self {
            Self::Silent => unavailable("does not answer.".to_owned()),
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                unavailable("closed the connection during the login.".to_owned())
            }
            Self::Io(error) => unavailable(format!("cannot be reached: {error}")),
            Self::Fault(fault) => {
                let is_setting = matches!(fault, Fault::NoMechanism(_));
                let reason = if is_setting { Reason::Forbidden } else { Reason::Unavailable };
                Refusal::new(reason, format!("{host} {fault}"))
            }
        };
        warn!(host, why = refusal.text, "the provider's server cannot be used");
        refusal
    }
}
