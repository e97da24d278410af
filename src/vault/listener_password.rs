//! App passwords of listeners: in a file that is inaccessible to others, or in a systemd credential.
//!
//! Whoever can read one can take the account's tokens out of the vault, so there is none unless the user has configured it.

use std::fs::File;
use std::path::PathBuf;

use super::files;
use crate::config::PasswordSource;
use crate::config::environment::credentials_folder;
use crate::secret::Secret;
use crate::wire::Credentials;

/// The login to an account with the app password there. The error says what to do.
pub fn credentials(account: &str, from: &PasswordSource) -> Result<Credentials, String> {
    let password = password(from)?;
    Credentials::parse(account.as_bytes(), password.expose()).ok_or_else(|| {
        let place = match from {
            PasswordSource::File(path) => path.display().to_string(),
            PasswordSource::Credential(name) => format!("the credential {name}"),
        };
        format!("{place} contains no app password; run `postkey password add {account} NAME` to create one")
    })
}

fn password(from: &PasswordSource) -> Result<Secret, String> {
    let (path, file) = match from {
        PasswordSource::File(path) => (path.clone(), files::open_private(path).map_err(|error| error.to_string())?),
        PasswordSource::Credential(name) => {
            let path = credential(name)?;
            // Its mode says nothing: systemd makes it inaccessible to others with an access control list.
            let file = File::open(&path).map_err(|error| {
                format!("cannot open the credential {name}: {error}; add LoadCredential={name}:FILE to the unit")
            })?;
            (path, file)
        }
    };
    Secret::read(file).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// systemd.exec(5), "Credentials".
fn credential(name: &str) -> Result<PathBuf, String> {
    let folder = credentials_folder().ok_or_else(|| {
        format!("systemd has passed no credentials to this process; add LoadCredential={name}:FILE to the unit")
    })?;
    Ok(folder.join(name))
}
