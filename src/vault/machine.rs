//! App passwords for use without a person: in a file that is closed to all others, or in a credential from systemd.
//!
//! Whoever can read one can take the account's tokens out of the vault, so there is none unless the user made it.

use std::fs::File;
use std::path::PathBuf;

use super::files;
use crate::config::Machine;
use crate::secret::Secret;
use crate::wire::Credentials;

/// The login to an account by an app password that is found there. The error says what to do.
pub fn credentials(account: &str, from: &Machine) -> Result<Credentials, String> {
    let password = password(from)?;
    Credentials::parse(account.as_bytes(), password.expose()).ok_or_else(|| {
        let place = match from {
            Machine::File(path) => path.display().to_string(),
            Machine::Credential(name) => format!("the credential {name}"),
        };
        format!("{place} holds no app password; `postkey password add {account} NAME` makes one")
    })
}

fn password(from: &Machine) -> Result<Secret, String> {
    let (path, file) = match from {
        Machine::File(path) => (path.clone(), files::open_closed(path).map_err(|error| error.to_string())?),
        Machine::Credential(name) => {
            let path = credential(name)?;
            // Closed to others by systemd, which says so with an access list: the mode does not show it.
            let file = File::open(&path).map_err(|error| {
                format!("there is no credential {name} ({error}); add LoadCredential={name}:FILE to the service's unit")
            })?;
            (path, file)
        }
    };
    Secret::read(file).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// systemd.exec(5), "Credentials".
fn credential(name: &str) -> Result<PathBuf, String> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = folder.ok_or_else(|| {
        format!("systemd has handed over no credentials; add LoadCredential={name}:FILE to the service's unit")
    })?;
    Ok(folder.join(name))
}
