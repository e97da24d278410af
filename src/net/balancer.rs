//! What a load balancer says about a connection before the client's first byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::listen::Socket;
use crate::wire::proxy_header::{self, LONGEST};

/// How long a load balancer may take for its header. It sends the header as soon as it has connected, so this is for
/// lost packets: TCP repeats one after one second, and after three.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the PROXY header of a new connection, and nothing that follows it. Returns the client that it names; none if
/// the load balancer speaks for itself, as in its health checks, or knows no address.
///
/// # Errors
///
/// Fails with `ConnectionAborted` if the connection ends before its first byte, because that is only a probe of the
/// port.
pub async fn named_client(socket: &mut Socket) -> io::Result<Option<SocketAddr>> {
    let Socket::Tcp(socket) = socket else { return Ok(None) };
    let late = || format!("it sent no complete PROXY header within {} s", PATIENCE.as_secs());
    // Boxed, so that the session after it does not keep its memory.
    let header = timeout(PATIENCE, Box::pin(read_header(socket))).await;
    header.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, late())))
}

async fn read_header(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let (mut bytes, mut read) = (vec![0; LONGEST], 0);
    loop {
        let arrived = match socket.peek(bytes.get_mut(read..).unwrap_or_default()).await {
            Ok(0) | Err(_) if read == 0 => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within its PROXY header")),
            arrived => read + arrived?,
        };
        let header = proxy_header::read(bytes.get(..arrived).unwrap_or_default());
        let header = header.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        // An incomplete header owns all of it, so the next peek waits for more.
        let end = header.map_or(arrived, |header| header.length);
        socket.read_exact(bytes.get_mut(read..end).unwrap_or_default()).await?;
        if let Some(header) = header {
            return Ok(header.client);
        }
        read = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    async fn connected() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, Socket::Tcp(listener.accept().await.unwrap().0))
    }

    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.10 50000 993\r\n";

    async fn rest(socket: Socket) -> Vec<u8> {
        let Socket::Tcp(mut socket) = socket else { panic!("a Unix socket") };
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        rest
    }

    #[tokio::test]
    async fn the_bytes_behind_a_header_stay_in_the_socket() {
        for piece in [1, 7, 4096] {
            let (mut client, mut socket) = connected().await;
            let sender = tokio::spawn(async move {
                for piece in [HEADER, b"a LOGIN ann s3cret\r\n"].concat().chunks(piece) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let named = named_client(&mut socket).await.unwrap();
            assert_eq!(named, Some("192.0.2.7:50000".parse().unwrap()));
            sender.await.unwrap();
            assert_eq!(rest(socket).await, b"a LOGIN ann s3cret\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        for (sent, expected) in [
            (&b""[..], io::ErrorKind::ConnectionAborted),
            (b"PROXY", io::ErrorKind::UnexpectedEof),
            (b"a LOGIN ann s3cret\r\n", io::ErrorKind::InvalidData),
        ] {
            let (mut client, mut socket) = connected().await;
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(named_client(&mut socket).await.unwrap_err().kind(), expected);
        }
    }

    #[tokio::test]
    async fn a_header_that_does_not_end_is_not_waited_for() {
        tokio::time::pause();
        let (mut client, mut socket) = connected().await;
        client.write_all(b"PROXY ").await.unwrap();
        let late = named_client(&mut socket).await.unwrap_err();
        assert_eq!(late.to_string(), "it sent no complete PROXY header within 5 s");
    }
}
