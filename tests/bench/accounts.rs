//! Measures what many accounts cost: each figure with one account, with a thousand and with ten thousand, or with other numbers.
//!
//! The instructions come from valgrind's callgrind, which writes down its count whenever it is asked. What the daemon does by
//! itself in that time is not in the figures, but in a row of its own.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};

use crate::client::{USER, Way};
use crate::contestant::Contestant;
use crate::crowd;
use crate::pki;
use crate::postkey::{Setup, add, start_as};
use crate::process::Process;
use crate::protocol::Protocol;
use crate::upstream::Provider;

/// How often to take a figure that varies. The median counts.
const TIMES: usize = 3;

/// A figure, and the most that it may be with the most accounts: a value, or the ratio to one account.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Any,
    AtMost(f64),
    Ratio(f64),
}

/// A row of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    wanted: Wanted,
    values: Vec<f64>,
}

struct Table {
    sizes: Vec<usize>,
    rows: Vec<Row>,
}

impl Table {
    fn add(&mut self, name: &'static str, unit: &'static str, wanted: Wanted, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { name, unit, wanted, values: vec![value] }),
        }
    }

    /// Prints the table, and returns whether all is as wanted.
    fn print(&self) -> bool {
        let columns: Vec<String> = self.sizes.iter().map(|size| format!("{size} accounts")).collect();
        println!("| | {} | ratio | wanted |\n|---|{}---|---|", columns.join(" | "), "---|".repeat(self.sizes.len()));
        let mut is_well = true;
        for Row { name, unit, wanted, values } in &self.rows {
            let (first, last) =
                (values.first().copied().unwrap_or_default(), values.last().copied().unwrap_or_default());
            let (text, is_right) = match *wanted {
                Wanted::Any => (String::new(), true),
                Wanted::AtMost(most) => (format!("at most {most}"), last <= most),
                Wanted::Ratio(most) => (format!("ratio at most {most}"), last <= most * first),
            };
            let mut cells: Vec<String> = values.iter().map(|value| shown(*value)).collect();
            cells.resize(self.sizes.len(), String::new());
            let ratio = if values.len() > 1 { format!("{:.2}", last / first) } else { String::new() };
            let mark = if is_right { "" } else { " **missed**" };
            println!("| {name}, {unit} | {} | {ratio} | {text}{mark} |", cells.join(" | "));
            is_well &= is_right;
        }
        is_well
    }
}

fn shown(value: f64) -> String {
    if value < 10.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

/// The program, with a number of accounts.
pub struct Subject<'a> {
    /// Where it may write.
    pub dir: &'a Path,
    pub program: &'a Path,
    pub size: usize,
}

/// Measures everything with these numbers of accounts, and prints the table. Returns whether all is as wanted.
pub async fn measure(dir: &Path, program: &Path, sizes: Vec<usize>) -> io::Result<bool> {
    pki::write(dir)?;
    let mut table = Table { sizes: sizes.clone(), rows: Vec::new() };
    for size in sizes {
        eprintln!("{size} accounts");
        let home = dir.join(size.to_string());
        fs::create_dir(&home)?;
        pki::write(&home)?;
        let subject = Subject { dir: &home, program, size };
        let backup = at_work(&subject, &mut table).await?;
        moving_in(&subject, &backup, &mut table).await?;
        let counted = logins(&subject).await?;
        table.add("a greeting", "thousand instructions", Wanted::Ratio(1.1), counted.greeting);
        table.add("a login with a known password", "thousand instructions", Wanted::Ratio(1.1), counted.login);
        table.add("a minute without work", "million instructions", Wanted::Any, counted.minute / 1000.0);
        let refresh = refreshes(&subject).await?;
        table.add("a login with a refresh", "thousand instructions", Wanted::Ratio(1.1), refresh);
        fs::remove_dir_all(&home)?;
    }
    let resident = chosen_passwords(&Subject { dir, program, size: 1 }).await?;
    table.add("resident after 1000 chosen passwords", "MB", Wanted::AtMost(25.0), resident);
    Ok(table.print())
}

/// A postkey with accounts.
pub struct Crowded {
    home: PathBuf,
    pub way: Way,
    /// None while it is stopped.
    process: RefCell<Option<Process>>,
}

impl Crowded {
    async fn start(
        Subject { dir, program, size }: &Subject<'_>,
        name: &'static str,
        provider: &Provider,
        under: &[&str],
    ) -> io::Result<Self> {
        let fill = |home: &Path| crowd::fill(&home.join("state"), size - 1);
        let setup = Setup { under, before: Some(&fill), ..Setup::default() };
        let Contestant { way, process, .. } = start_as(dir, name, provider, program, setup).await?;
        Ok(Self { home: dir.join(name), way, process: RefCell::new(process) })
    }

