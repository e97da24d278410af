//! Listeners on Unix sockets, where the kernel says who has connected.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use postkey::clock::Clock;
use postkey::config::Config;
use postkey::daemon::Daemon;
use postkey::exit::Exit;
use postkey::net::systemd::Sockets;
use postkey::protocol::{Protocol, Security};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::house::{ANN, BEN, House, Program, Way, accepted};
use crate::users::{MALLORY, can_be_others, is_in, login};

/// A client in a separate process: connects, sends these lines, and prints what it receives until the connection ends.
const SPEAKER: &str = r#"
use IO::Socket::UNIX;
alarm 10;
my $socket = IO::Socket::UNIX->new(Peer => shift) or exit 1;
print $socket map { "$_\r\n" } @ARGV;
$socket->flush;
print while <$socket>;
"#;

/// A house that also listens on a Unix socket for each protocol, in a folder that everybody can enter.
struct Hall {
    house: House,
    folder: TempDir,
}

impl Hall {
    /// The same without a running daemon. These lines are in each of its listeners on Unix sockets, and these after
    /// them.
    async fn furnished(lines: &str, rest: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let listener = |protocol: Protocol| {
            let (name, path) = (protocol.name(), folder.path().join(protocol.name()));
            format!("[[listener]]\nprotocol = \"{name}\"\naddress = [{path:?}, \"127.0.0.1:0\"]\n{lines}\n")
        };
        let listeners = Protocol::ALL.map(listener).concat();
        let house = House::furnished(Security::Tls, |config| format!("{config}\n{listeners}\n{rest}")).await;
        Self { house, folder }
    }

    async fn open(lines: &str, rest: &str) -> Self {
        let mut hall = Self::furnished(lines, rest).await;
        hall.house.start().await;
        hall
    }

    fn path(&self, protocol: Protocol) -> PathBuf {
        self.folder.path().join(protocol.name())
    }

    fn mode(&self, protocol: Protocol) -> u32 {
        fs::metadata(self.path(protocol)).unwrap().mode() & 0o777
    }

    async fn program(&self, protocol: Protocol) -> Program {
        Program::over(Client::unix(&self.path(protocol)).await, protocol).await
    }

    /// Writes a changed configuration file and reloads it.
    async fn reload(&mut self, edit: impl FnOnce(String) -> String) {
        let text = edit(fs::read_to_string(&self.house.file).unwrap());
        fs::write(&self.house.file, text).unwrap();
        self.house.config = Config::load(Some(&self.house.file)).expect("a configuration without mistakes");
        self.house.reload().await;
    }

    /// What a user receives who sends these lines.
    async fn as_user(&self, user: u32, protocol: Protocol, lines: &[&str]) -> String {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user.to_string(), "--clear-groups", "--", "perl", "-e", SPEAKER]);
        command.arg(self.path(protocol)).args(lines).current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
        let heard =
            tokio::task::spawn_blocking(move || command.output().expect("setpriv of util-linux")).await.unwrap();
        String::from_utf8_lossy(&heard.stdout).into_owned()
    }

    /// Logs in as a user, and out again. Returns what was received.
    async fn log_in_as(&self, user: u32, protocol: Protocol, password: &str) -> String {
        self.as_user(user, protocol, &login(protocol, password).each_ref().map(String::as_str)).await
    }
}

