//! What can go wrong with the vault, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failed};

/// The vault's files cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the vault open: the daemon, or a command at work.
    InUse(PathBuf),
    /// This file or folder can be read by others, is somebody else's, or is a link.
    Exposed(PathBuf),
    /// The file system or sled failed.
    Failed(PathBuf, io::Error),
}

impl StoreError {
    /// The file system or sled failed here.
    pub fn failed(path: &Path, error: io::Error) -> Self {
        Self::Failed(path.to_owned(), error)
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "the vault in {} is in use by another postkey; stop it, or wait for it", path.display())
            }
            Self::Exposed(path) => write!(
                f,
                "{} must belong to the user that runs postkey, be closed to all others and be no link; \
                 put its owner right, and run `chmod go= {0}`",
                path.display()
            ),
            Self::Failed(path, error) => write!(f, "{} cannot be read or written: {error}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// Why the vault does not do what was asked. None of these has changed anything.
#[derive(Debug)]
pub enum VaultError {
    /// There is no such account, or no slot that this password opens; deliberately one answer.
    WrongCredentials,
    /// There is no account of this address.
    NoAccount(String),
    /// The account has no slot of this name.
    NoSlot(String),
    /// The account has a slot of this name already.
    SlotExists(String),
    /// It is the account's last slot; without it nothing could be taken out any more.
    LastSlot(String),
    /// This app password is good for some things only, and so not to make others.
    LimitedSlot(String),
    /// The password that a person chose has the form of a generated one.
    LooksGenerated,
    /// The password that a person chose is too short or too long.
    WrongLength,
    /// There is an account of this address already.
    Exists(String),
    /// The account's record is damaged, or has been changed by somebody else.
    Damaged(String),
    /// The account's record is of a format that only a newer version of postkey knows.
    Newer(String),
    /// The account has as many app passwords of a person's own choice as it may have.
    TooManyChosen(usize),
    /// There is not enough memory to check an app password.
    NoMemory,
    /// What should be restored is no sealed account that this version reads.
    NotAnAccount(String),
    /// The account has newer tokens than those that this change begins from.
    Superseded(String),
    /// Reading or writing failed.
    Store(StoreError),
    /// The work was cut short by a defect or by the end of the process.
    Interrupted,
}

impl std::fmt::Display for VaultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongCredentials => f.write_str("wrong user name or password"),
            Self::NoAccount(address) => {
                write!(f, "there is no account {address}; `postkey authorize {address}` sets it up")
            }
            Self::NoSlot(name) => {
                write!(f, "there is no app password named {name}; `postkey password list` shows them")
            }
            Self::SlotExists(name) => write!(f, "there is an app password named {name} already; choose another name"),
            Self::LastSlot(name) => write!(
                f,
                "{name} is the last app password of this account; add another one first, \
                 or remove the account with `postkey forget`"
            ),
            Self::LimitedSlot(name) => {
                write!(f, "the app password {name} is limited, so it cannot make others; give one that is not")
            }
            Self::LooksGenerated => {
                f.write_str("this password looks like one that postkey generates; choose another one")
            }
            Self::WrongLength => f.write_str("a password of your own has to have 8 to 255 bytes"),
            Self::Exists(address) => write!(f, "{address} has been authorized already"),
            Self::Damaged(address) => {
                write!(f, "the vault's record of {address} is damaged; `postkey authorize {address}` sets it up again")
            }
            Self::Newer(address) => write!(
                f,
                "the vault's record of {address} was written by a newer version of postkey; install that version again, \
                 or run `postkey forget {address}`"
            ),
            Self::TooManyChosen(most) => write!(
                f,
                "this account has {most} app passwords of your own choice already, and each makes a wrong password dearer \
                 to check; remove one, or let postkey generate the new one"
            ),
            Self::NoMemory => {
                f.write_str("there are no 64 MiB of memory free to check an app password with; try again")
            }
            Self::NotAnAccount(address) => {
                write!(f, "what should be restored for {address} is damaged, or of another version's format")
            }
            Self::Superseded(address) => write!(f, "{address} has been authorized anew in the meantime"),
            Self::Store(error) => error.fmt(f),
            Self::Interrupted => f.write_str("the vault was interrupted at its work; see the log"),
        }
    }
}

impl std::error::Error for VaultError {}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How a command ends that the vault refuses.
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
            VaultError::Superseded(_) | VaultError::NoMemory => Exit::Temporary,
            VaultError::Interrupted => Exit::Software,
        };
        Self::new(exit, error)
    }
}
