//! A provider's mail servers fail at every step of a login: the client is told to try later, in time, and nothing is left.

use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::certificates::Flaw;
use super::server::{Fault, Servers, Stage, with_ports};
use super::watch::{Belongings, TRY_LATER, answered, begin_logins, sockets, timed};
use crate::support::house::{House, Program, until};

use Fault::{Certificate, Close, Drip, Garbage, OldTls, Reset, Silence};

/// The longest wait for an answer where the server could not be got ready for AUTH, and in all, in seconds: 15 and 30, and
/// what the machine takes.
const REACH: u64 = 15 + 4;
const ALL: u64 = 30 + 4;

/// What can happen wherever there is a connection.
const ANYWHERE: [Fault; 5] = [Reset, Close, Silence, Drip, Garbage];

/// What can happen in a handshake besides.
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
        // A login that fails at AUTH makes the next one ask for the capabilities.
        Security::Tls => &[Auth, Capabilities, Greeting, Handshake, Connect],
        _ => &[Auth, Handshake, StartTls, Capabilities, Greeting, Connect],
    };
    let anywhere = stages.iter().flat_map(|stage| ANYWHERE.map(|fault| (*stage, fault)));
    anywhere.chain(IN_HANDSHAKE.map(|fault| (Handshake, fault))).collect()
}

/// The sessions that others have, which should not notice anything.
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

/// What connections to a port come to that nobody serves.
async fn unserved(port: u16, limit: u64) {
    let house = House::with(Security::Tls, |config| with_ports(&config, &[port; 3], Security::Tls, None)).await;
    let before = Belongings::of(&house, &[]);
    // The first time takes longer: the password has to be checked.
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
    tokio::time::sleep(Duration::from_millis(50)).await;
    unserved(address.port(), REACH).await;
}

/// A yes is a yes: what happens then happens to a session.
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

/// Its client decides then: what comes is passed on as it is, and silence is what IDLE is made of.
#[tokio::test]
async fn a_server_that_is_strange_after_its_yes_is_for_its_client() {
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
        // The programs have left.
        timed(before.are_all(&format!("{fault:?}"))).await;
        are_well(&mut bystanders).await;
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    // With an empty label it is none, and nobody is asked for it.
    let house =
        House::with(Security::Tls, |config| config.replace("host = \"localhost\"", "host = \"no..name\"")).await;
    let seconds = answered(&mut begin_logins(&house).await, TRY_LATER, "no name").await;
    assert!(seconds <= REACH, "{seconds} s");
    let reply = house.try_login(Protocol::Pop3).await;
    assert!(reply.contains("its name cannot be looked up"), "{reply}");
}
