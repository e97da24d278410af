//! The vault under a running postkey.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use postkey::config::provider::{ClientMethods, Discovered, Endpoints};
use postkey::control::ControlRequest;
use postkey::protocol::{Protocol, Security};
use postkey::vault::password::Password;

use crate::support::house::{ANN, BEN, House, LIFE, Way, accepted, skip, until};
use crate::support::process::Process;
use crate::support::skipped::skipped;
use crate::support::tmpfs::Tmpfs;

/// The time since which the daemon says that it is not on stable storage.
async fn degraded(house: &House) -> Option<String> {
    Some(house.status().await.degraded?.why)
}

/// The output of the command, run beside the daemon.
fn postkey(house: &House, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkey"));
    let output = command.arg("--config").arg(&house.file).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_nothing_and_heals_without_a_login() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = format!("state_dir = {:?}", disk.path().join("state"));
    let mut house = House::with(Security::Tls, |config| config.replace("state_dir = \"state\"", &state)).await;
    disk.fill();
    house.pass(LIFE);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await), "the new token is used from memory");
    assert!(degraded(&house).await.is_some());
    assert!(postkey(&house, &["status"]).contains("degraded: not on stable storage since "));
    disk.empty();
    until("the vault's return to the disk", async || degraded(&house).await.is_none()).await;
    house.restart().await;
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await), "the new token has been stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_records_are_damaged_is_named_and_the_others_work() {
    let mut house = House::open().await;
    let password = Password::generate();
    house.authorize(BEN, Some(("main", &password))).await;
    house.stop().await;
    let (state, password) = (house.config.state_dir.clone(), String::from_utf8(password.expose()).unwrap());
    std::fs::remove_dir_all(state.join("sled")).unwrap();
    std::fs::write(state.join("copies").join(ANN), "nonsense").unwrap();
    house.start().await;
    let mut program = house.program(Protocol::Imap, Security::Clear).await;
    assert!(accepted(Protocol::Imap, &program.log_in(Way::Plain, BEN, &password).await));
    let reply = house.try_login(Protocol::Imap).await;
    assert!(
        reply.contains("[UNAVAILABLE]") && reply.contains("is damaged; run `postkey authorize ann@example.test`"),
        "{reply}"
    );
    let said = postkey(&house, &["status"]);
    assert!(
        said.contains("ann@example.test: its record in the vault is damaged; set it up again with `postkey authorize"),
        "{said}"
    );
    assert!(!said.contains("ben@example.test: its record"), "{said}");
}

/// This is said before the person is sent to the provider. The account is served again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_authorizes_a_damaged_account_is_warned_before_signing_in() {
    for with_daemon in [false, true] {
        let mut house = House::open().await;
        house.stop().await;
        let state = house.config.state_dir.clone();
        std::fs::remove_dir_all(state.join("sled")).unwrap();
        std::fs::write(state.join("copies").join(ANN), "nonsense").unwrap();
        let mut daemon = if with_daemon { Some(house.serve().await) } else { None };
        let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
        process.hear_complaint("is damaged; this authorization replaces it, and its app passwords are lost");
        let url = process.hear("/authorize?").trim().to_owned();
        process.say(house.provider.person().consent(&url, ANN).await.as_str());
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let password = ended.out.split_whitespace().find(|word| word.len() == 30).unwrap();
        if daemon.is_none() {
            daemon = Some(house.serve().await);
        }
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        assert!(accepted(Protocol::Imap, &program.log_in(Way::Plain, ANN, password).await));
        drop(daemon);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_have_older_tokens_is_named() {
    let mut house = House::open().await;
    house.stop().await;
    std::fs::write(house.config.state_dir.join("copies").join(ANN), "nonsense").unwrap();
    for _ in 0..2 {
        house.restart().await;
        let said = postkey(&house, &["status"]);
        assert!(said.contains("may be older; if logins fail, run `postkey authorize ann@example.test`"), "{said}");
        assert!(
            postkey(&house, &["status", "--exit-code"])
                .contains("The record may be older than the last one for: ann@example.test.")
        );
    }
    house.pass(LIFE);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    assert!(!postkey(&house, &["status"]).contains("older"), "a new token set has come");
}

/// Space is freed, and postkey is stopped before its next attempt to write.
#[tokio::test]
async fn a_stop_writes_what_only_memory_has() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = format!("state_dir = {:?}", disk.path().join("state"));
    let mut house = House::with(Security::Tls, |config| config.replace("state_dir = \"state\"", &state)).await;
    disk.fill();
    // The first one still fits into sled's file. After that, not even sled can write.
    for _ in 0..2 {
        house.pass(LIFE);
        assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
        // In the end its attempts to write are seconds apart. An export waits for the one that is under way.
        for _ in 0..4 {
            skip(Duration::from_secs(4)).await;
            assert!(degraded(&house).await.is_some());
            house.command(&ControlRequest::Export { address: ANN.into() }).await;
        }
    }
    disk.empty();
    house.stop().await;
    house.start().await;
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await), "the new token has been stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_and_restored_while_the_daemon_runs() {
    let house = House::open().await;
    let file = house.folder.path().join("backup");
    let said = postkey(&house, &["backup", file.to_str().unwrap()]);
    assert!(said.contains("ann@example.test: backed up"), "{said}");
    house.command(&ControlRequest::Forget { address: ANN.into(), password: None }).await;
    assert!(!accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    let said = postkey(&house, &["restore", file.to_str().unwrap()]);
    assert!(said.contains("ann@example.test: restored"), "{said}");
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
}

