//! A dialogue with a provider's server, until the relay takes over the connection.

pub mod spare;

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;

use crate::net::connection::Connection;
use crate::protocol::Protocol;
use crate::upstream::{self, Approach, Event, Fault, Upstream};
use crate::wire::{Bearer, Capabilities};

/// A server that is ready for AUTH.
pub struct Ready {
    pub visit: Visit,
    pub capabilities: Capabilities,
    /// Whether it was made before this login began.
    pub is_spare: bool,
}

/// A dialogue with a server. Dropping it says goodbye, if the server waits for a command, and ends TLS with
/// close_notify. That happens in a separate task, so it costs the login no time. It also happens if a login is
/// cancelled, because of a timeout or because the client has left.
pub struct Visit {
    /// None after the relay has taken it.
    connection: Option<Connection>,
    protocol: Protocol,
    dialogue: Box<dyn Upstream>,
    /// Whether the server has answered everything that we have sent.
    is_our_turn: bool,
}

impl Visit {
    /// Starts on a new connection.
    pub fn new(connection: Connection, protocol: Protocol, approach: Approach) -> Self {
        let dialogue = upstream::new(protocol, approach);
        Self { connection: Some(connection), protocol, dialogue, is_our_turn: false }
    }

    /// Waits until the server has sent something, and leaves it for [`Visit::hear`].
    pub async fn await_greeting(&mut self) -> io::Result<()> {
        self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?.fill().await
    }

    pub async fn start_tls(&mut self, config: Arc<ClientConfig>, host: &str) -> io::Result<()> {
        self.is_our_turn = false;
        self.connection = Some(self.take()?.connect_tls(config, host).await?);
        Ok(())
    }

    /// Talks until an event decides how to continue.
    pub async fn hear(&mut self) -> io::Result<Event> {
        self.is_our_turn = false;
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let event = connection.converse(&mut *self.dialogue).await?;
        self.is_our_turn = !matches!(event, Event::StartTls | Event::Unexpected(Fault::PreAuth | Fault::Protocol(_)));
        Ok(event)
    }

    /// Continues the same way after the handshake of STARTTLS.
    pub async fn hear_under_tls(&mut self) -> io::Result<Event> {
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match self.dialogue.tls_started(&mut connection.out) {
            Some(event) => Ok(event),
            None => self.hear().await,
        }
    }

    /// Whether the server has sent nothing since its last answer, and has not ended the connection.
    pub fn is_quiet(&mut self) -> bool {
        self.connection.as_mut().is_some_and(Connection::is_quiet)
    }

    /// Queues the bearer, to be sent with the next read.
    pub fn show(&mut self, bearer: Bearer) -> io::Result<Result<(), Fault>> {
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(self.dialogue.authenticate(bearer, &mut connection.out))
    }

    /// Does what dropping it does, and waits for it.
    pub async fn leave(mut self) {
        if let Some(connection) = self.connection.take() {
            // An error means that the connection has ended, too.
            let _ended = connection.leave(self.goodbye()).await;
        }
    }

    const fn goodbye(&self) -> &'static str {
        if self.is_our_turn { upstream::goodbye(self.protocol) } else { "" }
    }

    /// Hands the connection over to the relay.
    pub fn take(&mut self) -> io::Result<Connection> {
        self.connection.take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) else { return };
        runtime.spawn(connection.leave(self.goodbye()));
    }
}
