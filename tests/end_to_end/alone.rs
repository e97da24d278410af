//! Commands while no daemon runs: they open the vault themselves, and lose what they cannot write.

use std::time::Duration;

use postkey::protocol::Security;
use rustix::process::Signal;

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, House, until};
use crate::support::tmpfs::Tmpfs;

/// The time of the last refresh or authorization.
fn refreshed(house: &House) -> serde_json::Value {
    let ended = house.run(&["status", "--json"], "");
    let status: serde_json::Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{}", ended.err));
    status["accounts"][0]["token_refreshed"].clone()
}

/// The houses' clock is ahead of a command's, so its first login needs a new token.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_new_token_is_asked_for_that_could_not_be_stored() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = format!("state_dir = {:?}", disk.path().join("state"));
    let house = House::furnished(Security::Tls, |config| config.replace("state_dir = \"state\"", &state)).await;
    disk.fill();
    for command in ["test", "doctor"] {
        let ended = house.run(&[command, ANN], &house.password);
        assert!(ended.code.is_some_and(|code| code != 0), "{command}: {}{}", ended.out, ended.err);
        assert!((ended.out + &ended.err).contains("requested no new tokens"), "{command} says why");
        assert_eq!(house.provider.requests().len(), 0, "{command} has spent no refresh token");
    }
    disk.empty();
    let ended = house.run(&["test", ANN], &house.password);
    assert_eq!((ended.code, house.provider.requests().len()), (Some(0), 1), "{}{}", ended.out, ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_interrupt_waits_for_the_refresh_that_is_on_the_wire() {
    let house = House::furnished(Security::Tls, |config| config).await;
    let before = refreshed(&house);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Delay(Duration::from_secs(1)));
    let mut command = house.begin(&["test", ANN]);
    command.say(&house.password);
    until("a request for a token", async || house.provider.requests().len() == 1).await;
    command.signal(Signal::INT);
    let ended = tokio::task::spawn_blocking(|| command.end()).await.unwrap();
    assert!(ended.code == Some(75) && ended.err.contains("interrupted"), "{:?} {}", ended.code, ended.err);
    assert_ne!(refreshed(&house), before, "what it has brought is stored");
}
