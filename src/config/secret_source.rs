//! The source of a secret or a key.

use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;

/// The source of a secret or a key. It is read again each time it is needed.
#[derive(Clone)]
pub enum SecretSource {
    /// The secret itself, in the configuration.
    Text(Secret),
    File(PathBuf),
    /// A program that writes the secret to its standard output, and its arguments. It runs without a shell.
    Command(Vec<String>),
    /// The name of a credential of the service (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// The name of an environment variable.
    Environment(String),
}

/// For messages. Does not show a secret that is in the configuration.
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

/// As in messages, because the configuration is printed as a whole.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSource({self})")
    }
}
