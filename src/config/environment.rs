//! The environment of the process: the only part of the configuration that is not in the file.

use std::env;
use std::path::{Path, PathBuf};

/// Where systemd puts the credentials of postkey's system service while it runs, systemd.exec(5).
const CREDENTIALS: &str = "/run/credentials/postkey.service";

#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Whether the effective user is root.
    pub root: bool,
    /// `$STATE_DIRECTORY`, which systemd sets.
    pub state_directory: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`
    pub config_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`
    pub state_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Environment {
    pub fn of_process() -> Self {
        // The XDG Base Directory Specification says to ignore relative paths. Systemd sets none.
        let folder = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            root: rustix::process::geteuid().is_root(),
            state_directory: folder("STATE_DIRECTORY"),
            config_home: folder("XDG_CONFIG_HOME"),
            state_home: folder("XDG_STATE_HOME"),
            home: folder("HOME"),
        }
    }

    pub fn config_file(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/etc/postkey/postkey.toml"));
        }
        self.under(self.config_home.as_deref(), ".config").map(|folder| folder.join("postkey.toml"))
    }

    /// The default folder of the vault.
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

/// The folder of the credentials from systemd: this service's own, and for root those of the system service, because its
/// commands have the same configuration.
pub fn credentials_folder() -> Option<PathBuf> {
    let own = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let of_service = || Some(PathBuf::from(CREDENTIALS)).filter(|folder| folder.is_dir());
    own.or_else(|| of_service().filter(|_| rustix::process::geteuid().is_root()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_everything_at_home_unless_the_environment_names_other_folders() {
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
    fn root_uses_the_folders_of_the_system() {
        let root = Environment { root: true, home: Some("/root".into()), ..Environment::default() };
        assert_eq!(root.config_file(), Some("/etc/postkey/postkey.toml".into()));
        assert_eq!(root.state_dir(), Some("/var/lib/postkey".into()));
    }

    #[test]
    fn without_a_home_there_is_no_default() {
        assert_eq!(Environment::default().config_file(), None);
        assert_eq!(Environment::default().state_dir(), None);
    }
}
