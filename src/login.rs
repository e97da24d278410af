//! The provider's half of a login: gets a token and connects at the same time, then sends AUTH, and tries again with a
//! new token if that was refused.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::broker::metrics::UpstreamStep;
use crate::broker::{Broker, ConnectionPermit, Connector, CurrentTokens, OpenAccount, TokenAttempt};
use crate::config::provider::MailServer;
use crate::net::certificate::Flaw;
use crate::net::connection::Connection;
use crate::net::trace::{Trace, TracedPeer};
use crate::net::transport::Transport;
use crate::protocol::{Mechanism, Protocol, Security};
use crate::shutdown::Shutdown;
use crate::upstream::{self, Approach, Event, Fault, Rejection, Verdict};
use crate::visit::{Ready, Visit};
use crate::wire::{Acceptance, Bearer, Capabilities, Reason, Refusal, one_line};

/// How long a server may take to become ready for AUTH: connect, TLS, greeting, capabilities.
const REACH: Duration = Duration::from_secs(15);

/// How long the whole login may take, with a refresh and a second attempt. Most mail programs give up after about a
/// minute, some after 30 seconds. A request to the authorization server continues after that, and its result is there
/// for the next login. Servers delay a refusal; Gmail was seen to take 10 seconds.
const LOGIN: Duration = Duration::from_secs(30);

/// Our EHLO name if the client has not given one (RFC 5321 section 4.1.3).
const NAMELESS: &str = "[127.0.0.1]";

/// The EHLO name for a server that refuses that one. It has a dot, which strict servers require.
const NAME_WITH_DOT: &str = "localhost.localdomain";

/// How often a server may reject a mechanism that it has offered.
const MECHANISMS: u32 = 2;

/// The name to try if the server refuses `client_name`.
pub fn other_name(server: &MailServer, client_name: &str) -> Option<String> {
    let names = [server.ehlo_name.as_deref(), Some(NAMELESS), Some(NAME_WITH_DOT)];
    names.into_iter().flatten().find(|name| *name != client_name).map(str::to_owned)
}

/// Logs in to the provider, on `spare` if it is still alive. Returns a connection that is ready for the relay and keeps
/// its place until it is closed.
pub async fn log_in(
    broker: &Arc<Broker>,
    account: &Arc<OpenAccount>,
    protocol: Protocol,
    client_name: Option<&str>,
    spare: Option<Ready>,
    _permit: &ConnectionPermit,
) -> Result<(Visit, Acceptance), Refusal> {
    let server = Target::new(broker, account, protocol, client_name)?;
    let (mut connected, mut rejected_mechanisms) = (spare, 0);
    loop {
        let cached = if rejected_mechanisms > 0 { Capabilities::default() } else { account.capabilities(protocol) };
        let (current, ready) = match connected.take() {
            Some(ready) => (server.bearer().await?, ready),
            // Wait for the token first: without one there is no reason to bother the server.
            None => tokio::try_join!(server.bearer(), server.reach(&cached))?,
        };
        server.store_capabilities(&ready.capabilities, &cached).await;
        let Some(attempt) = server.attempt(&current, &ready.capabilities).await? else {
            // The next token can still be sent on this connection.
            connected = Some(ready);
            continue;
        };
        // While this login waited, the provider may have asked another one for a pause.
        broker.throttle.check_backoff(account)?;
        let is_spare = ready.is_spare;
        let answer = ready.authenticate(attempt.bearer(), server.deadline);
        match server.timed(UpstreamStep::Auth, answer).await {
            // The server no longer wanted a connection that had waited. A new one shows whether it is more than that.
            Err(LoginError::Io(_) | LoginError::Fault(Fault::Refused(_))) if is_spare => {}
            Ok(LoginOutcome::Accepted(visit, acceptance)) => {
                server.accepted(&attempt).await;
                server.log_alerts(&acceptance.alerts);
                return Ok((visit, acceptance));
            }
            Ok(LoginOutcome::Rejected(rejection)) if rejection.verdict == Verdict::Token => {
                attempt.refused(&server.rejected(&rejection));
            }
            Ok(LoginOutcome::Rejected(rejection)) => {
                let refusal = server.rejected(&rejection);
                let may_have_ended = rejection.may_mean_the_token() && attempt.troubled();
                if !may_have_ended || !server.renews(&current).await {
                    return Err(refusal);
                }
            }
            Err(LoginError::Fault(Fault::NoMechanism(reply))) if rejected_mechanisms < MECHANISMS => {
                debug!(account = account.address, reply, "the server rejected the mechanism; asking for its list");
                attempt.mechanism_refused();
                rejected_mechanisms += 1;
            }
            Err(error) => return Err(server.failed(error)),
        }
    }
}

