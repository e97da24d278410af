//! The clients of one open port.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::net::listen::{self, AcceptedSocket, Socket};
use crate::net::peer::{Peer, Source};
use crate::net::strangers::{LogTopic, Strangers};
use crate::relay::Relayed;
use crate::session::{self, End, ListenerPolicy, Newcomer};

/// A message to an accept loop.
pub enum Message {
    /// Use this policy for new connections.
    Policy(Arc<ListenerPolicy>),
    /// Prove that the loop works.
    Ping(oneshot::Sender<()>),
}

/// Accepts clients. Never ends.
pub async fn accept(
    listener: listen::Listener,
    mut policy: Arc<ListenerPolicy>,
    mut messages: mpsc::Receiver<Message>,
    strangers: Arc<Strangers>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(Message::Policy(new)) => { policy = new; continue }
                Some(Message::Ping(pong)) => { let _late = pong.send(()); continue }
                None => return,
            },
            accepted = listener.accept() => accepted,
        };
        let span = info_span!(
            "session",
            protocol = policy.protocol.name(),
            security = policy.security.name(),
            peer = accepted.peer.map(display)
        );
        if let Some((socket, newcomer)) = span.in_scope(|| admit(accepted, &policy, &strangers)) {
            let policy = Arc::clone(&policy);
            tokio::spawn(async move { serve_client(socket, newcomer, &policy).await }.instrument(span));
        }
    }
}

/// Decides whether a client may connect at all, before TLS and before it takes a place. A rejected client gets an
/// answer only if the port is unencrypted, because that takes no time.
fn admit(accepted: AcceptedSocket, policy: &ListenerPolicy, strangers: &Arc<Strangers>) -> Option<(Socket, Newcomer)> {
    let AcceptedSocket { socket, is_surplus, .. } = accepted;
    // This fails if the connection has already ended.
    let peer = Peer::of(&socket).ok()?;
    let source = Source::of(&peer);
    let (why, answer) = if !policy.is_open_to(peer.address.map(|address| address.ip())) {
        ("allow_addresses of this listener does not name the client's address", None)
    } else if !policy.users.allow(peer.user) {
        (
            "allow_uids of this listener does not name the client's user",
            Some("This port of postkey is not open to your user."),
        )
    } else if is_surplus {
        ("no file descriptors are left", Some("postkey has too many connections now; try later."))
    } else {
        return Some((socket, Newcomer { peer, stranger: strangers.admit(source) }));
    };
    if strangers.log_limit.may_log(source, LogTopic::Refusal) {
        warn!(uid = peer.user, why, "{} connection from {peer} turned away: {why}", policy.protocol);
    }
    if let Some(text) = answer {
        session::turn_away(socket, policy, text);
    }
    None
}

async fn serve_client(socket: Socket, newcomer: Newcomer, policy: &ListenerPolicy) {
    let (protocol, from, begun) = (policy.protocol, newcomer.peer, Instant::now());
    let mut measured = policy.broker.metrics.session(protocol);
    let (End { account, relayed }, result) = session::serve(socket, newcomer, policy).await;
    let (Relayed { up, down }, seconds) = (relayed, begun.elapsed().as_secs());
    (measured.up, measured.down) = (up, down);
    drop(measured);
    match (account, result) {
        (Some(account), Ok(())) => {
            info!(
                account,
                up, down, seconds, "{protocol} session of {account} from {from} ended after {seconds} s: {relayed}"
            );
        }
        (Some(account), Err(error)) => {
            info!(
                account,
                up,
                down,
                seconds,
                %error,
                "{protocol} session of {account} from {from} broke off after {seconds} s: {error} ({relayed})"
            );
        }
        (None, Ok(())) => debug!(seconds, "{protocol} client {from} left without a login"),
        (None, Err(error)) => {
            debug!(seconds, %error, "{protocol} connection from {from} broke off before the login: {error}");
        }
    }
}
