//! A provider's mail servers fail at every step of a login: the client is told to try later, in time, and nothing is
//! left over.

use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::certificates::Flaw;
use super::server::{Fault, Servers, Stage, with_ports};
use super::watch::{Belongings, TRY_LATER, answered, begin_logins, sockets, timed};
use crate::support::house::{House, Program, until};

use Fault::{Certificate, Close, Drip, Garbage, OldTls, Reset, Silence};

/// The longest wait for an answer if the server does not get as far as AUTH, and in all, in seconds: 15 and 30, and
/// some for the machine.
const REACH: u64 = 15 + 4;
const ALL: u64 = 30 + 4;

/// Faults that are possible wherever there is a connection.
const ANYWHERE: [Fault; 5] = [Reset, Close, Silence, Drip, Garbage];

/// Further faults that are possible in a handshake.
const IN_HANDSHAKE: [Fault; 6] = [
    OldTls(1),
    OldTls(2),
    Certificate(Flaw::Expired),
    Certificate(Flaw::NotYet),
    Certificate(Flaw::WrongName),
    Certificate(Flaw::UnknownAuthority),
];

fn cases(security: Security) -> Vec<(Stage, Fault)> {
    use Stage::{Auth, Capabilities, Connect, Greeting, Handshake, StartTls};
    let stages: &[Stage] = match security {
        // After a login that fails at AUTH, the next one asks for the capabilities.
        Security::Tls => &[Auth, Capabilities, Greeting, Handshake, Connect],
        _ => &[Auth, Handshake, StartTls, Capabilities, Greeting, Connect],
    };
    let anywhere = stages.iter().flat_map(|stage| ANYWHERE.map(|fault| (*stage, fault)));
    anywhere.chain(IN_HANDSHAKE.map(|fault| (Handshake, fault))).collect()
}

/// Other people's sessions, which must not notice anything.
async fn bystanders(house: &House) -> Vec<Program> {
    let mut programs = Vec::new();
    for protocol in Protocol::ALL {
        programs.push(house.logged_in(protocol).await);
    }
    programs
}

async fn are_well(programs: &mut [Program]) {
    for program in programs {
        assert_eq!(program.client.ask("are you there").await, "are you there");
    }
}

async fn every_fault(security: Security) {
    let servers = Servers::start(security).await;
    let house = servers.house().await;
    let mut bystanders = bystanders(&house).await;
    let before = Belongings::of(&house, &servers.ports);
    for (stage, fault) in cases(security) {
        servers.go_wrong(Some((stage, fault)));
        let what = format!("{security:?} {stage:?} {fault:?}");
        let mut logins = begin_logins(&house).await;
        let seconds = answered(&mut logins, TRY_LATER, &what).await;
        assert!(seconds <= if stage == Stage::Auth { ALL } else { REACH }, "{what}: {seconds} s");
        let closed = async || sockets(&servers.ports) == 2 * bystanders.len();
        until(&format!("{what}: the end of the provider's connections"), closed).await;
        are_well(&mut bystanders).await;
        drop(logins);
        before.are_all(&what).await;
    }
    servers.go_wrong(None);
    are_well(&mut self::bystanders(&house).await).await;
    assert_eq!(house.provider.requests(), [""; 0], "no token was to blame");
}

#[tokio::test]
async fn every_fault_under_tls() {
    every_fault(Security::Tls).await;
}

#[tokio::test]
async fn every_fault_with_starttls() {
    every_fault(Security::StartTls).await;
}

/// The result of connections to a port on which nobody listens.
async fn unserved(port: u16, limit: u64) {
    let house = House::with(Security::Tls, |config| with_ports(&config, &[port; 3], Security::Tls, None)).await;
    let before = Belongings::of(&house, &[]);
    // The first time takes longer, because the password has to be checked.
    for limit in [2 * limit, limit] {
        let mut logins = begin_logins(&house).await;
        let seconds = answered(&mut logins, TRY_LATER, "unserved").await;
        assert!(seconds <= limit, "{seconds} s");
    }
    before.are_all("unserved").await;
}

#[tokio::test]
async fn a_server_that_does_not_listen() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    unserved(socket.local_addr().unwrap().port(), REACH).await;
}

/// Whether a connection fills the queue of this port, which has one place (proc_net_tcp).
fn waits_to_be_accepted(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The receive queue of a port that listens, which is state 0A, is its queue of connections.
    listening
        .any(|line| line[1].ends_with(&format!(":{port:04X}")) && line[3] == "0A" && line[4].ends_with(":00000001"))
}

#[tokio::test]
async fn a_server_that_does_not_accept() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = JoinSet::new();
    for _ in 0..3 {
        filling.spawn(TcpStream::connect(address));
    }
    until("a full queue", async || waits_to_be_accepted(address.port())).await;
    unserved(address.port(), REACH).await;
}