/// Takes the spare connection to the server of this protocol, if there is one for this EHLO name.
pub fn take_spare(account: &OpenAccount, protocol: Protocol, client_name: Option<&str>) -> Option<Ready> {
    account.connector.spares.take(protocol, client_name.unwrap_or(NAMELESS))
}

/// Makes a spare connection after a login, in the background, if logins to this server keep coming. The next one with the same
/// EHLO name takes it.
pub fn prepare_spare(
    broker: &Arc<Broker>,
    account: &Arc<OpenAccount>,
    protocol: Protocol,
    client_name: Option<&str>,
    mut shutdown: Shutdown,
) {
    let Connector { provider, spares, .. } = &*account.connector;
    let Some(time) = provider.spare_connection else { return };
    let Some(promise) = spares.logged_in(protocol) else { return };
    let (broker, account) = (Arc::clone(broker), Arc::clone(account));
    let client_name = client_name.unwrap_or(NAMELESS).to_owned();
    tokio::spawn(async move {
        let Ok(server) = Target::new(&broker, &account, protocol, Some(&client_name)) else { return };
        let (known, mut awaits_greeting) = (account.capabilities(protocol), false);
        let ready = tokio::select! {
            ready = timeout(REACH, server.try_reach(&known, &mut awaits_greeting)) => ready,
            () = shutdown.requested() => return,
        };
        // Nobody needs it yet. If there is a problem, the next login reports it.
        if let Ok(Ok(ready)) = ready {
            promise.keep(ready, client_name, time, shutdown).await;
        }
    });
}

/// Logs in with the newest token by one mechanism, and disconnects. The result is for a person only: it does not affect
/// logins, and no token counts as refused.
pub async fn try_mechanism(
    broker: &Arc<Broker>,
    account: &Arc<OpenAccount>,
    protocol: Protocol,
    mechanism: Mechanism,
    _permit: &ConnectionPermit,
) -> Result<(), Refusal> {
    let server = Target::new(broker, account, protocol, None)?;
    let cached = Capabilities::default();
    let (current, ready) = tokio::try_join!(server.bearer(), server.reach(&cached))?;
    let user = account.user(protocol).clone();
    let bearer = Bearer { user, token: current.tokens.access.clone(), mechanisms: vec![mechanism] };
    match ready.authenticate(bearer, server.deadline).await {
        Ok(LoginOutcome::Accepted(..)) => Ok(()),
        Ok(LoginOutcome::Rejected(rejection)) => Err(server.refusal(&rejection)),
        Err(error) => Err(error.refusal(server.server)),
    }
}

/// A login to a provider's server.
struct Target<'a> {
    broker: &'a Arc<Broker>,
    account: &'a Arc<OpenAccount>,
    connector: &'a Connector,
    protocol: Protocol,
    server: &'a MailServer,
    client_name: &'a str,
    /// The time by which the client needs its answer.
    deadline: Instant,
}

/// A server's answer to a bearer.
enum LoginOutcome {
    Accepted(Visit, Acceptance),
    Rejected(Rejection),
}

impl<'a> Target<'a> {
    fn new(
        broker: &'a Arc<Broker>,
        account: &'a Arc<OpenAccount>,
        protocol: Protocol,
        client_name: Option<&'a str>,
    ) -> Result<Self, Refusal> {
        let connector = &*account.connector;
        let Some(server) = connector.provider.servers.get(&protocol) else {
            let text = format!(
                "The provider {} has no {protocol} server in postkey's configuration.",
                connector.provider.name
            );
            return Err(Refusal::new(Reason::Forbidden, text));
        };
        let client_name = client_name.unwrap_or(NAMELESS);
        Ok(Self { broker, account, connector, protocol, server, client_name, deadline: Instant::now() + LOGIN })
    }

    /// Gets a token, within the time limit.
    async fn bearer(&self) -> Result<Arc<CurrentTokens>, Refusal> {
        self.in_time(self.broker.refresher.bearer(self.account, self.protocol), "the authorization server").await?
    }

    /// Whether there is a newer token than this one, within the time limit.
    async fn renews(&self, current: &CurrentTokens) -> bool {
        let newer = self.broker.refresher.renew(self.account, current.generation);
        self.in_time(newer, "the authorization server").await.is_ok_and(|newer| newer.is_ok())
    }

