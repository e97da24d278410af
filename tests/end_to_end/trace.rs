//! The trace of dialogues: it shows what went wrong, and nothing that must not be public.

use postkey::protocol::{Protocol, Security};

use crate::support::canaries::forms;
use crate::support::house::{ANN, House, Way, accepted};
use crate::support::process::Ended;

const WRONG: &str = "Wrong-horse-battery";

/// What nobody may learn: secrets, names, and places.
fn canaries(house: &House) -> Vec<String> {
    let mut canaries = house.provider.secrets();
    canaries.extend([&house.password, WRONG, ANN, "ann", "example", "127.0.0.1"].map(str::to_owned));
    assert!(canaries.len() > 8);
    canaries
}

fn assert_harmless(house: &House, trace: &str) {
    for canary in canaries(house) {
        for form in forms(&canary) {
            let is_in = trace.as_bytes().windows(form.len()).any(|window| window == form);
            assert!(!is_in, "{canary} as {} is in\n{trace}", String::from_utf8_lossy(&form));
        }
    }
}

/// Every way to log in, with correct and wrong passwords, and secrets where no protocol has them.
async fn log_in(house: &House, protocol: Protocol, security: Security) {
    for way in Way::ALL {
        let mut program = house.program(protocol, security).await;
        for command in [WRONG.to_owned(), format!("{} {WRONG}", house.password), format!("a {}", house.password)] {
            program.client.ask(&command).await;
        }
        let reply = program.log_in(way, ANN, WRONG).await;
        assert!(!accepted(protocol, &reply), "{reply}");
        let reply = program.log_in(way, ANN, &house.password).await;
        assert!(accepted(protocol, &reply), "{reply}");
        program.prove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_trace_of_all_that_is_said_can_be_shown_to_anybody() {
    let mut house = House::furnished(Security::StartTls, |config| format!("log = \"trace\"\n{config}")).await;
    let daemon = house.serve_as(&["--trace-dialogue"]).await;
    for protocol in Protocol::ALL {
        for security in [Security::Clear, Security::StartTls] {
            log_in(&house, protocol, security).await;
        }
    }
    house.provider.revoke_access_tokens();
    let reply = house.try_login(Protocol::Imap).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
    let tested = house.run(&["test", ANN, "--trace-dialogue"], &house.password);
    let Ended { out, err, .. } = daemon.terminate();
    assert_harmless(&house, &[&*out, &err].concat());
    for line in err.lines() {
        assert!(line.contains("TRACE dialogue: "), "{line}");
    }
    for part in [
        "from client: STARTTLS, 10 bytes protocol=imap session=",
        "from client: TLS protocol=pop3",
        "from client: ?, 19 bytes",
        "from client: LOGIN, ",
        "from client: PASS, ",
        "from client: data, ",
        "to client: NO [AUTHENTICATIONFAILED], ",
        "to client: -ERR [AUTH], ",
        "to client: 535 5.7.8, ",
        "to client: 334, ",
        "to provider: AUTHENTICATE, ",
        "to provider: AUTH, ",
        "from provider: 235",
        "from provider: +OK",
        "from provider: OK",
        "relayed: ",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }

    let trace: Vec<&str> = tested.out.lines().filter(|line| line.starts_with("        ")).collect();
    assert!(tested.code == Some(0) && trace.contains(&"        to provider: EHLO, 16 bytes"), "{}", tested.out);
    assert_harmless(&house, &trace.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn there_is_no_trace_unless_it_is_asked_for() {
    let mut house = House::furnished(Security::Tls, |config| format!("log = \"trace\"\n{config}")).await;
    let daemon = house.serve().await;
    house.try_login(Protocol::Smtp).await;
    let tested = house.run(&["test", ANN], &house.password);
    assert!(tested.code == Some(0) && !tested.out.contains("provider: "), "{}", tested.out);
    let err = daemon.terminate().err;
    assert!(err.contains("logged in") && !err.contains("dialogue"), "{err}");

    let refused = house.run(&["--trace-dialogue", "status"], "");
    assert!(refused.code == Some(64) && refused.err.contains("`postkey test --trace-dialogue`"), "{}", refused.err);
}
