//! A connection during its dialogue: feeds the dialogue what arrives, and sends its answers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use zeroize::{Zeroize as _, Zeroizing};

use super::trace::Trace;
use super::transport::Transport;
use crate::wire::framer::{self, Framer};
use crate::wire::{Dialogue, Frame};

/// The most that one peer may send before the relay begins, in bytes: about 20 times the longest login.
const MOST: usize = 64 * 1024;

/// Stop reading from a peer while it has not read this many bytes of its answers: 400 short commands fit into one read,
/// and their answers are ten times as long.
const MOST_WAITING: usize = 2048;

/// How long a client may take to read a goodbye before it is cut off.
const GOODBYE: Duration = Duration::from_secs(2);

/// A client that sends nothing for this long after our goodbye has received it.
const SILENCE: Duration = Duration::from_millis(200);

/// How long a server may take to answer our goodbye. This happens in the background.
const ANSWER: Duration = Duration::from_secs(5);

/// How much a peer may still send after a goodbye, in bytes.
const MOST_AFTER_GOODBYE: usize = 64 * 1024;

/// A transport with the bytes that have arrived on it and those that are still to be sent.
///
/// Every wait is limited: a dialogue, with its answers and its TLS handshake, has the time that its connection was
/// created with, and a goodbye has two seconds.
pub struct Connection {
    transport: Transport,
    framer: Framer,
    /// The bytes for the next [`Connection::flush`].
    pub out: Vec<u8>,
    /// How much of `out` has been sent.
    sent: usize,
    /// How much of `out` has been traced.
    traced: usize,
    trace: Trace,
    /// Bytes that have arrived so far.
    read: usize,
    /// The time that is left for the dialogue.
    left: Duration,
    has_seen_tls: bool,
}

impl Connection {
    /// Creates a connection whose whole dialogue may take this long.
    pub fn new(transport: Transport, trace: Trace, left: Duration) -> Self {
        let (framer, out) = (Framer::default(), Vec::new());
        Self { transport, framer, out, sent: 0, traced: 0, trace, read: 0, left, has_seen_tls: false }
    }

    /// Lets the dialogue and the peer talk until something happens that the session has to act on. By then, everything
    /// that the dialogue has written has been sent.
    ///
    /// # Errors
    ///
    /// Fails with [`io::ErrorKind::TimedOut`] when the time is over. What the peer has not read by then remains to be
    /// sent.
    pub async fn converse<E>(&mut self, dialogue: &mut dyn Dialogue<Event = E>) -> io::Result<E> {
        let deadline = Instant::now() + self.left;
        let event = timeout_at(deadline, self.talk(dialogue)).await;
        self.left = deadline.saturating_duration_since(Instant::now());
        event?
    }

    async fn talk<E>(&mut self, dialogue: &mut dyn Dialogue<Event = E>) -> io::Result<E> {
        loop {
            while let Some(frame) = self.framer.next(dialogue.want()) {
                self.has_seen_tls |= matches!(frame, Frame::Overlong(start) if framer::begins_tls(start));
                self.trace.received(frame);
                let event = dialogue.feed(frame, &mut self.out);
                self.trace_out();
                if let Some(event) = event {
                    self.send().await?;
                    return Ok(event);
                }
                if self.out.len() > MOST_WAITING {
                    self.send().await?;
                }
            }
            self.send().await?;
            self.framer.release_memory();
            self.fill().await?;
        }
    }

    /// Waits until the peer can no longer receive an answer.
    pub async fn gone(&self) {
        self.transport.gone().await;
    }

    /// Whether the peer has started an unexpected TLS handshake.
    pub fn has_seen_tls(&self) -> bool {
        self.has_seen_tls
    }

    /// Sends what is in `out`, within the time that is left for the dialogue.
    pub async fn flush(&mut self) -> io::Result<()> {
        timeout(self.left, self.send()).await?
    }

