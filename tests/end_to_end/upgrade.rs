//! An upgrade: this version opens the state and the configuration of an older one. Both are in a folder beside this file as that
//! version left them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postkey::broker::AccountState;
use postkey::clock::Moment;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Ended, Limits, Vault};

use crate::support::Options;
use crate::support::house::{ANN, BEN, House, OFFICE, Way, accepted};

const VERSIONS: [&str; 1] = ["0.1.0"];

/// The app passwords: one that postkey has generated, one that a person has chosen, and one for sending only.
const GENERATED: &str = "abcde-fghjk-mnpqr-stvwx-yz2345";
const CHOSEN: &str = "correct horse battery staple";
const SENDING: &str = "12345-67890-abcde-fghjk-mnpqrs";

/// When the tokens were issued, long before any test of this version.
const ISSUED: Moment = Moment(1_780_000_000);

fn refresh_token(address: &str) -> String {
    format!("the refresh token of {address} from long ago").replace(' ', "-")
}

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end").join(format!("version-{version}"))
}

/// The configuration of that version, with this provider's servers.
fn configuration(version: &str, own: &str) -> String {
    let values = |key: &str| -> Vec<String> {
        let lines = own.lines().filter_map(|line| line.strip_prefix(&format!("{key} = ")));
        lines.map(|value| value.trim_matches('"').to_owned()).collect()
    };
    let [imap, pop3, smtp] = &values("port")[..] else { panic!("three servers: {own}") };
    let known = [("issuer", &values("issuer")[0]), ("ca_file", &values("ca_file")[0]), ("imap", imap)];
    let text = fs::read_to_string(folder(version).join("postkey.toml")).unwrap();
    let known = known.into_iter().chain([("pop3", pop3), ("smtp", smtp)]);
    known.fold(text, |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for path in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).unwrap();
            fs::set_permissions(target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// A house with that version's configuration, and without any state. Nothing runs.
async fn furnished(version: &str) -> House {
    House::empty(Security::Tls, Options::default(), |own| configuration(version, &own)).await
}

/// Logs in. Returns the last line of the answer.
async fn log_in(house: &House, protocol: Protocol, security: Security, user: &str, password: &str) -> String {
    house.program(protocol, security).await.log_in(Way::Own, user, password).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_and_configuration_of_older_versions_work() {
    for version in VERSIONS {
        let mut house = furnished(version).await;
        copy(&folder(version).join("state"), &house.config.state_dir);
        house.provider.adopt(ANN, &refresh_token(ANN));
        house.provider.change(|settings| settings.shared = vec![(OFFICE.into(), ANN.into())]);
        let listed = house.run(&["status"], "");
        assert!(listed.out.contains(ANN) && listed.out.contains(BEN), "{version}: {}{}", listed.out, listed.err);
        let record = |state: &Path| fs::read(state.join("copies").join(ANN)).unwrap();
        let (before, after) = (record(&folder(version).join("state")), record(&house.config.state_dir));
        assert_eq!(before, after, "{version}: nothing has to be repaired or converted");
        let process = house.serve().await;
        everything_works(&house, version).await;
        assert_eq!(house.provider.token_requests("refresh_token"), 1, "{version}: one refresh is enough for all");
        let ended = process.terminate();
        // The file's modes, and that root runs it, are the test's.
        let warnings = ended.err.lines().filter(|line| [" WARN ", "ERROR"].iter().any(|level| line.contains(level)));
        assert!(warnings.into_iter().all(|line| line.contains("postkey::cli::serve: ")), "{version}: {}", ended.err);
        let process = house.serve().await;
        everything_works(&house, version).await;
        assert_eq!(house.provider.token_requests("refresh_token"), 1, "{version}: the new tokens are stored");
        drop(process);
    }
}

async fn everything_works(house: &House, version: &str) {
    let status = house.status().await;
    assert!(status.damaged.is_empty() && status.degraded.is_none(), "{version}: {status:?}");
    let state = |address: &str| status.accounts.iter().find(|one| one.address == address).unwrap().state;
    assert_eq!((state(ANN), state(BEN)), (AccountState::Ready, AccountState::Ended), "{version}");
    let slots: Vec<_> = status.accounts[0].slots.iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(slots, ["main", "chosen", "sending"], "{version}");
    for (protocol, security, user, password) in [
        (Protocol::Imap, Security::Clear, ANN, GENERATED),
        (Protocol::Imap, Security::Tls, "A.Person@example.test", CHOSEN),
        (Protocol::Pop3, Security::StartTls, "ann", GENERATED),
        (Protocol::Smtp, Security::Clear, ANN, SENDING),
        (Protocol::Imap, Security::Clear, OFFICE, GENERATED),
    ] {
        let answer = log_in(house, protocol, security, user, password).await;
        assert!(accepted(protocol, &answer), "{version}: {user}: {answer}");
    }
    let limited = log_in(house, Protocol::Imap, Security::Clear, ANN, SENDING).await;
    assert!(limited.starts_with("a NO"), "{version}: {limited}");
    let ended = log_in(house, Protocol::Imap, Security::Clear, BEN, GENERATED).await;
    assert!(ended.contains("postkey authorize"), "{version}: {ended}");
}

/// The function that wrote the state, and the daemon that left it. Both stay as they are; a later version gets another folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the state of this version, once"]
async fn write_version() {
    let version = VERSIONS[VERSIONS.len() - 1];
    let mut house = furnished(version).await;
    let vault = Vault::open(&house.config.state_dir).unwrap();
    let [generated, chosen, sending] = [GENERATED, CHOSEN, SENDING].map(|text| Password::read(text.as_bytes()));
    for address in [ANN, BEN] {
        let tokens = TokenSet {
            access: Token::parse("an-access-token-from-long-ago").unwrap(),
            refresh: Token::parse(&refresh_token(address)),
            life: Life { issued: ISSUED, expires: ISSUED.after(3600) },
            scope: "mail".into(),
        };
        let authorization = postkey::vault::Authorization { tokens, ..house.grant(address) };
        vault.authorize(&authorization, Some(("main", &generated)), ISSUED).unwrap();
    }
    let only_smtp = Limits { protocols: vec!["smtp".into()], uids: Vec::new() };
    vault.add_slot(ANN, &generated, "chosen", &chosen, Limits::default(), ISSUED).unwrap();
    vault.add_slot(ANN, &generated, "sending", &sending, only_smtp, ISSUED).unwrap();
    vault.learn(ANN, Protocol::Imap, vec!["IMAP4rev1".into(), "IDLE".into()]).unwrap();
    vault.end(BEN, 1, Ended { at: ISSUED, why: "revoked".into() }).unwrap();
    drop(vault);
    drop(house.serve().await.terminate());
    copy(&house.config.state_dir, &folder(version).join("state"));
}