    /// Waits until this token may be sent; None if it must not be sent any more.
    async fn attempt(
        &self,
        current: &Arc<CurrentTokens>,
        offered: &Capabilities,
    ) -> Result<Option<TokenAttempt>, Refusal> {
        let allowed = &self.connector.provider.mechanisms;
        let mut mechanisms = upstream::offered(self.protocol, offered, allowed);
        if mechanisms.is_empty() {
            // The dialogue reports what is offered instead.
            mechanisms.clone_from(allowed);
        }
        self.in_time(self.account.attempt(self.protocol, current, &mechanisms), &self.server.host).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>, server: &str) -> Result<T, Refusal> {
        let late = |_| Refusal::new(Reason::Unavailable, format!("{server} does not answer in time; try later."));
        timeout_at(self.deadline, work).await.map_err(late)
    }

    /// Stores what the server offers, if it has changed.
    async fn store_capabilities(&self, offered: &Capabilities, cached: &Capabilities) {
        if offered != cached {
            self.broker.accounts.store_capabilities(self.account, self.protocol, offered).await;
        }
    }

    /// Connects, and talks to the server until it is ready for AUTH.
    async fn reach(&self, known: &Capabilities) -> Result<Ready, Refusal> {
        let deadline = self.deadline.min(Instant::now() + REACH);
        let mut awaits_greeting = false;
        let ready = timeout_at(deadline, self.try_reach(known, &mut awaits_greeting)).await;
        let ready =
            ready.unwrap_or_else(|_| Err(if awaits_greeting { LoginError::NoGreeting } else { LoginError::Silent }));
        ready.map_err(|error| self.failed(error))
    }

    async fn try_reach(&self, known: &Capabilities, awaits_greeting: &mut bool) -> Result<Ready, LoginError> {
        let MailServer { host, port, security, .. } = self.server;
        let dial = Transport::dial(&self.connector.resolver, self.connector.proxy.as_ref(), host, *port);
        let transport = self.timed(UpstreamStep::Connect, dial).await?;
        let connection = Connection::new(transport, Trace::new(self.protocol, TracedPeer::Provider), LOGIN);
        let (client_name, other_name) = (self.client_name.to_owned(), other_name(self.server, self.client_name));
        let approach = Approach { security: *security, client_name, other_name, known: known.clone() };
        let mut visit = Visit::new(connection, self.protocol, approach);
        if *security == Security::Tls {
            self.protect(&mut visit).await?;
        } else {
            *awaits_greeting = true;
            visit.await_greeting().await?;
            *awaits_greeting = false;
        }
        let mut event = visit.hear().await?;
        if event == Event::StartTls {
            self.protect(&mut visit).await?;
            event = visit.hear_under_tls().await?;
        }
        match event {
            Event::Ready(capabilities) => Ok(Ready { visit, capabilities, is_spare: false }),
            event => Err(event.into()),
        }
    }

    async fn protect(&self, visit: &mut Visit) -> Result<(), LoginError> {
        let handshake = visit.start_tls(Arc::clone(&self.connector.tls), &self.server.host);
        self.timed(UpstreamStep::Tls, handshake).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LoginError::Io(error),
            _ => LoginError::Handshake(Flaw::of(&error)),
        })
    }

    /// Measures how long a step takes if it succeeds.
    async fn timed<T, E>(&self, step: UpstreamStep, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let result = work.await?;
        self.broker.metrics.upstream(self.protocol, step, begun.elapsed());
        Ok(result)
    }

    async fn accepted(&self, attempt: &TokenAttempt) {
        if let Some(mechanism) = attempt.accepted() {
            self.broker.accounts.store_mechanism(self.account, self.protocol, mechanism).await;
        }
    }

    /// Logs the alerts that the provider wants a person to see.
    fn log_alerts(&self, alerts: &[String]) {
        for alert in alerts {
            let (account, host) = (&self.account.address, &self.server.host);
            warn!(account, host, "{host} alerts {account}: {alert}");
        }
    }

    /// Logs a failure, and returns the answer to the client.
    fn failed(&self, error: LoginError) -> Refusal {
        let refusal = error.refusal(self.server);
        let (account, host, why) = (&self.account.address, &self.server.host, one_line(&refusal.text));
        warn!(account, host, why, "{} login of {account} failed: {why}", self.protocol);
        self.note(refusal)
    }

    /// Words the server's refusal for the client, the log and `status`.
    fn rejected(&self, rejection: &Rejection) -> Refusal {
        let (host, said, explanation) = (&self.server.host, &rejection.said, rejection.explanation);
        let account = &self.account.address;
        let words = match explanation {
            Some(explanation) => format!("{}; {explanation}", said.trim_end_matches(['.', ' '])),
            None => said.clone(),
        };
        warn!(account, host, said, explanation, "{host} refuses the {} login of {account}: {words}", self.protocol);
        self.note(self.refusal(rejection))
    }

    fn refusal(&self, rejection: &Rejection) -> Refusal {
        let host = &self.server.host;
        let (reason, meaning) = match rejection.verdict {
            Verdict::Token => (Reason::TokenRefused, "refuses this account's token"),
            Verdict::Limit => (Reason::Limit, "is rate-limiting this account"),
            Verdict::Temporary => (Reason::Unavailable, "has a temporary problem"),
            Verdict::Forbidden => (Reason::Forbidden, "does not allow this login"),
        };
        let text = format!("{host} {meaning}: {}", rejection.explained());
        Refusal { alerts: rejection.alerts.clone(), ..Refusal::new(reason, text) }
    }

    /// Drops the cached capabilities, which may be out of date, and records what the server said.
    fn note(&self, refusal: Refusal) -> Refusal {
        self.log_alerts(&refusal.alerts);
        self.account.forget_capabilities(self.protocol);
        if let Some(milliseconds) = upstream::backoff(&refusal.text) {
            self.broker.throttle.back_off(self.account, Duration::from_millis(milliseconds), &refusal.text);
        }
        self.account.note_login_failure(
            self.protocol,
            self.broker.context.now(),
            &format!("{}: {}", self.protocol, refusal.text),
        );
        refusal
    }
}