/// The memory of a process, in KiB.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Each derivation takes 64 MiB, and malloc once kept what the threads had freed.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_derivations_goes_back() {
    let mut house = House::open().await;
    house.stop().await;
    let daemon = house.serve().await;
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    let before = resident(&daemon);
    let accounts: Vec<(String, String)> =
        (0..12).map(|number| (format!("user{number}@example.test"), format!("chosen password {number}"))).collect();
    let all = accounts.iter().map(|(address, password)| {
        let password = Password::read(password.as_bytes());
        let house = &house;
        async move { house.authorize(address, Some(("main", &password))).await }
    });
    together(all).await;
    let all = accounts.iter().map(|(address, password)| async {
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        accepted(Protocol::Imap, &program.log_in(Way::Plain, address, password).await)
    });
    assert!(together(all).await.into_iter().all(|accepted| accepted));
    let after = resident(&daemon);
    assert!(after < before + 25 * 1024, "{before} KiB before, {after} KiB after");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_of_a_record_has_to_be_the_configured_one() {
    let mut house = House::open().await;
    let url = |text: &str| Some(text.parse().unwrap());
    let found = |issuer: &str| Discovered {
        issuer: issuer.into(),
        endpoints: Endpoints { revocation: url("https://auth.example.test/revoke"), ..Endpoints::default() },
        is_registered: false,
        is_self_registered: false,
        methods: ClientMethods::default(),
    };
    let issuer = house.provider.issuer().to_owned();
    for (of_record, is_taken) in [(issuer.as_str(), true), ("https://evil.test", false)] {
        house.authorize_as_found(ANN, found(of_record)).await;
        house.restart().await;
        let reply = house.try_login(Protocol::Imap).await;
        assert_eq!(accepted(Protocol::Imap, &reply), is_taken, "{reply}");
        assert!(is_taken || reply.contains("was authorized at https://evil.test"), "{reply}");
    }
}

/// Another process was first at the control socket's path.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_tells_nothing_to_a_stranger_at_the_control_socket() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can act as somebody else");
        return;
    }
    let mut house = House::open().await;
    house.stop().await;
    std::fs::set_permissions(house.folder.path(), Permissions::from_mode(0o1777)).unwrap();
    let socket = house.config.control_socket.clone();
    let heard = house.folder.path().join("heard");
    let stranger = "import socket,sys\ns=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
                    heard=open(sys.argv[2], 'wb', buffering=0); print('ready', flush=True)\n\
                    while True: heard.write(s.accept()[0].recv(9999))";
    let moved = house.folder.path().join("control");
    let text = std::fs::read_to_string(&house.file).unwrap();
    std::fs::write(&house.file, format!("control_socket = {moved:?}\n{text}")).unwrap();
    assert_ne!(socket, moved);
    let mut command = Command::new("python3");
    command.args(["-c", stranger]).arg(&moved).arg(&heard).uid(1234).gid(1234).stdout(std::process::Stdio::piped());
    let mut stranger = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stranger.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let said = postkey(&house, &["status"]);
    assert!(said.contains("the socket belongs to uid 1234") && said.contains("nothing was sent"), "{said}");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(std::fs::read(&heard).unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_spoils_nothing_and_says_where_tokens_would_go() {
    let house = House::open().await;
    let (file, precious) = (house.folder.path().join("backup"), house.folder.path().join("backup.new"));
    std::fs::write(&precious, "precious").unwrap();
    for _ in 0..2 {
        let said = postkey(&house, &["backup", file.to_str().unwrap()]);
        assert!(said.contains("ann@example.test: backed up"), "{said}");
    }
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    let beside = std::fs::read_dir(house.folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("backup"));
    assert_eq!(beside.count(), 2, "no draft is left");
    let said = postkey(&house, &["restore", file.to_str().unwrap()]);
    assert!(said.contains("the same as in the backup") && !said.contains("the configuration"), "{said}");
    let of_fay = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vault/format-2/backup-fay");
    let copy = house.folder.path().join("fay");
    std::fs::write(&copy, std::fs::read(of_fay).unwrap()).unwrap();
    let said = postkey(&house, &["restore", copy.to_str().unwrap()]);
    let warning = "fay@example.test: the backup names https://auth.example.test/revoke as the revocation endpoint";
    assert!(said.contains(warning), "{said}");
    std::fs::set_permissions(&copy, Permissions::from_mode(0o666)).unwrap();
    let said = postkey(&house, &["restore", copy.to_str().unwrap()]);
    assert!(said.contains("it is world-writable"), "{said}");
}

/// Runs all of them at once.
async fn together<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, outcome) in all.iter_mut().filter(|(_, outcome)| outcome.is_none()) {
            if let std::task::Poll::Ready(done) = one.as_mut().poll(context) {
                *outcome = Some(done);
            }
        }
        match all.iter().all(|(_, outcome)| outcome.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, outcome)| outcome).collect()
}
