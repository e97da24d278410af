//! What other processes and the kernel can see of postkey's memory, and what postkey can do outside its own folders.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use aho_corasick::AhoCorasick;
use postkey::protocol::{Protocol, Security};
use rustix::process::Signal;

use crate::support::canaries::forms;
use crate::support::house::{ANN, House, SECURITIES, Way, accepted, until};
use crate::support::process::Process;
use crate::support::skipped::skipped;

/// Root may read everybody's memory, unless it has given up its privileges.
const WITHOUT_PRIVILEGE: &str = "exec setpriv --bounding-set -all --inh-caps -all --";

const CHOSEN: &str = "Correct: horse & battery";

/// A postkey in a separate process, and Ann with a password of her own choice.
async fn house(edit: impl FnOnce(String) -> String) -> (House, Process) {
    let mut house = House::furnished(Security::Tls, edit).await;
    let daemon = house.serve().await;
    let input = format!("{}\n{CHOSEN}", house.password);
    assert_eq!(house.run(&["password", "add", ANN, "chosen", "--choose"], &input).code, Some(0));
    (house, daemon)
}

/// A file of a process in `/proc`, read by a process of the same user that has no privileges.
fn read_by_the_same_user(id: u32, name: &str) -> Result<Vec<u8>, String> {
    let read = format!("{WITHOUT_PRIVILEGE} head -c 4096 /proc/{id}/{name}");
    let read = Command::new("/bin/bash").args(["-c", &read]).output().expect("a shell");
    let said = String::from_utf8_lossy(&read.stderr).into_owned();
    // An error that means that the memory begins elsewhere.
    if said.contains("cannot open") { Err(said) } else { Ok(read.stdout) }
}

fn holds(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

/// All memory to which a process can write.
fn memory(id: u32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{id}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (begin, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
        memory.seek(SeekFrom::Start(begin)).unwrap();
        // The kernel owns some of it.
        if memory.read_exact(&mut bytes).is_ok() {
            all.extend(bytes);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_of_the_same_user_cannot_read_it() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let daemon = house.serve_by(&format!("{WITHOUT_PRIVILEGE} \"$0\" \"$@\"")).await;
    let _program = house.logged_in(Protocol::Imap).await;
    let sleep = format!("{WITHOUT_PRIVILEGE} sleep 60");
    let mut other = Command::new("/bin/bash").args(["-c", &sleep]).spawn().unwrap();
    until("the exec", async || fs::read(format!("/proc/{}/cmdline", other.id())).unwrap().starts_with(b"sleep")).await;
    for name in ["mem", "environ"] {
        assert!(read_by_the_same_user(other.id(), name).is_ok(), "{name} of a process that allows it");
        assert!(read_by_the_same_user(daemon.id(), name).unwrap_err().contains("Permission denied"), "{name}");
    }
    assert!(!read_by_the_same_user(daemon.id(), "cmdline").unwrap().is_empty());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_core_is_written_even_where_cores_are_wanted() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let daemon = house.serve_by("ulimit -c unlimited").await;
    let _program = house.logged_in(Protocol::Imap).await;
    daemon.signal(Signal::ABORT);
    let ended = daemon.end();
    assert!(ended.code.is_none() && !ended.core_dumped);
    let is_core = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
    assert!(!fs::read_dir(house.folder.path()).unwrap().any(|entry| is_core(entry.unwrap())));
}

/// Not even root finds a password in the memory once a login is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_password_does_not_stay_in_memory() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can read another process's memory");
        return;
    }
    let (house, daemon) = house(|config| config).await;
    let mut programs = Vec::new();
    for protocol in Protocol::ALL {
        for way in Way::ALL {
            for password in [CHOSEN, &house.password] {
                let mut program = house.program(protocol, Security::Clear).await;
                let reply = program.log_in(way, ANN, password).await;
                assert!(accepted(protocol, &reply), "{reply}");
                program.prove().await;
                programs.push(program);
            }
        }
    }
    let memory = memory(daemon.id());
    assert!(holds(&memory, ANN.as_bytes()) > 0, "this is its memory");
    for password in [CHOSEN, &house.password, &house.password.replace('-', "")] {
        assert_eq!(holds(&memory, password.as_bytes()), 0, "{password}");
    }
    for (what, form) in [("plain", format!("\0{ANN}\0{CHOSEN}")), ("plain", format!("\0{ANN}\0{}", house.password))] {
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, form);
        assert_eq!(holds(&memory, encoded.as_bytes()), 0, "{what} in base64");
    }
}

