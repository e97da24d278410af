//! The measurements, and how much of each.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::client::{Client, Way};
use crate::contestant::Contestant;
use crate::protocol::Protocol;
use crate::table::Table;
use crate::upstream::{self, MESSAGE, Provider};

/// Longer than anything takes, unless the machine is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many clients log in at a time, if many have to.
const AT_ONCE: usize = 8;

/// How many log in at a time by IMAP, to see how the costs grow. One source may have 256 connections before their login.
const GROWTH: [usize; 3] = [1, 64, 240];

/// How many sessions of a hundred are busy, and for how long they are.
const BUSY: usize = 1;
const BUSY_FOR: Duration = Duration::from_secs(5);
const BUSY_EVERY: Duration = Duration::from_millis(100);

/// Messages as people get them, in octets: lines of 78.
const SMALL: [usize; 3] = [2028, 19_968, 99_996];

/// How many headers a mail program fetches when it opens a folder.
const HEADERS: usize = 1000;

/// How often small things are done while system calls are counted.
const COUNTED: usize = 100;

/// The burst: the number of programs that connect when the machine wakes up.
const BURST: usize = 64;

/// How long a round trip to a distant provider takes, in milliseconds.
const DISTANCE: u64 = 30;

/// How many logins to it are measured, and how far apart they are.
const PACED: usize = 20;
const PACE: Duration = Duration::from_millis(300);

/// How much of everything.
pub struct Load {
    /// How often everything is repeated. The table shows the median.
    pub rounds: usize,
    logins: usize,
    noops: usize,
    /// Messages on the one connection, and on each of the eight.
    messages: [usize; 2],
    /// Small messages on one connection.
    small: usize,
    idle: [usize; 2],
}

impl Load {
    pub const QUICK: Self =
        Self { rounds: 1, logins: 500, noops: 1000, messages: [8, 2], small: 500, idle: [200, 1000] };
    pub const FULL: Self =
        Self { rounds: 3, logins: 2000, noops: 5000, messages: [20, 4], small: 5000, idle: [1000, 5000] };
}

/// One measurement.
pub enum Measure {
    /// Flights that reach the provider before a login is answered. It is the first to use a listener.
    Flights(Protocol),
    /// Logins to a distant provider, at a pace at which mail programs open connections.
    Distant(Protocol),
    /// Idle sessions, and their memory. It is early, before the proxies' memory was used for anything else.
    Idle,
    /// Logins, one after the other, by this many clients.
    Logins(Protocol, usize),
    /// The same beside idle sessions.
    Beside,
    /// As many sessions as the machine allows, of which a few are busy.
    Busy,
    /// Logins, all at one moment.
    Burst,
    /// One small command after the other.
    Noop,
    /// `FETCH` of large messages on this many connections.
    Fetch(usize),
    /// `DATA` of large messages on this many connections.
    Upload(usize),
    /// `FETCH` of messages of this many octets on one connection.
    FetchSmall(usize),
    /// `DATA` of the same.
    UploadSmall(usize),
    /// `FETCH` of many headers, which the server sends one by one.
    Headers,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flights(protocol) => write!(f, "{protocol} flights until logged in"),
            Self::Distant(protocol) => write!(f, "{protocol} logins, {DISTANCE} ms away"),
            Self::Idle => write!(f, "IMAP idle sessions"),
            Self::Logins(protocol, at_once) => write!(f, "{protocol} logins, {at_once} at a time"),
            Self::Beside => write!(f, "IMAP logins beside idle sessions"),
            Self::Busy => write!(f, "IMAP sessions, {BUSY} % busy"),
            Self::Burst => write!(f, "IMAP burst of {BURST} logins"),
            Self::Noop => write!(f, "IMAP NOOP"),
            Self::Fetch(connections) => write!(f, "IMAP FETCH 50 MB, {connections} conn."),
            Self::Upload(connections) => write!(f, "SMTP DATA 50 MB, {connections} conn."),
            Self::FetchSmall(octets) => write!(f, "IMAP FETCH {} KB", octets / 1000),
            Self::UploadSmall(octets) => write!(f, "SMTP DATA {} KB", octets / 1000),
            Self::Headers => write!(f, "IMAP FETCH {HEADERS} headers"),
        }
    }
}

