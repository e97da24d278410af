//! Providers that are not available here, played from what public sources show of them:
//! `tests/interop/providers/*.txt`.
//!
//! Each file is a provider, and the real daemon logs in to it over TLS for a mail program. A line is a word and its
//! arguments; `#` begins a comment.
//!
//! ```text
//! server imap tls                   begins a server: its protocol, and tls or starttls
//! source WORDS                      where its lines are from
//! greeting LINE                     what it says first
//! clear LINE                        with starttls: what it can do before TLS
//! offers LINE                       what it can do; several lines are several words
//! welcome LINE                      its yes to a login
//! only-name NAME REPLY              SMTP: any other name in EHLO gets this reply; NAME is postkey's ehlo_name
//!
//! case WORDS                        begins a case of this server, named in words
//! source WORDS                      where it is from, if it is from elsewhere
//! at PLACE                          where the server refuses: connect, greeting or auth (if it is left out)
//! times N                           only so many connections are refused, the next one is not
//! challenge TEXT                    an error challenge goes ahead of the reply to AUTH, in base64 here
//! reply LINE                        what the server says instead of going on
//! leaves                            and then it closes the connection
//! hears CLASS                       what the mail program must hear: accepted, limit, unavailable, forbidden, token-refused,
//!                                   server-refuses
//! words TEXT                        what has to be in the answer's text, too
//! alert TEXT                        what an untagged OK [ALERT] has to hold
//! refreshes N                       how many new tokens postkey asks for meanwhile, 0 if it is left out
//! rest SECONDS                      how long the mail program then waits; 0 if it is left out. Then its login must work
//! ```
//!
//! In lines, `{tag}` is the tag of an IMAP command.

#[path = "../support/mod.rs"]
mod support;

mod player;
mod script;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tempfile::TempDir;

use player::Player;
use script::{Case, Script};
use support::house::{ANN, House, Way, accepted, skip, without_spares};

/// The meaning of a class in each protocol, in the order of [`Protocol::ALL`].
const CLASSES: [(&str, [&str; 3]); 6] = [
    ("accepted", ["a OK ", "+OK ", "235 "]),
    ("limit", ["a NO [LIMIT] ", "-ERR [IN-USE] ", "454 4.7.0 "]),
    ("unavailable", ["a NO [UNAVAILABLE] ", "-ERR [SYS/TEMP] ", "454 4.7.0 "]),
    ("forbidden", ["a NO [CONTACTADMIN] ", "-ERR [SYS/PERM] ", "535 5.7.8 "]),
    ("token-refused", ["a NO [AUTHENTICATIONFAILED] ", "-ERR [AUTH] ", "535 5.7.8 "]),
    ("server-refuses", ["a NO [CONTACTADMIN] ", "-ERR [SYS/PERM] ", "554 5.3.0 "]),
];

/// Plays a provider's servers to a postkey, case by case, and returns what was wrong.
async fn play(name: &str, script: Script) -> Vec<String> {
    let identity = support::tls::identity();
    let folder = TempDir::new().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, &identity.ca_pem).unwrap();
    let mut players = BTreeMap::new();
    for server in script.servers {
        players.insert(server.protocol, Player::start(server, identity.acceptor.clone()).await);
    }
    let house = House::with(Security::Tls, |config| with_players(&without_spares(&config), &players, &ca_file)).await;
    let mut wrong = Vec::new();
    for (protocol, player) in &players {
        if let Err(why) = let_in(&house, *protocol).await {
            wrong.push(format!("{name}, {protocol}: the first login: {why}"));
            continue;
        }
        for case in &player.server.cases {
            if let Err(why) = run(&house, player, case).await {
                wrong.push(format!("{name}, {protocol}, {}: {why}", case.name));
            }
        }
    }
    wrong
}

