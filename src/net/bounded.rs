//! A TCP socket whose peer can send only a bounded amount until it is trusted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A socket below TLS. TLS reads ahead until a record or a handshake message is complete; with this it buffers at most
/// the bound and one more read.
pub struct Bounded {
    socket: TcpStream,
    left: usize,
}

impl Bounded {
    /// Limits the peer to this many bytes and one more read. Then nothing arrives any more, and nobody is woken.
    pub fn new(socket: TcpStream, most: usize) -> Self {
        Self { socket, left: most }
    }

    /// Whether the peer has sent all that it may.
    pub fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// Removes the limit.
    pub fn lift(&mut self) {
        self.left = usize::MAX;
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if own.is_exhausted() {
            // No error: TLS reads on beyond the end of its handshake as long as something is there, and what comes
            // early is not too much of a handshake that is complete.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut own.socket).poll_read(cx, buf))?;
        // The last read may contain more than the handshake, so it may exceed the bound.
        own.left = own.left.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
