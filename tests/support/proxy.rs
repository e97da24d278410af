//! A proxy of our own: HTTP CONNECT and SOCKS 5 on one port, well-behaved or hostile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::lock;

/// How a proxy behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It connects to whatever it is asked for.
    Serves,
    /// The same, for clients with this user name and password.
    Asks(&'static str, &'static str),
    /// It answers with a refusal.
    Refuses,
    /// It sends nothing at all.
    Silent,
    /// It sends bytes without end, and never a whole answer.
    Endless,
    /// It closes the connection instead of answering.
    Closes,
    /// It answers in another protocol.
    Foreign,
}

/// A running proxy; dropping it ends it and all its connections.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
    _task: JoinSet<()>,
}

struct State {
    manner: Mutex<Manner>,
    asked: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

impl Proxy {
    pub async fn start() -> Self {
        let (listener, port) = super::listen().await;
        let state = Arc::new(State {
            manner: Mutex::new(Manner::Serves),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::clone(&state)));
        Self { port, state, _task: task }
    }

    /// Behaves like this from now on.
    pub fn behave(&self, manner: Manner) {
        *lock(&self.state.manner) = manner;
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The destinations that it was asked for, as they were written.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state.asked).clone()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(session(client, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection; an error is its end.
async fn session(mut client: TcpStream, state: Arc<State>) -> io::Result<()> {
    let manner = *lock(&state.manner);
    match manner {
        Manner::Silent => std::future::pending().await,
        Manner::Closes => {
            let _heard = client.read(&mut [0; 1024]).await?;
            return Ok(());
        }
        Manner::Endless => return babble(client).await,
        Manner::Foreign => return client.write_all(b"SSH-2.0-none\r\n\r\nHello, who are you?\r\n\r\n").await,
        Manner::Serves | Manner::Asks(..) | Manner::Refuses => {}
    }
    let is_socks = client.read_u8().await? == 5;
    let target = if is_socks { hear_socks(&mut client, manner).await? } else { hear_http(&mut client, manner).await? };
    lock(&state.asked).push(target.clone());
    let serves = manner != Manner::Refuses;
    client.write_all(answer(is_socks, serves)).await?;
    if serves {
        let mut server = TcpStream::connect(target).await?;
        io::copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
}

/// As much as somebody reads, up to a gigabyte.
async fn babble(mut client: TcpStream) -> io::Result<()> {
    client.write_all(b"HTTP/1.1 200 fine\r\nX: ").await?;
    for _ in 0..1024 {
        client.write_all(&vec![b'x'; 1024 * 1024]).await?;
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    Ok(())
}

fn answer(is_socks: bool, serves: bool) -> &'static [u8] {
    match (is_socks, serves) {
        // An address of another kind and length, which has to be read completely.
        (true, true) => b"\x05\x00\x00\x03\x04host\x12\x34",
        (true, false) => b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00",
        (false, true) => b"HTTP/1.1 200 Connection established\r\nVia: a proxy\r\n\r\n",
        (false, false) => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nsorry",
    }
}

/// RFC 9110 section 9.3.6, from the second byte on. Returns the destination.
async fn hear_http(client: &mut TcpStream, manner: Manner) -> io::Result<String> {
    let mut head = b"C".to_vec();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("a request is text");
    if let Manner::Asks(user, password) = manner {
        let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let header = format!("proxy-authorization: basic {login}").to_ascii_lowercase();
        if !head.to_ascii_lowercase().lines().any(|line| line == header) {
            client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    let mut words = head.split(' ');
    assert_eq!(words.next(), Some("CONNECT"), "{head}");
    Ok(words.next().expect("a target").to_owned())
}

/// RFC 1928 and RFC 1929, from the second byte on.
async fn hear_socks(client: &mut TcpStream, manner: Manner) -> io::Result<String> {
    let methods = field(client).await?;
    match manner {
        Manner::Asks(..) if !methods.contains(&2) => {
            client.write_all(&[5, 0xff]).await?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Manner::Asks(user, password) => {
            client.write_all(&[5, 2]).await?;
            assert_eq!(client.read_u8().await?, 1);
            let known = (field(client).await?, field(client).await?) == (user.into(), password.into());
            client.write_all(&[1, u8::from(!known)]).await?;
            if !known {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        _ => client.write_all(&[5, 0]).await?,
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    assert_eq!(request, [5, 1, 0, 3], "a name is asked for, not an address");
    let host = String::from_utf8(field(client).await?).expect("a name is text");
    Ok(format!("{host}:{}", client.read_u16().await?))
}

/// A byte that says how many follow, and these.
async fn field(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut field = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut field).await?;
    Ok(field)
}