/// The house's configuration with these mail servers.
fn with_players(config: &str, players: &BTreeMap<Protocol, Player>, ca_file: &Path) -> String {
    let (before, _) = config.split_once("\n[provider.own.imap]").expect("the mail servers stand at the end");
    let mut config: String =
        before.lines().filter(|line| !line.starts_with("ca_file")).map(|line| format!("{line}\n")).collect();
    config += &format!("ca_file = {ca_file:?}\n");
    for (protocol, player) in players {
        let (table, port, security) = (protocol.name(), player.port, player.server.security.name());
        config += &format!("[provider.own.{table}]\nhost = \"localhost\"\nport = {port}\nsecurity = \"{security}\"\n");
        if let Some((name, _)) = &player.server.only_name {
            config += &format!("ehlo_name = {name:?}\n");
        }
    }
    config
}

/// The answer to a mail program's login: the alerts, and the reply.
async fn log_in(house: &House, protocol: Protocol) -> (Vec<String>, String) {
    let mut program = house.program(protocol, Security::Clear).await;
    let mut reply = program.log_in(Way::Plain, ANN, &house.password).await;
    let mut alerts = Vec::new();
    while protocol == Protocol::Imap && reply.starts_with("* ") {
        alerts.push(reply);
        reply = program.client.line().await;
    }
    if accepted(protocol, &reply) {
        // The relay has begun: everything reaches the server, which repeats it.
        assert_eq!(program.client.ask("are you there").await, "are you there");
    }
    (alerts, reply)
}

async fn let_in(house: &House, protocol: Protocol) -> Result<(), String> {
    let (_, reply) = log_in(house, protocol).await;
    if accepted(protocol, &reply) { Ok(()) } else { Err(format!("the account is not usable: {reply}")) }
}

async fn run(house: &House, player: &Player, case: &Case) -> Result<(), String> {
    let protocol = player.server.protocol;
    let before = house.provider.token_requests("refresh_token");
    player.set(Some(case.clone()));
    let (alerts, reply) = log_in(house, protocol).await;
    player.set(None);
    let refreshes = house.provider.token_requests("refresh_token") - before;
    let class = CLASSES.iter().find(|(name, _)| *name == case.hears);
    let (_, beginnings) = class.ok_or_else(|| format!("there is no class {}", case.hears))?;
    if !reply.starts_with(beginnings[protocol as usize]) {
        return Err(format!("the mail program must hear {} and hears: {reply}", case.hears));
    }
    if let Some(words) = case.words.iter().find(|words| !reply.contains(*words)) {
        return Err(format!("{words:?} is not in the answer: {reply}"));
    }
    if let Some(words) = case.alerts.iter().find(|words| !alerts.iter().any(|alert| alert.contains(*words))) {
        return Err(format!("{words:?} is not alerted: {alerts:?}"));
    }
    if refreshes != case.refreshes {
        return Err(format!("{refreshes} new tokens were asked for, not {}", case.refreshes));
    }
    if case.rest > 0 {
        house.pass(case.rest);
        skip(Duration::from_secs(case.rest)).await;
    }
    let_in(house, protocol).await
}

#[tokio::test]
async fn mail_programs_hear_what_providers_mean() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/providers");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "only {files:?}");
    let (mut wrong, mut cases) = (Vec::new(), 0);
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let script =
            Script::read(&std::fs::read_to_string(&file).unwrap()).unwrap_or_else(|why| panic!("{name}: {why}"));
        cases += script.servers.iter().map(|server| server.cases.len()).sum::<usize>();
        wrong.extend(play(&name, script).await);
    }
    assert!(cases > 50, "only {cases} cases");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_script_that_cannot_be_played_is_found_out() {
    for (text, why) in [
        ("server imap", "line 1: a server has a protocol and a security"),
        ("greeting hello", "line 1: no server has begun"),
        ("server imap tls\nsource x\ncase it\nhears limit", "it: the server says nothing"),
        ("server imap tls\nsource x\ncase it\nreply no", "it: it is not said what the client hears"),
        ("server imap tls\ncase it\nreply no\nhears limit", "it: it has no source"),
        ("server imap tls\nsays x", "line 2: there is no word says"),
        ("server imap tls\nsource x\ncase it\nrefreshes x", "line 4: x is no number"),
    ] {
        assert_eq!(Script::read(text).err().as_deref(), Some(why), "{text}");
    }
}
