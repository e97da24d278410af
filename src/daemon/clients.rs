//! The clients of one open port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug, info, info_span, warn};

use crate::net::balancer::named_client;
use crate::net::listen::{self, AcceptedSocket, Socket};
use crate::net::peer::{self, Peer, Source};
use crate::net::strangers::{LogTopic, Stranger, Strangers};
use crate::protocol::Protocol;
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
        let (span, policy) = (span(&policy, accepted.peer), Arc::clone(&policy));
        if policy.is_balanced() {
            let Some((socket, newcomer)) = span.in_scope(|| admit_balancer(accepted, &policy, &strangers)) else {
                continue;
            };
            tokio::spawn(serve_balancer(socket, newcomer, policy, Arc::clone(&strangers)));
        } else {
            let Some((socket, newcomer)) = span.in_scope(|| admit(accepted, &policy, &strangers)) else { continue };
            tokio::spawn(async move { serve_client(socket, newcomer, &policy).await }.instrument(span));
        }
    }
}

/// The span of one client's lines in the log.
fn span(policy: &ListenerPolicy, peer: Option<SocketAddr>) -> Span {
    let (protocol, security) = (policy.protocol.name(), policy.security.name());
    info_span!("session", protocol, security, peer = peer.map(display))
}

/// Why a connection is turned away. The client gets an answer only if the port is unencrypted, because that takes no
/// time.
struct Rejection {
    why: &'static str,
    answer: Option<&'static str>,
}

const FOREIGN_ADDRESS: Rejection =
    Rejection { why: "allow_addresses of this listener does not name the client's address", answer: None };

const FOREIGN_USER: Rejection = Rejection {
    why: "allow_uids of this listener does not name the client's user",
    answer: Some("This port of postkey is not open to your user."),
};

const NO_DESCRIPTOR: Rejection =
    Rejection { why: "no file descriptors are left", answer: Some("postkey has too many connections now; try later.") };

const FOREIGN_BALANCER: Rejection =
    Rejection { why: "proxy_protocol of this listener does not name its address", answer: None };

const LOCAL_BALANCER: Rejection = Rejection {
    why: "it comes from this machine, where every user could claim any address; add allow_uids with the load balancer's user",
    answer: None,
};

/// Decides whether a client may connect at all, before TLS and before it takes a place.
fn admit(accepted: AcceptedSocket, policy: &ListenerPolicy, strangers: &Arc<Strangers>) -> Option<(Socket, Newcomer)> {
    let AcceptedSocket { socket, is_surplus, .. } = accepted;
    // This fails if the connection has already ended.
    let peer = Peer::of(&socket).ok()?;
    let rejection = if !policy.is_open_to(peer.address) {
        FOREIGN_ADDRESS
    } else if !policy.users.allow(peer.user) {
        FOREIGN_USER
    } else if is_surplus {
        NO_DESCRIPTOR
    } else {
        return Some((socket, Newcomer { peer, stranger: strangers.admit(Source::of(&peer)) }));
    };
    turn_away(socket, &peer, &rejection, policy, strangers);
    None
}

/// Decides whether a load balancer may name a client on this connection. `allow_addresses` is for the client.
fn admit_balancer(
    accepted: AcceptedSocket,
    policy: &ListenerPolicy,
    strangers: &Arc<Strangers>,
) -> Option<(Socket, Newcomer)> {
    let AcceptedSocket { socket, is_surplus, .. } = accepted;
    let peer = Peer::of(&socket).ok()?;
    let rejection = if !policy.is_balancer(peer.address) {
        FOREIGN_BALANCER
    } else if policy.users.are_all() && peer::is_from_here(&socket) {
        LOCAL_BALANCER
    } else if !policy.users.allow(peer.user) {
        FOREIGN_USER
    } else if is_surplus {
        NO_DESCRIPTOR
    } else {
        return Some((socket, Newcomer { peer, stranger: strangers.admit_balancer(Source::of(&peer)) }));
    };
    turn_away(socket, &peer, &rejection, policy, strangers);
    None
}

fn turn_away(socket: Socket, peer: &Peer, rejection: &Rejection, policy: &ListenerPolicy, strangers: &Strangers) {
    let Rejection { why, answer } = rejection;
    if strangers.log_limit.may_log(Source::of(peer), LogTopic::Refusal) {
        warn!(uid = peer.user, why, "{} connection from {peer} turned away: {why}", policy.protocol);
    }
    if let Some(text) = answer {
        session::turn_away(socket, policy, text);
    }
}

/// Serves a load balancer's connection, for the client that it names. From then on it is that client's in everything.
async fn serve_balancer(
    mut socket: Socket,
    balancer: Newcomer,
    policy: Arc<ListenerPolicy>,
    strangers: Arc<Strangers>,
) {
    let balancer_span = span(&policy, balancer.peer.address);
    let Some(peer) = named_peer(&mut socket, balancer, &policy).instrument(balancer_span).await else { return };
    let span = span(&policy, peer.address);
    if !policy.is_open_to(peer.address) {
        return span.in_scope(|| turn_away(socket, &peer, &FOREIGN_ADDRESS, &policy, &strangers));
    }
    let newcomer = Newcomer { peer, stranger: strangers.admit(Source::of(&peer)) };
    serve_client(socket, newcomer, &policy).instrument(span).await;
}

/// The client that a load balancer names. None if the connection ends without that.
async fn named_peer(socket: &mut Socket, balancer: Newcomer, policy: &ListenerPolicy) -> Option<Peer> {
    let Newcomer { peer, stranger } = balancer;
    let mut shutdown = policy.shutdown.clone();
    let named = tokio::select! {
        named = named_client(socket) => named,
        () = stranger.evicted() => Err(io::Error::other("evicted, because other connections needed its place")),
        () = shutdown.requested() => return None,
    };
    match named {
        Ok(client) => Some(Peer::behind(&peer, client)),
        Err(error) => {
            log_nameless(&error, &peer, &stranger, policy.protocol);
            None
        }
    }
}

/// Logs that a load balancer has named no client. A connection without a byte is only a probe of the port.
fn log_nameless(error: &io::Error, peer: &Peer, stranger: &Stranger, protocol: Protocol) {
    use io::ErrorKind::{InvalidData, TimedOut, UnexpectedEof};
    if matches!(error.kind(), InvalidData | TimedOut | UnexpectedEof) && stranger.may_log(LogTopic::Refusal) {
        warn!(%error, "{protocol} connection of the load balancer {peer} closed: {error}; turn send-proxy-v2 on there");
    }
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
