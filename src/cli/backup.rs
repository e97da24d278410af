//! `postkey backup` and `postkey restore`.
//!
//! The command reads and writes the file itself. So the caller's permissions count, and the daemon needs no access
//! outside its own folder.

use std::path::Path;

use super::admin::AdminClient;
use super::progress::Progress;
use super::terminal::{complain, say};
use crate::config::Config;
use crate::control::ControlRequest;
use crate::exit::{Exit, Failed};
use crate::vault::backup::Backup;
use crate::vault::{Restored, StoredAccount};

/// Writes all accounts to a file.
pub async fn backup(config: &Config, file: &Path) -> Result<(), Failed> {
    let admin = AdminClient::connect(config).await?;
    let status = admin.status().await?;
    let mut backup = Backup::default();
    let mut progress = Progress::new(status.accounts.len());
    for account in &status.accounts {
        let address = account.address.clone();
        backup.add(address.clone(), admin.ask(ControlRequest::Export { address }).await?);
        progress.step();
    }
    let is_brief = progress.is_shown();
    drop(progress);
    backup
        .write(file)
        .map_err(|error| Failed::new(Exit::Io, format!("cannot write the backup {}: {error}", file.display())))?;
    for account in status.accounts.iter().filter(|_| !is_brief) {
        say(format_args!("{}: backed up", account.address));
    }
    if is_brief {
        say(format_args!("{} accounts backed up", status.accounts.len()));
    }
    if status.accounts.is_empty() {
        say("There is no account yet, so the backup is empty.");
    }
    match status.damaged.is_empty() {
        true => Ok(()),
        false => Err(Failed::new(
            Exit::Io,
            format!(
                "the backup lacks these accounts, because the vault's records of them are damaged: {}",
                status.damaged.join(", ")
            ),
        )),
    }
}

/// Restores the accounts of a backup.
pub async fn restore(config: &Config, file: &Path, force: bool) -> Result<(), Failed> {
    let backup = Backup::read(file)
        .map_err(|error| Failed::new(Exit::Io, format!("cannot read the backup {}: {error}", file.display())))?;
    let unreadable = "is damaged, or not a backup that this version can read; nothing was changed";
    let backup = backup.ok_or_else(|| Failed::new(Exit::Data, format!("{} {unreadable}", file.display())))?;
    let admin = AdminClient::connect(config).await?;
    for account in backup.accounts() {
        differences(config, &account).iter().for_each(complain);
    }
    let records = backup.records();
    let mut progress = Progress::new(records.len());
    let (is_brief, [mut done, mut same, mut newer]) = (progress.is_shown(), [0; 3]);
    for (address, record) in records {
        let request = ControlRequest::Restore { address: address.clone(), record, force };
        let restored = admin.ask::<Restored>(request).await?;
        let (count, what) = match restored {
            Restored::Done => (&mut done, "restored"),
            Restored::Same => (&mut same, "unchanged, the same as in the backup"),
            Restored::Newer => (&mut newer, "kept, because it is newer than the backup; `--force` replaces it"),
        };
        *count += 1;
        // Each account that was not restored is named, even if the others are only counted.
        if !is_brief || restored == Restored::Newer {
            progress.hide();
            say(format_args!("{address}: {what}"));
        }
        progress.step();
    }
    drop(progress);
    if is_brief {
        say(format_args!("{done} accounts restored, {same} unchanged, {newer} kept"));
    }
    Ok(())
}

/// Lists where an account's unencrypted part differs from the configuration. A record from elsewhere decides where its
/// tokens are sent, so the user should know.
fn differences(config: &Config, account: &StoredAccount) -> Vec<String> {
    let (address, name) = (&account.address, &account.provider);
    let Some(provider) = config.providers.get(name) else {
        return vec![format!("{address}: its provider in the backup is {name}, which the configuration does not have")];
    };
    let mut differences = Vec::new();
    let expected = &config.account(address).provider;
    if let Some(expected) = expected.as_ref().filter(|expected| *expected != name) {
        differences
            .push(format!("{address}: its provider is {name} in the backup, but {expected} in the configuration"));
    }
    let Some(discovered) = &account.discovered else { return differences };
    if let Some(issuer) = provider.issuer.as_ref().filter(|issuer| **issuer != discovered.issuer) {
        let found = &discovered.issuer;
        differences.push(format!("{address}: its issuer is {found} in the backup, but {issuer} in the configuration"));
    }
    for (endpoint, url) in discovered.endpoints.named() {
        let configured = provider.endpoints.named().find(|(name, _)| *name == endpoint);
        if configured.is_none_or(|(_, configured)| configured != url) {
            differences.push(format!(
                "{address}: the backup names {url} as the {endpoint} endpoint, and the configuration does not"
            ));
        }
    }
    differences
}
