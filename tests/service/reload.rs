//! A new configuration, and what continues meanwhile.

use std::time::Duration;

use postkey::control::{self, ControlRequest};
use postkey::exit::Exit;
use postkey::protocol::{Protocol, Security};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::manager::Service;
use crate::support::house::{ANN, Program, accepted, free_port};
use crate::support::tls;

const SESSIONS: usize = 1000;
const RELOADS: usize = 100;

/// A configuration whose last listener has a separate port, and one without it.
fn listener(port: u16) -> String {
    format!("[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:{port}\"\n")
}

async fn refusal(service: &Service) -> postkey::exit::Failed {
    match control::ask(&service.house.config.control_socket, None, &ControlRequest::Reload).await {
        Ok(Some(Err(failed))) => failed,
        other => panic!("it was taken: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_drop_none_of_1000_sessions_and_refuse_nobody() {
    raise_limit();
    let mut service = Service::with(|config| config).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(service.house.logged_in(Protocol::Imap).await);
    }
    let (greeted, mut visits) = watch::channel(());
    let visitor = tokio::spawn(visit(service.house.port(Protocol::Pop3, Security::Clear), greeted));
    let extra = listener(free_port());
    for round in 0..RELOADS {
        let added = round % 2 == 0;
        let (from, to) = if added { ("", &*extra) } else { (&*extra, "") };
        service.reload(|config| if added { config + "\n" + to } else { config.replace(from, "") }).await;
        if visits.changed().await.is_err() {
            break;
        }
    }
    drop(visits);
    visitor.await.expect("nobody was refused");
    for session in &mut sessions {
        session.prove().await;
    }
    assert!(accepted(Protocol::Imap, &service.house.try_login(Protocol::Imap).await));
}

/// Connects again and again, and gets a greeting each time, until nobody wants the result any more.
async fn visit(port: u16, greeted: watch::Sender<()>) {
    while !greeted.is_closed() {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let mut greeting = [0; 3];
        client.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"+OK");
        greeted.send_replace(());
        // It has to be there all the time, but not use up the machine.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Both ends of all sessions are in this process.
pub fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_is_reported_completely_and_changes_nothing() {
    let mut service = Service::with(|config| config).await;
    let before = service.house.port(Protocol::Imap, Security::Clear);
    let good = std::fs::read_to_string(&service.house.file).unwrap();
    let new = listener(free_port());
    for (wrong, said) in [
        ("lgo = \"info\"\n", "lgo"),
        ("control_socket = \"elsewhere\"\n", "control_socket needs a restart"),
        ("log_file = \"no/such/folder/log\"\n", "no/such/folder/log"),
    ] {
        service.edit(|_| format!("{wrong}{good}\n{new}"));
        let failed = refusal(&service).await;
        assert!(failed.exit == Exit::Config && failed.message.contains(said), "{}", failed.message);
        let ended = service.house.run(&["check"], "");
        assert_eq!(ended.code == Some(0), !wrong.starts_with("lgo"), "{}", ended.err);
        service.house.look().await;
        assert_eq!(service.house.port(Protocol::Imap, Security::Clear), before, "the new port is not open");
    }
    // All mistakes are in it, as in the output of `postkey check`.
    service.edit(|_| format!("lgo = \"info\"\nstate_dri = \"x\"\n{good}"));
    service.process.signal(rustix::process::Signal::HUP);
    let line = service.process.hear_complaint("state_dri");
    assert!(line.contains("lgo") && line.contains("; /") && line.contains("configuration not reloaded"), "{line}");
    assert!(accepted(Protocol::Imap, &service.house.try_login(Protocol::Imap).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_came_of_it() {
    let service = Service::with(|config| config).await;
    let ended = service.house.run(&["reload"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    service.edit(|config| config + "\n" + &listener(taken.local_addr().unwrap().port()));
    let ended = service.house.run(&["reload"], "");
    assert!(ended.code == Some(71) && ended.err.contains("cannot listen on"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_not_wanted_any_more_closes_and_its_sessions_go_on() {
    let extra = listener(free_port());
    let mut service = Service::with(|config| config + "\n" + &extra).await;
    let port = service.house.port(Protocol::Imap, Security::Clear);
    let mut session = service.house.logged_in(Protocol::Imap).await;
    service.reload(|config| config.replace(&extra, "")).await;
    assert_ne!(service.house.port(Protocol::Imap, Security::Clear), port);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    session.prove().await;
    service.reload(|config| config + "\n" + &extra).await;
    assert_eq!(service.house.port(Protocol::Imap, Security::Clear), port);
    assert!(accepted(Protocol::Imap, &service.house.try_login(Protocol::Imap).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_to_those_who_come_next() {
    let mut service = Service::with(|config| config).await;
    let port = service.house.port(Protocol::Imap, Security::Tls);
    let mut old = service.house.program(Protocol::Imap, Security::Tls).await;
    assert!(accepted(Protocol::Imap, &old.log_in(crate::support::house::Way::Own, ANN, &service.house.password).await));
    let identity = tls::identity();
    std::fs::write(service.house.folder.path().join("cert.pem"), &identity.certificate_pem).unwrap();
    // A certificate without its key is refused.
    assert_eq!(refusal(&service).await.exit, Exit::Config);
    std::fs::write(service.house.folder.path().join("key.pem"), &identity.key_pem).unwrap();
    service.reload(|config| config).await;
    // The handshake fails for a client that does not trust the new authority.
    let mut new = Program::connect(port, Protocol::Imap, Security::Tls, &identity).await;
    assert!(accepted(Protocol::Imap, &new.log_in(crate::support::house::Way::Own, ANN, &service.house.password).await));
    old.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_goes_by_its_new_settings_with_the_tokens_that_it_has() {
    let mut service = Service::with(|config| config).await;
    let mut old = service.house.logged_in(Protocol::Imap).await;
    let requests = service.house.provider.requests().len();
    service.reload(|config| config + &format!("\n[account.\"{ANN}\"]\nuser = \"ben@example.test\"\n")).await;
    // The provider knows the token as Ann's, and accepts it for nobody else.
    assert!(!accepted(Protocol::Imap, &service.house.try_login(Protocol::Imap).await));
    service.reload(|config| config.replace("ben@example.test", ANN)).await;
    assert!(accepted(Protocol::Pop3, &service.house.try_login(Protocol::Pop3).await));
    // One forced refresh, because the refusal looked like that of a token.
    assert!(service.house.provider.requests().len() <= requests + 1);
    old.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_widened_to_all_addresses_and_narrowed_again() {
    let mut service = Service::with(|config| config).await;
    let port = free_port();
    let at = |host: &str| {
        format!(
            "[[listener]]\nprotocol = \"imap\"\naddress = \"{host}:{port}\"\nallow_remote = true\nsecurity = \"tls\"\n\
             certificate = \"cert.pem\"\nkey = \"key.pem\"\n"
        )
    };
    let (narrow, wide) = (at("127.0.0.1"), at("0.0.0.0"));
    service.reload(|config| format!("{config}\n{narrow}")).await;
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { (&narrow, &wide) } else { (&wide, &narrow) };
        service.reload(|config| config.replace(from, to)).await;
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let is_wide = TcpStream::connect(("127.0.0.2", port)).await.is_ok();
        assert_eq!(is_wide, round % 2 == 0, "round {round}");
    }
}