    pub async fn stop(&self) -> io::Result<()> {
        let process = self.process.take();
        if let Some(process) = process { process.stop().await } else { Ok(()) }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", &self.home);
        command.arg("--config").arg(self.home.join("postkey.toml"));
        command
    }

    /// Starts it again. Returns the time until it reports to the service manager that it is ready.
    fn restart(&self, program: &Path) -> io::Result<Duration> {
        let path = self.home.join("notify");
        let _missing = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(120)))?;
        let begun = std::time::Instant::now();
        let mut command = self.command(program);
        let process = Process::start(command.env("NOTIFY_SOCKET", &path), &self.home.join("log"))?;
        self.process.replace(Some(process));
        let mut message = [0; 4096];
        loop {
            let length = socket.recv(&mut message)?;
            if message[..length].starts_with(b"READY=1") {
                return Ok(begun.elapsed());
            }
        }
    }

    /// Megabytes in memory, once it has nothing to do.
    async fn resident(&self) -> io::Result<f64> {
        // Nobody else uses the process meanwhile.
        let process = self.process.take().ok_or(io::ErrorKind::NotFound)?;
        process.settled_cpu().await?;
        let resident = process.resident()? / 1024.0;
        self.process.replace(Some(process));
        Ok(resident)
    }

    /// The number of bytes that the daemon answers to this request of a command.
    async fn ask(&self, request: &str) -> io::Result<usize> {
        let mut stream = UnixStream::connect(self.home.join("state/control")).await?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await
    }
}

/// What can be measured without valgrind. Returns a backup of all accounts.
async fn at_work(subject: &Subject<'_>, table: &mut Table) -> io::Result<PathBuf> {
    let (provider, program) = (Provider::start(subject.dir)?, subject.program);
    let crowded = Crowded::start(subject, "at-work", &provider, &[]).await?;
    let mut starts = Vec::new();
    for _ in 0..TIMES {
        crowded.stop().await?;
        starts.push(crowded.restart(program)?.as_secs_f64());
    }
    table.add("start to READY", "s", Wanted::AtMost(1.5), median(starts));
    table.add("resident at rest", "MB", Wanted::AtMost(60.0), crowded.resident().await?);
    let timed = |arguments: &'static [&'static str]| {
        median((0..TIMES).map(|_| time(crowded.command(program).args(arguments))).collect())
    };
    table.add("`postkey status`", "s", Wanted::AtMost(0.3), timed(&["status"]));
    table.add("`postkey status ADDRESS`", "s", Wanted::Any, timed(&["status", USER]));
    table.add("`postkey status --json`", "s", Wanted::Any, timed(&["status", "--json"]));
    table.add("`postkey status --exit-code`", "s", Wanted::Any, timed(&["status", "--exit-code"]));
    table.add("the status reply", "KB", Wanted::Any, crowded.ask("\"Status\"").await? as f64 / 1000.0);
    table.add("the metrics", "KB", Wanted::Ratio(1.1), crowded.ask("\"Metrics\"").await? as f64 / 1000.0);
    table.add("resident after status and metrics", "MB", Wanted::Any, crowded.resident().await?);
    let backup = subject.dir.join("backup");
    table.add("`postkey backup`", "s", Wanted::Any, time(crowded.command(program).arg("backup").arg(&backup)));
    table.add("the backup", "MB", Wanted::Any, fs::metadata(&backup)?.len() as f64 / 1e6);
    crowded.stop().await?;
    Ok(backup)
}

/// What brings accounts to a running daemon that has one: a backup of all others, and a file with refresh tokens.
async fn moving_in(subject: &Subject<'_>, backup: &Path, table: &mut Table) -> io::Result<()> {
    let (provider, program) = (Provider::start(subject.dir)?, subject.program);
    let crowded = Crowded::start(&Subject { size: 1, ..*subject }, "moving-in", &provider, &[]).await?;
    let restored = time(crowded.command(program).arg("restore").arg(backup));
    table.add("`postkey restore`, into a running daemon", "s", Wanted::Any, restored);
    let list = subject.dir.join("list");
    fs::write(&list, (0..subject.size).map(|number| format!("new-{number}@example.test token\n")).collect::<String>())?;
    let authorized = time(crowded.command(program).arg("authorize").arg("--from").arg(&list));
    table.add("`postkey authorize --from`, of as many", "s", Wanted::Any, authorized);
    crowded.stop().await
}

