//! A whole organization with one postkey.

use postkey::clock::Moment;
use postkey::config::flow::Flow;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Authorization, Secrets, Vault};

use crate::support::house::{House, accepted};

const CROWD: usize = 1500;

/// Puts an account that nobody has used yet into the vault of a house without a daemon.
fn settle(vault: &Vault, address: String, password: &Password) {
    let life = Life { issued: Moment(1_000_000), expires: Moment(1_003_600) };
    let tokens =
        TokenSet { access: Token::parse("a").unwrap(), refresh: Token::parse("r"), life, scope: "mail".into() };
    let (provider, flow, secrets) = ("own".to_owned(), Flow::AuthorizationCode, Secrets::default());
    let authorization = Authorization { address, provider, flow, client_id: None, secrets, discovered: None, tokens };
    vault.authorize(&authorization, Some(("main", password)), Moment(1_000_000)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_with_1500_accounts() {
    let mut house = House::open().await;
    house.stop().await;
    let (vault, password) = (Vault::open_in_turn(&house.config.state_dir).await.unwrap(), Password::generate());
    for number in 0..CROWD {
        settle(&vault, format!("somebody-with-a-rather-long-name-{number:04}@example.test"), &password);
    }
    drop(vault);
    house.start().await;
    let somebody = "somebody-with-a-rather-long-name-0700@example.test";
    let shown = String::from_utf8(password.expose()).unwrap();
    for (arguments, input) in [
        (&["status"][..], ""),
        (&["password", "list", somebody], ""),
        (&["password", "add", somebody, "other"], &format!("{shown}\n")),
        (&["backup", "all"], ""),
        (&["restore", "all"], ""),
        (&["forget", somebody], ""),
    ] {
        let ended = house.run_beside(arguments, input).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
    }
    let bob = "somebody-with-a-rather-long-name-0701@example.test";
    for (arguments, shown) in
        [(&["status", bob][..], 1), (&["status", "--needs-person"], 0), (&["status", "--provider", "own"], CROWD)]
    {
        let status = house.run_beside(arguments, "").await;
        let lines = status.out.lines().filter(|line| line.contains(" (own): ready"));
        assert_eq!((status.code, lines.count()), (Some(0), shown), "{arguments:?}: {}", status.err);
    }
    let lines = house.run_beside(&["status", "--json-lines", "--provider", "own"], "").await.out;
    let address = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["address"].clone();
    assert_eq!((lines.lines().count(), lines.lines().map(address).filter(|one| one == bob).count()), (CROWD, 1));
    let unknown = house.run_beside(&["status", "somebody-with-a-rather-long-name-9999@example.test"], "").await;
    assert_eq!(unknown.code, Some(67), "{}", unknown.out);
    let metrics = house.run_beside(&["metrics"], "").await.out;
    let total = format!("postkey_accounts{{provider=\"own\",state=\"ready\"}} {CROWD}\n");
    assert!(metrics.contains(&total) && metrics.len() < 20_000, "{metrics}");
    let status = house.run_beside(&["status", "--json"], "").await;
    assert_eq!(status.out.matches("somebody-with-a-rather-long-name-").count(), CROWD - 1);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    assert!(house.greeted(Protocol::Smtp, Security::Clear).await.ask("EHLO a").await.starts_with("250"));
}
