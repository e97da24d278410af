//! The whole of postkey in a minute, without any other server: a small provider, the real daemon, an authorization by a
//! program in place of a person, and a mail that is sent by SMTP and read by IMAP and POP3.
//!
//! `cargo run --example demo` then keeps running, with settings for a mail program; `-- --once` ends.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use postkey::protocol::Security;
use support::{Options, Provider};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

const ANN: &str = "ann@example.test";

/// This program is postkey as well: the demo starts itself with this word for the daemon and its commands.
const AS_POSTKEY: &str = "as-postkey";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().peekable();
    let program = arguments.next().into_iter();
    if arguments.next_if(|first| first == AS_POSTKEY).is_some() {
        return postkey::cli::run(program.chain(arguments));
    }
    let once = arguments.any(|argument| argument == "--once");
    let runtime = tokio::runtime::Runtime::new();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(show(once))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn show(once: bool) -> Result<()> {
    title("A provider that accepts only OAuth 2.0");
    let provider = Provider::start(Options { https: true, ..Options::default() }).await;
    println!("Authorization server {}, mail servers for IMAP, POP3 and SMTP, mailbox {ANN}", provider.issuer());

    let folder = tempfile::tempdir()?;
    let config = write_config(folder.path(), &provider)?;
    title("postkey");
    let _daemon = postkey(&config, &[]).kill_on_drop(true).spawn()?;
    let ports = wait_for_listeners(&config).await?;

    title(&format!("postkey --authorize {ANN}"));
    let password = authorize(&config, &provider).await?;

    title("A mail program sends a mail by SMTP");
    send(ports[2], &password).await?;
    title("It reads the mail by IMAP");
    read_by_imap(ports[0], &password).await?;
    title("And by POP3");
    read_by_pop3(ports[1], &password).await?;

    if !once {
        title("Your turn");
        println!(
            "Enter this in a mail program, without encryption. Everything runs on this machine. Ctrl-C ends it:\n"
        );
        println!("  address and user name  {ANN}\n  password               {password}");
        println!(
            "  IMAP  127.0.0.1  port {}\n  POP3  127.0.0.1  port {}\n  SMTP  127.0.0.1  port {}",
            ports[0], ports[1], ports[2]
        );
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

fn title(text: &str) {
    println!("\n=== {text}\n");
}

/// Uses the default ports if they are free, as in the documentation.
fn write_config(folder: &Path, provider: &Provider) -> Result<PathBuf> {
    let mut toml = format!("state_dir = {:?}\nlog = \"warn\"\n", folder.join("state"));
    for (protocol, port) in [("imap", 1143), ("pop3", 1110), ("smtp", 1587)] {
        let port = std::net::TcpListener::bind(("127.0.0.1", port)).map_or(0, |_free| port);
        toml += &format!("[[listener]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:{port}\"\n");
    }
    toml += &provider.config_toml("demo", Security::Tls);
    let file = folder.join("postkey.toml");
    std::fs::write(&file, toml)?;
    Ok(file)
}

fn postkey(config: &Path, arguments: &[&str]) -> Command {
    // The path of this program, which the system knows.
    let mut command = Command::new("/proc/self/exe");
    command.arg(AS_POSTKEY).arg("--config").arg(config).args(arguments);
    command
}

/// The ports of IMAP, POP3 and SMTP, once the daemon has them.
async fn wait_for_listeners(config: &Path) -> Result<Vec<u16>> {
    for _ in 0..100 {
        let output = postkey(config, &["status", "--json"]).stderr(Stdio::null()).output().await?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
        if listeners.len() == 3 {
            let address = |listener: &serde_json::Value| listener["address"].as_str().unwrap_or_default().to_owned();
            for listener in &listeners {
                println!("{} on {}", listener["protocol"].as_str().unwrap_or_default(), address(listener));
            }
            let port = |listener| address(listener).rsplit_once(':')?.1.parse().ok();
            return listeners.iter().map(port).collect::<Option<_>>().ok_or_else(|| "a port is missing".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("the daemon did not start".into())
}

/// Runs the command, shows its output, and does what it asks a person to do. Returns the app password that it prints.
async fn authorize(config: &Path, provider: &Provider) -> Result<String> {
    let mut child = postkey(config, &["--authorize", ANN, "--no-browser"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut password = None;
    let mut lines = lines(&mut child)?;
    while let Some(line) = lines.next_line().await? {
        println!("{line}");
        if line.trim_start().starts_with("http") {
            let (status, _page) = provider.person().consent_and_visit(line.trim(), ANN).await;
            println!("  (a program signs in and consents there; the last page answers {status})\n");
        }
        password = line
            .trim()
            .strip_prefix("password")
            .and_then(|rest| rest.split_whitespace().next())
            .map(str::to_owned)
            .or(password);
    }
    if !child.wait().await?.success() {
        return Err("the authorization failed".into());
    }
    password.ok_or_else(|| "no app password was printed".into())
}

fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>> {
    Ok(BufReader::new(child.stdout.take().ok_or("no output")?).lines())
}

/// A mail program whose dialogue is shown line by line.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(port: u16) -> Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?)))
    }

    async fn say(&mut self, line: &str) -> Result<()> {
        println!("C: {line}");
        Ok(self.0.write_all(format!("{line}\r\n").as_bytes()).await?)
    }

    /// Reads up to the line that begins like this, and shows each line.
    async fn hear(&mut self, last: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(format!("the connection ended before {last:?} came").into());
            }
            println!("S: {}", line.trim_end());
            if line.starts_with(last) {
                return Ok(());
            }
        }
    }

    async fn ask(&mut self, line: &str, last: &str) -> Result<()> {
        self.say(line).await?;
        self.hear(last).await
    }
}

async fn send(port: u16, password: &str) -> Result<()> {
    use base64::Engine as _;
    let mut client = Client::connect(port).await?;
    client.hear("220 ").await?;
    client.ask("EHLO demo.example.test", "250 ").await?;
    let plain = base64::prelude::BASE64_STANDARD.encode(format!("\0{ANN}\0{password}"));
    client.ask(&format!("AUTH PLAIN {plain}"), "235 ").await?;
    client.ask(&format!("MAIL FROM:<{ANN}>"), "250 ").await?;
    client.ask(&format!("RCPT TO:<{ANN}>"), "250 ").await?;
    client.ask("DATA", "354 ").await?;
    for line in
        [&format!("From: {ANN}"), &format!("To: {ANN}"), "Subject: Hello", "", "No password went to the provider."]
    {
        client.say(line).await?;
    }
    client.ask(".", "250 ").await?;
    client.ask("QUIT", "221 ").await
}

async fn read_by_imap(port: u16, password: &str) -> Result<()> {
    let mut client = Client::connect(port).await?;
    client.hear("* OK").await?;
    client.ask(&format!("a LOGIN {ANN} {password}"), "a OK").await?;
    client.ask("b SELECT INBOX", "b OK").await?;
    client.ask("c FETCH 1 BODY[]", "c OK").await?;
    client.ask("d LOGOUT", "d OK").await
}

async fn read_by_pop3(port: u16, password: &str) -> Result<()> {
    let mut client = Client::connect(port).await?;
    client.hear("+OK").await?;
    client.ask(&format!("USER {ANN}"), "+OK").await?;
    client.ask(&format!("PASS {password}"), "+OK").await?;
    client.ask("RETR 1", ".").await?;
    client.ask("QUIT", "+OK").await
}