/// Seconds that a command takes; infinite if it fails.
fn time(command: &mut Command) -> f64 {
    let begun = std::time::Instant::now();
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if ended.is_ok_and(|ended| ended.success()) { begun.elapsed().as_secs_f64() } else { f64::INFINITY }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Counts the instructions of a daemon.
pub struct Counter {
    profile: PathBuf,
    process: u32,
    parts: u32,
}

impl Counter {
    /// Starts the daemon under callgrind.
    pub async fn start(subject: &Subject<'_>, name: &'static str, provider: &Provider) -> io::Result<(Crowded, Self)> {
        let profile = subject.dir.join(format!("{name}.callgrind"));
        let out = format!("--callgrind-out-file={}", profile.display());
        let under = ["env", "TOKIO_WORKER_THREADS=1", "valgrind", "--quiet", "--tool=callgrind", &out];
        let crowded = Crowded::start(subject, name, provider, &under).await?;
        let process = crowded.process.borrow().as_ref().map_or(0, Process::id);
        Ok((crowded, Self { profile, process, parts: 0 }))
    }

    /// The profile since the time before the last one, up to the last time.
    pub fn part(&self) -> PathBuf {
        PathBuf::from(format!("{}.{}", self.profile.display(), self.parts))
    }

    /// Thousands of instructions since the last time.
    pub async fn take(&mut self) -> io::Result<f64> {
        // Whatever follows an answer belongs to it.
        sleep(Duration::from_secs(2)).await;
        let process = self.process.to_string();
        let mut control = Command::new("callgrind_control");
        let asked = control.args(["--dump", &process]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        self.parts += 1;
        let part = self.part();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = fs::read_to_string(&part).unwrap_or_default();
            let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<f64>().ok());
            match total {
                Some(total) => return Ok(total / 1000.0),
                None if !asked.success() || Instant::now() > deadline => {
                    return Err(io::Error::other("callgrind_control has written no count"));
                }
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Thousands of instructions of each of so many times.
    async fn each<F: Future<Output = io::Result<()>>>(
        &mut self,
        times: u32,
        of_a_minute: f64,
        work: impl Fn() -> F,
    ) -> io::Result<f64> {
        self.take().await?;
        let begun = Instant::now();
        for _ in 0..times {
            work().await?;
        }
        let counted = self.take().await?;
        Ok((counted - of_a_minute * begun.elapsed().as_secs_f64() / 60.0) / f64::from(times))
    }
}

/// Thousands of instructions.
struct Counted {
    greeting: f64,
    login: f64,
    minute: f64,
}

async fn logins(subject: &Subject<'_>) -> io::Result<Counted> {
    let provider = Provider::start(subject.dir)?;
    let (crowded, mut counter) = Counter::start(subject, "logins", &provider).await?;
    let way = &crowded.way;
    way.login(Protocol::Imap).await?;
    let minute = counter.each(1, 0.0, idle).await?;
    let greeting = counter.each(300, minute, async || greeting(way).await).await?;
    let login = counter.each(300, minute, async || way.login(Protocol::Imap).await.map(drop)).await?;
    crowded.stop().await?;
    Ok(Counted { greeting, login, minute })
}

async fn refreshes(subject: &Subject<'_>) -> io::Result<f64> {
    let provider = Provider::start_with(subject.dir, 1)?;
    let (crowded, mut counter) = Counter::start(subject, "refreshes", &provider).await?;
    let way = &crowded.way;
    way.login(Protocol::Imap).await?;
    let minute = counter.each(1, 0.0, idle).await?;
    let login = async || {
        sleep(Duration::from_secs(1)).await;
        way.login(Protocol::Imap).await.map(drop)
    };
    let refresh = counter.each(40, minute, login).await?;
    crowded.stop().await?;
    Ok(refresh)
}

/// A minute without work.
async fn idle() -> io::Result<()> {
    sleep(Duration::from_secs(60)).await;
    Ok(())
}

/// Connects, reads the greeting, and leaves.
async fn greeting(way: &Way) -> io::Result<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", way.ports.of(Protocol::Imap))).await?;
    let mut greeting = [0; 1024];
    match socket.read(&mut greeting).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Megabytes in memory after 1000 checks of a chosen password, on a vault of one account.
async fn chosen_passwords(subject: &Subject<'_>) -> io::Result<f64> {
    const CHOSEN: &str = "correct horse battery staple";
    eprintln!("1000 chosen passwords");
    let provider = Provider::start(subject.dir)?;
    let crowded = Crowded::start(subject, "chosen", &provider, &[]).await?;
    let generated = crowded.way.password.clone().unwrap_or_default();
    add(subject.program, &crowded.home, &generated, "chosen", Some(CHOSEN)).await?;
    let way = Way { password: Some(format!("\"{CHOSEN}\"")), ..crowded.way.clone() };
    for _ in 0..1000 {
        // It fails, because there is no such app password; but then the others are checked again.
        crowded.ask(&format!("{{\"RemoveSlot\":{{\"address\":\"{USER}\",\"name\":\"none\"}}}}")).await?;
        way.login(Protocol::Imap).await?;
    }
    let resident = crowded.resident().await?;
    crowded.stop().await?;
    Ok(resident)
}
