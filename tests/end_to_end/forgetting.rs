//! What nobody needs any more is revoked at the provider (RFC 7009). If that fails, postkey says so. The account is
//! removed in any case.

use postkey::protocol::{Protocol, Security};

use crate::support::Options;
use crate::support::house::{ANN, BEN, House};
use crate::support::process::Ended;

/// Runs `forget` for Ann; `input` is what it reads.
fn forget(house: &House, options: &[&str], input: &str) -> Ended {
    house.run(&[&["forget", ANN], options].concat(), input)
}

/// The account is gone, and this is reported of the authorization.
fn expect(house: &House, ended: &Ended, told: &str, is_revoked: bool) {
    let said = format!("{}{}", ended.out, ended.err);
    assert_eq!(ended.code, Some(0), "{said}");
    assert!(said.contains("has been removed") && said.contains(told), "{said}");
    let revocations = house.provider.revocations();
    let all = ["refresh_token", "access_token"];
    assert_eq!(revocations, if is_revoked { &all[..] } else { &[] });
    assert_eq!(house.provider.memory().has_ended(ANN), is_revoked);
    assert!(house.run(&["status"], "").out.contains("no account"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_open_account_is_withdrawn_and_a_sealed_one_with_an_app_password() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let password = format!("{}\n", house.password);
    let _daemon = house.serve().await;
    house.logged_in(Protocol::Pop3).await.prove().await;
    expect(&house, &forget(&house, &[], ""), "has revoked", true);

    for daemon in [true, false] {
        let mut house = House::furnished(Security::Tls, |config| config).await;
        let password = password.replace(password.trim(), &house.password);
        let _daemon = if daemon { Some(house.serve().await) } else { None };
        let wrong = forget(&house, &["--revoke"], "wrong-password\n");
        assert_eq!(wrong.code, Some(77), "{}", wrong.err);
        assert!(house.run(&["status"], "").out.contains(ANN), "nothing was changed");
        expect(&house, &forget(&house, &["--revoke"], &password), "has revoked", true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_failed_revocation_is_reported() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let _daemon = house.serve().await;
    expect(&house, &forget(&house, &[], ""), "only an app password decrypts the tokens", false);

    let without = |config: String| {
        let lines = config.lines().filter(|line| !line.starts_with("revocation_endpoint"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut house = House::furnished(Security::Tls, without).await;
    let _daemon = house.serve().await;
    house.logged_in(Protocol::Pop3).await.prove().await;
    expect(&house, &forget(&house, &[], ""), "no revocation endpoint", false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_provider_that_fails_does_not_keep_the_account_here() {
    for status in [503, 400, 302] {
        let mut house = House::furnished(Security::Tls, |config| config).await;
        let _daemon = house.serve().await;
        house.logged_in(Protocol::Pop3).await.prove().await;
        house.provider.change(|settings| settings.revocation_status = status);
        let ended = forget(&house, &[], "");
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.err.contains("still holds") && ended.err.contains(&status.to_string()), "{}", ended.err);
        assert_eq!(house.provider.revocations(), ["refresh_token"]);
        assert!(house.run(&["status"], "").out.contains("no account"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_tokens_of_somebody_else_are_given_back() {
    let mut house = House::empty(Security::Tls, Options::default(), |config| config).await;
    let _daemon = house.serve().await;
    let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    process.say(house.provider.person().consent(&url, BEN).await.as_str());
    // This is said last.
    process.hear_complaint("ben@example.test has signed in");
    assert_eq!(house.provider.revocations().len(), 2);
    assert!(house.provider.memory().has_ended(BEN));
}

/// Some providers end all authorizations of a person together with one.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_tokens_of_somebody_who_has_an_account_here_are_left_alone() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let _daemon = house.serve().await;
    let mut process = house.begin(&["authorize", BEN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    process.say(house.provider.person().consent(&url, ANN).await.as_str());
    // It tries once more.
    process.hear("/authorize?");
    assert_eq!(house.provider.revocations(), [""; 0]);
    drop(process.terminate());
    house.logged_in(Protocol::Pop3).await.prove().await;
}
