//! A program that is run for somebody, with all that it starts.

use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// What a program gets of our environment. Not the rest, where the service manager's sockets and somebody's secrets may be.
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

/// A program and its arguments as the configuration names them, to be run without a shell and an input, in the root folder,
/// with a part of our environment.
///
/// # Errors
///
/// There is no program.
pub fn command(words: &[String]) -> io::Result<Command> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(passed_on).current_dir("/").stdin(Stdio::null());
    Ok(command)
}

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
