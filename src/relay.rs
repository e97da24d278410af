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

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::net::transport::Transport;
use crate::stop::Stop;

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

/// How long nothing may move after one direction has ended. Who has ended its own waits for an answer at most, and the
/// longest wait for one is SMTP's 10 minutes behind the end of a message (RFC 5321 section 4.5.3.2.6).
const HALF: Duration = Duration::from_secs(10 * 60);

/// How long a peer may refuse to take the bytes that are there for it. A person may be asked something meanwhile; servers
/// give up themselves after 30 minutes (RFC 9051 section 5.4).
const BLOCKED: Duration = Duration::from_secs(30 * 60);

/// How postkey's own end comes to a relay.
pub struct Ending {
    /// Says when.
    pub stop: Stop,
    /// How long what is under way may take then.
    pub limit: Duration,
    /// What the client is told if it waits for nothing.
    pub farewell: &'static [u8],
    /// Ends when the session has to end at once.
    pub withdrawn: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Relays until both sides have ended, or one has failed, or postkey stops. Either way says how much.
///
/// While both directions are open and empty, silence has no end: IMAP's IDLE is made for it, and keepalive notices a peer
/// that has vanished.
pub async fn relay(client: Side, server: Side, ending: Ending) -> (Relayed, io::Result<()>) {
    let mut both = Both::new(client, server);
    let Ending { mut stop, limit, farewell, mut withdrawn } = ending;
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| both.poll(cx)) => result,
        () = stop.said() => both.end(limit, farewell).await,
        () = &mut withdrawn => {
            both.close().await;
            Err(io::Error::other("its app password has been removed"))
        }
    };
    (Relayed { up: both.up.moved, down: both.down.moved }, result)
}

/// How long the provider's last word has to be ago when a relay is ended from here: a client that has just been answered
/// may be about to go on.
const QUIET: Duration = Duration::from_secs(1);

/// How often a relay that is to end is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long a side may take to hear that it is over.
const GOODBYE: Duration = Duration::from_secs(2);

/// Both directions.
struct Both {
    client: Transport,
    server: Transport,
    up: Pump,
    down: Pump,
    /// Something that does not move as it should.
    stall: Option<Stall>,
}

impl Both {
    fn new(client: Side, server: Side) -> Self {
        Self {
            client: client.transport,
            server: server.transport,
            up: Pump::new(client.rest),
            down: Pump::new(server.rest),
            stall: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.up.poll(cx, &mut self.client, &mut self.server)?;
        let received = self.down.poll(cx, &mut self.server, &mut self.client)?;
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let patience = self.up.patience().min(self.down.patience());
        Stall::poll(&mut self.stall, cx, patience, self.up.progress() + self.down.progress())
    }

    /// Ends the relay as soon as nothing is under way, or when the limit has passed.
    async fn end(&mut self, limit: Duration, farewell: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        while !self.is_quiet() && Instant::now() < deadline {
            if let Ok(result) = timeout(LOOK, poll_fn(|cx| self.poll(cx))).await {
                return result;
            }
        }
        if self.is_quiet() {
            let _gone = timeout(GOODBYE, self.client.write_all(farewell)).await;
        }
        self.close().await;
        Err(io::Error::other("postkey stops"))
    }

    /// Ends both connections as they are.
    async fn close(&mut self) {
        let (client, server) = (self.client.shutdown(), self.server.shutdown());
        let _gone = timeout(GOODBYE, async { tokio::join!(client, server) }).await;
    }

    /// Whether the provider has answered all that it was asked, as far as one can tell without parsing: it had the last
    /// word, and it was a whole line.
    fn is_quiet(&self) -> bool {
        let is_empty = self.up.filled == 0 && self.down.filled == 0;
        is_empty && self.down.last >= self.up.last && self.down.last.elapsed() >= QUIET && self.down.ends_a_line
    }
}

/// Something that should move, and a clock for it.
struct Stall {
    /// How long it may take.
    patience: Duration,
    /// What had moved when the clock was set.
    progress: u64,
    clock: Pin<Box<Sleep>>,
}

impl Stall {
    /// Ready if nothing has moved for as long as it may. As long as bytes move the clock runs on, and is set anew when it
    /// ends, so that they cost nothing.
    fn poll(this: &mut Option<Self>, cx: &mut Context<'_>, patience: Duration, progress: u64) -> Poll<io::Result<()>> {
        if patience == Duration::MAX {
            *this = None;
            return Poll::Pending;
        }
        loop {
            let new = || Self { patience, progress, clock: Box::pin(sleep(patience)) };
            let stall = this.get_or_insert_with(new);
            if stall.patience == patience {
                ready!(stall.clock.as_mut().poll(cx));
                if stall.progress == progress {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            *this = None;
        }
    }
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
    /// When bytes were last passed on, and whether they ended with a line's end.
    last: Instant,
    ends_a_line: bool,
    /// Why the source failed, until the bytes that came before have been passed on: they may be a POP3 client's QUIT.
    failure: Option<io::Error>,
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
        Self {
            state: State::Open,
            filled: rest.len(),
            buffer: rest,
            written: 0,
            moved: 0,
            last: Instant::now(),
            ends_a_line: true,
            failure: None,
        }
    }

    /// How long nothing may move.
    fn patience(&self) -> Duration {
        match self.state {
            State::Open if self.buffer.is_empty() => Duration::MAX,
            State::Open => BLOCKED,
            State::Ending | State::Done => HALF,
        }
    }

    /// Bytes that have been written so far.
    fn progress(&self) -> u64 {
        self.moved + self.written as u64
    }

    /// Moves bytes until one of the two has to be waited for. Ready when this direction is done.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Transport, to: &mut Transport) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx, to))?;
            if self.failure.is_some() {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
            }
            if let Some(error) = self.failure.take() {
                return Poll::Ready(Err(error));
            }
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
        if let Some(end) = self.filled.checked_sub(1) {
            self.moved += self.filled as u64;
            self.last = Instant::now();
            self.ends_a_line = self.buffer.get(end) == Some(&b'\n');
        }
        (self.filled, self.written) = (0, 0);
        give_back(std::mem::take(&mut self.buffer));
        Poll::Ready(Ok(()))
    }

    /// Reads as much as there is, up to a whole buffer. While there is nothing, what was written is flushed, for TLS may
    /// hold some of it.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut Transport, to: &mut Transport) -> Poll<io::Result<()>> {
        let mut buffer = take();
        let mut space = ReadBuf::new(&mut buffer);
        while self.state == State::Open && self.failure.is_none() && space.remaining() > 0 {
            let before = space.filled().len();
            match Pin::new(&mut *from).poll_read(cx, &mut space) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if space.filled().len() > before => {}
                Poll::Ready(Ok(())) => self.state = State::Ending,
                // Many servers end a TLS connection without close_notify; the mail protocols say themselves when they are done.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.state = State::Ending,
                Poll::Ready(Err(error)) => self.failure = Some(error),
            }
        }
        self.filled = space.filled().len();
        if self.filled > 0 {
            self.buffer = buffer;
            return Poll::Ready(Ok(()));
        }
        give_back(buffer);
        match self.state {
            State::Open if self.failure.is_none() => {
                ready!(Pin::new(to).poll_flush(cx))?;
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
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
