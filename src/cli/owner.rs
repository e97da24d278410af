//! Root steps back where the vault is somebody else's.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::config::Config;
use crate::exit::{Exit, Failed};

/// Goes on as the owner of the vault's folder, if this is root and no daemon runs that would do the work: what root makes in
/// there the service could not open any more, and a folder that another user can change is no place for root to write in.
/// The backup that a command writes or reads is this user's then, too.
///
/// To be called before there are threads: the kernel changes the one that asks, and those that it starts later.
pub fn step_back(config: &Config) -> Result<(), Failed> {
    if !rustix::process::geteuid().is_root() || UnixStream::connect(&config.control_socket).is_ok() {
        return Ok(());
    }
    // Not there, it will be made; systemd gives a folder of root to the service's user with all that is in it.
    let Ok(about) = std::fs::symlink_metadata(&config.state_dir) else { return Ok(()) };
    if about.uid() == 0 || !about.is_dir() {
        return Ok(());
    }
    become_user(Uid::from_raw(about.uid()), Gid::from_raw(about.gid())).map_err(|error| {
        let message = format!(
            "{} belongs to the user with the id {}, and postkey cannot act as that user: {error}; \
             start the service first, or run this as that user",
            config.state_dir.display(),
            about.uid()
        );
        Failed::new(Exit::Os, message)
    })
}

/// For good: groups first, for another user may not change them.
fn become_user(user: Uid, group: Gid) -> rustix::io::Result<()> {
    set_thread_groups(&[group])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}
