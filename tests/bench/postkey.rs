//! Sets postkey up as a person would: a configuration, one authorization in the browser, then the daemon.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Lines, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::{USER, Way};
use crate::contestant::{Contestant, free_ports};
use crate::pki;
use crate::process::Process;
use crate::protocol::{Ports, Protocol};
use crate::upstream::Provider;

/// Something to do in a folder.
pub type Before<'a> = &'a (dyn Fn(&Path) -> io::Result<()> + Sync);

/// How one postkey differs from the others.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    /// Whether clients speak TLS to it.
    pub tls: bool,
    /// The command that starts the daemon's command line, such as `prlimit --nofile=64`.
    pub under: &'a [&'a str],
    /// Additions to its configuration: keys above the tables, and tables.
    pub top: &'a str,
    pub more: &'a str,
    /// What to do in its folder before the authorization.
    pub before: Option<Before<'a>>,
}

/// Authorizes the account, then starts the daemon.
pub async fn start(dir: &Path, provider: &Provider, program: &Path) -> io::Result<Contestant> {
    start_as(dir, "postkey", provider, program, Setup::default()).await
}

/// The same with a separate folder and these differences.
pub async fn start_as(
    dir: &Path,
    name: &'static str,
    provider: &Provider,
    program: &Path,
    setup: Setup<'_>,
) -> io::Result<Contestant> {
    let home = dir.join(name);
    fs::DirBuilder::new().mode(0o700).create(&home)?;
    let (ports, log) = (free_ports()?, dir.join(format!("{name}.log")));
    fs::write(home.join("postkey.toml"), config(dir, &home, provider, ports, setup))?;
    setup.before.map_or(Ok(()), |before| before(&home))?;
    let password = authorize(&mut postkey(Command::new(program), &home), &log).await?;
    let command = match setup.under {
        [] => Command::new(program),
        [outer, arguments @ ..] => {
            let mut command = Command::new(outer);
            command.args(arguments).arg(program);
            command
        }
    };
    let process = Process::start(&mut postkey(command, &home), &log)?;
    let tls = if setup.tls { Some(pki::client(dir)?) } else { None };
    Contestant::listening(name, Way { ports, tls, password: Some(password) }, process).await
}

/// Adds an app password: a generated one, or one that the user has chosen.
pub async fn add(program: &Path, home: &Path, generated: &str, name: &str, chosen: Option<&str>) -> io::Result<()> {
    let mut command = postkey(Command::new(program), home);
    command.args(["password", "add", USER, name]).args(chosen.map(|_| "--choose"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let input = format!("{generated}\n{}\n", chosen.unwrap_or_default());
    child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?.write_all(input.as_bytes())?;
    let ended = tokio::task::spawn_blocking(move || child.wait()).await??;
    ended.success().then_some(()).ok_or_else(|| io::Error::other(format!("the app password {name} cannot be added")))
}

/// postkey with our configuration, and without that of the person who runs this.
fn postkey(mut command: Command, home: &Path) -> Command {
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home).arg("--config").arg(home.join("postkey.toml"));
    command
}

fn config(dir: &Path, home: &Path, provider: &Provider, ports: Ports, setup: Setup<'_>) -> String {
    let http = provider.endpoints.http;
    let (state, authority) = (home.join("state"), dir.join("ca.pem"));
    let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
    let security = match setup.tls {
        true => format!("security = \"tls\"\ncertificate = {chain:?}\nkey = {key:?}\n"),
        false => "security = \"none\"\n".to_owned(),
    };
    let mut config = format!("state_dir = {state:?}\nlog = \"warn\"\n{}", setup.top);
    for protocol in Protocol::ALL {
        let (name, port) = (protocol.to_string().to_lowercase(), ports.of(protocol));
        config += &format!("[[listener]]\nprotocol = \"{name}\"\naddress = [\"127.0.0.1:{port}\"]\n{security}");
    }
    config += &format!(
        r#"[provider.bench]
domains = ["example.test"]
authorization_endpoint = "http://127.0.0.1:{http}/authorize"
token_endpoint = "http://127.0.0.1:{http}/token"
scope = ["mail"]
client_id = "bench"
redirect_uri = "http://127.0.0.1/"
mechanisms = ["XOAUTH2"]
ca_file = {authority:?}
"#
    );
    for protocol in Protocol::ALL {
        let (name, port) = (protocol.to_string().to_lowercase(), provider.endpoints.mail.of(protocol));
        config += &format!("[provider.bench.{name}]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"tls\"\n");
    }
    config + setup.more
}

/// Acts as the person: opens the URL that `postkey authorize` prints, and returns the app password that it prints then.
async fn authorize(command: &mut Command, log: &Path) -> io::Result<String> {
    command.args(["authorize", USER, "--no-browser", "--timeout", "30s"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log)?).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    // postkey waits at most 30 seconds, so its output ends, and so does this loop.
    let outcome = match find(&mut lines, "  http") {
        Ok(rest) => Provider::visit(&format!("http{rest}")).await.and_then(|()| find(&mut lines, "  password ")),
        Err(error) => Err(error),
    };
    lines.for_each(drop);
    match (child.wait()?.success(), outcome) {
        (true, outcome) => outcome,
        (false, Ok(_)) => Err(io::Error::other("authorize failed after it had given a password")),
        (false, Err(error)) => Err(io::Error::other(format!("authorize failed: {error}"))),
    }
}

/// The rest of the first line that begins with `prefix`.
fn find(lines: &mut Lines<impl BufRead>, prefix: &str) -> io::Result<String> {
    for line in lines {
        if let Some(rest) = line?.strip_prefix(prefix) {
            return Ok(rest.trim().to_owned());
        }
    }
    Err(io::Error::other(format!("it printed no line that begins with \"{prefix}\"")))
}
