//! Relays the bytes after the login in both directions, until both are done.
//!
//! It parses nothing and stores nothing: a side is read again only after the other has taken the last bytes, and a
//! buffer exists only while there are bytes in it, so an idle session has none.
//!
//! The provider's end is passed to the client at once, because the provider sends nothing more. The client's end is
//! passed on only after the provider has ended or is silent. A client without TLS half-closes and waits for its answers
//! (Exim does after QUIT), but many servers take TLS's close_notify for the end of both directions and send no more
//! answers. A mail that was accepted without an answer is then sent again. `docs/design/decisions/0009-half-close.md`
//! has what was measured.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::net::transport::Transport;
use crate::shutdown::Shutdown;

/// The size of a buffer, in bytes: four TLS records, so that a system call moves four of them.
const BUFFER: usize = 64 * 1024;

/// The number of free buffers that a thread keeps. Rarely are more sessions between a read and a write at once.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How many bytes were relayed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Relayed {
    /// Bytes from the client to the provider.
    pub up: u64,
    /// Bytes from the provider to the client.
    pub down: u64,
}

impl fmt::Display for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} up, {} down", amount(self.up), amount(self.down))
    }
}

/// Formats a number of bytes for people, rounded down.
fn amount(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// One side: its transport, and what arrived on it after the dialogue.
pub struct Side {
    /// The source of its bytes, and the destination of the other side's.
    pub transport: Transport,
    /// The first bytes to relay.
    pub rest: Vec<u8>,
}

/// How long nothing may move after one direction has ended. The side that has ended can only wait for an answer, and
/// the longest such wait is SMTP's 10 minutes after the end of a message (RFC 5321 section 4.5.3.2.6).
const HALF: Duration = Duration::from_secs(10 * 60);

/// How long the provider may be silent after an answer, once the client has ended without a goodbye, before we assume
/// that it has answered everything. It may still work on a pipelined command; but an unused connection counts against
/// the account's limit, and may lock a POP3 mailbox.
const ANSWERED: Duration = Duration::from_secs(30);

/// How long the provider's connection stays open after a client has closed completely. Nobody receives the answer, but
/// a POP3 server carries out its deletions at QUIT.
const UNHEARD: Duration = Duration::from_secs(5);

/// The commands after which the server ends the connection (RFC 5321, RFC 1939, RFC 3501).
const GOODBYES: [&[u8]; 2] = [b"QUIT\r\n", b"LOGOUT\r\n"];

/// The length of the longest of them, in bytes.
const TAIL: usize = 8;

/// How long a peer may not read the bytes that are there for it. Its user may have to answer a question meanwhile;
/// servers give up after 30 minutes (RFC 9051 section 5.4).
const BLOCKED: Duration = Duration::from_secs(30 * 60);

/// How a shutdown of postkey ends a relay.
pub struct Ending {
    pub shutdown: Shutdown,
    /// How long what is under way may still take.
    pub limit: Duration,
    /// The goodbye for a client that does not wait for an answer.
    pub farewell: &'static [u8],
    /// Completes when the app password is removed, and the session has to end at once.
    pub removed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Relays until both sides have ended, one has failed, or postkey stops. Always returns how much was relayed.
///
/// While both directions are open and idle, there is no time limit: IMAP's IDLE needs that, and keepalive detects a
/// peer that has vanished.
pub async fn relay(client: Side, server: Side, ending: Ending) -> (Relayed, io::Result<()>) {
    let mut both = Both::new(client, server);
    let Ending { mut shutdown, limit, farewell, mut removed } = ending;
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| both.poll(cx)) => {
            // This matters after a failure of the client; if both have ended, nothing is left to do.
            let _gone = timeout(GOODBYE, both.server.shutdown()).await;
            result
        }
        () = shutdown.requested() => both.end(limit, farewell).await,
        () = &mut removed => {
            both.close().await;
            Err(io::Error::other("its app password has been removed"))
        }
    };
    (Relayed { up: both.up.moved, down: both.down.moved }, result)
}

/// How long ago the provider's last answer must be before we end a relay, because a client that was just answered may
/// be about to continue.
const QUIET: Duration = Duration::from_secs(1);

