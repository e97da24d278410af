//! strace: what it does to a program, and what it records about it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::world::PATIENCE;

/// The system calls at which something can be gained or lost: files, sockets, the control socket, standard output.
/// With a question mark, strace ignores a call that this machine does not have.
const CALLS: &str = "?openat,?mkdir,?flock,?write,?writev,?pwrite64,?fsync,?fdatasync,?sync_file_range,?ftruncate,?fallocate,\
                     ?rename,?renameat,?renameat2,?link,?linkat,?unlink,?unlinkat,?rmdir,?chmod,?fchmod,?bind,?listen,?connect,?accept4,\
                     ?sendto,?sendmsg,?read,?pread64,?getdents64,?recvfrom,?recvmsg,?shutdown";

/// A point to strike: a call by its name, and its number among the calls of this name in the thread that gets that far
/// first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub call: String,
    pub number: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{}", self.call, self.number)
    }
}

/// One run of a program under strace.
pub struct Trace {
    log: PathBuf,
    inject: Option<String>,
    /// The only files whose calls are traced. If there are none, all calls are.
    paths: Vec<String>,
    /// How many bytes of each string are recorded.
    kept: usize,
}

impl Trace {
    /// Only traces.
    pub fn watch(log: &Path) -> Self {
        Self { log: log.to_owned(), inject: None, paths: Vec::new(), kept: 64 }
    }

    /// Traces, and records everything that is written.
    pub fn record(log: &Path) -> Self {
        Self { kept: 16 << 20, ..Self::watch(log) }
    }

    /// Kills the program when it begins the call, which is then not carried out.
    pub fn kill(log: &Path, point: &Point) -> Self {
        let inject = format!("inject={}:signal=KILL:when={}", point.call, point.number);
        Self { inject: Some(inject), ..Self::watch(log) }
    }

    /// Lets the call fail, and if `on` all later ones, too; only on these files.
    pub fn fail(log: &Path, point: &Point, on: bool, error: &str, paths: &[String]) -> Self {
        let inject = format!("inject={}:error={error}:when={}{}", point.call, point.number, if on { "+" } else { "" });
        Self { inject: Some(inject), paths: paths.to_vec(), ..Self::watch(log) }
    }

    /// The program under strace, and still our own child: the tracer is a grandchild, which ends with it.
    pub fn command(&self, binary: &Path) -> Command {
        let mut command = self.strace();
        // With one worker the calls come in much the same order each time.
        command.arg("-D").env("TOKIO_WORKER_THREADS", "1").arg(binary);
        command
    }

    /// strace on a program that already runs, until strace is ended.
    pub async fn attach(&self, pid: u32) -> Result<Attached, String> {
        let mut command = self.strace();
        command.args(["-p", &pid.to_string()]).stderr(Stdio::piped()).kill_on_drop(true);
        let mut tracer = command.spawn().map_err(|error| format!("strace cannot be run: {error}"))?;
        let mut lines = BufReader::new(tracer.stderr.take().ok_or("no output")?).lines();
        let first = timeout(PATIENCE, lines.next_line()).await;
        match first.ok().and_then(Result::ok).flatten() {
            Some(line) if line.contains(" attached") => Ok(Attached { tracer, _lines: lines }),
            other => Err(format!("strace does not attach: {other:?}")),
        }
    }

    fn strace(&self) -> Command {
        let _none_yet = std::fs::remove_file(&self.log);
        let mut command = Command::new("strace");
        let kept = self.kept.to_string();
        command.args(["-f", "-yy", "-x", "-s", &kept, "-e", &format!("trace={CALLS}"), "-o"]).arg(&self.log);
        if let Some(inject) = &self.inject {
            command.args(["-e", inject]);
        }
        for path in &self.paths {
            command.args(["-P", path]);
        }
        command
    }

