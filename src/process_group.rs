//! Runs a program of the configuration in a process group, so that it can be killed with its children.

use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The variables that a program gets from our environment. The others may contain sockets or secrets.
const PASSED_ON: [&str; 13] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// Prepares a program with its arguments. It runs without a shell, without input, in the root folder, and with a part
/// of our environment. Fails if `words` is empty.
pub fn command(words: &[String]) -> io::Result<Command> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(passed_on).current_dir("/").stdin(Stdio::null());
    Ok(command)
}

/// The process group that a program leads.
#[derive(Clone, Copy)]
pub struct ProcessGroup(Option<Pid>);

/// Starts a program in a new process group. Dropping the child kills the program, but not its children.
pub fn start(command: &mut Command) -> io::Result<(Child, ProcessGroup)> {
    let child = command.process_group(0).kill_on_drop(true).spawn()?;
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    Ok((child, ProcessGroup(id)))
}

impl ProcessGroup {
    /// Kills the program and its children.
    pub fn kill(self) {
        // An error means that no process is left.
        let _gone = self.0.map(|id| kill_process_group(id, Signal::KILL));
    }
}
