//! A secret leaves postkey only for its destination: not for logs, files, arguments or the environment.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use postkey::protocol::{Protocol, Security};

use crate::support::canaries::{assert_none, forms, hear, listen};
use crate::support::house::{ANN, House, Way, accepted};
use crate::support::process::Process;
use crate::support::{Options, TokenEndpoint};

const CHOSEN: &str = "Correct: horse & battery";
const WRONG: &str = "Wrong: horse & battery";

pub fn holds(text: &[u8], secret: &str) -> bool {
    forms(secret).iter().any(|form| text.windows(form.len()).any(|window| window == form))
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let encoded = |text: &str| BASE64_STANDARD_NO_PAD.encode(text);
    for text in [
        format!("x{CHOSEN}x"),
        encoded(&format!("user=ann\x01auth=Bearer {CHOSEN}\x01\x01")),
        encoded(&format!("\0ann@example.test\0{CHOSEN}")),
        encoded(&format!("{CHOSEN}?")),
        format!("{:?}", CHOSEN.as_bytes()),
        format!("{:x?}", CHOSEN).replace(CHOSEN, "436f72726563743a20686f72736520262062617474657279"),
        "password=Correct%3A+horse+%26+battery&x".to_owned(),
        CHOSEN.chars().rev().collect(),
        CHOSEN.bytes().map(|byte| format!("%{byte:02X}")).collect(),
    ] {
        assert!(holds(text.as_bytes(), CHOSEN) && !holds(text.as_bytes(), WRONG), "{text}");
    }
}

/// The search at the end of each test does find something.
#[test]
#[should_panic(expected = "a secret was shown: the password is Q29ycmVjdDogaG9yc2UgJiBiYXR0ZXJ5")]
fn a_test_that_hears_a_secret_fails() {
    let since = listen();
    assert_none(since, &[CHOSEN.to_owned()]);
    hear(format!("nothing\nthe password is {}\n", BASE64_STANDARD_NO_PAD.encode(CHOSEN)).as_bytes());
    assert_none(since, &[CHOSEN.to_owned()]);
}

/// Each house is searched: here for an address, which may be shown, in the place of a password.
#[tokio::test]
#[should_panic(expected = "a secret was shown")]
async fn the_log_of_a_house_is_searched_when_it_is_dropped() {
    let mut house = House::open().await;
    house.logged_in(Protocol::Imap).await;
    house.password = ANN.to_owned();
}

/// Every file in a folder and below it, with its content.
fn files(folder: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, about) = (entry.path(), entry.metadata().unwrap());
        let mode = about.permissions().mode() & 0o777;
        if about.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            found.extend(files(&path));
        } else {
            let bytes = if about.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            found.push((path.display().to_string(), mode, bytes));
        }
    }
    found
}

/// What anybody on this machine may see of a process, and what its user may.
fn seen_from_outside(process: &Process) -> Vec<u8> {
    let read = |name| std::fs::read(format!("/proc/{}/{name}", process.id())).unwrap();
    [read("cmdline"), read("environ")].concat()
}

async fn authorize(house: &House, password: &str, seen: &mut Vec<u8>) {
    let arguments = ["authorize", ANN, "--no-browser", "--password-stdin"];
    let is_new = !password.is_empty();
    let mut process = house.begin(&arguments[..if is_new { 4 } else { 3 }]);
    if is_new {
        process.say(password);
    }
    let url = process.hear("/authorize?").trim().to_owned();
    seen.extend(seen_from_outside(&process));
    process.say(house.provider.person().consent(&url, ANN).await.as_str());
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    seen.extend([ended.out, ended.err].concat().into_bytes());
}

