//! Restricts this process, to limit the damage if it is compromised.
//!
//! The systemd units restrict it more; this also works without them.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use tracing::{debug, info, warn};

use crate::address::Address;
use crate::config::Config;
use crate::exit::{Exit, Failed};

/// The Landlock version that the kernel must support to restrict all writes to files, including truncate(2).
const LANDLOCK: ABI = ABI::V3;

/// Prevents other processes of the same user from reading this one's memory, and the kernel from dumping it to a file.
pub fn memory() {
    // If this fails, there is only less protection, so commands continue.
    let _less = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _less = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Whether the daemon is confined. The log has to be started before this can be logged.
pub struct Confined(Result<Option<RulesetStatus>, RulesetError>);

/// Gives up new privileges, and write access outside the configured folders. It affects the calling thread and the
/// threads that it starts, so call it before there are others.
///
/// Reading files and running programs are not restricted, because a reload may name any file, and helpers need others.
pub fn daemon(config: &Config) -> Confined {
    let _less = set_no_new_privs(true);
    // Landlock would restrict these programs, too, and they may write anywhere.
    if config.runs_programs() {
        return Confined(Ok(None));
    }
    Confined(write_only_to(config).map(Some))
}

impl Confined {
    /// Checks whether this process can use a new configuration.
    ///
    /// # Errors
    ///
    /// Fails if this configuration is the first to name a program. That program would be confined, too, because
    /// Landlock cannot be lifted.
    pub fn check(&self, config: &Config) -> Result<(), Failed> {
        let is_confined = matches!(&self.0, Ok(Some(status)) if !matches!(status, RulesetStatus::NotEnforced));
        if is_confined && config.runs_programs() {
            let why = "the first program in the configuration (notify_command, or the command of a secret) needs a restart: \
                       postkey is confined to writing to its own folders, and the program would be confined as well";
            return Err(Failed::new(Exit::Config, why));
        }
        Ok(())
    }

    /// Logs whether the process is confined.
    pub fn log(&self) {
        match &self.0 {
            Ok(None) => info!("not confined, because the configuration runs external programs"),
            Ok(Some(RulesetStatus::NotEnforced)) => {
                let why = why_no_landlock();
                warn!(why, "not confined to writing to its own folders: {why}");
            }
            Ok(Some(_)) => debug!("confined to writing to its own folders"),
            Err(error) => warn!(%error, "not confined to writing to its own folders: {error}"),
        }
    }
}

/// Why there is no Landlock. According to landlock(7), ENOSYS means that the kernel was built without it, and
/// EOPNOTSUPP that it was not enabled at boot. A container's system call filter usually answers EPERM or ENOSYS; the
/// list of security modules shows that the answer comes from the filter.
fn why_no_landlock() -> &'static str {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let is_filtered = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2')));
    explanation(modules.trim().split(',').any(|module| module == "landlock"), !modules.is_empty(), is_filtered)
}

/// `has_landlock` is what the list of modules says, if it can be read.
const fn explanation(has_landlock: bool, is_readable: bool, is_filtered: bool) -> &'static str {
    match (has_landlock, is_readable, is_filtered) {
        (true, ..) => {
            "the kernel has Landlock, but a seccomp filter forbids it; allow landlock_* in the container's filter"
        }
        (false, true, _) => "Landlock is not enabled in this kernel; add landlock to lsm= on its command line",
        (false, false, true) => {
            "a seccomp filter is in force, and either it forbids Landlock or the kernel has none; \
             allow landlock_* in the container's filter"
        }
        (false, false, false) => "the kernel has no Landlock; it came with Linux 5.13",
    }
}

/// The folder in which a file will be created.
fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => Path::new(".").to_owned(),
    }
}

/// Allows all writes in the state folder, creating and removing sockets in their folders, and creating and appending to
/// files in the log file's folder. Landlock can name only the folders, because a new socket or a rotated log file does
/// not exist yet.
fn write_only_to(config: &Config) -> Result<RulesetStatus, RulesetError> {
    let sockets = config.listeners.iter().flat_map(|listener| &listener.addresses).filter_map(Address::unix);
    let sockets = sockets
        .chain([&config.control_socket])
        .chain(config.web.as_ref().and_then(Address::unix))
        .map(|socket| folder(socket));
    let logs = config.log_file.iter().map(|log| folder(log));
    let writes = AccessFs::from_write(LANDLOCK);
    let rules = Ruleset::default().handle_access(writes)?.create()?;
    let rules = rules.add_rules(path_beneath_rules([&config.state_dir], writes))?;
    let rules = rules.add_rules(path_beneath_rules(sockets, AccessFs::MakeSock | AccessFs::RemoveFile))?;
    let rules = rules.add_rules(path_beneath_rules(logs, AccessFs::MakeReg | AccessFs::WriteFile))?;
    Ok(rules.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::environment::Environment;

    #[test]
    fn outside_the_state_folder_only_sockets_and_log_files_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["state", "run", "log", "elsewhere"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("old"), "old").unwrap();
        }
        let text = "state_dir = \"state\"\ncontrol_socket = \"run/control\"\nlog_file = \"log/log\"\n";
        let config = Config::parse(text, &at("postkey.toml"), &Environment::default()).unwrap();
        // Landlock restricts the calling thread.
        let confined = std::thread::spawn(move || {
            if !matches!(write_only_to(&config), Ok(RulesetStatus::FullyEnforced)) {
                return crate::skipped::skipped("this kernel has no Landlock");
            }
            let folder = |name: &str| config.state_dir.with_file_name(name);
            let may = |name: &str| {
                let (new, old) = (folder(name).join("new"), folder(name).join("old"));
                let append = |file| OpenOptions::new().append(true).create(true).open(file);
                let may_make = append(&new).and_then(|mut file| file.write_all(b"x")).is_ok();
                let may_append = append(&old).is_ok();
                let may_truncate = fs::write(&old, "").is_ok();
                let socket = folder(name).join("socket");
                let may_bind = UnixListener::bind(&socket).and_then(|_| fs::remove_file(&socket)).is_ok();
                let may_link = std::os::unix::fs::symlink(&old, folder(name).join("link")).is_ok();
                [may_make, may_append, may_truncate, may_bind, may_link]
            };
            assert_eq!(may("state"), [true; 5]);
            assert_eq!(may("run"), [false, false, false, true, false]);
            assert_eq!(may("log"), [true, true, false, false, false]);
            assert_eq!(may("elsewhere"), [false; 5]);
            assert!(fs::remove_file(folder("log").join("old")).is_err(), "a log stays");
        });
        confined.join().unwrap();
    }

    #[test]
    fn the_reason_for_a_missing_landlock_is_named() {
        assert!(explanation(true, true, true).contains("a seccomp filter forbids it"));
        assert!(explanation(false, true, true).contains("not enabled in this kernel"));
        assert!(explanation(false, false, true).contains("a seccomp filter is in force"));
        assert!(explanation(false, false, false).contains("the kernel has no Landlock"));
    }
}
