//! `postkey authorize --from`: all accounts of a file, without a person.

use std::collections::BTreeMap;

use postkey::vault::Vault;
use postkey::vault::password::Password;
use rustix::process::Signal;

use crate::grants::{CLIENT, asked, expect, house, live_on};
use crate::support::Options;
use crate::support::house::{ANN, BEN, House};

/// A file beside the configuration, with this content.
fn list(house: &House, content: impl AsRef<[u8]>) -> String {
    let file = house.file.with_file_name("list");
    std::fs::write(&file, content).unwrap();
    file.to_str().unwrap().to_owned()
}

fn addresses(count: usize) -> String {
    (0..count).map(|number| format!("u{number:03}@example.test\n")).collect()
}

/// The passwords in these outputs, by address. Of several, the last one counts, as in a file to which they are appended.
fn passwords(output: &str) -> BTreeMap<&str, &str> {
    output.lines().map(|line| line.split_once(' ').expect("an address and a password")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_accounts_of_a_file_are_authorized_and_a_second_run_does_the_rest() {
    let mut house = house(Options::default(), CLIENT).await;
    let file = list(&house, format!("# everybody\n{ANN}\n\nzoe@unknown.test\n{}", addresses(30)));
    let first = house.run(&["authorize", "--from", &file, "--password-name", "first"], "");
    expect(&first, 64, "31 authorized, 0 already authorized, 1 failed");
    expect(&first, 64, &format!("{file}:4: zoe@unknown.test: its provider is unknown"));
    assert_eq!(asked(&house, "client_credentials"), 31);
    let known = passwords(&first.out);
    assert_eq!(known.len(), 31, "{}", first.out);
    let file = list(&house, format!("Ann@Example.test\r\n{}late@example.test\n", addresses(30)));
    let second = house.run(&["authorize", "--from", &file, "--provider", "own"], "");
    expect(&second, 0, "1 authorized, 31 already authorized");
    assert!(second.out.starts_with("late@example.test ") && second.out.lines().count() == 1, "{}", second.out);
    let daemon = house.serve().await;
    live_on(&house, known[ANN]).await;
    expect(&house.run(&["authorize", "--from", &file], ""), 0, "0 authorized, 32 already authorized");
    assert!(house.run(&["password", "list", ANN], "").out.starts_with("first "));
    let file = list(&house, BEN);
    expect(&house.run(&["authorize", "--from", &file], ""), 0, "1 authorized, 0 already authorized");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refresh_tokens_of_a_file_are_taken_over() {
    let mut house = house(Options::default(), "").await;
    let (_, anns) = house.provider.grant_for(ANN, "mail openid");
    let (_, bens) = house.provider.grant_for(BEN, "mail openid");
    let file = list(&house, format!("{ANN} {anns}\nu1@example.test {bens}\nu2@example.test\n{BEN} of-nobody\n"));
    let ended = house.run(&["authorize", "--from", &file], "");
    assert!(ended.code != Some(0), "{}", ended.out);
    for words in [
        "1 authorized, 0 already authorized, 3 failed".to_owned(),
        format!(":2: u1@example.test: {BEN} has signed in"),
        ":3: u2@example.test: the grant authorization-code needs a person".to_owned(),
        format!(":4: {BEN}: the provider gave no tokens"),
    ] {
        assert!(ended.err.contains(&words), "{words:?} is not in {}", ended.err);
    }
    assert!(![&anns, &bens].into_iter().any(|token| ended.err.contains(token)), "{}", ended.err);
    let known = passwords(&ended.out);
    assert_eq!(known.keys().collect::<Vec<_>>(), [&ANN]);
    let _daemon = house.serve().await;
    live_on(&house, known[ANN]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_with_a_mistake_changes_nothing() {
    let house = house(Options::default(), CLIENT).await;
    let other = format!("{ANN}\nben@example.test\nANN@Example.test\n");
    for (content, code, words) in [
        (b"ann\nben@example.test one two\n".to_vec(), 65, ":1: the first word must be an address"),
        (b"ann\nben@example.test one two\n".to_vec(), 65, ":2: there is more than an address and a refresh token"),
        (other.into_bytes(), 65, ":3: ann@example.test is in line 1, too"),
        (b"1//secret-token ann@example.test\n".to_vec(), 65, ":1: the first word must be an address"),
        (b"ann@example.test\n\xff\xfea\0n\0\n".to_vec(), 65, ":2: the line is not UTF-8"),
        (b"postkey-backup 1 x\n{\n".repeat(1000), 65, "and 1980 more mistakes"),
        (b"# nobody\n\n".to_vec(), 65, ":1: there is no address in the file"),
        (Vec::new(), 65, ":1: there is no address in the file"),
    ] {
        let ended = house.run(&["authorize", "--from", &list(&house, content)], "");
        expect(&ended, code, words);
        assert!(ended.out.is_empty() && !ended.err.contains("secret-token"), "{}{}", ended.out, ended.err);
    }
    expect(&house.run(&["authorize", "--from", "missing"], ""), 74, "cannot read missing: ");
    expect(&house.run(&["authorize", "--from", "."], ""), 74, "it is not a file");
    let file = list(&house, ANN);
    for other in [ANN, "--refresh-token-stdin", "--password-stdin"] {
        expect(&house.run(&["authorize", "--from", &file, other], ""), 64, "cannot be used with");
    }
    expect(&house.run(&["authorize"], ""), 64, "<ADDRESS>");
    assert_eq!(asked(&house, ""), 0);
    assert!(house.run(&["status"], "").out.contains("There is no account yet"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_is_continued_and_no_password_is_lost() {
    const ALL: usize = 150;
    let house = house(Options::default(), CLIENT).await;
    let file = list(&house, addresses(ALL));
    let mut shown = String::new();
    for signal in [Signal::INT, Signal::KILL] {
        let mut process = house.begin(&["authorize", "--from", &file]);
        shown += &format!("{}\n", process.hear("@example.test ").trim_end());
        process.signal(signal);
        let ended = process.end();
        shown += &ended.out;
        if signal == Signal::INT {
            expect(&ended, 75, "; interrupted; run the command again for the rest");
        }
    }
    let before = passwords(&shown).len();
    assert!((2..ALL).contains(&before), "{before} accounts before the end");
    let ended = house.run(&["authorize", "--from", &file], "");
    // A killed process may have printed a password without storing it.
    expect(&ended, 0, " already authorized, 0 failed");
    shown += &ended.out;
    let known = passwords(&shown);
    assert_eq!(known.len(), ALL);
    let vault = Vault::open_in_turn(&house.config.state_dir).await.unwrap();
    for (address, password) in known {
        assert!(vault.unlock(address, &Password::read(password.as_bytes())).is_ok(), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_refuses_everybody_is_not_asked_for_everybody() {
    let house = house(Options::default(), CLIENT).await;
    house.provider.change(|settings| settings.token_endpoint = crate::support::TokenEndpoint::Status(503));
    let ended = house.run(&["authorize", "--from", &list(&house, addresses(60))], "");
    expect(&ended, 75, "; stopped after 20 failures in a row; run the command again for the rest");
    assert!(asked(&house, "") < 60 && ended.out.is_empty(), "{}", asked(&house, ""));
}