    /// If this is cancelled, the part that was sent is not sent again.
    async fn send(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.trace_out();
        while let Some(rest @ [_, ..]) = self.out.get(self.sent..) {
            match self.transport.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.sent += count,
            }
        }
        self.transport.flush().await?;
        // It may have been a bearer. Free its memory, because the peer may be silent for a long time.
        self.out.zeroize();
        (self.out, self.sent, self.traced) = (Vec::new(), 0, 0);
        Ok(())
    }

    /// Traces what was written since the last time. This comes before the next read, so that an answer follows its
    /// command.
    fn trace_out(&mut self) {
        self.trace.sent(self.out.get(self.traced..).unwrap_or_default());
        self.traced = self.out.len();
    }

    /// Waits until something arrives, and keeps it for the dialogue.
    pub async fn fill(&mut self) -> io::Result<()> {
        self.transport.acknowledge_at_once();
        match poll_fn(|cx| self.poll_fill(cx)).await? {
            0 => {
                self.trace.ended();
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            _ if self.read > MOST => Err(io::Error::other("the peer sent too much before the login")),
            _ => Ok(()),
        }
    }

    /// Whether nothing has arrived that the dialogue has not read, and the peer has not ended its side, as far as this
    /// process knows.
    pub fn is_quiet(&mut self) -> bool {
        self.framer.is_empty() && self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// The buffer exists only during this call, so that a waiting connection has none.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; 2048];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        self.framer.push(buffer.filled());
        // It may have been a password.
        bytes.zeroize();
        self.read += count;
        Poll::Ready(Ok(count))
    }

    /// Does the TLS handshake as a client.
    pub async fn connect_tls(self, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        self.start_tls(|transport| transport.connect_tls(config, host)).await
    }

    /// Does the TLS handshake as a server.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        self.start_tls(|transport| transport.accept_tls(config)).await
    }

    async fn start_tls<F: Future<Output = io::Result<Transport>>>(
        self,
        handshake: impl FnOnce(Transport) -> F,
    ) -> io::Result<Self> {
        if !self.framer.is_empty() {
            // This clear text would be taken for part of the TLS stream (CVE-2011-0411).
            let text = "the peer sent something before the TLS handshake";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let deadline = Instant::now() + self.left;
        let transport = timeout_at(deadline, handshake(self.transport)).await??;
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(Self::new(transport, self.trace.tls_started(), left))
    }

    /// Ends the dialogue and returns the transport, with the bytes that arrived after the dialogue.
    pub fn into_parts(self) -> (Transport, Vec<u8>) {
        (self.transport, self.framer.into_rest())
    }

    /// Says goodbye to a server, waits until it has ended, and closes cleanly. Without a goodbye it only closes. What
    /// has not been sent by then is dropped.
    pub async fn leave(mut self, goodbye: &str) -> io::Result<()> {
        self.out.zeroize();
        (self.sent, self.traced) = (0, 0);
        self.out.extend_from_slice(goodbye.as_bytes());
        let leave = async {
            if !goodbye.is_empty() {
                self.send().await?;
                self.drain(ANSWER).await;
            }
            self.transport.shutdown().await
        };
        timeout(ANSWER, leave).await?
    }

    /// Sends a goodbye to a client and closes cleanly, or cuts off a client that does not read it.
    pub async fn close(mut self) -> io::Result<()> {
        let goodbye = async {
            self.send().await?;
            self.transport.shutdown().await?;
            self.drain(SILENCE).await;
            Ok(())
        };
        match timeout(GOODBYE, goodbye).await {
            Ok(ended) => ended,
            Err(late) => {
                self.transport.abort();
                Err(late.into())
            }
        }
    }

    /// Discards what the peer still sends, until it has ended or is silent for this long. A socket that is closed with
    /// unread bytes resets the connection (RFC 2525 section 2.17), and then the peer loses what it has not read yet.
    async fn drain(&mut self, silence: Duration) {
        // It may be a password.
        let (mut left, mut discarded) = (MOST_AFTER_GOODBYE, Zeroizing::new([0; 512]));
        while let Ok(Ok(read @ 1..)) = timeout(silence, self.transport.read(discarded.as_mut_slice())).await
            && read <= left
        {
            left -= read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::trace::TracedPeer;
    use crate::protocol::Protocol;
    use crate::wire::Want;
    use tokio::net::UnixStream;

    const ANSWER: usize = 1000;

    /// Answers each line with a numbered one of a thousand bytes, and ends with `bye`.
    #[derive(Default)]
    struct Talker(usize);

    impl Dialogue for Talker {
        type Event = ();

        fn want(&self) -> Want {
            Want::Line { limit: 100 }
        }

        fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<()> {
            self.0 += 1;
            out.extend(format!("{:>width$}\r\n", self.0, width = ANSWER - 2).bytes());
            (frame == Frame::Line(b"bye")).then_some(())
        }
    }

    fn connected(left: Duration) -> (UnixStream, Connection) {
        let (client, server) = UnixStream::pair().unwrap();
        (client, Connection::new(Transport::Unix(server), Trace::new(Protocol::Imap, TracedPeer::Client), left))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_not_read_from_and_is_cut_off_in_time() {
        let (mut client, mut connection) = connected(Duration::from_secs(60));
        client.write_all(&b"x\n".repeat(2000)).await.unwrap();
        let (begun, mut talker) = (Instant::now(), Talker::default());
        let ended = connection.converse(&mut talker).await;
        assert!(ended.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
        assert_eq!(begun.elapsed().as_secs(), 60);
        assert!(talker.0 < 1000, "what does not fit into the socket is not answered");
        assert!(connection.out.capacity() <= 2 * (MOST_WAITING + ANSWER), "{}", connection.out.capacity());
        assert!(connection.flush().await.is_err(), "no time is left");
        assert!(connection.close().await.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
        assert_eq!(begun.elapsed().as_secs(), 62);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_twice() {
        let (mut client, mut connection) = connected(Duration::from_secs(60));
        client.write_all(&b"x\n".repeat(1000)).await.unwrap();
        let mut talker = Talker::default();
        assert!(connection.converse(&mut talker).await.is_err());
        let (mut received, closed) = (Vec::new(), tokio::spawn(connection.close()));
        client.read_to_end(&mut received).await.unwrap();
        closed.await.unwrap().unwrap();
        let numbers = received.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let numbers = numbers.map(|line| std::str::from_utf8(line).unwrap().trim().parse::<usize>().unwrap());
        assert!(numbers.eq(1..=talker.0), "each answer once");
        assert_eq!(received.len(), ANSWER * talker.0);
    }

    #[tokio::test]
    async fn a_peer_that_goes_on_sending_can_read_its_goodbye() {
        let (mut client, mut connection) = connected(Duration::from_secs(60));
        client.write_all(&[&b"bye\n"[..], &b"x".repeat(50_000)].concat()).await.unwrap();
        connection.converse(&mut Talker::default()).await.unwrap();
        connection.out.extend(b"Too much.\r\n");
        let closed = tokio::spawn(connection.close());
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!(received.ends_with(b"Too much.\r\n"), "{}", received.escape_ascii());
        // A close that leaves bytes unread would make this fail: the socket was reset.
        client.write_all(b"x").await.unwrap();
        drop(client);
        closed.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_silent_peer_costs_no_buffers() {
        let (mut client, mut connection) = connected(Duration::from_secs(60));
        client.write_all(b"x\nbye\n").await.unwrap();
        connection.converse(&mut Talker::default()).await.unwrap();
        assert_eq!(connection.out.capacity(), 0);
    }
}
