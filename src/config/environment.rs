//! What the process is told about its places: the only part of the configuration that is not in the file.

use std::env;
use std::path::{Path, PathBuf};

/// Who runs the process, and the folders that its environment names.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Whether the effective user is root.
    pub root: bool,
    /// `$STATE_DIRECTORY`, which systemd sets.
    pub state_directory: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        // Relative paths are to be ignored, says the XDG Base Directory Specification; systemd sets none.
        let folder = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            root: rustix::process::geteuid().is_root(),
            state_directory: folder("STATE_DIRECTORY"),
            config_home: folder("XDG_CONFIG_HOME"),
            state_home: folder("XDG_STATE_HOME"),
            home: folder("HOME"),
        }
    }

    /// The configuration file that is used where none is named.
    pub fn config_file(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/etc/postkey/postkey.toml"));
        }
        self.under(self.config_home.as_deref(), ".config").map(|folder| folder.join("postkey.toml"))
    }

    /// Where the vault is kept if the file does not say.
    pub fn state_dir(&self) -> Option<PathBuf> {
        if self.state_directory.is_some() {
            return self.state_directory.clone();
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/postkey"));
        }
        self.under(self.state_home.as_deref(), ".local/state")
    }

    fn under(&self, base: Option<&Path>, in_home: &str) -> Option<PathBuf> {
        let base = base.map(Path::to_owned).or_else(|| Some(self.home.as_ref()?.join(in_home)));
        base.map(|base| base.join("postkey"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_everything_at_home_unless_the_environment_says_otherwise() {
        let mut user = Environment { home: Some("/home/ann".into()), ..Environment::default() };
        assert_eq!(user.config_file(), Some("/home/ann/.config/postkey/postkey.toml".into()));
        assert_eq!(user.state_dir(), Some("/home/ann/.local/state/postkey".into()));
        user.config_home = Some("/c".into());
        user.state_home = Some("/s".into());
        assert_eq!(user.config_file(), Some("/c/postkey/postkey.toml".into()));
        assert_eq!(user.state_dir(), Some("/s/postkey".into()));
        user.state_directory = Some("/systemd/postkey".into());
        assert_eq!(user.state_dir(), Some("/systemd/postkey".into()));
    }

    #[test]
    fn root_uses_the_places_of_the_system() {
        let root = Environment { root: true, home: Some("/root".into()), ..Environment::default() };
        assert_eq!(root.config_file(), Some("/etc/postkey/postkey.toml".into()));
        assert_eq!(root.state_dir(), Some("/var/lib/postkey".into()));
    }

    #[test]
    fn without_a_home_there_is_no_place() {
        assert_eq!(Environment::default().config_file(), None);
        assert_eq!(Environment::default().state_dir(), None);
    }
}