/// How often to check a relay that has to end.
const LOOK: Duration = Duration::from_millis(100);

/// How long a side may take to receive the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

struct Both {
    client: Transport,
    server: Transport,
    up: Pump,
    down: Pump,
    /// Detects a direction that makes no progress.
    stall: Option<Stall>,
    /// The client has ended its half and still waits for answers: when checked, it had not closed completely.
    is_awaited: bool,
}

impl Both {
    fn new(client: Side, server: Side) -> Self {
        Self {
            client: client.transport,
            server: server.transport,
            up: Pump::new(client.rest),
            down: Pump { passes_end: true, ..Pump::new(server.rest) },
            stall: None,
            is_awaited: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let received = self.down.poll(cx, &mut self.server, &mut self.client)?;
            // A provider that has ended sends no more answers.
            self.up.passes_end |= received.is_ready();
            let sent = self.up.poll(cx, &mut self.client, &mut self.server)?;
            if sent.is_ready() && received.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let (patience, progress) = (self.patience(), self.up.progress() + self.down.progress());
            ready!(Stall::poll(&mut self.stall, cx, patience, progress));
            if !self.up.holds_end() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.give_up_waiting();
        }
    }

    /// How long nothing may move.
    fn patience(&self) -> Duration {
        if !self.up.holds_end() {
            return self.up.patience().min(self.down.patience());
        }
        match (self.is_awaited, self.is_answered() && !self.up.ends_with_goodbye()) {
            (false, true) => QUIET,
            (false, false) => UNHEARD,
            (true, true) => ANSWERED,
            (true, false) => HALF,
        }
    }

    /// Called when the client has ended and the provider is silent. Passes the client's end on, unless a check shows
    /// that the client still waits.
    fn give_up_waiting(&mut self) {
        self.is_awaited = !self.is_awaited && !self.client.has_hung_up();
        self.up.passes_end = !self.is_awaited;
        self.stall = None;
    }

    /// Ends the relay as soon as nothing is under way, or after the limit.
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
        Err(io::Error::other("postkey is stopping"))
    }

    /// Ends both connections in their current state.
    async fn close(&mut self) {
        let (client, server) = (self.client.shutdown(), self.server.shutdown());
        let _gone = timeout(GOODBYE, async { tokio::join!(client, server) }).await;
    }

    /// Whether nothing is under way, so that we may end the relay. A client that has ended its half is busy until its
    /// provider has ended, because its mail may be under way.
    fn is_quiet(&self) -> bool {
        let is_empty = self.up.filled == 0 && self.down.filled == 0;
        is_empty && !self.up.holds_end() && self.is_answered() && self.down.last.elapsed() >= QUIET
    }

    /// Whether the provider has answered everything, as far as one can see without parsing: it spoke last, and sent a
    /// whole line.
    fn is_answered(&self) -> bool {
        self.down.last >= self.up.last && self.down.ends_a_line()
    }
}

/// A timer that expires if there is no progress.
struct Stall {
    patience: Duration,
    /// The progress when the timer was set.
    progress: u64,
    clock: Pin<Box<Sleep>>,
}

impl Stall {
    /// Ready if there was no progress for the limit. While bytes move, the timer keeps running and is set again only
    /// when it expires, so that bytes cost nothing.
    fn poll(this: &mut Option<Self>, cx: &mut Context<'_>, patience: Duration, progress: u64) -> Poll<()> {
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
                    return Poll::Ready(());
                }
            }
            *this = None;
        }
    }
}

struct Pump {
    state: DirectionState,
    /// The buffer for bytes that have been read; empty while there are none.
    buffer: Vec<u8>,
    /// How many bytes of `buffer` are filled, and how many of those have been written.
    filled: usize,
    written: usize,
    moved: u64,
    /// When bytes were last passed on, and the last of them.
    last: Instant,
    tail: Vec<u8>,
    /// Whether to pass the source's end on at once.
    passes_end: bool,
    /// Why the source failed. Kept until the bytes before it have been passed on, because they may be a POP3 client's
    /// QUIT.
    failure: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DirectionState {
    /// More bytes may arrive.
    Open,
    /// The source has ended. The rest has to be written, and then the end passed on when that is allowed.
    Ending,
    /// The end has been passed on.
    Done,
}

impl Pump {
    fn new(rest: Vec<u8>) -> Self {
        Self {
            state: DirectionState::Open,
            filled: rest.len(),
            buffer: rest,
            written: 0,
            moved: 0,
            last: Instant::now(),
            tail: Vec::new(),
            passes_end: false,
            failure: None,
        }
    }

