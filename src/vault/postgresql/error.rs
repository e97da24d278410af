//! Why the database cannot be used.

use std::error::Error as _;
use std::fmt;

use crate::config::database::DatabaseConfig;
use crate::vault::error::VaultError;

/// Why the database cannot be used.
#[derive(Clone, Debug)]
pub enum DatabaseError {
    /// It cannot be reached, has not answered in time, or is busy. It may work later.
    Away(String),
    /// It answers, but not before somebody has acted will it do what is asked.
    Refused(String),
}

/// The classes of SQLSTATE that only a person can end: no permission to log in, no such database, no such schema, and no
/// privilege or table (PostgreSQL, appendix A).
const LASTING: [&str; 4] = ["28", "3D", "3F", "42"];

impl DatabaseError {
    /// It has not answered in time.
    pub fn silent() -> Self {
        Self::Away("it did not answer in time".to_owned())
    }

    pub fn of(error: &tokio_postgres::Error) -> Self {
        let why = match error.as_db_error() {
            Some(answer) => answer.message().to_owned(),
            None => {
                let mut cause = error.source();
                while let Some(deeper) = cause.and_then(|cause| cause.source()) {
                    cause = Some(deeper);
                }
                cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
            }
        };
        let is_lasting = error.code().is_some_and(|code| LASTING.iter().any(|class| code.code().starts_with(class)));
        if is_lasting { Self::Refused(why) } else { Self::Away(why) }
    }

    /// A clause that names the database.
    pub fn of_database(&self, database: &DatabaseConfig) -> String {
        format!("{database} cannot be used: {self}")
    }

    /// The vault's error for a caller.
    pub fn into_vault(self, database: &DatabaseConfig) -> VaultError {
        let why = self.of_database(database);
        match self {
            Self::Away(_) => VaultError::Unavailable(format!("{why}; try again later")),
            Self::Refused(_) => VaultError::Unusable(why),
        }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Away(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}
