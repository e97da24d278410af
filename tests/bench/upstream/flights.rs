//! Counts how often a peer made us wait, and makes it wait as a distant provider would.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A connection that counts flights: one begins when something arrives after we have sent, or when something arrives
/// first.
///
/// Each costs a client one round trip, including those of TLS. TCP's own handshake is not visible here.
pub struct Counted {
    socket: TcpStream,
    flights: u32,
    sent: bool,
    /// How long a round trip takes, in milliseconds.
    distance: Arc<AtomicU64>,
    /// The flight that is under way.
    flying: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    pub fn new(socket: TcpStream, distance: Arc<AtomicU64>) -> Self {
        Self { socket, flights: 0, sent: true, distance, flying: None }
    }

    /// Flights that have arrived so far.
    pub fn flights(&self) -> u32 {
        self.flights
    }

    /// Waits until a flight that has begun has arrived.
    fn poll_flight(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let distance = Duration::from_millis(self.distance.load(Ordering::Relaxed));
        if !self.sent || distance.is_zero() {
            return Poll::Ready(Ok(()));
        }
        if self.flying.is_none() {
            ready!(self.socket.poll_read_ready(cx))?;
        }
        ready!(self.flying.get_or_insert_with(|| Box::pin(sleep(distance))).as_mut().poll(cx));
        self.flying = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flight(cx))?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if self.sent && buf.filled().len() > before {
            self.sent = false;
            self.flights += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.sent = true;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sent = true;
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
