//! The database that several replicas share as their vault.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::secret_source::SecretSource;

/// A PostgreSQL database, and how to log in to it.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    pub host: DatabaseHost,
    pub port: u16,
    pub user: String,
    pub database: String,
    /// Whether the connection is encrypted and the server's certificate verified.
    pub is_encrypted: bool,
    /// None if the server needs no password, as with peer authentication.
    pub password: Option<SecretSource>,
    /// The certificate authorities of the server. None for those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Where a database server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseHost {
    /// A host name or an IP address.
    Name(String),
    /// The folder of its Unix socket.
    Folder(PathBuf),
}

impl DatabaseHost {
    /// Whether nothing that is sent there leaves this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
            Self::Folder(_) => true,
        }
    }

    /// The folder of its socket, if it has one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Name(_) => None,
            Self::Folder(folder) => Some(folder),
        }
    }
}

/// For messages, as in `the database postkey at db.example.com:5432`.
impl fmt::Display for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the PostgreSQL database {} at ", self.database)?;
        match &self.host {
            DatabaseHost::Name(name) => write!(f, "{name}:{}", self.port),
            DatabaseHost::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}
