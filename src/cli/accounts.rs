//! The account with the address that somebody has typed.

use super::admin::AdminClient;
use crate::broker::{AccountStatus, Selection};
use crate::config::Config;
use crate::control::{ControlRequest, Status};
use crate::exit::{Exit, Failed};
use crate::vault::VaultError;

/// How many letters may be wrong, missing, too many or swapped in a typing error. Two would turn Ben into Ann.
const TYPING_ERROR: usize = 1;

/// The status of the account with this address, or of the one that shares its authorization with it. A damaged record is in
/// the status, too.
pub async fn find(config: &Config, admin: &AdminClient<'_>, address: &str) -> Result<Status, Failed> {
    let status = select(admin, config.owner_of(address)).await?;
    if is_missing(&status) { Err(missing(config, admin, address).await) } else { Ok(status) }
}

/// The listeners, and the status of this account if it exists.
pub async fn select(admin: &AdminClient<'_>, address: &str) -> Result<Status, Failed> {
    let selection = Selection { address: Some(address.to_owned()), ..Selection::default() };
    admin.ask(ControlRequest::Select(selection)).await
}

/// Whether the account that was selected does not exist, not even as a damaged record.
pub fn is_missing(status: &Status) -> bool {
    status.accounts.is_empty() && status.damaged.is_empty()
}

/// The failure if there is no account with this address. It asks for all accounts, because another address may be meant.
pub async fn missing(config: &Config, admin: &AdminClient<'_>, address: &str) -> Failed {
    let status = match admin.status().await {
        Ok(status) => status,
        Err(failed) => return failed,
    };
    match nearest(&status, address) {
        Some(near) => Failed::new(
            Exit::NoUser,
            format!(
                "there is no account {address}; did you mean {near}? `postkey authorize ADDRESS` sets up a new one"
            ),
        ),
        None => VaultError::NoAccount(config.owner_of(address).to_owned()).into(),
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
