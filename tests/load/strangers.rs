//! A legitimate user beside a hostile one, at the limits of the service's unit.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::Stage;
use crate::client::Way;
use crate::hostile::Targets;
use crate::idle::running;
use crate::postkey::{self, Setup};
use crate::protocol::{Ports, Protocol};
use crate::report::Report;

/// A user of this machine, which we can become if we are root.
const MALLORY: u32 = 1234;

/// A password of the user's own choice.
const CHOSEN: &str = "my-own-choice-of-a-password";

/// How often it has to be checked meanwhile: a correct password is remembered until the account gets another app
/// password.
const CHECKS: usize = 10;

/// How long to wait between two logins.
const PAUSE: Duration = Duration::from_millis(50);

/// Nobody waits longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attacks postkey while a legitimate user logs in again and again, with the generated password and with a chosen one.
pub async fn strangers(stage: &Stage<'_>, report: &mut Report) -> io::Result<()> {
    let (descriptors, memory) = (limit_of_unit("LimitNOFILE")?, limit_of_unit("MemoryMax")?);
    let targets = Targets::choose(stage.dir, "strangers")?;
    let (limit, home) = (format!("--nofile={descriptors}"), stage.dir.join("strangers"));
    let (top, more) = (targets.top(), targets.more(stage.dir));
    let setup = Setup { under: &["prlimit", &limit], top: &top, more: &more, ..Setup::default() };
    let postkey = postkey::start_as(stage.dir, "strangers", stage.provider, stage.program, setup).await?;
    let (process, way) = (running(&postkey.process)?, &postkey.way);
    let generated = way.password.clone().unwrap_or_default();
    postkey::add(stage.program, &home, &generated, "chosen", Some(CHOSEN)).await?;
    let mut honest = Honest { way, times: Default::default(), failed: 0 };
    honest.log_in(Kind::Generated, &generated).await;
    honest.log_in(Kind::First, CHOSEN).await;
    report.note("strangers: a login before", honest.times[0][0], "ms");
    report.note("strangers: the first login with a chosen password before", honest.times[2][0], "ms");
    honest.times = Default::default();
    let hostile = Hostile::start(stage.dir, &targets, way.ports)?;
    sleep(stage.load.hostile_for / 10).await;
    let begun = Instant::now();
    for number in 0..CHECKS {
        postkey::add(stage.program, &home, &generated, &format!("{number}"), None).await?;
        honest.log_in(Kind::First, CHOSEN).await;
        // At least one login of each kind follows, however long the check took.
        let next = begun + stage.load.hostile_for.mul_f64((number + 1) as f64 / CHECKS as f64);
        loop {
            honest.log_in(Kind::Generated, &generated).await;
            honest.log_in(Kind::Remembered, CHOSEN).await;
            if Instant::now() >= next {
                break;
            }
            sleep(PAUSE).await;
        }
    }
    let (seconds, peak) = (begun.elapsed().as_secs_f64(), process.peak()? / 1024.0);
    let connections = hostile.end()?;
    report.at_a_rate("strangers: connections of the hostile user", connections / seconds, 200.0);
    honest.report(report);
    report.at_most("strangers: memory at its peak", peak, memory / 2.0 / 1048576.0, "MiB, half of MemoryMax");
    Ok(())
}

/// The kinds of passwords.
#[derive(Clone, Copy)]
enum Kind {
    Generated,
    /// Chosen, and correct before.
    Remembered,
    /// Chosen, and still to be checked.
    First,
}

/// Logs in, and records how many milliseconds it took, by kind.
struct Honest<'a> {
    way: &'a Way,
    times: [Vec<f64>; 3],
    failed: usize,
}

impl Honest<'_> {
    async fn log_in(&mut self, kind: Kind, password: &str) {
        let times = &mut self.times[kind as usize];
        let way = Way { password: Some(password.to_owned()), ..self.way.clone() };
        let protocol = Protocol::ALL[times.len() % 3];
        let start = Instant::now();
        let met = timeout(PATIENCE, way.login(protocol)).await;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if !matches!(met, Ok(Ok(_))) {
            self.failed += 1;
            eprintln!("load: strangers: {protocol}: {:?}", met.map(|login| login.map(drop)));
        }
    }

    fn report(mut self, report: &mut Report) {
        const FIRST: usize = Kind::First as usize;
        let kinds = ["generated", "chosen", "chosen, to be checked"];
        for (number, (kind, times)) in kinds.iter().zip(&mut self.times).enumerate() {
            times.sort_by(f64::total_cmp);
            report.at_least(&format!("strangers: password {kind}: logins"), times.len() as f64, 5.0, "logins");
            let at = |share: usize| times.get((times.len() * share).div_ceil(100).saturating_sub(1)).copied();
            let [median, worst] = [50, 100].map(|share| at(share).unwrap_or(f64::NAN));
            if matches!(number, FIRST) {
                // It waits for the password that is being checked, and for a second one's turn.
                report.in_time(&format!("strangers: password {kind}: median"), median, 2000.0, "ms");
                report.note(&format!("strangers: password {kind}: worst"), worst, "ms");
            } else {
                report.note(&format!("strangers: password {kind}: median"), median, "ms");
                report.in_time(&format!("strangers: password {kind}: worst"), worst, 1000.0, "ms");
            }
        }
        report.none("strangers: logins that failed", self.failed, "logins");
    }
}

/// The hostile user's process. It ends with us.
struct Hostile(Child);

impl Hostile {
    fn start(dir: &Path, targets: &Targets, ports: Ports) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("hostile").arg(dir).args([serde_json::to_string(targets)?, serde_json::to_string(&ports)?]);
        if rustix::process::geteuid().is_root() {
            // Another user has to reach the certificate and the Unix socket.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
            command.uid(MALLORY).gid(MALLORY);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Self)
    }

    /// Ends it. Returns how many connections it made.
    fn end(mut self) -> io::Result<f64> {
        drop(self.0.stdin.take());
        let said = io::read_to_string(self.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?)?;
        said.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A limit in the unit: a number, or one of gibibytes.
fn limit_of_unit(name: &str) -> io::Result<f64> {
    let unit = include_str!("../../systemd/postkey.service");
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let (number, unit) = value.strip_suffix('G').map_or((value, 1.0), |number| (number, 1_073_741_824.0));
    number.parse::<f64>().map(|number| number * unit).map_err(io::Error::other)
}
