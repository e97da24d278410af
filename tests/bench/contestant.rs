//! What is compared: no proxy at all, two TLS tunnels that know nothing of mail, and postkey.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::client::Way;
use crate::pki;
use crate::postkey;
use crate::process::Process;
use crate::protocol::{Ports, Protocol};
use crate::upstream::Provider;

/// One way to the mail servers, ready to be measured.
pub struct Contestant {
    pub name: &'static str,
    pub way: Way,
    /// The proxy, if there is one.
    pub process: Option<Process>,
}

impl Contestant {
    /// Starts those in `only`, or all if it is empty. Also returns whether one could not be started.
    pub async fn start(dir: &Path, provider: &Provider, postkey: &Path, only: &[String]) -> (Vec<Self>, bool) {
        let (mut started, mut failed) = (Vec::new(), false);
        for name in ["direct", "stunnel", "HAProxy", "postkey"] {
            if !only.is_empty() && !only.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
                continue;
            }
            let contestant = match name {
                "direct" => direct(dir, provider),
                "stunnel" => stunnel(dir, provider).await,
                "HAProxy" => haproxy(dir, provider).await,
                _ => postkey::start(dir, provider, postkey).await,
            };
            match contestant {
                Ok(contestant) => started.push(contestant),
                Err(error) => {
                    let log = fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
                    eprintln!("bench: {name} is left out: {error}\n{log}");
                    failed = true;
                }
            }
        }
        (started, failed)
    }

    /// Waits until `process` listens everywhere.
    pub async fn listening(name: &'static str, way: Way, mut process: Process) -> io::Result<Self> {
        for protocol in Protocol::ALL {
            process.listening(way.ports.of(protocol)).await?;
        }
        Ok(Self { name, way, process: Some(process) })
    }
}

/// The client does TLS and sends the bearer itself.
fn direct(dir: &Path, provider: &Provider) -> io::Result<Contestant> {
    let way = Way { ports: provider.endpoints.mail, tls: Some(pki::client(dir)?), password: None };
    Ok(Contestant { name: "direct", way, process: None })
}

/// stunnel does TLS. libwrap is off, because it would ask a second process about every connection.
async fn stunnel(dir: &Path, provider: &Provider) -> io::Result<Contestant> {
    let ports = free_ports()?;
    let authority = dir.join("ca.pem");
    let mut config = format!(
        "foreground = yes\npid =\ndebug = warning\nclient = yes\nCAfile = {}\nverifyChain = yes\ncheckIP = 127.0.0.1\n",
        authority.display()
    );
    for protocol in Protocol::ALL {
        let (local, remote) = (ports.of(protocol), provider.endpoints.mail.of(protocol));
        config += &format!("[{protocol}]\naccept = 127.0.0.1:{local}\nconnect = 127.0.0.1:{remote}\nlibwrap = no\n");
    }
    let file = dir.join("stunnel.conf");
    fs::write(&file, config)?;
    let process = Process::start(Command::new("stunnel").arg(file), &dir.join("stunnel.log"))?;
    Contestant::listening("stunnel", Way { ports, tls: None, password: None }, process).await
}

/// HAProxy does TLS, in one process with one thread for each core, its default.
async fn haproxy(dir: &Path, provider: &Provider) -> io::Result<Contestant> {
    let ports = free_ports()?;
    let authority = dir.join("ca.pem");
    let mut config = "global\n maxconn 9900\n\
        defaults\n mode tcp\n maxconn 9900\n timeout connect 10s\n timeout client 10m\n timeout server 10m\n"
        .to_owned();
    for protocol in Protocol::ALL {
        let (local, remote) = (ports.of(protocol), provider.endpoints.mail.of(protocol));
        config += &format!(
            "listen {protocol}\n bind 127.0.0.1:{local}\n \
             server provider 127.0.0.1:{remote} ssl verify required ca-file {}\n",
            authority.display()
        );
    }
    let file = dir.join("haproxy.cfg");
    fs::write(&file, config)?;
    let process = Process::start(Command::new("haproxy").arg("-db").arg("-f").arg(file), &dir.join("HAProxy.log"))?;
    Contestant::listening("HAProxy", Way { ports, tls: None, password: None }, process).await
}

/// Three ports that were free a moment ago, for programs that cannot report which free port they use.
pub fn free_ports() -> io::Result<Ports> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?, bind()?];
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok(Ports { imap: port(&listeners[0])?, pop3: port(&listeners[1])?, smtp: port(&listeners[2])? })
}
