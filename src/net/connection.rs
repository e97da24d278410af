//! A connection while it is a dialogue: feeds what arrives to the dialogue, and sends what it answers.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use zeroize::Zeroize as _;

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
    /// Bytes that have arrived so far.
    read: usize,
}

impl Connection {
    /// A connection on which nothing has been said.
    pub fn new(transport: Transport) -> Self {
        Self { transport, framer: Framer::default(), out: Vec::new(), read: 0 }
    }

    /// Lets the dialogue and the peer talk until something happens that the session has to act on. All that the dialogue
    /// has said by then has been sent.
    pub async fn converse<E>(&mut self, dialogue: &mut dyn Dialogue<Event = E>) -> io::Result<E> {
        loop {
            while let Some(frame) = self.framer.next(dialogue.want()) {
                if let Some(event) = dialogue.feed(frame, &mut self.out) {
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
            self.transport.write_all(&self.out).await?;
            self.transport.flush().await?;
            // It may have been a bearer.
            self.out.zeroize();
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 2048];
        let count = self.transport.read(&mut bytes).await?;
        self.framer.push(bytes.get(..count).unwrap_or_default());
        // It may have been a password.
        bytes.zeroize();
        self.read += count;
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if self.read > MOST => Err(io::Error::other("too much was sent before the login")),
            _ => Ok(()),
        }
    }

    /// Does the TLS handshake as a client.
    pub async fn connect_tls(self, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        Ok(Self::new(self.quiet()?.connect_tls(config, host).await?))
    }

    /// Does the TLS handshake as a server.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self::new(self.quiet()?.accept_tls(config).await?))
    }

    /// The transport, if nothing has arrived that would be carried from clear text into TLS (CVE-2011-0411).
    fn quiet(self) -> io::Result<Transport> {
        if self.framer.is_empty() {
            Ok(self.transport)
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
