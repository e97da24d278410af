//! What this process gives up, so that little is lost with it.
//!
//! The units of systemd confine it more; this holds without them, too.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use tracing::{debug, info, warn};

use crate::config::Config;

/// What the kernel has to know: all that writes to files, truncate(2) included.
const LANDLOCK: ABI = ABI::V3;

/// Lets no other process of the same user read this one's memory, and the kernel write none of it to a file.
pub fn memory() {
    // What fails here holds without it, only less; commands go on as they would elsewhere.
    let _less = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _less = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// How far the daemon is confined; to be told once there is a log.
pub struct Confined(Result<Option<RulesetStatus>, RulesetError>);

/// Gives up new privileges, and to write anywhere but where the configuration says. For the thread that calls it and those
/// that it starts; so before there are any others.
///
/// Reading and running stay as they are: what a reload names, and what helpers need, is not known yet.
pub fn daemon(config: &Config) -> Confined {
    let _less = set_no_new_privs(true);
    // What these programs write to, they know alone; and Landlock would hold for them, too.
    if config.runs_programs() {
        return Confined(Ok(None));
    }
    Confined(write_only_to(&folders(config)).map(Some))
}

impl Confined {
    /// Says so, if the kernel does not do it.
    pub fn tell(&self) {
        match &self.0 {
            Ok(None) => info!("may write to all folders of its user, for the configuration has it run programs"),
            Ok(Some(RulesetStatus::NotEnforced)) => {
                warn!("the kernel has no Landlock; postkey is not confined to writing to its own folders");
            }
            Ok(Some(_)) => debug!("confined to writing to its own folders"),
            Err(error) => warn!(%error, "postkey is not confined to writing to its own folders"),
        }
    }
}

/// The state, and where the control socket and the log file are made.
fn folders(config: &Config) -> Vec<PathBuf> {
    let files = [Some(&config.control_socket), config.log_file.as_ref()];
    let folder = |file: &PathBuf| match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => Path::new(".").to_owned(),
    };
    files.into_iter().flatten().map(folder).chain([config.state_dir.clone()]).collect()
}

fn write_only_to(folders: &[PathBuf]) -> Result<RulesetStatus, RulesetError> {
    let writes = AccessFs::from_write(LANDLOCK);
    let rules = Ruleset::default().handle_access(writes)?.create()?.add_rules(path_beneath_rules(folders, writes))?;
    Ok(rules.restrict_self()?.ruleset)
}
