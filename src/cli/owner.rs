//! Root drops its privileges if the vault belongs to another user.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::config::Config;
use crate::exit::{Exit, Failed};

/// Continues as the owner of the vault's folder, if this is root and no daemon runs that would do the work. The service
/// could not open files that root creates there, and root should not write to a folder that another user can change. A
/// command's backup is then written or read as that user, too.
///
/// Call this before there are threads: the kernel changes only the calling thread and those that it starts later.
pub fn step_back(config: &Config) -> Result<(), Failed> {
    if !rustix::process::geteuid().is_root() || UnixStream::connect(&config.control_socket).is_ok() {
        return Ok(());
    }
    become_owner(&config.state_dir)
}

/// Continues as the owner of this folder, if this is root. Call this before there are threads.
pub fn become_owner(folder: &Path) -> Result<(), Failed> {
    // A missing folder will be created. systemd gives root's folder, with its content, to the service's user.
    let Ok(about) = std::fs::symlink_metadata(folder) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || about.uid() == 0 || !about.is_dir() {
        return Ok(());
    }
    become_user(Uid::from_raw(about.uid()), Gid::from_raw(about.gid())).map_err(|error| {
        let message = format!(
            "{} belongs to uid {}, and postkey cannot act as that user: {error}; start the service first, or run \
             this command as that user",
            folder.display(),
            about.uid()
        );
        Failed::new(Exit::Os, message)
    })
}

/// Becomes another user, for good. Groups come first, because only root may change them.
fn become_user(user: Uid, group: Gid) -> rustix::io::Result<()> {
    set_thread_groups(&[group])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}
