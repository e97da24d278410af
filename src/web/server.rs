//! A small HTTP server for browsers and scrapers. It limits connections, their time and what it reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::net::listen::{Bound, Socket};
use crate::net::peer::{Peer, Source, Visitor};
use crate::net::strangers::{Stranger, Strangers};

/// The most connections at a time, of all HTTP ports of this process together. A page needs one, and a browser opens a
/// few in advance.
pub const CONNECTIONS: usize = 64;

/// How long a client may take to send a request's header.
const HEADER: Duration = Duration::from_secs(10);

/// The longest time for a connection. A return from the provider waits for up to four token requests of 14 s each,
/// because the code and the new refresh token are each sent again if the answer is lost; and for the keys and userinfo.
const CONNECTION: Duration = Duration::from_secs(120);

/// The most to read ahead of a request, in bytes: the longest header. hyper's minimum is 8 KiB.
const HEADER_SIZE: usize = 16 * 1024;

/// How long to wait when the system has no descriptors or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// A server on one or more ports. Dropping it closes them.
pub struct HttpServer {
    /// Dropping this stops accepting; open connections may end.
    closing: watch::Sender<()>,
    ports: JoinSet<()>,
}

impl HttpServer {
    /// Serves these ports. Handlers get the peer's user as an [`Extension`] with a [`Visitor`].
    pub fn new(sockets: Vec<Bound>, router: &Router, strangers: &Arc<Strangers>) -> Self {
        let (closing, mut ports) = (watch::Sender::default(), JoinSet::new());
        for socket in sockets {
            let port = HttpPort { socket, router: router.clone(), strangers: Arc::clone(strangers) };
            ports.spawn(port.serve(closing.subscribe()));
        }
        Self { closing, ports }
    }

    /// Stops accepting, and waits until all requests are answered.
    pub async fn finish(mut self) {
        drop(self.closing);
        while self.ports.join_next().await.is_some() {}
    }
}

struct HttpPort {
    socket: Bound,
    router: Router,
    strangers: Arc<Strangers>,
}

impl HttpPort {
    async fn serve(self, mut closing: watch::Receiver<()>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = closing.changed() => break,
            };
            // Remove connections that have ended.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((socket, peer)) => self.accept(socket, peer, &mut connections),
                Err(error) => {
                    debug!(%error, "cannot accept a connection to an HTTP port");
                    sleep(PAUSE).await;
                }
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    fn accept(&self, socket: Socket, peer: Option<SocketAddr>, connections: &mut JoinSet<()>) {
        if !self.socket.admits(peer) {
            let from = peer.map(|peer| peer.to_string()).unwrap_or_default();
            warn!(peer = from, "HTTP connection from {from} to a loopback port closed: it comes from another machine");
            return;
        }
        let visitor = Visitor::of(&socket);
        let user = if let Visitor::User(user) = visitor { Some(user) } else { None };
        let stranger = self.strangers.admit(Source::of(&Peer { address: peer, user, is_forwarded: false }));
        let router = self.router.clone().layer(Extension(visitor));
        match socket {
            Socket::Tcp(stream) => connections.spawn(serve_request(stream, router, stranger)),
            Socket::Unix(stream) => connections.spawn(serve_request(stream, router, stranger)),
        };
    }
}

/// Serves one request. A client that sends or reads too slowly is cut off, and so is one whose place another needs.
async fn serve_request(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    stranger: Stranger,
) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER).keep_alive(false).max_buf_size(HEADER_SIZE);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        ended = timeout(CONNECTION, connection) => match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "an HTTP connection broke off"),
            Err(_) => debug!("an HTTP connection took longer than {} s and was closed", CONNECTION.as_secs()),
        },
        () = stranger.evicted() => debug!("an HTTP connection was closed because another needs its place"),
    }
}
