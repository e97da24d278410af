//! A provider, and a postkey that is run, killed and run again. Both can be taken back to an earlier moment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use postkey::control::{self, ControlRequest, Status};
use postkey::protocol::Security;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Grants, Options, Provider};
use crate::trace::Trace;

/// The account that things happen to.
pub const ANN: &str = "ann@example.test";
/// Another one in the same vault, which nothing may ever affect.
pub const BEN: &str = "ben@example.test";

/// The longest wait for anything that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What has happened before a story begins. Ben always has an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Ann has no account.
    NoAccount,
    /// She has one, with the app passwords `main` and `scanner`, and a token good for an hour.
    Ready,
    /// The same, and her access token has expired.
    Expired,
}

/// Vault and authorization server at a [`Beginning`].
struct Moment {
    beginning: Beginning,
    state: PathBuf,
    memory: Grants,
}

/// A provider and a postkey, for one story at a time.
pub struct World {
    pub provider: Provider,
    /// The app passwords: Ann's two, and Ben's.
    pub main: String,
    pub scanner: String,
    ben: String,
    folder: TempDir,
    binary: PathBuf,
    moments: Vec<Moment>,
}

/// The end of a command.
#[derive(Debug, Default)]
pub struct Told {
    /// Whether it reported success.
    pub done: bool,
    /// Whether a signal ended it.
    pub killed: bool,
    /// Its output, both streams.
    pub text: String,
}

impl Told {
    /// The app password that it has shown, in a complete line.
    pub fn password(&self) -> Option<String> {
        let lines = self.text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let shown = lines.filter_map(|line| line.trim().strip_prefix("password")).next()?;
        Some(shown.trim().to_owned())
    }
}

impl World {
    /// Creates all beginnings once, so that each can be restored.
    pub async fn create(binary: &Path) -> Result<Self, String> {
        let provider = Provider::start(Options::default()).await;
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let toml = format!(
            "state_dir = \"state\"\nlog = \"info\"\n[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:0\"\n{}",
            provider.config_toml("own", Security::Tls)
        );
        std::fs::write(folder.path().join("postkey.toml"), toml).map_err(|error| error.to_string())?;
        let (main, scanner, ben) = (String::new(), String::new(), String::new());
        let mut world = Self { provider, main, scanner, ben, folder, binary: binary.to_owned(), moments: Vec::new() };
        world.live().await?;
        Ok(world)
    }

    async fn live(&mut self) -> Result<(), String> {
        let shown = |told: Told| told.password().ok_or(format!("no app password was shown: {}", told.text));
        self.ben = shown(self.authorize(BEN, None).await?)?;
        self.save(Beginning::NoAccount).await?;
        self.main = shown(self.authorize(ANN, None).await?)?;
        self.scanner = shown(self.add_password("scanner", None).await?)?;
        self.save(Beginning::Ready).await?;
        self.provider.change(|settings| settings.token_life = Duration::from_secs(1));
        self.authorize(ANN, None).await?;
        self.provider.change(|settings| settings.token_life = Duration::from_secs(3600));
        // Both sides count whole seconds.
        sleep(Duration::from_secs(2)).await;
        self.save(Beginning::Expired).await
    }

    async fn save(&mut self, beginning: Beginning) -> Result<(), String> {
        let state = self.path(&format!("{beginning:?}"));
        copy(&self.state_dir(), &state).await?;
        self.moments.push(Moment { beginning, state, memory: self.provider.memory() });
        Ok(())
    }

    /// Restores this beginning.
    pub async fn begin(&self, beginning: Beginning) -> Result<(), String> {
        let moment = self.moments.iter().find(|moment| moment.beginning == beginning).ok_or("no such beginning")?;
        let _none = std::fs::remove_dir_all(self.state_dir());
        copy(&moment.state, &self.state_dir()).await?;
        self.provider.remember(moment.memory.clone());
        Ok(())
    }

