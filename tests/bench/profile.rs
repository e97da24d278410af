//! Shows where the instructions of a login go, with one account and with many beside each other.
//!
//! callgrind writes down the instructions of each line. A line counts for the library that it is from, also where the compiler
//! has made it part of another function; only lines of the standard library count for the function that they are in.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use tokio::time::{Duration, Instant};

use crate::accounts::{Counter, Subject};
use crate::client::Way;
use crate::pki;
use crate::protocol::Protocol;
use crate::upstream::Provider;

/// How long to count: whatever the daemon does once a minute by itself happens once, with logins and without.
const WINDOW: Duration = Duration::from_secs(60);

const PROTOCOLS: [Protocol; 2] = [Protocol::Imap, Protocol::Smtp];

/// Where postkey's own code is.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

/// The parts of the program, and what the names of their lines contain: the library and the function, or for postkey the file. The
/// first part that matches counts.
const PARTS: [(&str, &[&str]); 13] = [
    ("TLS: key exchange (X25519)", &["__x25519", "ring x25519", "ring fe_", "ring ge_", "ring table_"]),
    (
        "TLS: hashes of the key schedule",
        &[
            "__sha256_block",
            "__sha512_block",
            "ring ring::h",
            "ring h",
            "ring ring::digest",
            "ring digest",
            "ring <ring::digest",
        ],
    ),
    ("TLS: the rest (rustls, records)", &["ring ", "rustls", "webpki"]),
    ("memory: allocate and free", &["malloc.c", "arena.c", "zeroizing-alloc", "zeroizing_alloc", "postkey main.rs"]),
    ("memory: wipe and copy", &["memset", "memmove"]),
    ("tokio", &["tokio", "mio"]),
    (
        "password, account, vault",
        &["postkey broker", "postkey vault", "postkey name", "sha2", "hmac", "digest", "idna"],
    ),
    ("session, relay", &["postkey session", "postkey login", "postkey relay", "postkey visit", "postkey daemon"]),
    ("sockets", &["postkey net", "socket2", "postkey resolver"]),
    ("dialogues", &["postkey wire", "postkey downstream", "postkey upstream", "base64"]),
    ("log", &["tracing", "postkey log"]),
    ("system calls, and other functions of libc", &["libc"]),
    ("the rest", &[""]),
];

/// Instructions by part.
type Instructions = [f64; PARTS.len()];

/// A column of the table: what one login takes.
struct Column {
    title: String,
    login: Instructions,
}

/// Counts logins with these numbers of accounts, and prints the table.
pub async fn measure(dir: &Path, program: &Path, sizes: Vec<usize>) -> io::Result<()> {
    let mut columns = Vec::new();
    for size in sizes {
        eprintln!("{size} accounts");
        let home = dir.join(size.to_string());
        fs::create_dir(&home)?;
        pki::write(&home)?;
        columns.extend(logins(&Subject { dir: &home, program, size }).await?);
    }
    columns.sort_by(|one, other| one.title.split(',').next().cmp(&other.title.split(',').next()));
    print(&columns);
    Ok(())
}

/// What a login with a known password takes, by each protocol.
async fn logins(subject: &Subject<'_>) -> io::Result<Vec<Column>> {
    let provider = Provider::start(subject.dir)?;
    let (crowded, mut counter) = Counter::start(subject, "logins", &provider).await?;
    for protocol in PROTOCOLS {
        crowded.way.login(protocol).await?;
    }
    counter.take().await?;
    tokio::time::sleep(WINDOW).await;
    counter.take().await?;
    let idle = by_part(&fs::read_to_string(counter.part())?);
    let mut columns = Vec::new();
    for protocol in PROTOCOLS {
        let times = in_window(&crowded.way, protocol).await?;
        counter.take().await?;
        let all = by_part(&fs::read_to_string(counter.part())?);
        let login = std::array::from_fn(|part| (all[part] - idle[part]) / times);
        columns.push(Column { title: format!("{protocol}, {} accounts", subject.size), login });
    }
    crowded.stop().await?;
    Ok(columns)
}

