//! Where a secret or a key comes from.

use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;

/// Where a secret or a key comes from. It is read anew whenever it is needed.
#[derive(Clone)]
pub enum SecretSource {
    /// The configuration itself.
    Text(Secret),
    /// A file.
    File(PathBuf),
    /// What a program writes to its standard output: the program and its arguments, run without a shell.
    Command(Vec<String>),
    /// A credential of the service, by its name (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// A variable of the environment, by its name.
    Environment(String),
}

/// For messages; a secret that stands in the configuration is not in them.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("the configuration"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Command(words) => write!(f, "`{}`", words.join(" ")),
            Self::Credential(name) => write!(f, "the credential {name}"),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// The configuration can be shown whole, and a secret is not for showing.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSource({self})")
    }
}
