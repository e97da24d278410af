//! A server in front of the provider's token endpoint: it passes requests on, or gives wrong answers itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postkey::protocol::Security;
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Flaw};
use crate::support::house::House;

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Passes it on.
    Pass,
    /// Sends these bytes, and then closes.
    Bytes(Vec<u8>),
    /// Sends these, and then nothing, but keeps the connection open.
    Stall(Vec<u8>),
    /// Sends these, and then a byte every two seconds.
    Drip(Vec<u8>),
    /// Sends these, and then zeros until nobody reads them any more.
    Flood(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Passes it on, and resets the connection instead of passing the answer back.
    Lose,
    /// The same once; later requests are passed on.
    LoseOnce,
    /// Ends the connection before there is a request.
    HangUp,
}

/// The requests so far, and how many bytes were read from it.
#[derive(Default)]
pub struct Log {
    /// Requests.
    pub requests: usize,
    /// Bytes of a flood that somebody has read.
    pub flooded: usize,
}

pub struct Front {
    pub port: u16,
    answer: Arc<Mutex<Answer>>,
    log: Arc<Mutex<Log>>,
    folder: TempDir,
    authority: Authority,
    acceptor: Option<TlsAcceptor>,
    listener: Option<TcpListener>,
    tasks: JoinSet<()>,
}

impl Front {
    /// One with http.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
        std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            answer: Arc::new(Mutex::new(Answer::Pass)),
            log: Arc::default(),
            folder,
            authority,
            acceptor: None,
            listener: Some(listener),
            tasks: JoinSet::new(),
        }
    }

    /// One with https.
    pub async fn with_tls(flaw: Option<Flaw>) -> Self {
        let mut front = Self::new().await;
        front.acceptor = Some(front.authority.acceptor(flaw));
        front
    }

    /// A house with this token endpoint.
    pub async fn house(&mut self) -> House {
        let (mut behind, port) = (0, self.port);
        let scheme = if self.acceptor.is_some() { "https" } else { "http" };
        let ca = self.acceptor.is_some().then(|| self.folder.path().join("ca.pem"));
        let house = House::with(Security::Tls, |config| {
            let (before, rest) = config.split_once("token_endpoint = \"http://localhost:").unwrap();
            let (real, after) = rest.split_once("/token\"").unwrap();
            behind = real.parse().unwrap();
            let mut config = format!("{before}token_endpoint = \"{scheme}://localhost:{port}/token\"{after}");
            if let Some(ca) = ca {
                let line = config.lines().find(|line| line.starts_with("ca_file")).unwrap().to_owned();
                config = config.replace(&line, &format!("ca_file = {ca:?}"));
            }
            config
        })
        .await;
        let listener = self.listener.take().unwrap();
        let (answer, log, acceptor) = (Arc::clone(&self.answer), Arc::clone(&self.log), self.acceptor.clone());
        self.tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                sessions.spawn(serve(socket, acceptor.clone(), Arc::clone(&answer), Arc::clone(&log), behind));
                while sessions.try_join_next().is_some() {}
            }
        });
        house
    }

    /// Sets what it does from now on.
    pub fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.log.lock().unwrap().requests
    }

    /// Bytes of floods that somebody has read.
    pub fn flooded(&self) -> usize {
        self.log.lock().unwrap().flooded
    }
}

async fn serve(
    socket: TcpStream,
    acceptor: Option<TlsAcceptor>,
    answer: Arc<Mutex<Answer>>,
    log: Arc<Mutex<Log>>,
    behind: u16,
) -> io::Result<()> {
    let answer = next(&answer);
    if matches!(answer, Answer::Reset | Answer::Lose | Answer::LoseOnce) {
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    }
    if let Some(acceptor) = acceptor {
        return converse(acceptor.accept(socket).await?, answer, &log, behind).await;
    }
    converse(socket, answer, &log, behind).await
}

/// What to do with this connection.
fn next(answer: &Mutex<Answer>) -> Answer {
    let mut answer = answer.lock().unwrap();
    let this = answer.clone();
    if matches!(this, Answer::LoseOnce) {
        *answer = Answer::Pass;
    }
    this
}

async fn converse(
    mut stream: impl io::AsyncRead + io::AsyncWrite + Unpin,
    answer: Answer,
    log: &Mutex<Log>,
    behind: u16,
) -> io::Result<()> {
    if matches!(answer, Answer::HangUp) {
        log.lock().unwrap().requests += 1;
        return Ok(());
    }
    let request = request(&mut stream).await?;
    log.lock().unwrap().requests += 1;
    match answer {
        Answer::Pass => stream.write_all(&pass(&request, behind).await?).await?,
        Answer::Lose | Answer::LoseOnce => drop(pass(&request, behind).await?),
        Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
        Answer::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            io::copy(&mut stream, &mut io::sink()).await?;
        }
        Answer::Drip(bytes) => {
            stream.write_all(&bytes).await?;
            while timeout(Duration::from_secs(2), stream.read_u8()).await.is_err() {
                stream.write_all(b" ").await?;
            }
        }
        Answer::Flood(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                let taken = stream.write(&[b' '; 65536]).await?;
                log.lock().unwrap().flooded += taken;
            }
        }
        Answer::Reset | Answer::HangUp => return Ok(()),
    }
    stream.shutdown().await
}

/// A whole request: its head, and the body that the head announces.
async fn request(stream: &mut (impl io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await?);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let (_, length) = head.split_once("content-length:").unwrap_or(("", "0"));
    let mut body = vec![0; length.lines().next().unwrap_or_default().trim().parse().unwrap()];
    stream.read_exact(&mut body).await?;
    bytes.extend(body);
    Ok(bytes)
}

/// The answer of the provider's own token endpoint.
async fn pass(request: &[u8], behind: u16) -> io::Result<Vec<u8>> {
    let text = String::from_utf8_lossy(request).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut stream = TcpStream::connect(("127.0.0.1", behind)).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}
