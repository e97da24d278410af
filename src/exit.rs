//! The failure of a command, with an exit code from sysexits(3).

/// The meaning of a command's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    /// The command line is wrong.
    Usage = 64,
    /// Typed or pasted input cannot be used.
    Data = 65,
    /// There is no such account.
    NoUser = 67,
    /// A server cannot be reached, or refuses to serve this account.
    Unavailable = 69,
    /// postkey has a defect.
    Software = 70,
    /// The system refuses: a port is in use, or a socket cannot be created.
    Os = 71,
    /// Reading or writing failed, usually of the vault.
    Io = 74,
    /// It failed now, but may work later.
    Temporary = 75,
    /// Wrong password, or an authorization that was not given or has ended.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
}

/// The failure of a command: the message for the user, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failed {
    pub exit: Exit,
    /// A clause that says what happened, to what, and what to do.
    pub message: String,
}

impl Failed {
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}