/// Logs in again and again. Returns how often.
async fn in_window(way: &Way, protocol: Protocol) -> io::Result<f64> {
    let end = Instant::now() + WINDOW;
    let mut times = 0.0;
    while Instant::now() < end {
        way.login(protocol).await?;
        times += 1.0;
    }
    Ok(times)
}

/// Adds up the costs in a profile (<https://valgrind.org/docs/manual/cl-format.html>).
fn by_part(profile: &str) -> Instructions {
    let mut parts = Instructions::default();
    let (mut names, mut place, mut of_callee) = (HashMap::new(), Place::default(), false);
    for line in profile.lines() {
        if let Some((key, name)) = line.split_once('=').filter(|(key, _)| key.len() <= 3) {
            place.set(key, full_name(&mut names, key, name));
        } else if line.starts_with("calls=") {
            // The next line is what the called function has cost, which is counted there.
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<f64>().ok()).unwrap_or_default();
            if !std::mem::take(&mut of_callee) {
                parts[place.part()] += cost;
            }
        }
    }
    parts
}

/// A name is written in full only once, after its number in parentheses.
fn full_name<'a>(names: &mut HashMap<(char, &'a str), &'a str>, key: &str, name: &'a str) -> &'a str {
    // A file, a function or an object, or one of these that is called.
    let kind = match key.trim_start_matches('c') {
        "fn" => 'f',
        "ob" => 'o',
        _ => 'l',
    };
    let Some((number, rest)) = name.split_once(')') else { return name };
    match rest.trim_start() {
        "" => names.get(&(kind, number)).copied().unwrap_or_default(),
        rest => {
            names.insert((kind, number), rest);
            rest
        }
    }
}

/// Where a line is.
#[derive(Default)]
struct Place<'a> {
    object: &'a str,
    file: &'a str,
    function: &'a str,
}

impl<'a> Place<'a> {
    fn set(&mut self, key: &str, name: &'a str) {
        match key {
            "ob" => self.object = name,
            "fl" | "fi" | "fe" => self.file = name,
            "fn" => self.function = name,
            _ => {}
        }
    }

    fn part(&self) -> usize {
        let name = self.name();
        PARTS
            .iter()
            .position(|(_, contents)| contents.iter().any(|text| name.contains(text)))
            .unwrap_or(PARTS.len() - 1)
    }

    fn name(&self) -> String {
        let Self { object, file, function } = self;
        if let Some(own) = file.strip_prefix(SOURCE) {
            return format!("postkey {own}");
        }
        if let Some((_, library)) = file.split_once("/registry/src/") {
            let library = library.split('/').nth(1).unwrap_or_default();
            return format!("{} {function}", library.rsplit_once('-').map_or(library, |(name, _)| name));
        }
        match object.contains("libc.so") {
            true => format!("libc {file}"),
            // A line of the standard library: `<postkey::net::x::Y as core::fmt::Display>::fmt`.
            false => function.trim_start_matches(['<', '&']).replacen("::", " ", 1),
        }
    }
}

/// Prints thousands of instructions, and the share of each part.
fn print(columns: &[Column]) {
    let titles: Vec<&str> = columns.iter().map(|column| column.title.as_str()).collect();
    println!("| thousand instructions of one login | {} |\n|---|{}", titles.join(" | "), "---|".repeat(columns.len()));
    let row = |name: &str, cells: Vec<String>| println!("| {name} | {} |", cells.join(" | "));
    for (part, (name, _)) in PARTS.iter().enumerate() {
        let cell = |Column { login, .. }: &Column| {
            let share = login[part] / login.iter().sum::<f64>() * 100.0;
            format!("{:.1} ({share:.1} %)", login[part] / 1000.0)
        };
        row(name, columns.iter().map(cell).collect());
    }
    row("all", columns.iter().map(|column| format!("{:.0}", column.login.iter().sum::<f64>() / 1000.0)).collect());
}
