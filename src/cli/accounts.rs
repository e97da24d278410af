//! Whether there is an account with the address that somebody has typed.

use crate::broker::AccountStatus;
use crate::config::Config;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::vault::VaultError;

/// How many letters may be wrong, missing, too many or swapped in a typing error. Two would turn Ben into Ann.
const TYPING_ERROR: usize = 1;

/// Fails if there is no account with this address, and none that shares its authorization with it.
pub fn check(config: &Config, status: &Status, address: &str) -> Result<(), Failed> {
    let owner = config.owner_of(address);
    if status.account(owner).is_some() || status.damaged.iter().any(|damaged| damaged == owner) {
        return Ok(());
    }
    match nearest(status, address) {
        Some(near) => Err(Failed::new(
            Exit::NoUser,
            format!(
                "there is no account {address}; did you mean {near}? `postkey authorize ADDRESS` sets up a new one"
            ),
        )),
        None => Err(VaultError::NoAccount(owner.to_owned()).into()),
    }
}

/// The address or alias that somebody may have meant.
fn nearest<'a>(status: &'a Status, typed: &str) -> Option<&'a str> {
    let distance = |known: &str| match known.split_once('@') {
        Some((local, _)) if local == typed => 0,
        _ => strsim::osa_distance(typed, known),
    };
    let of_account = |account: &'a AccountStatus| account.aliases.iter().chain([&account.address]);
    let known = status.accounts.iter().flat_map(of_account).map(|known| (distance(known), known.as_str()));
    known.min().filter(|(distance, _)| *distance <= TYPING_ERROR).map(|(_, known)| known)
}