/// How often each of these is in the memory, plain and in base64 with each of the three alignments.
fn copies(id: u32, secrets: &[String]) -> Vec<usize> {
    let memory = memory(id);
    let mut counts = vec![0; secrets.len()];
    let forms = secrets.iter().map(|secret| forms(secret).into_iter().collect::<BTreeSet<_>>());
    let (owners, forms): (Vec<_>, Vec<_>) =
        forms.enumerate().flat_map(|(owner, forms)| forms.into_iter().map(move |form| (owner, form))).unzip();
    for found in AhoCorasick::new(&forms).unwrap().find_iter(&memory) {
        counts[owners[found.pattern().as_usize()]] += 1;
    }
    counts
}

/// After logins and refreshes, even root finds each token that is in use once, and no earlier one.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_does_not_stay_in_memory_beyond_its_use() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can read another process's memory");
        return;
    }
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let daemon = house.serve().await;
    let mut programs = Vec::new();
    for protocol in Protocol::ALL {
        programs.push(house.logged_in(protocol).await);
    }
    house.provider.revoke_access_tokens();
    for protocol in Protocol::ALL {
        programs.push(house.logged_in(protocol).await);
    }
    let in_use = house.provider.memory().refresh_token(ANN).unwrap();
    let secrets = house.provider.secrets();
    let current = secrets.iter().position(|secret| *secret == in_use).unwrap();
    assert_eq!((current, secrets.len()), (4, 6), "pairs of a refresh token and the access token that came with it");
    // One of each of the pair in use, for the next login and the next refresh; nothing of those before.
    until("the end of all copies", async || copies(daemon.id(), &secrets) == [0, 0, 0, 0, 1, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn it_gains_no_privilege_and_writes_nowhere_else() {
    let (house, daemon) = house(|config| format!("log_file = \"state/log\"\n{config}")).await;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Without Landlock, there is a line that says so.
    let log = fs::read_to_string(house.config.state_dir.join("log")).unwrap();
    assert_eq!(log.contains("postkey runs as root"), rustix::process::geteuid().is_root(), "{log}");
    if log.contains("not confined") {
        skipped(&format!("in part: {log}"));
        return;
    }
    let text = fs::read_to_string(&house.file).unwrap();
    let elsewhere = house.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(&house.file, text.replace("state/log", "elsewhere/log")).unwrap();
    let refused = house.run(&["reload"], "");
    assert!(refused.code == Some(78) && refused.err.contains("only after a restart"), "{}", refused.err);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    fs::write(&house.file, text.replace("state/log", "state/another")).unwrap();
    assert_eq!(house.run(&["reload"], "").code, Some(0), "a new file in a folder that is its own");
    assert!(house.config.state_dir.join("another").exists());
    let mut program = house.program(Protocol::Imap, Security::Tls).await;
    assert!(accepted(Protocol::Imap, &program.log_in(Way::Own, ANN, CHOSEN).await));
    daemon.terminate();
}

/// Programs that it starts are confined as postkey is, and nothing can undo that.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reload_refuses_a_first_program_and_takes_further_ones() {
    let (mut house, daemon) = house(|config| format!("log_file = \"state/log\"\n{config}")).await;
    if fs::read_to_string(house.config.state_dir.join("log")).unwrap().contains("not confined") {
        return skipped("this kernel has no Landlock");
    }
    let text = fs::read_to_string(&house.file).unwrap();
    let notifies = "notify_command = [\"/bin/true\"]\n";
    let secret = "client_id = \"x\"\nclient_secret = { command = [\"/bin/echo\", \"x\"] }\n";
    let key = "client_id = \"x\"\nclient_key = { environment = \"KEY\" }\nclient_key_password = { command = [\"/bin/echo\", \"x\"] }\n";
    let with = |before: &str, behind: &str| format!("{before}{text}\n{behind}");
    let firsts = [
        with(notifies, ""),
        with("", &format!("[provider.google]\n{secret}")),
        with("", &format!("[account.\"{ANN}\"]\n{secret}")),
        with("", &format!("[account.\"*@example.org\"]\nprovider = \"google\"\n{secret}")),
        with("", &format!("[provider.google]\n{key}")),
    ];
    for first in &firsts {
        fs::write(&house.file, first).unwrap();
        let refused = house.run(&["reload"], "");
        assert!(refused.code == Some(78) && refused.err.contains("needs a restart"), "{first}: {}", refused.err);
        let checked = house.run(&["check"], "");
        assert_eq!(checked.code, Some(0), "{}", checked.err);
    }
    daemon.terminate();
    fs::write(&house.file, &firsts[0]).unwrap();
    let daemon = house.serve().await;
    for next in [text.clone(), firsts[0].clone(), with(notifies, &format!("[provider.google]\n{secret}")), text.clone()]
    {
        fs::write(&house.file, &next).unwrap();
        let taken = house.run(&["reload"], "");
        assert_eq!(taken.code, Some(0), "{next}: {}", taken.err);
    }
    daemon.terminate();
}

/// The unit's filter refuses other system calls. Here it kills a process that tries one.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn it_needs_no_system_call_that_the_unit_forbids() {
    let filtered = concat!("exec /usr/bin/python3 ", env!("CARGO_MANIFEST_DIR"), "/tests/support/filtered.py");
    let run = format!("{filtered} \"$0\" \"$@\"");
    let mut house = House::furnished(Security::StartTls, |config| format!("log_file = \"state/log\"\n{config}")).await;
    let forbidden =
        Command::new("/bin/bash").args(["-c", &format!("{filtered} /usr/bin/unshare --mount true")]).status();
    assert_eq!(forbidden.unwrap().signal(), Some(Signal::SYS.as_raw()), "the filter is there");
    let daemon = house.serve_by(&run).await;
    let input = format!("{}\n{CHOSEN}", house.password);
    assert_eq!(house.run(&["password", "add", ANN, "chosen", "--choose"], &input).code, Some(0));
    for security in SECURITIES {
        for (protocol, password) in Protocol::ALL.into_iter().zip([CHOSEN, &house.password, CHOSEN]) {
            let mut program = house.program(protocol, security).await;
            let reply = program.log_in(Way::Own, ANN, password).await;
            assert!(accepted(protocol, &reply), "{reply}");
            program.prove().await;
        }
        if security == Security::Clear {
            house.provider.revoke_access_tokens();
        }
        assert_eq!(house.run(&["reload"], "").code, Some(0));
    }
    assert!(house.provider.token_requests("refresh_token") > 0);
    let ended = daemon.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

/// Whatever is in the place of the log, the control socket or the state folder is left alone, and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn foreign_files_are_left_alone_and_named() {
    let mut house = House::furnished(Security::Tls, |config| {
        format!("log_file = \"logs/log\"\ncontrol_socket = \"run/control\"\n{config}")
    })
    .await;
    let place = |name: &str| house.folder.path().join(name);
    let target = place("target");
    fs::write(&target, "precious").unwrap();
    for folder in ["logs", "run"] {
        fs::create_dir(place(folder)).unwrap();
    }
    let assert_refused = |what: &str, named: &Path| {
        let refused = house.run(&[], "");
        let is_named = refused.err.contains(named.to_str().unwrap());
        assert!(refused.code.is_some_and(|code| code > 0) && is_named, "{what}: {}", refused.err);
        assert_eq!(fs::read(&target).unwrap(), b"precious", "{what}");
    };
    for name in ["logs/log", "run/control"] {
        symlink(&target, place(name)).unwrap();
        assert_refused("a link", &place(name));
        fs::remove_file(place(name)).unwrap();
        fs::hard_link(&target, place(name)).unwrap();
        assert_refused("second hard link", &place(name));
        fs::remove_file(place(name)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, place(name), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_refused("a pipe", &place(name));
        fs::remove_file(place(name)).unwrap();
    }
    for folder in ["logs", "run"] {
        fs::set_permissions(place(folder), fs::Permissions::from_mode(0o777)).unwrap();
        assert_refused("an open folder", &place(folder));
        fs::set_permissions(place(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for key in ["key.pem", "cert.pem"] {
        fs::set_permissions(place(key), fs::Permissions::from_mode(0o666)).unwrap();
        assert_refused("an open key", &place(key));
        fs::set_permissions(place(key), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(house.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_refused("an open parent", house.folder.path());
    fs::set_permissions(house.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let daemon = house.serve().await;
    assert_eq!(daemon.terminate().code, Some(0));
}
