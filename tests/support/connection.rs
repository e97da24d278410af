//! What the three mail servers share: accepting, TLS, lines.

use std::sync::Arc;

use postkey::protocol::{Protocol, Security};
use tokio::io::{self, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::settings::MailServer;
use super::{Service, imap, lock, pop3, smtp};

/// The longest line: room for a token of 16 KiB in base64, and for any command that clients send.
const LONGEST_LINE: u64 = 64 * 1024;

/// TCP with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client's connection to a mail server.
pub struct Connection {
    pub service: Arc<Service>,
    pub protocol: Protocol,
    /// Whether it has TLS.
    pub secure: bool,
    stream: BufReader<Box<dyn Stream>>,
}

/// Serves until its task is ended, and all its connections with it.
pub async fn serve(service: Arc<Service>, protocol: Protocol, security: Security, listener: TcpListener) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        lock(&service.log).connections.push(protocol);
        let (service, hung_up) = (service.clone(), service.hang_ups.subscribe());
        sessions.spawn(async move {
            tokio::select! {
                ended = session(service, protocol, security, stream) => ended,
                () = hang_up(hung_up) => Ok(()),
            }
        });
        while sessions.try_join_next().is_some() {}
    }
}

/// Waits until the provider ends all its connections.
async fn hang_up(mut hang_ups: watch::Receiver<()>) {
    // An error means that the provider has ended.
    let _ended = hang_ups.changed().await;
}

/// One connection from beginning to end. An error is the client's end of it, or a mistake of the client's.
async fn session(service: Arc<Service>, protocol: Protocol, security: Security, stream: TcpStream) -> io::Result<()> {
    let settings = service.settings().server(protocol).clone();
    if settings.close_at_connect {
        return Ok(());
    }
    tokio::time::sleep(settings.greeting_delay).await;
    let stream = BufReader::new(Box::new(stream) as Box<dyn Stream>);
    let mut connection = Connection { service, protocol, secure: false, stream };
    if security == Security::Tls {
        connection.start_tls().await?;
    }
    match protocol {
        Protocol::Imap => imap::serve(connection).await,
        Protocol::Pop3 => pop3::serve(connection).await,
        Protocol::Smtp => smtp::serve(connection).await,
    }
}

impl Connection {
    /// How this server behaves now.
    pub fn settings(&self) -> MailServer {
        self.service.settings().server(self.protocol).clone()
    }

    /// Whether STARTTLS is possible now.
    pub fn offers_tls(&self) -> bool {
        !self.secure && self.settings().starttls
    }

    /// Waits until there is something to read, and reads nothing.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.stream.fill_buf().await.map(|_| ())
    }

    /// The next line without its CRLF. A line with another end, or without one, is an error; so is the connection's
    /// end.
    pub async fn line(&mut self) -> io::Result<String> {
        let mut line = self.text_line().await?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line ends in CRLF"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The bytes up to the next LF, or as many as a line may have.
    pub async fn text_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        match (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// The next `size` bytes.
    pub async fn exactly(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Sends a line.
    pub async fn reply(&mut self, line: &str) -> io::Result<()> {
        self.send(format!("{line}\r\n").as_bytes()).await
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The TLS handshake. Bytes that follow STARTTLS without TLS are an attack or a mistake, and end the connection.
    pub async fn start_tls(&mut self) -> io::Result<()> {
        if !self.stream.buffer().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes between STARTTLS and the handshake"));
        }
        let clear = std::mem::replace(&mut self.stream, BufReader::new(Box::new(io::empty())));
        let protected = self.service.tls.accept(clear.into_inner()).await?;
        self.stream = BufReader::new(Box::new(protected));
        self.secure = true;
        Ok(())
    }
}