    /// The record, once the program has ended.
    pub async fn calls(&self) -> Vec<Call> {
        let mut text = String::new();
        // The tracer may be a moment behind. The end of a process is its last line.
        for _ in 0..200 {
            text = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
            if text.lines().last().is_some_and(|line| line.contains("+++ ")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        read(&text)
    }
}

/// strace at work on a program that it did not start.
pub struct Attached {
    tracer: Child,
    _lines: Lines<BufReader<ChildStderr>>,
}

impl Attached {
    /// Detaches from the program, which continues.
    pub async fn detach(mut self) -> Result<(), String> {
        let pid = self.tracer.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("strace has ended")?;
        kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
        match timeout(PATIENCE, self.tracer.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err("strace does not let go".to_owned()),
        }
    }
}

/// A system call, as strace has recorded it.
#[derive(Clone, Debug)]
pub struct Call {
    thread: u32,
    pub name: String,
    /// Arguments and result, as strace writes them.
    pub text: String,
    /// The line in which it returned, if it did so without an error.
    pub succeeded: Option<usize>,
    /// The line in which it was made.
    pub began: usize,
}

impl Call {
    /// Its result; None for an error.
    pub fn result(&self) -> Option<usize> {
        let (_, result) = self.text.rsplit_once(" = ")?;
        result.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// The files below this folder that it names.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let below = self.text.match_indices(folder).filter_map(|(place, _)| self.text.get(place..));
        below.map(|rest| rest.chars().take_while(|c| !">\"".contains(*c)).collect()).collect()
    }

    /// The file of its first argument, a descriptor; None if it has been removed.
    pub fn descriptor(&self) -> Option<PathBuf> {
        let first = self.arguments().into_iter().next()?;
        if first.ends_with("(deleted)") { None } else { at(first) }
    }

    /// The paths that it names. A relative one begins at the descriptor before it.
    pub fn paths(&self) -> Vec<PathBuf> {
        let arguments = self.arguments();
        let path = |(number, argument): (usize, &&str)| {
            let path = PathBuf::from(String::from_utf8(string(argument)?).ok()?);
            let folder = number.checked_sub(1).and_then(|before| at(arguments.get(before)?));
            Some(if path.is_relative() { folder?.join(path) } else { path })
        };
        arguments.iter().enumerate().filter_map(path).collect()
    }

    /// The bytes of its strings.
    pub fn strings(&self) -> Vec<Vec<u8>> {
        self.arguments().into_iter().filter_map(string).collect()
    }

    /// An argument, as a number.
    pub fn number(&self, place: usize) -> Option<usize> {
        self.arguments().get(place)?.parse().ok()
    }

    /// Its arguments as strace writes them.
    fn arguments(&self) -> Vec<&str> {
        let Some((_, rest)) = self.text.split_once('(') else { return Vec::new() };
        let (mut arguments, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
        for (place, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = quoted,
                '"' => quoted = !quoted,
                ',' | ')' if !quoted => {
                    arguments.push(rest[begin..place].trim());
                    begin = place + 1;
                }
                _ => {}
            }
            let is_end = c == ')' && rest[place..].starts_with(") ") || rest[place..].starts_with(" <unfinished");
            if is_end && !quoted {
                arguments.push(rest[begin.min(place)..place].trim());
                break;
            }
        }
        arguments
    }

    /// Whether it is one of these.
    pub fn is(&self, names: &[&str]) -> bool {
        names.contains(&&*self.name)
    }
}

/// The file or socket that a descriptor is open on.
fn at(argument: &str) -> Option<PathBuf> {
    let (_, path) = argument.split_once('<')?;
    path.strip_suffix('>').map(PathBuf::from)
}

/// The bytes of a string as strace writes them with `-x`: each in hexadecimal, or as in C if all are printable.
fn string(argument: &str) -> Option<Vec<u8>> {
    let mut rest = argument.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    while let Some(c) = rest.chars().next() {
        let (byte, size) = match rest.strip_prefix('\\') {
            None => (c as u8, 1),
            Some(escape) => match escape.chars().next()? {
                'x' => (u8::from_str_radix(escape.get(1..3)?, 16).ok()?, 4),
                'n' => (b'\n', 2),
                'r' => (b'\r', 2),
                't' => (b'\t', 2),
                'v' => (0x0b, 2),
                'f' => (0x0c, 2),
                other => (other as u8, 2),
            },
        };
        bytes.push(byte);
        rest = rest.get(size..)?;
    }
    Some(bytes)
}

/// Reads strace's log. A call that another thread's call has interrupted is on two lines.
fn read(log: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (number, line) in log.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            if let Some(call) = open.remove(&thread).and_then(|place| calls.get_mut(place)) {
                call.text += rest;
                call.succeeded = has_succeeded(rest).then_some(number);
            }
        } else if let Some((name, _)) = rest.split_once('(').filter(|_| rest.starts_with(char::is_alphabetic)) {
            if rest.ends_with("<unfinished ...>") {
                open.insert(thread, calls.len());
            }
            let succeeded = has_succeeded(rest).then_some(number);
            calls.push(Call { thread, name: name.to_owned(), text: rest.to_owned(), succeeded, began: number });
        }
    }
    calls
}

/// Whether the line has a result that is not an error.
fn has_succeeded(line: &str) -> bool {
    line.rsplit_once(" = ").is_some_and(|(_, result)| result.starts_with(|first: char| first.is_ascii_digit()))
}

/// Every point at which a run like this one can be struck, in the order in which they first come, with the call at
/// each.
pub fn points(calls: &[Call]) -> Vec<(Point, &Call)> {
    let mut made: HashMap<(u32, &str), usize> = HashMap::new();
    let mut seen = HashSet::new();
    let mut points = Vec::new();
    for call in calls {
        let number = made.entry((call.thread, &call.name)).or_default();
        *number += 1;
        let point = Point { call: call.name.clone(), number: *number };
        if seen.insert(point.clone()) {
            points.push((point, call));
        }
    }
    points
}