impl Measure {
    /// All of them, in order.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<_> = Protocol::ALL.map(Self::Flights).into();
        all.extend(Protocol::ALL.map(Self::Distant));
        all.push(Self::Idle);
        all.extend(Protocol::ALL.map(|protocol| Self::Logins(protocol, AT_ONCE)));
        all.extend(GROWTH.map(|at_once| Self::Logins(Protocol::Imap, at_once)));
        all.extend([Self::Burst, Self::Noop, Self::Fetch(1), Self::Fetch(8), Self::Upload(1), Self::Upload(8)]);
        all.extend(SMALL.map(Self::FetchSmall));
        all.extend(SMALL.map(Self::UploadSmall));
        all.extend([Self::Headers, Self::Beside, Self::Busy]);
        all
    }

    /// Whether another round would show nothing new.
    pub fn once(&self) -> bool {
        matches!(self, Self::Flights(_) | Self::Distant(_) | Self::Idle | Self::Beside | Self::Busy)
    }

    /// Measures `contestant` and records the results.
    pub async fn run(
        &self,
        contestant: &Contestant,
        provider: &Provider,
        load: &Load,
        table: &mut Table,
    ) -> io::Result<()> {
        let mut bench = Bench { name: self.to_string(), contestant, table };
        let measured = async {
            match *self {
                Self::Flights(protocol) => bench.flights(protocol, provider).await,
                Self::Distant(protocol) => {
                    provider.set_distance(DISTANCE).await?;
                    let measured = bench.distant(protocol).await;
                    provider.set_distance(0).await?;
                    measured
                }
                Self::Idle => bench.idle(&load.idle).await,
                Self::Logins(protocol, at_once) => bench.logins(protocol, at_once, load.logins).await,
                Self::Beside => bench.beside(load).await,
                Self::Busy => bench.busy(load).await,
                Self::Burst => bench.burst().await,
                Self::Noop => bench.noops(load.noops).await,
                Self::Fetch(connections) => bench.fetch(connections, messages(load, connections)).await,
                Self::Upload(connections) => bench.upload(connections, messages(load, connections)).await,
                Self::FetchSmall(octets) => {
                    let fetch = async |client: &mut Client| client.fetch_part(octets).await.map(drop);
                    bench.small(Protocol::Imap, load.small, fetch).await
                }
                Self::UploadSmall(octets) => {
                    let message = upstream::message();
                    let upload = async |client: &mut Client| client.upload(&message[..octets]).await;
                    bench.small(Protocol::Smtp, load.small, upload).await
                }
                Self::Headers => {
                    let fetch = async |client: &mut Client| client.headers(HEADERS).await;
                    bench.small(Protocol::Imap, load.small / 50, fetch).await
                }
            }
        };
        timeout(PATIENCE, measured).await?
    }
}

fn messages(load: &Load, connections: usize) -> usize {
    load.messages[usize::from(connections > 1)]
}

/// One contestant under one measure.
struct Bench<'a> {
    name: String,
    contestant: &'a Contestant,
    table: &'a mut Table,
}

