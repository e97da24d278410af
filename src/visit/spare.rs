//! Spare connections. While logins to a server keep coming, one connection to it is made ready before the next login, of
//! whichever account, which then costs one round trip.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Ready;
use crate::mutex::lock;
use crate::protocol::Protocol;
use crate::shutdown::Shutdown;

/// Logins that are no further apart than this keep coming. Mail programs that check for mail every minute, and monitoring, must
/// not make a connection that nobody uses.
const CLOSE_TOGETHER: Duration = Duration::from_secs(30);

/// The spare connections to a provider's servers: at most one for each.
#[derive(Default)]
pub struct SpareConnections([Mutex<ServerSpare>; Protocol::ALL.len()]);

#[derive(Default)]
struct ServerSpare {
    /// When somebody logged in last.
    last_login: Option<Instant>,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// It is being made.
    Promised,
    Ready(Box<Spare>),
}

struct Spare {
    ready: Ready,
    /// Our EHLO name on it.
    client_name: String,
    /// Dropping it ends [`Promise::keep`].
    _taken: oneshot::Sender<()>,
}

/// The duty to make a spare connection. Dropping it allows another one.
pub struct Promise {
    spares: Arc<SpareConnections>,
    protocol: Protocol,
    is_kept: bool,
}

impl SpareConnections {
    /// Takes the spare connection, unless it has another EHLO name or the server has ended it.
    pub fn take(&self, protocol: Protocol, client_name: &str) -> Option<Ready> {
        let mut slot = self.slot(protocol)?;
        match mem::take(&mut slot.state) {
            State::Ready(mut spare) if protocol != Protocol::Smtp || spare.client_name == client_name => {
                drop(slot);
                spare.ready.visit.is_quiet().then_some(spare.ready)
            }
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Notes a login. Returns the duty to make a spare connection if logins keep coming and there is none.
    pub fn logged_in(self: &Arc<Self>, protocol: Protocol) -> Option<Promise> {
        let mut slot = self.slot(protocol)?;
        let before = slot.last_login.replace(Instant::now())?;
        let is_wanted = before.elapsed() <= CLOSE_TOGETHER && matches!(slot.state, State::Empty);
        is_wanted.then(|| {
            slot.state = State::Promised;
            Promise { spares: Arc::clone(self), protocol, is_kept: false }
        })
    }

    fn slot(&self, protocol: Protocol) -> Option<MutexGuard<'_, ServerSpare>> {
        self.0.get(protocol as usize).map(lock)
    }
}

impl Promise {
    /// Keeps this connection until somebody takes it, its time is over, or postkey stops; then says goodbye.
    pub async fn keep(mut self, ready: Ready, client_name: String, time: Duration, mut shutdown: Shutdown) {
        let (taken, is_taken) = oneshot::channel();
        let spare = Spare { ready: Ready { is_spare: true, ..ready }, client_name, _taken: taken };
        self.set(State::Ready(Box::new(spare)));
        self.is_kept = true;
        tokio::select! {
            biased;
            _ = is_taken => return,
            _ = timeout(time, shutdown.requested()) => {}
        }
        if let Some(State::Ready(spare)) = self.set(State::Empty) {
            spare.ready.visit.leave().await;
        }
    }

