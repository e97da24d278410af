//! How a command ends: the codes of sysexits(3), where one fits.

/// What a command's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    /// The command line is wrong.
    Usage = 64,
    /// What was typed in or pasted cannot be used.
    Data = 65,
    /// There is no such account.
    NoUser = 67,
    /// A server cannot be reached, or refuses to serve this account.
    Unavailable = 69,
    /// A defect of postkey's own.
    Software = 70,
    /// The system does not let us: a port is taken, a socket cannot be made.
    Os = 71,
    /// Reading or writing failed, the vault above all.
    Io = 74,
    /// It failed now and may work later.
    Temporary = 75,
    /// Wrong password, or an authorization that was not given or has ended.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
}

/// A command that did not do what it should: what to tell the user, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failed {
    /// What kind of failure.
    pub exit: Exit,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Failed {
    /// A failure with its message.
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}