impl Bench<'_> {
    fn add(&mut self, unit: &'static str, value: f64) {
        self.table.add(&self.name, unit, self.contestant.name, value);
    }

    async fn cpu(&self) -> io::Result<f64> {
        match &self.contestant.process {
            Some(process) => process.settled_cpu().await,
            None => Ok(0.0),
        }
    }

    /// Records the CPU seconds since `before` for each of `units` of work, if there is a proxy that used them.
    async fn add_cpu(&mut self, before: f64, unit: &'static str, units: f64) -> io::Result<()> {
        let used = self.cpu().await? - before;
        if self.contestant.process.is_some() {
            self.add(unit, used / units);
        }
        Ok(())
    }

    async fn flights(&mut self, protocol: Protocol, provider: &Provider) -> io::Result<()> {
        // The first login may have to learn what the next ones already know.
        for _ in 0..3 {
            self.contestant.way.login(protocol).await?;
        }
        self.add("flights", provider.flights().await?);
        Ok(())
    }

    async fn distant(&mut self, protocol: Protocol) -> io::Result<()> {
        let mut times = Vec::with_capacity(PACED);
        for _ in 0..PACED {
            let start = Instant::now();
            self.contestant.way.login(protocol).await?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            sleep(PACE).await;
        }
        times.sort_by(f64::total_cmp);
        self.add("ms median", times[PACED / 2]);
        Ok(())
    }

    async fn logins(&mut self, protocol: Protocol, at_once: usize, total: usize) -> io::Result<()> {
        let before = self.cpu().await?;
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..at_once {
            let (way, share) = (self.contestant.way.clone(), total.div_ceil(at_once));
            clients.spawn(async move {
                let mut times = Vec::with_capacity(share);
                for _ in 0..share {
                    let start = Instant::now();
                    way.login(protocol).await?;
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok::<_, io::Error>(times)
            });
        }
        let mut times = clients.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
        self.add("logins/s", times.len() as f64 / start.elapsed().as_secs_f64());
        times.sort_by(f64::total_cmp);
        self.add("ms p99", times[times.len() * 99 / 100]);
        self.add_cpu(before, "CPU s/1000 logins", times.len() as f64 / 1000.0).await
    }

    /// Logs in beside as many idle sessions as in the measurement of their memory.
    async fn beside(&mut self, load: &Load) -> io::Result<()> {
        let count = load.idle[1].min(most_sessions());
        self.name = format!("IMAP logins beside {count} idle");
        let idle = open(&self.contestant.way, Protocol::Imap, count).await?;
        self.logins(Protocol::Imap, AT_ONCE, load.logins).await?;
        drop(idle);
        Ok(())
    }

    /// Holds many sessions, of which a few send a NOOP ten times a second.
    async fn busy(&mut self, load: &Load) -> io::Result<()> {
        // As many as 20,000 descriptors are enough for, with two of the proxy for each.
        let count = (load.idle[1] * 94 / 50).min(most_sessions());
        self.name = format!("IMAP, {count} sessions, {BUSY} % busy");
        let mut sessions = open(&self.contestant.way, Protocol::Imap, count).await?;
        let busy = sessions.split_off(count - count * BUSY / 100);
        let (before, start) = (self.cpu().await?, Instant::now());
        let mut asking = JoinSet::new();
        for mut client in busy {
            asking.spawn(async move {
                let mut tick = interval(BUSY_EVERY);
                while start.elapsed() < BUSY_FOR {
                    tick.tick().await;
                    client.noop().await?;
                }
                Ok(())
            });
        }
        let asking_ones = asking.len() as f64;
        all(asking).await?;
        let noops = asking_ones * BUSY_FOR.as_secs_f64() / BUSY_EVERY.as_secs_f64();
        self.add_cpu(before, "CPU s/1000 NOOP", noops / 1000.0).await?;
        let held = self.resident().await?;
        if self.contestant.process.is_some() {
            self.add("MB in all", held / 1024.0);
        }
        Ok(())
    }

    /// Does something small this often on one connection, and again while system calls are counted.
    async fn small(
        &mut self,
        protocol: Protocol,
        count: usize,
        work: impl AsyncFn(&mut Client) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut client = self.contestant.way.login(protocol).await?;
        let before = self.cpu().await?;
        let start = Instant::now();
        for _ in 0..count {
            work(&mut client).await?;
        }
        self.add("each second", count as f64 / start.elapsed().as_secs_f64());
        self.add_cpu(before, "CPU s/1000", count as f64 / 1000.0).await?;
        if let Some(process) = &self.contestant.process {
            let calls = process.system_calls(async {
                for _ in 0..COUNTED {
                    work(&mut client).await?;
                }
                Ok(())
            });
            let calls = calls.await?;
            self.add("system calls each", calls / COUNTED as f64);
        }
        Ok(())
    }

    async fn burst(&mut self) -> io::Result<()> {
        let moment = Arc::new(Barrier::new(BURST + 1));
        let mut clients = JoinSet::new();
        for _ in 0..BURST {
            let (way, moment) = (self.contestant.way.clone(), moment.clone());
            clients.spawn(async move {
                moment.wait().await;
                way.login(Protocol::Imap).await
            });
        }
        moment.wait().await;
        let start = Instant::now();
        let outcomes = clients.join_all().await;
        let elapsed = start.elapsed();
        self.add("logged in", outcomes.iter().flatten().count() as f64);
        self.add("ms until all are", elapsed.as_secs_f64() * 1e3);
        outcomes.into_iter().collect::<io::Result<Vec<_>>>().map(drop)
    }

    async fn noops(&mut self, count: usize) -> io::Result<()> {
        let mut client = self.contestant.way.login(Protocol::Imap).await?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            client.noop().await?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        self.add("µs median", times[count / 2]);
        self.add("µs p99", times[count * 99 / 100]);
        Ok(())
    }

    async fn fetch(&mut self, connections: usize, messages: usize) -> io::Result<()> {
        let clients = open(&self.contestant.way, Protocol::Imap, connections).await?;
        let before = self.cpu().await?;
        let start = Instant::now();
        let mut fetching = JoinSet::new();
        for mut client in clients {
            fetching.spawn(async move {
                for _ in 0..messages {
                    if client.fetch().await? != MESSAGE {
                        return Err(io::Error::other("the message has the wrong length"));
                    }
                }
                Ok(())
            });
        }
        all(fetching).await?;
        self.bulk(start, before, connections * messages).await
    }

    async fn upload(&mut self, connections: usize, messages: usize) -> io::Result<()> {
        let message: Arc<[u8]> = upstream::message().into();
        let clients = open(&self.contestant.way, Protocol::Smtp, connections).await?;
        let before = self.cpu().await?;
        let start = Instant::now();
        let mut uploading = JoinSet::new();
        for mut client in clients {
            let message = message.clone();
            uploading.spawn(async move {
                for _ in 0..messages {
                    client.upload(&message).await?;
                }
                Ok(())
            });
        }
        all(uploading).await?;
        self.bulk(start, before, connections * messages).await
    }

    /// Records the rate of `messages` since `start`.
    async fn bulk(&mut self, start: Instant, cpu: f64, messages: usize) -> io::Result<()> {
        let octets = (messages * MESSAGE) as f64;
        self.add("MB/s", octets / 1e6 / start.elapsed().as_secs_f64());
        self.add_cpu(cpu, "CPU s/GB", octets / 1e9).await
    }

    async fn idle(&mut self, counts: &[usize]) -> io::Result<()> {
        let empty = self.resident().await?;
        let mut clients = Vec::new();
        for &count in counts {
            let count = count.min(most_sessions());
            self.name = format!("IMAP idle, {count} sessions");
            clients.extend(open(&self.contestant.way, Protocol::Imap, count - clients.len()).await?);
            let start = Instant::now();
            for client in &mut clients {
                client.noop().await?;
            }
            self.add("s until all did a NOOP", start.elapsed().as_secs_f64());
            let held = self.resident().await?;
            if self.contestant.process.is_some() {
                self.add("KB each", (held - empty) / count as f64);
            }
        }
        Ok(())
    }

    /// Kilobytes in memory, once the proxy has nothing more to do.
    async fn resident(&self) -> io::Result<f64> {
        self.cpu().await?;
        self.contestant.process.as_ref().map_or(Ok(0.0), |process| process.resident())
    }
}

/// As many sessions as a proxy can have here. Each takes two descriptors, and a hundred are reserved.
fn most_sessions() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(100) / 2
}

/// Opens `count` sessions.
async fn open(way: &Way, protocol: Protocol, count: usize) -> io::Result<Vec<Client>> {
    let mut opening = JoinSet::new();
    for first in 0..AT_ONCE {
        let (way, share) = (way.clone(), (first..count).step_by(AT_ONCE).len());
        opening.spawn(async move {
            let mut clients = Vec::with_capacity(share);
            for _ in 0..share {
                clients.push(way.login(protocol).await?);
            }
            Ok(clients)
        });
    }
    let opened = opening.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?;
    Ok(opened.into_iter().flatten().collect())
}

/// Waits for all of them. Fails with the first failure, and then the others end too.
async fn all(mut tasks: JoinSet<io::Result<()>>) -> io::Result<()> {
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    Ok(())
}
