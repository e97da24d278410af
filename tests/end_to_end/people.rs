//! What `notify_command` receives: a real program gets every event once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postkey::protocol::{Protocol, Security};

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, House, LIFE, Way, skip, until};

const DAY: u64 = 24 * 3600;

/// A program that writes down what it receives.
const SCRIPT: &str =
    "#!/bin/sh\necho \"$POSTKEY_EVENT $POSTKEY_ACCOUNT $1: $POSTKEY_REASON\" >>\"$(dirname \"$0\")/told\"\n";

/// Each house's program has a separate folder in the build's folder, which the next run uses again.
static HOUSES: AtomicU32 = AtomicU32::new(0);

/// A house with that program, whose provider has this additional line in its configuration.
async fn house_with(line: &str) -> House {
    let number = HOUSES.fetch_add(1, Ordering::Relaxed).to_string();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("people").join(number);
    let _absent = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("tell");
    std::fs::write(&program, SCRIPT).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let command = format!("notify_command = [{program:?}, \"as argued\"]\n");
    House::with(Security::Tls, |config| command + &config.replace("mechanisms = ", &format!("{line}\nmechanisms = ")))
        .await
}

/// What the program has written down, by line.
fn told(house: &House) -> Vec<String> {
    let file = std::path::Path::new(&house.config.notify_command[0]).with_file_name("told");
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits for this many lines. Returns the last one.
async fn until_told(house: &House, count: usize) -> String {
    until("that somebody is told", async || told(house).len() >= count).await;
    let told = told(house);
    assert_eq!(told.len(), count, "{told:?}");
    told.last().cloned().unwrap_or_default()
}

/// Makes postkey check again, and asserts that there were only this many notices. Nothing is under way that could still
/// send one.
async fn settle(house: &House, count: usize) {
    for _ in 0..2 {
        skip(Duration::from_secs(61)).await;
        house.state().await;
        let _reply = house.program(Protocol::Pop3, Security::Clear).await.log_in(Way::Plain, ANN, "wrong").await;
    }
    until_told(house, count).await;
}

#[tokio::test]
async fn the_end_of_an_authorization_and_the_end_of_that() {
    let mut house = house_with("").await;
    house.provider.end_grant(ANN);
    house.pass(LIFE);
    let reply = house.try_login(Protocol::Pop3).await;
    let line = until_told(&house, 1).await;
    assert!(
        line.starts_with(&format!("person-needed {ANN} as argued: The authorization of {ANN} has ended (")),
        "{line}"
    );
    assert!(reply.starts_with("-ERR [SYS/PERM] ") && line.contains(&reply[16..80]), "{line} and {reply}");
    settle(&house, 1).await;
    house.restart().await;
    house.try_login(Protocol::Pop3).await;
    settle(&house, 1).await;
    house.authorize(ANN, None).await;
    assert!(until_told(&house, 2).await.starts_with(&format!("settled {ANN} ")));
    settle(&house, 2).await;
    house.restart().await;
    settle(&house, 2).await;
}

#[tokio::test]
async fn a_wrong_setting_and_its_correction() {
    let mut house = house_with("").await;
    house.pass(LIFE);
    let body = serde_json::json!({"error": "invalid_client", "error_description": "AADSTS7000222: Expired."});
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Refuse(body));
    house.try_login(Protocol::Imap).await;
    let line = until_told(&house, 1).await;
    assert!(line.starts_with("person-needed ") && line.contains("the client secret has expired"), "{line}");
    settle(&house, 1).await;
    house.restart().await;
    house.try_login(Protocol::Pop3).await;
    settle(&house, 1).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    house.reload().await;
    house.logged_in(Protocol::Imap).await.prove().await;
    assert!(until_told(&house, 2).await.starts_with("settled "));
}

#[tokio::test]
async fn a_temporary_failure_is_not_notified() {
    let house = house_with("").await;
    house.pass(LIFE);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(503));
    house.try_login(Protocol::Pop3).await;
    skip(Duration::from_secs(61)).await;
    house.try_login(Protocol::Pop3).await;
    assert_eq!(told(&house), [""; 0]);
}

#[tokio::test]
async fn the_age_of_a_sealed_refresh_token() {
    let mut house = house_with("refresh_token_life = 90").await;
    house.pass(59 * DAY);
    skip(Duration::from_secs(61)).await;
    house.state().await;
    assert_eq!(told(&house), [""; 0]);
    // It is checked at each start, and every minute.
    for (days, times) in [(2, 1), (20, 1), (3, 2), (4, 2), (1, 3), (1, 3)] {
        house.pass(days * DAY);
        house.restart().await;
        let line = until_told(&house, times).await;
        assert!(
            line.starts_with(&format!("ends-soon {ANN} ")) && line.contains("log in with a mail program"),
            "{line}"
        );
        settle(&house, times).await;
    }
    house.pass(LIFE);
    house.logged_in(Protocol::Pop3).await.prove().await;
    settle(&house, 3).await;
}

/// The date in the certificate, if the configuration does not have one.
#[tokio::test]
async fn the_end_of_a_client_certificate() {
    let mut certificate = rcgen::CertificateParams::new(["client.test".to_owned()]).unwrap();
    certificate.not_after = rcgen::date_time_ymd(2027, 2, 1);
    let pem = certificate.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.pem");
    std::fs::write(&file, pem).unwrap();
    let key = crate::support::assertions::key_file();
    let house = house_with(&format!("client_key.file = {key:?}\nclient_certificate = {file:?}")).await;
    let line = until_told(&house, 1).await;
    assert!(line.starts_with("ends-soon ") && line.contains("certificate of own"), "{line}");
}

#[tokio::test]
async fn the_end_of_a_client_secret() {
    // The houses' clock begins on 2027-01-15.
    let mut house = house_with("client_expires = \"2027-02-20\"").await;
    settle(&house, 0).await;
    house.pass(5 * DAY);
    house.restart().await;
    settle(&house, 0).await;
    for (days, times) in [(5, 1), (19, 2), (6, 3), (1, 3)] {
        house.pass(days * DAY);
        house.restart().await;
        let line = until_told(&house, times).await;
        assert!(
            line.starts_with("ends-soon  as argued: the client secret or certificate of own expires on 2027-02-20"),
            "{line}"
        );
        settle(&house, times).await;
    }
}
