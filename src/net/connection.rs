//! A connection while it is a dialogue: feeds what arrives to the dialogue, and sends what it answers.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use zeroize::Zeroize as _;

use super::trace::Trace;
use super::transport::Transport;
use crate::wire::Dialogue;
use crate::wire::framer::Framer;

/// The most that one peer may send before the relay begins, in bytes: some 20 times what the longest login takes.
const MOST: usize = 64 * 1024;

/// A transport, what has arrived on it, and what is to be sent.
pub struct Connection {
    transport: Transport,
    framer: Framer,
    /// To be sent by the next [`Connection::flush`].
    pub out: Vec<u8>,
    /// How much of `out` has been traced.
    traced: usize,
    trace: Trace,
    /// Bytes that have arrived so far.
    read: usize,
}

impl Connection {
    /// A connection on which nothing has been said.
    pub fn new(transport: Transport, trace: Trace) -> Self {
        Self { transport, framer: Framer::default(), out: Vec::new(), traced: 0, trace, read: 0 }
    }

    /// Lets the dialogue and the peer talk until something happens that the session has to act on. All that the dialogue
    /// has said by then has been sent.
    pub async fn converse<E>(&mut self, dialogue: &mut dyn Dialogue<Event = E>) -> io::Result<E> {
        loop {
            while let Some(frame) = self.framer.next(dialogue.want()) {
                self.trace.heard(frame);
                let event = dialogue.feed(frame, &mut self.out);
                self.trace_out();
                if let Some(event) = event {
                    self.flush().await?;
                    return Ok(event);
                }
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// Waits until the peer has ended its side, whatever has arrived from it before.
    pub async fn gone(&self) {
        self.transport.gone().await;
    }

    /// Sends what is in `out`.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.trace_out();
            self.transport.write_all(&self.out).await?;
            self.transport.flush().await?;
            // It may have been a bearer.
            self.out.zeroize();
            self.traced = 0;
        }
        Ok(())
    }

    /// Traces what has been said since the last time: before the peer is heard again, for an answer explains what it is to.
    fn trace_out(&mut self) {
        self.trace.said(self.out.get(self.traced..).unwrap_or_default());
        self.traced = self.out.len();
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 2048];
        let count = self.transport.read(&mut bytes).await?;
        self.framer.push(bytes.get(..count).unwrap_or_default());
        // It may have been a password.
        bytes.zeroize();
        self.read += count;
        match count {
            0 => {
                self.trace.ended();
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            _ if self.read > MOST => Err(io::Error::other("too much was sent before the login")),
            _ => Ok(()),
        }
    }

    /// Does the TLS handshake as a client.
    pub async fn connect_tls(self, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let (transport, trace) = self.quiet()?;
        Ok(Self::new(transport.connect_tls(config, host).await?, trace.tls_started()))
    }

    /// Does the TLS handshake as a server.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        let (transport, trace) = self.quiet()?;
        Ok(Self::new(transport.accept_tls(config).await?, trace.tls_started()))
    }

    /// The transport and its trace, if nothing has arrived that would be carried from clear text into TLS (CVE-2011-0411).
    fn quiet(self) -> io::Result<(Transport, Trace)> {
        if self.framer.is_empty() {
            Ok((self.transport, self.trace))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "something was sent ahead of the TLS handshake"))
        }
    }

    /// Ends the dialogue: the transport, and the bytes that have arrived behind it.
    pub fn into_parts(self) -> (Transport, Vec<u8>) {
        (self.transport, self.framer.into_rest())
    }

    /// Closes in good order.
    pub async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        self.transport.shutdown().await
    }
}
