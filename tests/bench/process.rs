//! A process that we started: it ends with us, and Linux reports what it uses.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// The unit of `/proc/PID/stat`: Linux shows 100 ticks a second to programs on every architecture that Debian ships.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process. Dropping it ends it.
pub struct Process(Child);

impl Process {
    /// Starts `command`. Its output goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map(Self)
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let ended = tokio::task::spawn_blocking(move || self.0.wait()).await??;
        ended.success().then_some(()).ok_or_else(|| io::Error::other(format!("ended with {ended}")))
    }

    /// Waits until it listens on `port`, ten minutes at most: under valgrind, and behind everything else, it starts slowly.
    pub async fn listening(&mut self, port: u16) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(600);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(format!("ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("does not listen on port {port}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// CPU seconds that all its threads have used, including those that have ended.
    pub fn cpu(&self) -> io::Result<f64> {
        let stat = self.proc("stat")?;
        // The second field is the program's name, which may contain blanks; utime and stime are fields 14 and 15.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>().map_err(io::Error::other)?;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// The same, once it has nothing more to do, because closing connections is part of the cost.
    pub async fn settled_cpu(&self) -> io::Result<f64> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut before = self.cpu()?;
        loop {
            sleep(Duration::from_millis(100)).await;
            let now = self.cpu()?;
            if now == before || Instant::now() > deadline {
                return Ok(now);
            }
            before = now;
        }
    }

    /// How many system calls it makes during `work`, counted by strace, which slows it down.
    pub async fn system_calls<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<f64> {
        let report = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-p", &self.id().to_string(), "-o"]).arg(report.path());
        let strace = Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.is_traced()? {
            if Instant::now() > deadline {
                return Err(io::Error::other("strace does not attach"));
            }
            sleep(Duration::from_millis(10)).await;
        }
        work.await?;
        kill_process(Pid::from_child(&strace.0), Signal::INT)?;
        let mut strace = strace;
        tokio::task::spawn_blocking(move || strace.0.wait()).await??;
        // The last line is: percentage, seconds, microseconds for each call, calls, perhaps errors, "total".
        let report = fs::read_to_string(report.path())?;
        let total =
            report.lines().find(|line| line.ends_with(" total")).and_then(|line| line.split_whitespace().nth(3));
        total.and_then(|calls| calls.parse().ok()).ok_or_else(|| io::Error::other(format!("no total in:\n{report}")))
    }

    /// Whether another process sees what each of its threads does.
    fn is_traced(&self) -> io::Result<bool> {
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            if fs::read_to_string(task?.path().join("status"))?.contains("TracerPid:\t0\n") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Kilobytes (of 1024) in memory.
    pub fn resident(&self) -> io::Result<f64> {
        self.status("VmRSS:")
    }

    /// The same at its peak.
    pub fn peak(&self) -> io::Result<f64> {
        self.status("VmHWM:")
    }

    /// A size in `/proc/PID/status`.
    fn status(&self, name: &str) -> io::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches("kB").trim().parse().map_err(io::Error::other)
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> io::Result<usize> {
        entries(self.id(), "fd")
    }

    /// The same, once there are at most `most`, or when patience ends.
    pub async fn settled_descriptors(&self, most: usize, patience: Duration) -> io::Result<usize> {
        let deadline = Instant::now() + patience;
        while self.descriptors()? > most && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
        }
        self.descriptors()
    }

    /// How many threads it has, by name.
    pub fn threads(&self) -> io::Result<Vec<String>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id()))?;
        tasks.map(|task| fs::read_to_string(task?.path().join("comm"))).collect()
    }

    fn proc(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))
    }
}

/// How many entries a folder of `/proc/PID` has.
pub fn entries(process: u32, folder: &str) -> io::Result<usize> {
    fs::read_dir(format!("/proc/{process}/{folder}")).map(Iterator::count)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
