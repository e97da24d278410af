//! `postkey backup` and `postkey restore`.
//!
//! The command reads and writes the file, not the daemon: so it is the caller's rights that count, and the daemon needs none
//! outside its own folder.

use std::path::Path;

use super::hand::Hand;
use super::terminal::say;
use crate::config::Config;
use crate::control::Request;
use crate::exit::{Exit, Failed};
use crate::vault::Restored;
use crate::vault::backup::Backup;

/// Writes all accounts to a file.
pub async fn backup(config: &Config, file: &Path) -> Result<(), Failed> {
    let hand = Hand::reach(config).await?;
    let status = hand.status().await?;
    let mut backup = Backup::default();
    for account in &status.accounts {
        let address = account.address.clone();
        backup.add(address.clone(), hand.ask(Request::Export { address }).await?.exported()?);
    }
    backup
        .write(file)
        .map_err(|error| Failed::new(Exit::Io, format!("the backup {} cannot be written: {error}", file.display())))?;
    for account in &status.accounts {
        say(format_args!("{}: in the backup", account.address));
    }
    match status.damaged.is_empty() {
        true => Ok(()),
        false => Err(Failed::new(
            Exit::Io,
            format!("damaged in the vault and not in the backup: {}", status.damaged.join(", ")),
        )),
    }
}

/// Puts the accounts of a backup in place.
pub async fn restore(config: &Config, file: &Path, force: bool) -> Result<(), Failed> {
    let backup = Backup::read(file)
        .map_err(|error| Failed::new(Exit::Io, format!("the backup {} cannot be read: {error}", file.display())))?;
    let backup = backup.ok_or_else(|| {
        let what = "is damaged, or no backup that this version reads; nothing was changed";
        Failed::new(Exit::Data, format!("{} {what}", file.display()))
    })?;
    let hand = Hand::reach(config).await?;
    for (address, record) in backup.records() {
        let request = Request::Restore { address: address.clone(), record, force };
        say(match hand.ask(request).await?.restored()? {
            Restored::Done => format!("{address}: restored"),
            Restored::Same => format!("{address}: is as in the backup"),
            Restored::Newer => format!("{address}: left alone, it is newer than the backup; --force replaces it"),
        });
    }
    Ok(())
}
