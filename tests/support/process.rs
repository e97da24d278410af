//! The program itself, as a person or a service manager runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::canaries;
use super::house::PATIENCE;

/// How long to wait for the last lines of a dead process whose child still has its output open.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// One of our processes. Its methods block; it is killed when it is dropped.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    out: Lines,
    err: Lines,
}

/// How a process has ended, and its output.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    /// Whether the kernel has written a core.
    pub core_dumped: bool,
}

/// The program, which Cargo builds for tests, but not for examples.
fn program() -> &'static str {
    let Some(program) = option_env!("CARGO_BIN_EXE_postkey") else { panic!("only tests run the program") };
    program
}

impl Process {
    /// Runs postkey with nothing in its environment but HOME, and with a umask that it has to overcome.
    pub fn start(home: &Path, arguments: &[&str]) -> Self {
        Self::start_with(home, arguments, &[])
    }

    /// The same with these additional environment variables.
    pub fn start_with(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by("umask 000", home, arguments, environment)
    }

    /// The same as this user, with a copy of the program that the user can reach.
    pub fn start_as(user: u32, home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let copy = home.join("postkey");
        std::fs::copy(program(), &copy).expect("a copy of the program");
        let mut command = Command::new(copy);
        command.args(arguments).env_clear().envs(environment.iter().copied()).env("HOME", home).current_dir(home);
        command.uid(user).gid(user);
        Self::spawn(command)
    }

    /// The same from a service manager, which does something in the shell first.
    pub fn start_by(preparation: &str, home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // Not sh, because Debian's knows no descriptor beyond 9.
        let mut command = Command::new("/bin/bash");
        command.args(["-c", &format!("{preparation}; exec \"$0\" \"$@\""), program()]).args(arguments);
        command.env_clear().envs(environment.iter().copied()).env("HOME", home).current_dir(home);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let (out, err) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        let input = child.stdin.take();
        Self { child, input, out, err }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Types a line. A process that has ended does not read it.
    pub fn say(&mut self, line: &str) {
        let _gone = writeln!(self.input.as_mut().expect("the input is open"), "{line}");
    }

    /// Reads its standard output up to the first line that contains `part`. Returns that line.
    pub fn hear(&mut self, part: &str) -> String {
        self.out.find(part)
    }

    /// The same for its standard error.
    pub fn hear_complaint(&mut self, part: &str) -> String {
        self.err.find(part)
    }

    /// Asks it to end, as service managers do.
    pub fn terminate(self) -> Ended {
        self.signal(rustix::process::Signal::TERM);
        self.end()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).expect("it runs");
    }

    /// Types nothing more, and waits for its end.
    pub fn end(mut self) -> Ended {
        self.input = None;
        let (out, err) = (self.out.rest(), self.err.rest());
        let status = self.child.wait().expect("our own child");
        Ended { code: status.code(), out, err, core_dumped: status.core_dumped() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        // Its whole output is read before its house is gone.
        for lines in [&mut self.out, &mut self.err] {
            let deadline = Instant::now() + AFTERWARDS;
            while lines.next(deadline).is_some() {}
        }
    }
}

/// Lines that a thread has read.
struct Lines {
    arriving: Receiver<String>,
    heard: String,
}

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let (sender, arriving) = channel();
        std::thread::spawn(move || read(source, &sender));
        Self { arriving, heard: String::new() }
    }

    fn next(&mut self, deadline: Instant) -> Option<String> {
        let line = self.arriving.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        self.heard += &line;
        Some(line)
    }

    fn find(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.next(deadline) {
            if line.contains(part) {
                return line;
            }
        }
        panic!("{part:?} is not in what it said:\n{}", self.heard)
    }

    /// Everything, once the process has closed its end.
    fn rest(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.next(deadline).is_some() {}
        assert!(Instant::now() < deadline, "it does not end; it has said:\n{}", self.heard);
        std::mem::take(&mut self.heard)
    }
}

fn read(source: impl Read, sender: &Sender<String>) {
    let mut source = BufReader::new(source);
    loop {
        let mut line = Vec::new();
        match source.read_until(b'\n', &mut line) {
            Ok(1..) => {
                canaries::hear(&line);
                // Perhaps nobody reads them any more.
                let _gone = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
            _ => return,
        }
    }
}