/// An acceptance is final: what happens next happens to a session.
#[tokio::test]
async fn a_server_that_fails_after_its_yes_ends_the_session() {
    let servers = Servers::start(Security::Tls).await;
    let house = servers.house().await;
    let mut bystanders = bystanders(&house).await;
    let before = Belongings::of(&house, &servers.ports);
    for fault in [Reset, Close] {
        servers.go_wrong(Some((Stage::Relay, fault)));
        for protocol in Protocol::ALL {
            let mut program = house.logged_in(protocol).await;
            program.client.say("now").await;
            assert!(program.client.is_closed().await);
        }
        before.are_all(&format!("{fault:?}")).await;
        are_well(&mut bystanders).await;
    }
}

/// The client then decides: everything is passed on as it is, and silence is normal during IDLE.
#[tokio::test]
async fn what_a_server_sends_after_accepting_a_login_is_for_its_client() {
    let servers = Servers::start(Security::Tls).await;
    let house = servers.house().await;
    let mut bystanders = bystanders(&house).await;
    let before = Belongings::of(&house, &servers.ports);
    for fault in [Silence, Drip, Garbage] {
        servers.go_wrong(Some((Stage::Relay, fault)));
        for protocol in Protocol::ALL {
            let mut program = house.logged_in(protocol).await;
            program.client.say("now").await;
            if fault == Garbage {
                assert_eq!(program.client.exactly(11).await, b"\xff\x00\x80garbage\r");
            }
        }
        // The programs have disconnected.
        timed(before.are_all(&format!("{fault:?}"))).await;
        are_well(&mut bystanders).await;
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    // With an empty label it is not a name, and no server is asked for it.
    let house =
        House::with(Security::Tls, |config| config.replace("host = \"localhost\"", "host = \"no..name\"")).await;
    let seconds = answered(&mut begin_logins(&house).await, TRY_LATER, "no name").await;
    assert!(seconds <= REACH, "{seconds} s");
    let reply = house.try_login(Protocol::Pop3).await;
    assert!(reply.contains("its name cannot be looked up"), "{reply}");
}

/// A house whose provider uses one kind of security, and whose configuration has the other.
async fn house_with_wrong_security(really: Security, said: Security) -> House {
    House::with(really, |config| {
        let (before, provider) = config.split_once("[provider.own]").unwrap();
        let [really, said] = [really, said].map(|security| format!("security = {:?}", security.name()));
        format!("{before}[provider.own]{}", provider.replace(&really, &said))
    })
    .await
}

#[tokio::test]
async fn a_greeting_in_clear_where_tls_is_expected_is_quoted() {
    let house = house_with_wrong_security(Security::StartTls, Security::Tls).await;
    for (protocol, greeting) in Protocol::ALL.into_iter().zip(["* OK", "+OK ready", "220 "]) {
        house.pass(1);
        let reply = house.try_login(protocol).await;
        assert!(reply.starts_with(TRY_LATER[protocol as usize]), "{reply}");
        assert!(reply.contains("set security = \"starttls\"") && reply.contains(&format!("\"{greeting}")), "{reply}");
        assert_in_status(&house, &format!("{protocol}: localhost cannot be used: it does not speak TLS"), greeting)
            .await;
    }
}

/// Exim and others refuse a connection without TLS when they are at their limit, also on a port for TLS.
#[tokio::test]
async fn a_limit_told_in_clear_where_tls_is_expected_is_quoted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let house = House::with(Security::Tls, |config| with_ports(&config, &[port; 3], Security::Tls, None)).await;
    let server = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _gone = client.write_all(b"421 too many connections\r\n").await;
            // What the client has sent is read, so that the answer is not lost with the connection.
            let _gone = client.read(&mut [0; 1024]).await;
        }
    });
    for protocol in Protocol::ALL {
        house.pass(1);
        let reply = house.try_login(protocol).await;
        assert!(reply.starts_with(TRY_LATER[protocol as usize]), "{reply}");
        assert!(reply.contains("\"421 too many connections\"") && !reply.contains("InvalidContentType"), "{reply}");
        let words = format!("{protocol}: localhost cannot be used: it does not speak TLS on this port");
        assert_in_status(&house, &words, "421 too many connections").await;
    }
    server.abort();
}

/// The last failure in `postkey status` has these words, and quotes the server.
async fn assert_in_status(house: &House, words: &str, said: &str) {
    let status = house.run_beside(&["status"], "").await.out;
    assert!(status.contains(words) && status.contains(&format!("\"{said}")), "{words}\n{status}");
}

#[tokio::test]
async fn silence_where_a_greeting_in_clear_is_expected_names_the_setting() {
    let house = house_with_wrong_security(Security::Tls, Security::StartTls).await;
    for mut login in begin_logins(&house).await {
        let (reply, _) = timed(login.answer()).await;
        assert!(reply.starts_with(TRY_LATER[login.protocol as usize]), "{reply}");
        assert!(reply.contains("set security = \"tls\""), "{reply}");
    }
}