    /// How long nothing may move.
    fn patience(&self) -> Duration {
        match self.state {
            DirectionState::Open if self.buffer.is_empty() => Duration::MAX,
            DirectionState::Open => BLOCKED,
            DirectionState::Ending | DirectionState::Done => HALF,
        }
    }

    /// Whether everything that the source has sent has been passed on, except its end.
    fn holds_end(&self) -> bool {
        self.state == DirectionState::Ending && self.filled == 0 && !self.may_pass_end()
    }

    /// Whether the source's end may be passed on. One that has sent nothing waits for no answer.
    fn may_pass_end(&self) -> bool {
        self.passes_end || self.progress() == 0
    }

    /// Whether the bytes passed on end with a whole line, as the dialogue before the relay does.
    fn ends_a_line(&self) -> bool {
        self.tail.last().is_none_or(|byte| *byte == b'\n')
    }

    /// Whether the last bytes ask the other side to end the connection. They may also be the end of a mail; then we
    /// wait longer than necessary for the answer.
    fn ends_with_goodbye(&self) -> bool {
        let ends_with = |goodbye: &&[u8]| {
            let end = self.tail.len().checked_sub(goodbye.len()).and_then(|start| self.tail.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(goodbye))
        };
        GOODBYES.iter().any(ends_with)
    }

    /// The number of bytes written so far.
    fn progress(&self) -> u64 {
        self.moved + self.written as u64
    }

    /// Moves bytes until it has to wait for one of the sides. Ready when this direction is done.
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
                DirectionState::Open => ready!(self.poll_fill(cx, from, to))?,
                DirectionState::Ending if !self.may_pass_end() => {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
                DirectionState::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = DirectionState::Done;
                }
                DirectionState::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes the whole buffer, and returns it to the pool.
    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &mut Transport) -> Poll<io::Result<()>> {
        while self.written < self.filled {
            let bytes = self.buffer.get(self.written..self.filled).unwrap_or_default();
            match ready!(Pin::new(&mut *to).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        if self.filled > 0 {
            self.moved += self.filled as u64;
            self.last = Instant::now();
            self.keep_tail();
        }
        (self.filled, self.written) = (0, 0);
        give_back(std::mem::take(&mut self.buffer));
        Poll::Ready(Ok(()))
    }

    /// Remembers the last bytes that were written, as many as the longest goodbye has.
    fn keep_tail(&mut self) {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        self.tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }

    /// Reads what there is, up to a whole buffer. If there is nothing, it flushes what was written, because TLS may
    /// have buffered some of it.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut Transport, to: &mut Transport) -> Poll<io::Result<()>> {
        let mut buffer = take();
        let mut space = ReadBuf::new(&mut buffer);
        while self.state == DirectionState::Open && self.failure.is_none() && space.remaining() > 0 {
            let before = space.filled().len();
            match Pin::new(&mut *from).poll_read(cx, &mut space) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if space.filled().len() > before => {}
                Poll::Ready(Ok(())) => self.state = DirectionState::Ending,
                // Many servers end a TLS connection without close_notify; the mail protocols themselves say when they
                // are done.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.state = DirectionState::Ending
                }
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
            DirectionState::Open if self.failure.is_none() => {
                ready!(Pin::new(to).poll_flush(cx))?;
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Takes a buffer to read into from the pool.
fn take() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER])
}

/// Returns a buffer to the pool.
fn give_back(buffer: Vec<u8>) {
    if buffer.len() == BUFFER {
        BUFFERS.with_borrow_mut(|spare| {
            if spare.len() < SPARE {
                spare.push(buffer);
            }
        });
    }
}
