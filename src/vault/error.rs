//! The vault's errors.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failed};
use crate::name::Name;

/// The vault's files cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the vault open: the daemon or a command.
    InUse(PathBuf),
    /// Others can read this file or folder, or it belongs to somebody else, or it is a symlink.
    Exposed(PathBuf),
    /// The file system or sled failed.
    Failed(PathBuf, io::Error),
}

impl StoreError {
    /// Turns an error of the file system or of sled into one that names this path.
    pub fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> Self + '_ {
        |error| Self::Failed(path.to_owned(), error.into())
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "the vault in {} is in use by another postkey; stop it, or try again later", path.display())
            }
            Self::Exposed(path) => write!(
                f,
                "{} must be owned by the user that runs postkey, inaccessible to others, and not a symlink; \
                 correct the owner, and run `chmod go= {0}`",
                path.display()
            ),
            Self::Failed(path, error) => {
                let advice = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "; run postkey as root, or as the user that owns the state folder"
                    }
                    _ => "",
                };
                write!(f, "{} cannot be read or written: {error}{advice}", path.display())
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Why the vault refuses a request. The vault is unchanged then.
#[derive(Debug)]
pub enum VaultError {
    /// No such account, or no slot that this password opens. These are one error on purpose.
    WrongCredentials,
    /// No account has this address.
    NoAccount(String),
    /// The account has no slot with this name.
    NoSlot(String),
    /// The account already has a slot with this name.
    SlotExists(String),
    /// It is the account's last slot; without it nothing could open the account.
    LastSlot(String),
    /// This app password is limited, so it cannot add others.
    LimitedSlot(String),
    /// The password that a person chose has the form of a generated one.
    LooksGenerated,
    /// The password that a person chose is too short or too long.
    WrongLength,
    /// There already is an account with this address.
    Exists(String),
    /// The account's record is damaged, or somebody else has changed it.
    Damaged(String),
    /// A newer version of postkey wrote the account's record, in a format that this one does not know.
    Newer(String),
    /// The account has the maximum number of chosen app passwords.
    TooManyChosen(usize),
    /// There is not enough memory to check an app password.
    NoMemory,
    /// The record to restore is not an account that this version can read.
    NotAnAccount(String),
    /// The account's tokens are newer than those that this change starts from.
    Superseded(String),
    Store(StoreError),
    /// The database with the records cannot be used now, or has not answered in time; why.
    Unavailable(String),
    /// The database is not one that this version can use, until somebody acts; why, and what to do.
    Unusable(String),
    /// A defect or the end of the process interrupted the work.
    Interrupted,
}

impl std::fmt::Display for VaultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongCredentials => f.write_str("wrong user name or password"),
            Self::NoAccount(address) if Name::address(address).is_err() => {
                write!(f, "there is no account {address}; write its whole address, such as ann@example.com")
            }
            Self::NoAccount(address) => {
                write!(f, "there is no account {address}; run `postkey authorize {address}` to set it up")
            }
            Self::NoSlot(name) => {
                write!(f, "there is no app password named {name}; run `postkey password list` to see their names")
            }
            Self::SlotExists(name) => write!(f, "there already is an app password named {name}; choose another name"),
            Self::LastSlot(name) => write!(
                f,
                "{name} is the last app password of this account; add another one first, \
                 or remove the account with `postkey forget`"
            ),
            Self::LimitedSlot(name) => {
                write!(f, "the app password {name} is limited, so it cannot add others; use one without limits")
            }
            Self::LooksGenerated => {
                f.write_str("this password looks like one that postkey generates; choose another one")
            }
            Self::WrongLength => f.write_str("a password of your own must have 8 to 255 bytes"),
            Self::Exists(address) => write!(f, "{address} is already authorized"),
            Self::Damaged(address) => {
                write!(
                    f,
                    "the vault's record of {address} is damaged; run `postkey authorize {address}` to set it up again"
                )
            }
            Self::Newer(address) => write!(
                f,
                "the vault's record of {address} was written by a newer version of postkey; install that version again, \
                 or run `postkey forget {address}`"
            ),
            Self::TooManyChosen(most) => write!(
                f,
                "this account already has {most} app passwords of your own choice, which is the maximum because each slows \
                 down the check of a wrong one; remove one, or let postkey generate the new one"
            ),
            Self::NoMemory => {
                f.write_str("there are not 64 MiB of free memory, which it takes to check an app password; try again")
            }
            Self::NotAnAccount(address) => {
                write!(f, "the backup's record of {address} is damaged, or has the format of another version")
            }
            Self::Superseded(address) => write!(f, "{address} has been authorized again in the meantime; try again"),
            Self::Store(error) => error.fmt(f),
            Self::Unavailable(why) | Self::Unusable(why) => f.write_str(why),
            Self::Interrupted => f.write_str("the vault's work was interrupted; see the log"),
        }
    }
}

impl std::error::Error for VaultError {}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The exit code of a command that the vault refuses.
impl From<VaultError> for Failed {
    fn from(error: VaultError) -> Self {
        let exit = match &error {
            VaultError::WrongCredentials | VaultError::LimitedSlot(_) => Exit::NoPermission,
            VaultError::NoAccount(_) => Exit::NoUser,
            VaultError::NotAnAccount(_)
            | VaultError::NoSlot(_)
            | VaultError::SlotExists(_)
            | VaultError::LastSlot(_)
            | VaultError::TooManyChosen(_)
            | VaultError::LooksGenerated
            | VaultError::WrongLength
            | VaultError::Exists(_) => Exit::Data,
            VaultError::Damaged(_) | VaultError::Newer(_) | VaultError::Store(_) => Exit::Io,
            VaultError::Superseded(_) | VaultError::NoMemory | VaultError::Unavailable(_) => Exit::Temporary,
            VaultError::Unusable(_) => Exit::Config,
            VaultError::Interrupted => Exit::Software,
        };
        Self::new(exit, error)
    }
}
