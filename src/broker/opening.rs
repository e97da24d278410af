//! Opens the vault that the configuration names: in the state folder, or in a database.

use std::sync::Arc;

use crate::config::Config;
use crate::config::database::DatabaseConfig;
use crate::net::tls;
use crate::oauth::source;
use crate::vault::postgresql::{self, Database, Migrated, ReadPassword, ReadingPassword};
use crate::vault::{StateFolder, Vault, VaultError};

/// Opens the vault. Waits if another process has the state folder, because a command only has it for a moment.
///
/// # Errors
///
/// Those of [`Vault::open`] and [`Vault::open_shared`].
pub async fn open_vault(config: &Config) -> Result<Vault, VaultError> {
    match &config.vault {
        None => Vault::open_in_turn(&config.state_dir).await,
        Some(database) => open_database(database, StateFolder::lock(&config.state_dir).await?).await,
    }
}

/// Opens the vault in a database.
///
/// # Errors
///
/// Those of [`Vault::open_shared`].
pub async fn open_database(config: &DatabaseConfig, folder: StateFolder) -> Result<Vault, VaultError> {
    let database = database(config)?;
    on_own_thread(move || Vault::open_shared(database, folder)).await
}

/// Checks the tables in a database, or creates them if there are none.
///
/// # Errors
///
/// Those of [`Vault::open_shared`].
pub async fn migrate(config: &DatabaseConfig) -> Result<Migrated, VaultError> {
    let database = database(config)?;
    on_own_thread(move || postgresql::migrate(database)).await
}

fn database(config: &DatabaseConfig) -> Result<Database, VaultError> {
    let unusable = |error: tls::TlsError| VaultError::Unusable(format!("{config} cannot be used: {error}"));
    let tls = config.is_encrypted.then(|| tls::client_config(config.ca_file.as_deref())).transpose();
    let source = config.password.clone().map(Arc::new);
    let read_password: ReadPassword = Box::new(move || {
        let source = source.clone();
        let reading: ReadingPassword = Box::pin(async move {
            let Some(source) = source else { return Ok(None) };
            let password = source::read(&source, "the password of the vault's database").await;
            password.map(Some).map_err(|failure| failure.to_string())
        });
        reading
    });
    Ok(Database::new(config.clone(), tls.map_err(unusable)?, read_password))
}

/// Does work that waits for the database.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(VaultError::Interrupted))
}
