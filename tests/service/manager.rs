//! What systemd does for a service: the socket for its notifications, the sockets that it passes on, signals.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use postkey::control::ControlRequest;
use postkey::protocol::Security;
use rustix::process::Signal;

use crate::support::house::{House, PATIENCE};
use crate::support::process::{Ended, Process};

/// A house whose postkey runs as a service.
pub struct Service {
    pub house: House,
    pub process: Process,
    told: Receiver<String>,
}

/// A house with Ann's account, but without a daemon.
pub async fn house(edit: impl FnOnce(String) -> String) -> House {
    House::furnished(Security::Tls, edit).await
}

/// How a service starts.
#[derive(Default)]
pub struct Start<'a> {
    /// Environment variables, in addition to those for the notify socket.
    pub environment: &'a [(&'a str, &'a str)],
    /// Sockets to pass on, each with its name.
    pub sockets: &'a [(&'a str, &'a std::net::TcpListener)],
}

impl Service {
    /// Starts it and waits until it is ready.
    pub async fn start(house: House, start: Start<'_>) -> Self {
        let mut service = Self::begin(house, start);
        service.hear("READY=1");
        service.house.look().await;
        service
    }

    /// The same, after changing its configuration.
    pub async fn with(edit: impl FnOnce(String) -> String) -> Self {
        Self::start(house(edit).await, Start::default()).await
    }

    /// Starts it.
    pub fn begin(house: House, start: Start<'_>) -> Self {
        let path = house.folder.path().join("notify");
        let _none = std::fs::remove_file(&path);
        let told = UnixDatagram::bind(&path).unwrap();
        let environment = [start.environment, &[("NOTIFY_SOCKET", path.to_str().unwrap())]].concat();
        let arguments = ["--config", house.file.to_str().unwrap()];
        let process = Process::start_by(&hand_over(start.sockets), house.folder.path(), &arguments, &environment);
        let (sender, heard) = channel();
        // All the time, as systemd does, because a full socket would make the service wait.
        std::thread::spawn(move || read(&told, &sender));
        Self { house, process, told: heard }
    }

    /// Waits for a message that contains this. Returns the whole message.
    pub fn hear(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.told.recv_timeout(left).unwrap_or_else(|_| panic!("{part} was not told"));
            if message.contains(part) {
                return message;
            }
        }
    }

    /// Waits until it has sent nothing for this long.
    pub fn hear_silence(&mut self, time: Duration) {
        let deadline = Instant::now() + PATIENCE;
        while self.told.recv_timeout(time).is_ok() {
            assert!(Instant::now() < deadline, "it goes on telling");
        }
    }

    /// Whether it has sent nothing that was not read yet.
    pub fn has_said_nothing(&self) -> bool {
        self.told.try_recv().is_err()
    }

    /// Makes it read its configuration again, changed by `edit`.
    pub async fn reload(&mut self, edit: impl FnOnce(String) -> String) {
        self.edit(edit);
        self.house.command(&ControlRequest::Reload).await;
        self.house.look().await;
    }

    /// Changes its configuration file.
    pub fn edit(&self, edit: impl FnOnce(String) -> String) {
        let config = std::fs::read_to_string(&self.house.file).unwrap();
        std::fs::write(&self.house.file, edit(config)).unwrap();
    }

    /// Stops it, and waits for its end. The house can be used again.
    pub fn terminate(self) -> (House, Ended) {
        self.process.signal(Signal::TERM);
        (self.house, self.process.end())
    }
}

/// Reads messages as long as somebody wants them. The process of the tests ends it.
fn read(socket: &UnixDatagram, sender: &Sender<String>) {
    let mut message = [0; 4096];
    while let Ok(count) = socket.recv(&mut message) {
        if sender.send(String::from_utf8_lossy(&message[..count]).into_owned()).is_err() {
            return;
        }
    }
}

/// The shell's part in passing on sockets, sd_listen_fds(3): they become descriptors 3, 4, ...
fn hand_over(sockets: &[(&str, &std::net::TcpListener)]) -> String {
    if sockets.is_empty() {
        return ":".to_owned();
    }
    let (mut moves, mut names) = (String::new(), Vec::new());
    for (index, (name, socket)) in sockets.iter().enumerate() {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
        moves += &format!("exec {}<&{}; ", index + 3, socket.as_raw_fd());
        names.push(*name);
    }
    format!("{moves} export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}", names.len(), names.join(":"))
}
