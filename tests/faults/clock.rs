//! The machine's clock jumps while postkey runs.

use std::path::PathBuf;
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use postkey::vault::password::Password;

use crate::support::Options;
use crate::support::house::{ANN, House, LIFE, until};

const DAY: u64 = 24 * 3600;

/// Moves the clock by so many seconds, which may be negative.
fn jump(house: &House, seconds: i64) {
    house.pass(seconds.cast_unsigned());
}

/// Logs in with all protocols, several times. Returns the number of token requests that it took.
async fn refreshes(house: &House) -> usize {
    let before = house.provider.requests().len();
    for _ in 0..3 {
        for protocol in Protocol::ALL {
            house.logged_in(protocol).await.prove().await;
        }
    }
    house.provider.requests().len() - before
}

#[tokio::test]
async fn a_jump_costs_one_refresh_at_most() {
    let days = |days: i64| days * DAY.cast_signed();
    for far in [days(7), days(-7), days(50 * 365), days(-50 * 365), -200, 200] {
        let house = House::open().await;
        let mut session = house.logged_in(Protocol::Imap).await;
        jump(&house, far);
        let once = refreshes(&house).await;
        assert!(once <= 1, "{once} refreshes after a jump of {far} s");
        assert_eq!(once, usize::from(far.unsigned_abs() > LIFE), "what is not expired for sure is used, after {far} s");
        jump(&house, -far);
        assert!(refreshes(&house).await <= 1, "and back");
        session.prove().await;
        let refused = Protocol::ALL.iter().flat_map(|protocol| house.provider.attempts(*protocol));
        assert_eq!(refused.filter(|attempt| !attempt.accepted).count(), 0, "no token was sent that is not good");
    }
}

/// The program itself, under a clock that jumps (libfaketime changes the time that the system reports).
#[tokio::test]
#[ignore = "needs libfaketime; tests/run installs it and runs this"]
async fn the_program_itself_survives_clock_jumps() {
    let mut house = House::empty(Security::Tls, Options::default(), |config| config).await;
    let file = house.folder.path().join("clock");
    std::fs::write(&file, "+0d").unwrap();
    let (library, path) = (libfaketime(), file.to_str().unwrap().to_owned());
    let daemon = house
        .serve_with(&[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", &path),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ])
        .await;
    let password = Password::generate();
    house.authorize(ANN, Some(("main", &password))).await;
    house.password = String::from_utf8(password.expose()).unwrap();
    refreshes(&house).await;
    for (far, shown) in [("+7d", 7), ("+0d", 0), ("-7d", -7), ("+0d", 0), ("+18250d", 18250), ("+0d", 0)] {
        std::fs::write(&file, far).unwrap();
        let once = refreshes(&house).await;
        assert_eq!(once, 1, "refreshes after a jump to {far}");
        let expires = house.state().await["token_expires"].as_i64().unwrap();
        let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let off = expires - real - LIFE.cast_signed() - shown * DAY.cast_signed();
        assert!(off.abs() < 60, "its clock did not jump to {far}: {off} s off");
    }
    until("rest: it has nothing to do", async || rests(daemon.id()).await).await;
    let log = daemon.terminate().err;
    assert!(!log.contains("panicked"), "{log}");
}

/// Where Debian has it, on any architecture.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    files.find(|file| file.exists()).expect("libfaketime is installed")
}

/// Whether no thread of a process runs or wants to run, at each of several checks, and uses no processor time between
/// them. A thread that spins never rests, however busy the machine is.
async fn rests(process: u32) -> bool {
    let used = |fields: &[Vec<String>]| -> u64 {
        fields.iter().flat_map(|fields| &fields[11..13]).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let before = used(&threads(process));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = threads(process);
        if used(&now) != before || now.iter().any(|fields| fields[0] != "S") {
            return false;
        }
    }
    true
}

/// The fields of each thread's `stat`, from its state on (proc(5)).
fn threads(process: u32) -> Vec<Vec<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let lines = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    lines.map(|line| line.rsplit_once(") ").unwrap().1.split_whitespace().map(str::to_owned).collect()).collect()
}
