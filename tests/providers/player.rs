//! A mail server that follows its script and checks no token.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};
use tokio::io::{self, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::script::{Case, Place, Server};

type Stream = BufReader<Box<dyn Both>>;

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A server that runs until this is dropped.
pub struct Player {
    pub server: Server,
    pub port: u16,
    case: Arc<Mutex<Option<Case>>>,
    _task: JoinSet<()>,
}

impl Player {
    pub async fn start(server: Server, acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (case, mut task) = (Arc::default(), JoinSet::new());
        task.spawn(serve(server.clone(), acceptor, Arc::clone(&case), listener));
        Self { server, port, case, _task: task }
    }

    /// Sets how connections are refused from now on, if at all.
    pub fn set(&self, case: Option<Case>) {
        *self.case.lock().unwrap() = case;
    }
}

async fn serve(server: Server, acceptor: TlsAcceptor, case: Arc<Mutex<Option<Case>>>, listener: TcpListener) {
    let mut sessions = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let case = next_case(&mut case.lock().unwrap());
        sessions.spawn(Session { server: server.clone(), acceptor: acceptor.clone(), case }.serve(socket));
        while sessions.try_join_next().is_some() {}
    }
}

/// The case for the next connection, if there is still one.
fn next_case(case: &mut Option<Case>) -> Option<Case> {
    let found = case.clone();
    if let Some(Case { times: Some(times), .. }) = case {
        *times -= 1;
        if *times == 0 {
            *case = None;
        }
    }
    found
}

struct Session {
    server: Server,
    acceptor: TlsAcceptor,
    case: Option<Case>,
}

impl Session {
    async fn serve(self, socket: TcpStream) -> io::Result<()> {
        let mut stream: Stream = BufReader::new(Box::new(socket));
        self.refuse(Place::Connect, "", &mut stream).await?;
        if self.server.security == Security::Tls {
            stream = self.start_tls(stream).await?;
        }
        self.refuse(Place::Greeting, "", &mut stream).await?;
        say(&mut stream, &self.server.greeting, "").await?;
        let mut protected = self.server.security == Security::Tls;
        loop {
            let line = line(&mut stream).await?;
            let (tag, command) = match self.server.protocol {
                Protocol::Imap => line.split_once(' ').unwrap_or_default(),
                Protocol::Pop3 | Protocol::Smtp => ("", &*line),
            };
            let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
            match verb {
                "CAPABILITY" | "CAPA" | "EHLO" => match &self.server.only_name {
                    Some((name, reply)) if name != argument => {
                        say(&mut stream, std::slice::from_ref(reply), tag).await?
                    }
                    _ if protected => say(&mut stream, &self.server.offers, tag).await?,
                    _ => say(&mut stream, &self.server.clear, tag).await?,
                },
                "STARTTLS" | "STLS" => {
                    let go = ["{tag} OK go", "+OK go", "220 2.0.0 SMTP server ready"][self.server.protocol as usize];
                    say(&mut stream, &[go.to_owned()], tag).await?;
                    stream = self.start_tls(stream).await?;
                    protected = true;
                }
                "AUTHENTICATE" | "AUTH" if protected => {
                    self.authenticate(argument, tag, &mut stream).await?;
                    return echo(stream).await;
                }
                "QUIT" | "LOGOUT" => return Ok(()),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Reads a bearer in the form of the protocol. An error ends the session.
    async fn authenticate(&self, argument: &str, tag: &str, stream: &mut Stream) -> io::Result<()> {
        let prompt = ["+ ", "+ ", "334 "][self.server.protocol as usize];
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let is_offered = self.server.offers.iter().any(|line| line.contains(mechanism));
        assert!(is_offered, "{mechanism} is not offered");
        let mut response = initial.to_owned();
        if response.is_empty() {
            say(stream, &[prompt.to_owned()], "").await?;
            response = line(stream).await?;
        }
        let message = BASE64_STANDARD.decode(&response).expect("base64");
        assert!(String::from_utf8(message).unwrap().contains("auth=Bearer "), "a bearer");
        if let Some(challenge) = self.case.as_ref().and_then(|case| case.challenge.as_ref()) {
            say(stream, &[format!("{prompt}{}", BASE64_STANDARD.encode(challenge))], "").await?;
            let answer = line(stream).await?;
            assert_eq!(answer, if mechanism == "XOAUTH2" { "" } else { "AQ==" });
        }
        self.refuse(Place::Auth, tag, stream).await?;
        say(stream, &self.server.welcome, tag).await
    }

    async fn start_tls(&self, stream: Stream) -> io::Result<Stream> {
        assert!(stream.buffer().is_empty(), "nothing comes ahead of the handshake");
        Ok(BufReader::new(Box::new(self.acceptor.accept(stream.into_inner()).await?)))
    }

    /// Sends the case's reply, if this is the place. It can also be an acceptance with an alert.
    async fn refuse(&self, place: Place, tag: &str, stream: &mut Stream) -> io::Result<()> {
        let Some(case) = self.case.as_ref().filter(|case| case.place == place) else { return Ok(()) };
        say(stream, &case.reply, tag).await?;
        if case.hears == "accepted" && case.times.is_none() {
            return Box::pin(repeat(stream)).await;
        }
        if !case.leaves {
            while !matches!(line(stream).await?.as_str(), "QUIT" | "") {}
        }
        stream.shutdown().await?;
        Err(io::ErrorKind::Other.into())
    }
}

/// Repeats every line until the end.
async fn echo(mut stream: Stream) -> io::Result<()> {
    repeat(&mut stream).await
}

async fn repeat(stream: &mut Stream) -> io::Result<()> {
    loop {
        let line = line(stream).await?;
        say(stream, &[line], "").await?;
    }
}

async fn say(stream: &mut Stream, lines: &[String], tag: &str) -> io::Result<()> {
    for line in lines {
        stream.write_all(format!("{}\r\n", line.replace("{tag}", tag)).as_bytes()).await?;
    }
    stream.flush().await
}

/// The next line without its end.
async fn line(stream: &mut Stream) -> io::Result<String> {
    let mut line = String::new();
    match stream.take(64 * 1024).read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
