//! `postkey vault`: copies the vault between files and PostgreSQL, and upgrades the tables there.

use std::path::PathBuf;
use std::sync::Arc;

use super::arguments::VaultCommand;
use super::progress::Progress;
use super::terminal::{complain, say};
use crate::broker;
use crate::config::Config;
use crate::config::database::DatabaseConfig;
use crate::exit::{Exit, Failed};
use crate::vault::postgresql::Migrated;
use crate::vault::{Restored, StateFolder, Vault, VaultError};

pub async fn run(config: &Config, command: VaultCommand) -> Result<(), Failed> {
    let Some(database) = &config.vault else {
        let why = "the configuration has no [vault], so there is no PostgreSQL; see docs/guide/several-machines.md";
        return Err(Failed::new(Exit::Config, why));
    };
    match command {
        VaultCommand::Copy { from: Some(folder), .. } => {
            if !Vault::is_in(&folder) {
                let why = format!("there is no vault in {}; name the state_dir of a postkey", folder.display());
                return Err(Failed::new(Exit::Data, why));
            }
            copy(database, &Place::Files(folder), &Place::Database).await
        }
        VaultCommand::Copy { to, .. } => copy(database, &Place::Database, &Place::Files(to.unwrap_or_default())).await,
        VaultCommand::Migrate => {
            say(match broker::migrate(database).await? {
                Migrated::Created => "The tables have been created.",
                Migrated::Unchanged => "The tables already are those of this version.",
            });
            Ok(())
        }
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
    async fn open(&self, database: &DatabaseConfig) -> Result<Vault, Failed> {
        Ok(match self {
            Self::Files(folder) => Vault::open_in_turn(folder).await?,
            Self::Database => broker::open_database(database, StateFolder::none()).await?,
        })
    }
}

/// Copies all records. Then opens the destination again, because only what can be read there has been copied.
async fn copy(database: &DatabaseConfig, from: &Place, to: &Place) -> Result<(), Failed> {
    let source = Arc::new(from.open(database).await?);
    let copied = copy_all(&source, to.open(database).await?).await?;
    let again = copy_all(&source, to.open(database).await?).await?;
    source.leave()?;
    if again.done > 0 {
        let why = "the copy differs from the original, because one of them was in use; run the command again";
        return Err(Failed::new(Exit::Temporary, why));
    }
    copied.report()
}

/// The result of a copy.
#[derive(Default)]
struct Copied {
    done: usize,
    same: usize,
    /// The addresses whose records are newer at the destination.
    kept: Vec<String>,
    /// Why other records cannot be copied.
    failed: Vec<String>,
}

/// Copies what differs. Waits for disks and the database, so it runs off the threads of the runtime.
async fn copy_all(source: &Arc<Vault>, target: Vault) -> Result<Copied, Failed> {
    let source = Arc::clone(source);
    let copying = tokio::task::spawn_blocking(move || {
        let copied = Copied::of_all(&source, &target)?;
        target.leave()?;
        Ok(copied)
    });
    copying.await.map_err(|error| Failed::new(Exit::Software, error))?
}

impl Copied {
    fn of_all(source: &Vault, target: &Vault) -> Result<Self, Failed> {
        let addresses = source.addresses();
        let (mut copied, mut progress) = (Self::default(), Progress::new(addresses.len()));
        for address in addresses {
            match target.copy_from(source, &address, false) {
                Ok(Restored::Done) => copied.done += 1,
                Ok(Restored::Same) => copied.same += 1,
                Ok(Restored::Newer) => copied.kept.push(address),
                Err(error @ (VaultError::Damaged(_) | VaultError::Newer(_))) => copied.failed.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
            progress.step();
        }
        // To a daemon a full disk is no error of a write, because it goes on from memory.
        match target.trouble() {
            None => Ok(copied),
            Some(trouble) => Err(Failed::new(Exit::Io, format!("cannot store the copies: {}", trouble.why))),
        }
    }

    fn report(self) -> Result<(), Failed> {
        let Self { done, same, kept, failed } = self;
        kept.iter().for_each(|address| say(format_args!("{address}: kept, because it is newer at the destination")));
        failed.iter().for_each(complain);
        let summary = format!(
            "{done} records copied and verified, {same} were the same, {} kept, {} not copied",
            kept.len(),
            failed.len()
        );
        if failed.is_empty() {
            say(summary);
            return Ok(());
        }
        Err(Failed::new(Exit::Io, summary))
    }
}