#[tokio::test]
async fn every_protocol_is_spoken_on_its_unix_socket() {
    let mut hall = Hall::open("", "").await;
    for protocol in Protocol::ALL {
        assert_eq!(hall.mode(protocol), 0o600);
        for way in Way::ALL {
            let mut program = hall.program(protocol).await;
            assert!(!accepted(protocol, &program.log_in(way, ANN, "wrong").await));
            let reply = program.log_in(way, ANN, &hall.house.password).await;
            assert!(accepted(protocol, &reply), "{way:?}: {reply}");
            program.prove().await;
        }
        // The same listener has a port.
        hall.house.logged_in(protocol).await.prove().await;
    }
    let message = b"Subject: over a Unix socket\r\n\r\n.text\r\n";
    let mut smtp = hall.program(Protocol::Smtp).await;
    smtp.log_in(Way::Plain, ANN, &hall.house.password).await;
    smtp.send_mail(BEN, message).await;
    assert!(hall.house.provider.mailbox(BEN)[0].ends_with(message));
    drop(smtp);
    let status = hall.house.run_beside(&["status"], "").await.out;
    let check = hall.house.run_beside(&["check"], "").await.out;
    for protocol in Protocol::ALL {
        let path = hall.path(protocol);
        assert!(status.contains(&format!("{:<5} {} security none", protocol.name(), path.display())), "{status}");
        assert!(check.contains(&path.display().to_string()), "{check}");
    }
    hall.house.stop().await;
    assert_eq!(fs::read_dir(hall.folder.path()).unwrap().count(), 0, "the sockets go with postkey");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_users_who_are_named_come_to_a_unix_socket() {
    if !can_be_others() {
        return;
    }
    let hall = Hall::open(&format!("mode = \"0666\"\nallow_uids = [{MALLORY}]"), "").await;
    for protocol in Protocol::ALL {
        let heard = hall.as_user(MALLORY + 1, protocol, &[]).await;
        let end = ["* BYE", "-ERR", "421"][protocol as usize];
        assert!(heard.starts_with(end) && heard.contains("not open to your user"), "{heard}");
    }
    assert!(hall.house.provider.requests().is_empty());
    for protocol in Protocol::ALL {
        let heard = hall.log_in_as(MALLORY, protocol, &hall.house.password).await;
        assert!(is_in(protocol, &heard), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_unix_sockets_mode_keeps_other_users_out() {
    if !can_be_others() {
        return;
    }
    let mut hall = Hall::open("", "").await;
    assert_eq!(hall.as_user(MALLORY, Protocol::Imap, &[]).await, "");
    hall.reload(|config| config.replace("address = [\"", "mode = \"0666\"\naddress = [\"")).await;
    assert_eq!(hall.mode(Protocol::Imap), 0o666);
    let heard = hall.log_in_as(MALLORY, Protocol::Imap, &hall.house.password).await;
    assert!(is_in(Protocol::Imap, &heard), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn accounts_and_app_passwords_know_the_users_of_unix_sockets() {
    if !can_be_others() {
        return;
    }
    let limit = format!("[account.\"{ANN}\"]\nallow_uids = [{MALLORY}, {}]\n", MALLORY + 1);
    let hall = Hall::open("mode = \"0666\"", &limit).await;
    let arguments = ["password", "add", ANN, "hers", "--uid", &MALLORY.to_string()];
    let added = hall.house.run_beside(&arguments, &hall.house.password).await;
    assert_eq!(added.code, Some(0), "{}", added.err);
    let hers = added.out.split_whitespace().find(|word| word.len() == 30).unwrap();
    for protocol in Protocol::ALL {
        let reply = hall.program(protocol).await.log_in(Way::Plain, ANN, &hall.house.password).await;
        assert!(reply.contains("This account is not for your user"), "{reply}");
        let heard = hall.log_in_as(MALLORY, protocol, hers).await;
        assert!(is_in(protocol, &heard), "{heard}");
        let heard = hall.log_in_as(MALLORY + 1, protocol, hers).await;
        assert!(heard.contains("This app password is not for"), "{heard}");
        let heard = hall.log_in_as(MALLORY + 1, protocol, &hall.house.password).await;
        assert!(is_in(protocol, &heard), "{heard}");
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    let mut hall = Hall::furnished("", "").await;
    let other = std::os::unix::net::UnixListener::bind(hall.path(Protocol::Imap)).unwrap();
    let failed = match Daemon::start(hall.house.config.clone(), Clock::System, Sockets::default()).await {
        Ok(_) => panic!("it starts"),
        Err(failed) => failed,
    };
    assert_eq!(failed.exit, Exit::Os);
    assert!(failed.message.contains(hall.path(Protocol::Imap).to_str().unwrap()), "{}", failed.message);
    drop(other);
    assert!(hall.path(Protocol::Imap).exists(), "it is not postkey's, and is left");
    hall.house.start().await;
    hall.program(Protocol::Imap).await;
    // What a killed postkey leaves.
    hall.house.stop().await;
    let process = hall.house.serve().await;
    process.signal(rustix::process::Signal::KILL);
    process.end();
    assert!(hall.path(Protocol::Imap).exists());
    hall.house.start().await;
    hall.program(Protocol::Imap).await;
}

#[tokio::test]
async fn a_reload_keeps_a_unix_socket_until_it_is_dropped() {
    let mut hall = Hall::open("", "").await;
    let mut session = hall.program(Protocol::Imap).await;
    let before = fs::metadata(hall.path(Protocol::Imap)).unwrap().ino();
    hall.house.reload().await;
    assert_eq!(fs::metadata(hall.path(Protocol::Imap)).unwrap().ino(), before);
    let imap = format!("{:?}, ", hall.path(Protocol::Imap));
    hall.reload(|config| config.replace(&imap, "")).await;
    assert!(!hall.path(Protocol::Imap).exists() && hall.path(Protocol::Pop3).exists());
    assert!(accepted(Protocol::Imap, &session.log_in(Way::Own, ANN, &hall.house.password).await));
    session.prove().await;
    hall.reload(|config| config.replacen("address = [\"", &format!("address = [{imap}\""), 1)).await;
    hall.program(Protocol::Imap).await;
}
