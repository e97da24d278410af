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
    let status = house.run_beside(&["status", "--json"], "").await;
    assert_eq!(status.out.matches("somebody-with-a-rather-long-name-").count(), CROWD - 1);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    assert!(house.greeted(Protocol::Smtp, Security::Clear).await.ask("EHLO a").await.starts_with("250"));
}
