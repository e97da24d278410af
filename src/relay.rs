//! The bytes after login, both ways, until both are done.
//!
//! Nothing is parsed and nothing is kept: a side is not read before the other has taken what was read last, and a buffer
//! is held only while there are bytes in it, so an idle session has none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use crate::net::transport::Transport;

/// The size of a buffer, in bytes: four TLS records, so that a system call moves four of them.
const BUFFER: usize = 64 * 1024;

/// Free buffers that a thread keeps. More sessions than this are rarely between a read and a write at once.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What was relayed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Relayed {
    /// Bytes from the client to the provider.
    pub up: u64,
    /// Bytes from the provider to the client.
    pub down: u64,
}

/// One side: its transport, and what arrived on it behind the dialogue.
pub struct Side {
    /// Where the bytes come from, and where the other side's go.
    pub transport: Transport,
    /// The first bytes to relay.
    pub rest: Vec<u8>,
}

/// How long one direction may be silent after the other has ended. Who has ended its own waits for an answer at most,
/// and the longest wait for one is SMTP's 10 minutes behind the end of a message (RFC 5321 section 4.5.3.2.6).
const HALF: Duration = Duration::from_secs(600);

/// Relays until both sides have ended, or one has failed. Either way says how much.
///
/// While both directions are open, silence has no end: IMAP's IDLE is made for it, and keepalive notices a peer that has
/// vanished.
pub async fn relay(client: Side, server: Side) -> (Relayed, io::Result<()>) {
    let (mut client, mut server) = ((client.transport, client.rest), (server.transport, server.rest));
    let mut up = Pump::new(std::mem::take(&mut client.1));
    let mut down = Pump::new(std::mem::take(&mut server.1));
    let mut silence = None;
    let result = poll_fn(|cx| {
        let before = up.progress() + down.progress();
        let sent = up.poll(cx, &mut client.0, &mut server.0)?;
        let received = down.poll(cx, &mut server.0, &mut client.0)?;
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let is_half = up.state != State::Open || down.state != State::Open;
        if !is_half {
            return Poll::Pending;
        }
        if up.progress() + down.progress() > before {
            silence = None;
        }
        let silence = silence.get_or_insert_with(|| Box::pin(sleep(HALF)));
        silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await;
    (Relayed { up: up.moved, down: down.moved }, result)
}

/// One direction.
struct Pump {
    state: State,
    /// Bytes that have been read; empty while there are none.
    buffer: Vec<u8>,
    /// How much of `buffer` holds bytes, and how much of that has been written.
    filled: usize,
    written: usize,
    moved: u64,
}

/// How far one direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes may come.
    Open,
    /// The source has ended; what is left has to be written, and the end passed on.
    Ending,
    /// The end has been passed on.
    Done,
}

impl Pump {
    fn new(rest: Vec<u8>) -> Self {
        Self { state: State::Open, filled: rest.len(), buffer: rest, written: 0, moved: 0 }
    }

    /// Bytes that have been written so far.
    fn progress(&self) -> u64 {
        self.moved + self.written as u64
    }

    /// Moves bytes until one of the two has to be waited for. Ready when this direction is done.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Transport, to: &mut Transport) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx, to))?;
            match self.state {
                State::Open => ready!(self.poll_fill(cx, from, to))?,
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes all that is in the buffer, and gives the buffer back.
    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &mut Transport) -> Poll<io::Result<()>> {
        while self.written < self.filled {
            let bytes = self.buffer.get(self.written..self.filled).unwrap_or_default();
            match ready!(Pin::new(&mut *to).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.moved += self.filled as u64;
        (self.filled, self.written) = (0, 0);
        give_back(std::mem::take(&mut self.buffer));
        Poll::Ready(Ok(()))
    }

    /// Reads as much as there is, up to a whole buffer. While there is nothing, what was written is flushed, for TLS may
    /// hold some of it.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut Transport, to: &mut Transport) -> Poll<io::Result<()>> {
        let mut buffer = take();
        let mut space = ReadBuf::new(&mut buffer);
        while self.state == State::Open && space.remaining() > 0 {
            let before = space.filled().len();
            match Pin::new(&mut *from).poll_read(cx, &mut space) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if space.filled().len() > before => {}
                Poll::Ready(Ok(())) => self.state = State::Ending,
                // Many servers end a TLS connection without close_notify; the mail protocols say themselves when they are done.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.state = State::Ending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        self.filled = space.filled().len();
        if self.filled > 0 {
            self.buffer = buffer;
            return Poll::Ready(Ok(()));
        }
        give_back(buffer);
        match self.state {
            State::Open => {
                ready!(Pin::new(to).poll_flush(cx))?;
                Poll::Pending
            }
            State::Ending | State::Done => Poll::Ready(Ok(())),
        }
    }
}

/// A buffer to read into.
fn take() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER])
}

/// Keeps a buffer for the next one who needs it.
fn give_back(buffer: Vec<u8>) {
    if buffer.len() == BUFFER {
        BUFFERS.with_borrow_mut(|spare| {
            if spare.len() < SPARE {
                spare.push(buffer);
            }
        });
    }
}
