//! The state folder of a replica whose records are in a database: its lock, and the replica's name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{StoreError, VaultError};
use super::files;
use crate::random;

/// How long to wait while another process has the vault open.
pub const TURN: Duration = Duration::from_secs(3);

/// How often to try again meanwhile.
pub const POLL: Duration = Duration::from_millis(20);

/// The state folder of this replica, which no other process uses while this exists.
pub struct StateFolder {
    /// The replica's name: the same after a restart, so that it recognizes what it has left in the database.
    name: String,
    /// None if something else has locked the folder for this process.
    _lock: Option<File>,
}

impl StateFolder {
    /// Locks the folder, and creates it if there is none. Waits if another process has it, because a command only has it for
    /// a moment.
    pub async fn lock(dir: &Path) -> Result<Self, VaultError> {
        let deadline = Instant::now() + TURN;
        loop {
            match Self::try_lock(dir) {
                Err(StoreError::InUse(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                result => return Ok(result?),
            }
        }
    }

    fn try_lock(dir: &Path) -> Result<Self, StoreError> {
        files::make_folder(dir)?;
        files::check_folder(dir)?;
        let lock = files::lock_folder(dir)?;
        Ok(Self { name: read_name(dir)?, _lock: Some(lock) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// For a process that already has the folder of an embedded vault.
    pub fn none() -> Self {
        Self { name: random::name(), _lock: None }
    }
}

/// The name in the folder's file, or a new one.
fn read_name(dir: &Path) -> Result<String, StoreError> {
    let path = dir.join("replica");
    let mut name = String::new();
    // No name is longer.
    let read = files::open_private(&path).map(|file| file.take(64).read_to_string(&mut name).is_ok());
    let is_name = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if matches!(read, Ok(true)) && is_name(name.trim_end()) {
        return Ok(name.trim_end().to_owned());
    }
    let name = random::name();
    files::replace(&path, &path.with_extension("new"), name.as_bytes()).map_err(StoreError::at(&path))?;
    Ok(name)
}
