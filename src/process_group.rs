//! A program that is run for somebody, with all that it starts.

use std::io;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The process group of a program that leads one.
#[derive(Clone, Copy)]
pub struct ProcessGroup(Option<Pid>);

/// Starts a program at the head of a process group of its own. It is killed when it is dropped; what it has started is not.
///
/// # Errors
///
/// It cannot be started.
pub fn start(command: &mut Command) -> io::Result<(Child, ProcessGroup)> {
    let child = command.process_group(0).kill_on_drop(true).spawn()?;
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    Ok((child, ProcessGroup(id)))
}

impl ProcessGroup {
    /// Kills the program and all that it has started; none of it may be left.
    pub fn kill(self) {
        // An error says that nothing is left to kill.
        let _gone = self.0.map(|id| kill_process_group(id, Signal::KILL));
    }
}
