//! `postkey vault`: copies the vault between files and PostgreSQL, and upgrades the tables there.

use std::path::PathBuf;
use std::sync::Arc;

use super::arguments::VaultCommand;
use super::progress::Progress;
use super::terminal::say;
use crate::broker::{self, Folder, Migrated};
use crate::config::Config;
use crate::exit::{Exit, Failed};
use crate::vault::{Restored, Vault};

pub async fn run(config: &Config, command: VaultCommand) -> Result<(), Failed> {
    match command {
        VaultCommand::Copy { from: Some(folder), .. } => {
            if !Vault::is_in(&folder) {
                let why = format!("there is no vault in {}; name the state_dir of a postkey", folder.display());
                return Err(Failed::new(Exit::Data, why));
            }
            copy(config, Place::Files(folder), Place::Database).await
        }
        VaultCommand::Copy { to, .. } => {
            copy(config, Place::Database, Place::Files(to.unwrap_or_default())).await
        }
        VaultCommand::Migrate => migrate(config).await,
    }
}

/// Where a vault is.
enum Place {
    /// In this folder.
    Files(PathBuf),
    /// In the PostgreSQL of the configuration.
    Database,
}

impl Place {
    async fn open(&self, config: &Config) -> Result<Vault, Failed> {
        Ok(match self {
            Self::Files(folder) => Vault::open_in_turn(folder).await?,
            Self::Database => broker::open_database(config, Folder::Free).await?,
        })
    }
}

/// Copies all accounts. Then opens the destination again, because only what can be read there has been copied.
async fn copy(config: &Config, from: Place, to: Place) -> Result<(), Failed> {
    let source = Arc::new(from.open(config).await?);
    let target = to.open(config).await?;
    let vault = Arc::clone(&source);
    let copied = blocking(move || copy_all(&vault, &target)).await?;
    let (vault, target) = (Arc::clone(&source), to.open(config).await?);
    let kept = copied.kept.clone();
    blocking(move || verify(&vault, &target, &kept)).await?;
    say(format_args!(
        "{} accounts copied and verified, {} were the same, {} kept because they are newer there",
        copied.done,
        copied.same,
        copied.kept.len()
    ));
    match source.damaged() {
        none if none.is_empty() => Ok(()),
        damaged => Err(Failed::new(
            Exit::Io,
            format!("not copied, because the records of these accounts are damaged: {}", damaged.join(", ")),
        )),
    }
}

/// What became of the accounts.
#[derive(Default)]
struct Copied {
    done: usize,
    same: usize,
    /// The addresses whose records are newer at the destination.
    kept: Vec<String>,
}

fn copy_all(source: &Vault, target: &Vault) -> Result<Copied, Failed> {
    let accounts = source.accounts();
    let mut progress = Progress::new(accounts.len());
    let mut copied = Copied::default();
    for account in accounts {
        let address = &account.address;
        match target.restore(address, &source.export(address)?, false)? {
            Restored::Done => copied.done += 1,
            Restored::Same => copied.same += 1,
            Restored::Newer => {
                progress.hide();
                say(format_args!("{address}: kept, because it is newer at the destination"));
                copied.kept.push(address.clone());
            }
        }
        progress.step();
    }
    // A full disk is not an error of a write, because a daemon would go on from memory.
    match target.trouble() {
        None => Ok(copied),
        Some(trouble) => Err(Failed::new(Exit::Io, format!("cannot store the copies: {}", trouble.why))),
    }
}

/// Checks that the destination has every account as the source has it.
fn verify(source: &Vault, target: &Vault, kept: &[String]) -> Result<(), Failed> {
    for account in source.accounts().iter().filter(|account| !kept.contains(&account.address)) {
        let address = &account.address;
        // Of two that are the same, none is written.
        if target.account(address).is_none() || target.restore(address, &source.export(address)?, false)? != Restored::Same {
            let why = format!("the copy of {address} differs from the original; run the command again");
            return Err(Failed::new(Exit::Io, why));
        }
    }
    Ok(())
}

/// Runs work that waits for disks and the database, off the threads of the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failed::new(Exit::Software, error))?
}

async fn migrate(config: &Config) -> Result<(), Failed> {
    match broker::migrate(config).await? {
        Migrated::Created => say("The tables have been created."),
        Migrated::Same => say("The tables are those of this version already."),
    }
    Ok(())
}