    /// Returns the state before.
    fn set(&self, state: State) -> Option<State> {
        self.spares.slot(self.protocol).map(|mut slot| mem::replace(&mut slot.state, state))
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_kept {
            self.set(State::Empty);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connection::Connection;
    use crate::net::trace::{Trace, TracedPeer};
    use crate::net::transport::Transport;
    use crate::protocol::Security;
    use crate::shutdown::ShutdownSender;
    use crate::upstream::Approach;
    use crate::visit::Visit;
    use crate::wire::Capabilities;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;
    use tokio::task::yield_now;
    use tokio::time::{advance, sleep};

    const KEPT: Duration = Duration::from_secs(30);

    fn ready(protocol: Protocol) -> (UnixStream, Ready) {
        let (server, client) = UnixStream::pair().unwrap();
        let connection = Connection::new(Transport::Unix(client), Trace::new(protocol, TracedPeer::Provider), KEPT);
        let (client_name, known) = ("[127.0.0.1]".to_owned(), Capabilities::default());
        let approach = Approach { security: Security::Tls, client_name, other_name: None, known: known.clone() };
        let visit = Visit::new(connection, protocol, approach);
        (server, Ready { visit, capabilities: known, is_spare: false })
    }

    /// SpareConnections with one that is kept, and its server.
    async fn spares_with_one(protocol: Protocol, shutdown: &ShutdownSender) -> (Arc<SpareConnections>, UnixStream) {
        let spares = Arc::new(SpareConnections::default());
        assert!(spares.logged_in(protocol).is_none());
        let promise = spares.logged_in(protocol).unwrap();
        let (server, ready) = ready(protocol);
        tokio::spawn(promise.keep(ready, "a".to_owned(), KEPT, shutdown.subscribe()));
        yield_now().await;
        (spares, server)
    }

    #[tokio::test(start_paused = true)]
    async fn only_logins_that_are_close_together_ask_for_one() {
        let spares = Arc::new(SpareConnections::default());
        assert!(spares.logged_in(Protocol::Imap).is_none(), "nobody has logged in before");
        advance(CLOSE_TOGETHER + Duration::from_secs(1)).await;
        assert!(spares.logged_in(Protocol::Imap).is_none(), "too late");
        advance(CLOSE_TOGETHER).await;
        assert!(spares.logged_in(Protocol::Pop3).is_none(), "another server");
        let promise = spares.logged_in(Protocol::Imap);
        assert!(promise.is_some());
        assert!(spares.logged_in(Protocol::Imap).is_none(), "one is being made");
        assert!(spares.take(Protocol::Imap, "a").is_none(), "it is not ready");
        drop(promise);
        assert!(spares.logged_in(Protocol::Imap).is_some(), "making it has failed");
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_kept_for_its_time_and_taken_once() {
        let shutdown = ShutdownSender::default();
        let (spares, _server) = spares_with_one(Protocol::Imap, &shutdown).await;
        assert!(spares.logged_in(Protocol::Imap).is_none(), "there is one");
        assert!(spares.take(Protocol::Imap, "b").is_some_and(|ready| ready.is_spare), "only SMTP has names");
        assert!(spares.take(Protocol::Imap, "b").is_none());
        assert!(spares.logged_in(Protocol::Imap).is_some(), "the next one");
        let (spares, _server) = spares_with_one(Protocol::Imap, &shutdown).await;
        sleep(KEPT + Duration::from_secs(1)).await;
        assert!(spares.take(Protocol::Imap, "a").is_none(), "its time is over");
        shutdown.all_gone().await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_with_another_name_stays_and_one_that_was_taken_is_not_removed_again() {
        let shutdown = ShutdownSender::default();
        let (spares, _server) = spares_with_one(Protocol::Smtp, &shutdown).await;
        assert!(spares.take(Protocol::Smtp, "b").is_none());
        sleep(KEPT / 2).await;
        assert!(spares.take(Protocol::Smtp, "a").is_some());
        // The first one's time ends while the second one is kept.
        spares.logged_in(Protocol::Smtp);
        let promise = spares.logged_in(Protocol::Smtp).unwrap();
        let (_second, ready) = ready(Protocol::Smtp);
        tokio::spawn(promise.keep(ready, "a".to_owned(), KEPT, shutdown.subscribe()));
        sleep(KEPT / 2 + Duration::from_secs(1)).await;
        assert!(spares.take(Protocol::Smtp, "a").is_some());
    }

    #[tokio::test]
    async fn one_on_which_the_server_has_said_something_is_not_used() {
        let shutdown = ShutdownSender::default();
        for ends in [false, true] {
            let (spares, mut server) = spares_with_one(Protocol::Imap, &shutdown).await;
            server.write_all(b"* BYE\r\n").await.unwrap();
            if ends {
                drop(server);
            }
            sleep(Duration::from_millis(50)).await;
            assert!(spares.take(Protocol::Imap, "a").is_none());
        }
    }

    #[tokio::test]
    async fn a_stop_ends_one() {
        let shutdown = ShutdownSender::default();
        let (spares, _server) = spares_with_one(Protocol::Pop3, &shutdown).await;
        shutdown.send();
        shutdown.all_gone().await;
        assert!(spares.take(Protocol::Pop3, "a").is_none());
    }
}
