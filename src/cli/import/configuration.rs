//! Adds tables to the configuration file: as a whole or not at all, and never by changing a line that is there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::block::Block;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::exit::{Exit, Failed};

/// The configuration file and what it will contain.
pub struct Addition {
    path: PathBuf,
    /// None if there is no file yet.
    before: Option<String>,
    after: String,
    has_secret: bool,
    /// The configuration with the addition.
    pub config: Config,
}

/// The configuration file of this command.
pub fn file(named: Option<&Path>) -> PathBuf {
    let default = || Environment::of_process().config_file().unwrap_or_else(|| "postkey.toml".into());
    let path = named.map_or_else(default, Path::to_owned);
    // A symlink stays one.
    path.canonicalize().unwrap_or(path)
}

impl Addition {
    /// # Errors
    ///
    /// All mistakes that the configuration would have.
    pub fn new(path: PathBuf, block: &Block) -> Result<Self, Failed> {
        let before = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failed::new(Exit::Io, format!("cannot read {}: {error}", path.display()))),
        };
        let mut after = before.clone().unwrap_or_default();
        if !after.is_empty() && !after.ends_with('\n') {
            after.push('\n');
        }
        after.push_str("\n# ---- Added by `postkey import`.\n");
        after.push_str(&block.written);
        let config = Config::read(&after, &path).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(|mistake| format!("  {mistake}")).collect();
            let file = path.display();
            let why = "with the tables above, the configuration would have these mistakes; correct it first, or add the tables \
                       yourself in another form. Nothing was changed";
            Failed::new(Exit::Config, format!("cannot add to {file}: {why}:\n{}", lines.join("\n")))
        })?;
        Ok(Self { path, before, after, has_secret: block.written != block.shown, config })
    }

    /// Writes the file. The old one is kept beside it.
    pub fn write(&self) -> Result<(), Failed> {
        let failed = |error: io::Error| {
            let file = self.path.display();
            let advice =
                "add the tables above to it yourself, and run the command again without `--write` and `--keep-ports`";
            Failed::new(Exit::Io, format!("cannot write {file}: {error}; {advice}. Nothing was changed"))
        };
        if let Some(before) = &self.before {
            let public = self.path.metadata().map_err(failed)?.mode() & 0o004 != 0;
            if public && self.has_secret {
                let file = self.path.display();
                let why = format!(
                    "{file} is world-readable, and a client secret has to be added; run `chmod o-r {file}` first"
                );
                return Err(Failed::new(Exit::Config, why));
            }
            self.put(&self.kept(), before).map_err(failed)?;
        } else if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        self.put(&self.path, &self.after).map_err(failed)
    }

    /// Puts the old content back.
    pub fn undo(&self) -> io::Result<()> {
        match &self.before {
            Some(before) => self.put(&self.path, before),
            None => std::fs::remove_file(&self.path),
        }
    }

    /// The path at which the old file is kept.
    pub fn kept(&self) -> PathBuf {
        self.path.with_added_extension("before-import")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there were only the default listeners, so that those of the addition replace them.
    pub fn ends_default_listeners(&self) -> bool {
        let before = self.before.as_deref().unwrap_or_default().parse::<toml::Table>();
        before.is_ok_and(|table| !table.contains_key("listener"))
    }

    /// Whether there was a file before.
    pub fn is_change(&self) -> bool {
        self.before.is_some()
    }

    /// Replaces a file beside the configuration, or that itself, with its owner and its rights.
    fn put(&self, path: &Path, text: &str) -> io::Result<()> {
        let draft = path.with_added_extension("draft");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| self.give_rights(&file, &draft));
        let written = written.and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&draft, path));
        if written.is_err() {
            let _left = std::fs::remove_file(&draft);
        }
        written?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// A new file is for everybody, like the one of the package, unless it contains a secret.
    fn give_rights(&self, file: &File, draft: &Path) -> io::Result<()> {
        let mode = match self.path.metadata() {
            Ok(old) => {
                let now = file.metadata()?;
                if (old.uid(), old.gid()) != (now.uid(), now.gid()) {
                    chown(draft, Some(old.uid()), Some(old.gid()))?;
                }
                old.mode() & 0o777
            }
            Err(_) if self.has_secret => 0o600,
            Err(_) => 0o644,
        };
        file.set_permissions(Permissions::from_mode(mode))
    }
}