    /// The folder in which postkey stores everything.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// A file of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The last lines that a daemon has logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
    }

    /// Starts the daemon, which may be killed before it serves.
    pub async fn start(&self, trace: Option<&Trace>) -> Result<Daemon, String> {
        let log = std::fs::File::create(self.path("daemon.log")).map_err(|error| error.to_string())?;
        let mut command = self.postkey(trace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("the daemon cannot be run: {error}"))?;
        let mut daemon = Daemon { child, port: 0 };
        daemon.wait_until_served(&self.state_dir().join("control")).await?;
        Ok(daemon)
    }

    /// Starts the daemon, which has to serve.
    pub async fn serve(&self) -> Result<Daemon, String> {
        match self.start(None).await? {
            daemon if daemon.port == 0 => Err(format!("the daemon does not start:\n{}", self.log())),
            daemon => Ok(daemon),
        }
    }

    /// The daemon's status.
    pub async fn status(&self) -> Result<Status, String> {
        let status = status(&self.state_dir().join("control")).await;
        status.ok_or_else(|| format!("the daemon does not tell its status:\n{}", self.log()))
    }

    /// Ben's mail program logs in.
    pub async fn ben_logs_in(&self, daemon: &Daemon) -> Result<(), String> {
        daemon.log_in(BEN, &self.ben).await.map_err(|reply| format!("Ben was harmed: {reply}\n{}", self.log()))
    }

    /// Ben's app password.
    pub fn ben(&self) -> &str {
        &self.ben
    }

    /// Sets an account up as a person does who consents to everything.
    pub async fn authorize(&self, address: &str, trace: Option<&Trace>) -> Result<Told, String> {
        let mut child = self.spawn(&["--authorize", address, "--no-browser"], trace)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        let (mut text, mut line) = (String::new(), Vec::new());
        while in_time(lines.read_until(b'\n', &mut line)).await? > 0 {
            let printed = String::from_utf8_lossy(&line).into_owned();
            if printed.trim_start().starts_with("http") && printed.ends_with('\n') {
                let target = self.provider.person().consent(printed.trim(), address).await;
                // If the command no longer hears this, its end will show that.
                drop(self.provider.http_client().get(target).send().await);
            }
            text += &printed;
            line.clear();
        }
        end(child, text).await
    }

    /// Adds another app password.
    pub async fn add_password(&self, name: &str, trace: Option<&Trace>) -> Result<Told, String> {
        self.command(&["password", "add", ANN, name], &self.main, trace).await
    }

    /// Runs a command to its end.
    pub async fn command(&self, arguments: &[&str], line: &str, trace: Option<&Trace>) -> Result<Told, String> {
        let mut child = self.spawn(arguments, trace)?;
        let mut input = child.stdin.take().ok_or("no input")?;
        // A command that was killed no longer reads.
        let _killed = input.write_all(format!("{line}\n").as_bytes()).await;
        drop(input);
        let mut text = Vec::new();
        in_time(child.stdout.take().ok_or("no output")?.read_to_end(&mut text)).await?;
        end(child, String::from_utf8_lossy(&text).into_owned()).await
    }

    fn spawn(&self, arguments: &[&str], trace: Option<&Trace>) -> Result<Child, String> {
        let mut command = self.postkey(trace);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| format!("{arguments:?} cannot be run: {error}"))
    }

    fn postkey(&self, trace: Option<&Trace>) -> Command {
        let mut command = match trace {
            Some(trace) => trace.command(&self.binary),
            None => Command::new(&self.binary),
        };
        command.arg("--config").arg(self.path("postkey.toml")).env("RUST_BACKTRACE", "0").kill_on_drop(true);
        command
    }
}

/// A daemon that was started.
pub struct Daemon {
    child: Child,
    /// Its IMAP port; 0 if it ended before it served.
    pub port: u16,
}

impl Daemon {
    async fn wait_until_served(&mut self, socket: &Path) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.has_ended()? {
                return Ok(());
            }
            if let Some(listening) = status(socket).await.and_then(|status| status.listeners.into_iter().next()) {
                self.port = listening.address.tcp().expect("a TCP port").port();
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err("the daemon neither serves nor ends".to_owned())
    }

    fn has_ended(&mut self) -> Result<bool, String> {
        self.child.try_wait().map(|status| status.is_some()).map_err(|error| error.to_string())
    }

    /// Its process id; none after its end.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Logs in by IMAP; if that fails, the reply.
    pub async fn log_in(&self, user: &str, password: &str) -> Result<(), String> {
        if self.port == 0 {
            return Err("no daemon".to_owned());
        }
        let reply = in_time(imap_login(self.port, user, password)).await?;
        if reply.starts_with("a OK") { Ok(()) } else { Err(format!("{user} was refused: {reply}")) }
    }

    /// Waits for the arranged kill, and kills the daemon if it has not come. Returns whether it has come.
    pub async fn fall(mut self) -> Result<bool, String> {
        // What a daemon still has to do after an answer takes a few milliseconds.
        let fell = timeout(Duration::from_millis(100), self.child.wait()).await.is_ok();
        self.kill().await.map(|()| fell)
    }

    /// SIGKILL.
    pub async fn kill(mut self) -> Result<(), String> {
        self.child.kill().await.map_err(|error| format!("the daemon cannot be killed: {error}"))
    }
}

/// The answer to a login, empty if the connection ends first.
async fn imap_login(port: u16, user: &str, password: &str) -> std::io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    stream.write_all(format!("a LOGIN \"{user}\" \"{password}\"\r\n").as_bytes()).await?;
    line.clear();
    while stream.read_line(&mut line).await? > 0 && line.starts_with('*') {
        line.clear();
    }
    Ok(line)
}

/// The daemon's status; None while nobody answers.
async fn status(socket: &Path) -> Option<Status> {
    let reply = timeout(PATIENCE, control::ask(socket, None, &ControlRequest::Status)).await.ok()?;
    control::read(&reply.ok()??.ok()?).ok()
}

async fn end(child: Child, text: String) -> Result<Told, String> {
    let output = in_time(child.wait_with_output()).await?;
    let text = text + &String::from_utf8_lossy(&output.stderr);
    Ok(Told { done: output.status.success(), killed: output.status.code().is_none(), text })
}

async fn in_time<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Copies a folder with everything in it, including modes.
async fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().await;
    if copied.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("{} was not copied", from.display())) }
}