async fn log_in(house: &House, way: Way, password: &str, succeeds: bool) {
    for protocol in Protocol::ALL {
        for security in [Security::Clear, Security::Tls] {
            let reply = house.program(protocol, security).await.log_in(way, ANN, password).await;
            assert_eq!(accepted(protocol, &reply), succeeds, "{reply}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_shows_a_secret_even_when_everything_is_logged() {
    let options =
        Options { client_secret: Some("client: secret+of/the=tests".into()), https: true, ..Options::default() };
    let mut house = House::empty(Security::StartTls, options, |config| format!("log = \"trace\"\n{config}")).await;
    let daemon = house.serve().await;
    let mut seen = Vec::new();
    authorize(&house, CHOSEN, &mut seen).await;
    seen.extend(seen_from_outside(&daemon));
    for way in Way::ALL {
        log_in(&house, way, CHOSEN, true).await;
    }
    house.provider.revoke_access_tokens();
    log_in(&house, Way::Own, CHOSEN, true).await;
    authorize(&house, "", &mut seen).await;
    log_in(&house, Way::Own, WRONG, false).await;
    let added = house.run(&["password", "add", ANN, "printer"], CHOSEN);
    let printer = added.out.split_whitespace().find(|word| word.len() == 30).unwrap().to_owned();
    log_in(&house, Way::Login, &printer, true).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::InvalidGrant);
    house.provider.revoke_access_tokens();
    log_in(&house, Way::Plain, CHOSEN, false).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    authorize(&house, "", &mut seen).await;
    log_in(&house, Way::Plain, CHOSEN, true).await;
    seen.extend(seen_from_outside(&daemon));
    let ended = daemon.terminate();
    assert!(ended.err.contains("refreshing the access token") && ended.err.contains("logged in"), "{}", ended.err);
    seen.extend([ended.out, ended.err].concat().into_bytes());

    let mut secrets = house.provider.secrets();
    assert!(secrets.len() > 10);
    secrets.extend([CHOSEN, WRONG, &printer, &printer.replace('-', "")].map(str::to_owned));
    let kept = files(&house.config.state_dir);
    assert!(!kept.is_empty());
    for secret in &secrets {
        assert!(!holds(&seen, secret), "{secret} was shown");
        for (path, _, bytes) in &kept {
            assert!(!holds(bytes, secret), "{secret} is in {path}");
        }
    }
}

/// At many providers, refresh tokens and access tokens are no longer than these, and nothing about their form shows
/// what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_short_token_that_a_server_repeats_is_shown_nowhere() {
    for (characters, bytes) in [(8, 6), (20, 15), (36, 27)] {
        let mut house = House::furnished(Security::Tls, |config| format!("log = \"trace\"\n{config}")).await;
        let daemon = house.serve().await;
        let old = house.provider.secrets();
        house.provider.change(|settings| (settings.token_length, settings.refresh_bytes) = (characters, bytes));
        house.provider.revoke_access_tokens();
        log_in(&house, Way::Plain, &house.password, true).await;
        let short: Vec<_> = house.provider.secrets().into_iter().filter(|secret| !old.contains(secret)).collect();
        assert_eq!(short.iter().map(String::len).collect::<Vec<_>>(), [characters; 2]);
        let mut seen = String::new();
        for (protocol, no) in Protocol::ALL.into_iter().zip(["NO", "-ERR", "535 5.7.8"]) {
            let no = format!("{no} the token {{token}} is not good");
            house.provider.change(|settings| settings.server_mut(protocol).refuse_login = Some(no));
            let reply = house.try_login(protocol).await;
            assert!(!accepted(protocol, &reply) && reply.contains("is not good"), "{reply}");
            seen += &reply;
        }
        seen += &daemon.terminate().err;
        house.provider.change(|settings| settings.imap.refuse_login = None);
        let daemon = house.serve().await;
        let repeats =
            serde_json::json!({"error": "invalid_grant", "error_description": "refused: {token} is not good"});
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Refuse(repeats));
        house.provider.revoke_access_tokens();
        let reply = house.try_login(Protocol::Imap).await;
        assert!(!accepted(Protocol::Imap, &reply), "{reply}");
        seen += &reply;
        let backup = house.config.state_dir.with_file_name("backup");
        for arguments in [&["status"][..], &["status", "--json"], &["metrics"], &["backup", backup.to_str().unwrap()]] {
            let ended = house.run_beside(arguments, "").await;
            seen.extend([ended.out, ended.err]);
        }
        assert!(seen.matches("is not good").count() > 4, "the reason is shown: {seen}");
        seen += &daemon.terminate().err;
        let kept = house.vault_bytes();
        let backup = std::fs::read(&backup).unwrap();
        let told = String::from_utf8_lossy(&backup).into_owned();
        assert!(told.contains("is not good"), "the backup has the reason, too: {told} {seen}");
        for secret in house.provider.secrets().iter().filter(|secret| !old.contains(secret)) {
            assert!(!holds(seen.as_bytes(), secret), "{secret} was shown: {seen}");
            assert!(!holds(&kept, secret) && !holds(&backup, secret), "{secret} is on the disk");
        }
    }
}

/// Whatever the umask is.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_postkey_keeps_is_for_its_user_alone() {
    for umask in ["umask 000", "umask 022"] {
        let mut house = House::empty(Security::Tls, Options::default(), |config| config).await;
        let daemon = house.serve_by(umask).await;
        let folder = &house.config.state_dir;
        authorize(&house, CHOSEN, &mut Vec::new()).await;
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{umask}");
        let files = files(folder);
        assert!(files.iter().any(|(path, ..)| path.ends_with("control")) && files.len() > 2);
        for (path, mode, _) in files {
            assert_eq!(mode, 0o600, "{umask}: {path}");
        }
        daemon.terminate();

        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let refused = house.run(&["status"], "");
        assert!(refused.code == Some(74) && refused.err.contains("chmod go= "), "{}", refused.err);
    }
}