impl Ready {
    /// Sends the bearer and waits for the answer.
    async fn authenticate(self, bearer: Bearer, deadline: Instant) -> Result<LoginOutcome, LoginError> {
        timeout_at(deadline, self.try_authenticate(bearer)).await.unwrap_or(Err(LoginError::Silent))
    }

    async fn try_authenticate(mut self, bearer: Bearer) -> Result<LoginOutcome, LoginError> {
        self.visit.show(bearer)?.map_err(LoginError::Fault)?;
        match self.visit.hear().await? {
            Event::Accepted(acceptance) => Ok(LoginOutcome::Accepted(self.visit, acceptance)),
            Event::Rejected(rejection) => Ok(LoginOutcome::Rejected(rejection)),
            event => Err(event.into()),
        }
    }
}

/// Explains why a server may be silent where a greeting was expected: with TLS the client speaks first.
pub fn no_greeting(MailServer { port, security, .. }: &MailServer) -> String {
    format!(
        "does not greet on port {port}, where security = \"{}\" expects a greeting in clear; if TLS begins there at once, set \
         security = \"tls\"",
        security.name()
    )
}

/// The meaning of a server's refusal of a connection for the client.
const fn reason_of(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::Limit => Reason::Limit,
        Verdict::Temporary => Reason::Unavailable,
        Verdict::Token | Verdict::Forbidden => Reason::ServerRefuses,
    }
}

/// Why the dialogue with a server failed.
enum LoginError {
    /// The server took too long.
    Silent,
    /// The server did not greet, although a greeting was expected.
    NoGreeting,
    /// The TLS handshake failed.
    Handshake(Flaw),
    /// The network or TLS failed.
    Io(io::Error),
    /// The server did something that ends the dialogue.
    Fault(Fault),
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The fault for an event that is out of place.
impl From<Event> for LoginError {
    fn from(event: Event) -> Self {
        Self::Fault(match event {
            Event::Unexpected(fault) => fault,
            _ => Fault::Protocol("it sent an unexpected answer"),
        })
    }
}

impl LoginError {
    fn refusal(self, server: &MailServer) -> Refusal {
        let host = &server.host;
        let unavailable = |what: String| Refusal::new(Reason::Unavailable, format!("{host} {what}"));
        match self {
            Self::Silent => unavailable("does not answer.".to_owned()),
            Self::NoGreeting => unavailable(no_greeting(server)),
            Self::Handshake(flaw) => unavailable(format!("cannot be used: {flaw}")),
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                unavailable("closed the connection during the login.".to_owned())
            }
            Self::Io(error) => unavailable(format!("cannot be reached: {error}")),
            Self::Fault(fault) => {
                let (reason, alerts) = match &fault {
                    Fault::Refused(Rejection { verdict, alerts, .. }) => (reason_of(*verdict), alerts.clone()),
                    Fault::NoMechanism(_) => (Reason::Forbidden, Vec::new()),
                    _ => (Reason::Unavailable, Vec::new()),
                };
                Refusal { alerts, ..Refusal::new(reason, format!("{host} {fault}")) }
            }
        }
    }
}
