//! The vault in a database that two replicas share. Needs PostgreSQL 15.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use postkey::broker::open_database;
use postkey::config::database::{DatabaseConfig, DatabaseHost};
use postkey::protocol::Protocol;
use postkey::vault::password::Password;
use postkey::vault::{DepositKey, Limits, RefreshTurn, Restored, StateFolder, Vault, VaultError};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::skipped::skipped;
use super::{ANN, BEN, NOW, authorization, tokens};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// How long anything may take that the database or the other replica has to do.
const PATIENCE: Duration = Duration::from_secs(40);

/// A database server of this test, on a Unix socket.
struct Server {
    folder: TempDir,
    process: Option<Child>,
}

impl Server {
    /// None if PostgreSQL is not installed.
    fn new() -> Option<Self> {
        if !Path::new(PROGRAMS).exists() {
            skipped("PostgreSQL 15 is not installed");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let mut server = Self { folder, process: None };
        std::os::unix::fs::chown(server.folder.path(), server.user(), None).unwrap();
        let made =
            server.command("initdb").args(["-A", "trust", "-U", "postkey", "-N", "-D"]).arg(server.data()).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.start();
        Some(server)
    }

    /// PostgreSQL does not run as root. Its package has a user for it.
    fn user(&self) -> Option<u32> {
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let user = users.lines().find_map(|line| line.strip_prefix("postgres:")?.split(':').nth(1)?.parse().ok());
        rustix::process::geteuid().is_root().then(|| user.expect("the user postgres"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = self.user() {
            command.uid(user);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn start(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        self.process = Some(command.args(["-c", "listen_addresses=", "-c", "fsync=off"]).spawn().unwrap());
        within("the server answers", || self.command("psql").args(self.psql("select 1")).status().unwrap().success());
    }

    fn stop(&mut self) {
        let stopped = self.command("pg_ctl").args(["-w", "-m", "immediate", "stop", "-D"]).arg(self.data()).status();
        assert!(stopped.unwrap().success());
        self.process.take().unwrap().wait().unwrap();
    }

    fn psql(&self, sql: &str) -> Vec<String> {
        let host = self.folder.path().display().to_string();
        ["-h", &host, "-U", "postkey", "-d", "postgres", "-c", sql].map(str::to_owned).into()
    }

    fn run(&self, sql: &str) {
        assert!(self.command("psql").args(self.psql(sql)).status().unwrap().success(), "{sql}");
    }

    fn config(&self) -> DatabaseConfig {
        DatabaseConfig {
            host: DatabaseHost::Folder(self.folder.path().to_owned()),
            port: 5432,
            user: "postkey".to_owned(),
            database: "postgres".to_owned(),
            is_encrypted: false,
            password: None,
            ca_file: None,
        }
    }

    fn open(&self, runtime: &Runtime) -> Result<Vault, VaultError> {
        runtime.block_on(open_database(&self.config(), StateFolder::none()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}

/// Waits for something.
fn within(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}, within {PATIENCE:?}");
        sleep(Duration::from_millis(50));
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Two replicas with Ann's account, and her app password.
fn two(server: &Server, runtime: &Runtime) -> (Vault, Vault, Password) {
    let (one, two) = (server.open(runtime).unwrap(), server.open(runtime).unwrap());
    let password = Password::generate();
    one.authorize(&authorization(ANN, 1), Some(("main", &password)), NOW).unwrap();
    within("the other replica has the account", || two.account(ANN).is_some());
    (one, two, password)
}

fn turn(runtime: &Runtime, vault: &Vault, generation: u64) -> RefreshTurn {
    runtime.block_on(vault.begin_refresh(ANN, generation)).unwrap()
}

#[test]
fn what_one_replica_changes_the_other_follows() {
    let Some(server) = Server::new() else { return };
    let runtime = runtime();
    let (one, two, password) = two(&server, &runtime);
    let unlocked = two.unlock(ANN, &password).unwrap();
    assert_eq!(one.keep(ANN, 1, &tokens(ANN, 2)).unwrap(), 2);
    within("the other has the tokens", || two.account(ANN).is_some_and(|account| account.generation() == 2));
    let again = two.open_again(ANN, unlocked.opener.as_ref().unwrap()).unwrap();
    assert_eq!(again.tokens.access.expose(), format!("access-{ANN}-2"));
    assert!(matches!(two.keep(ANN, 1, &tokens(ANN, 9)), Err(VaultError::Superseded(_))), "old tokens are not stored");

    let second = Password::generate();
    two.add_slot(ANN, &password, "second", &second, Limits::default(), NOW).unwrap();
    one.learn(ANN, Protocol::Imap, vec!["IDLE".to_owned()]).unwrap();
    within("both changes are at the first", || one.unlock(ANN, &second).is_ok());
    within("and at the second", || two.account(ANN).is_some_and(|account| account.known.contains_key("imap")));
    one.remove_slot(ANN, "second").unwrap();
    within("the password is removed", || matches!(two.unlock(ANN, &second), Err(VaultError::WrongCredentials)));
    one.forget(ANN).unwrap();
    within("the account is forgotten", || two.account(ANN).is_none());
    assert_eq!(server.open(&runtime).unwrap().addresses(), [ANN]);
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let Some(server) = Server::new() else { return };
    let runtime = runtime();
    let (one, two, password) = two(&server, &runtime);
    std::thread::scope(|scope| {
        for (vault, name) in [(&one, "one"), (&two, "two")] {
            let password = &password;
            scope.spawn(move || {
                for number in 0..20 {
                    let (name, new) = (format!("{name} {number}"), Password::generate());
                    vault.add_slot(ANN, password, &name, &new, Limits::default(), NOW).unwrap();
                }
            });
        }
    });
    let slots = |vault: &Vault| vault.account(ANN).unwrap().slots.len();
    within("both have all", || slots(&one) == 41 && slots(&two) == 41);
}

#[test]
fn what_one_replica_leaves_the_other_finds_with_its_secret_and_one_takes() {
    let Some(server) = Server::new() else { return };
    let runtime = runtime();
    let (one, two, password) = two(&server, &runtime);
    let key = |secret: &str| DepositKey::of_secret(secret, "test").unwrap();
    let read = |secret: &str| runtime.block_on(two.read_deposit(&key(secret))).unwrap();
    runtime.block_on(one.deposit(&key("page"), b"tokens", PATIENCE)).unwrap();
    let found = read("page").unwrap();
    assert_eq!(found.content.as_slice(), b"tokens");
    assert!(found.left <= PATIENCE && found.left + Duration::from_secs(20) > PATIENCE, "{:?}", found.left);
    assert!(read("Page").is_none(), "only the secret finds it");
    runtime.block_on(one.deposit(&key("page"), b"newer tokens", PATIENCE)).unwrap();
    assert_eq!(read("page").unwrap().content.as_slice(), b"newer tokens");
    let remove = |vault: &Vault| runtime.block_on(vault.remove_deposit(&key("page"))).unwrap();
    assert_eq!((remove(&two), remove(&one)), (true, false), "one of them learns that it was there");

    runtime.block_on(one.deposit(&key("soon gone"), b"tokens", Duration::from_millis(50))).unwrap();
    within("its time is over", || read("soon gone").is_none());
    let by_password = |password: &Password, whose| DepositKey::of_password(password, whose).unwrap();
    runtime.block_on(one.deposit(&by_password(&password, "ann"), b"page", PATIENCE)).unwrap();
    let read = |key: DepositKey| runtime.block_on(two.read_deposit(&key)).unwrap().is_some();
    assert!(read(by_password(&Password::read(&password.expose()), "ann")), "however it is typed");
    assert!(!read(by_password(&password, "ben")) && !read(by_password(&Password::generate(), "ann")));
    server.run("update postkey_deposits set sealed = sealed || 'x'");
    assert!(!read(by_password(&password, "ann")), "nobody else can leave something there");
}

#[test]
fn one_replica_refreshes_at_a_time() {
    let Some(server) = Server::new() else { return };
    let runtime = runtime();
    let (one, two, _) = two(&server, &runtime);
    let RefreshTurn::Granted(lock) = turn(&runtime, &one, 1) else { panic!("not granted") };
    assert!(matches!(turn(&runtime, &two, 1), RefreshTurn::Busy));
    runtime.block_on(lock.verify()).unwrap();
    one.keep(ANN, 1, &tokens(ANN, 2)).unwrap();
    drop(lock);
    within("it is the other's turn", || matches!(turn(&runtime, &two, 1), RefreshTurn::Changed));
    assert_eq!(two.account(ANN).unwrap().generation(), 2);
    // One that brings nothing leaves nothing behind.
    within("the other one has its turn", || matches!(turn(&runtime, &two, 2), RefreshTurn::Granted(_)));
    within("it is the first one's turn again", || matches!(turn(&runtime, &one, 2), RefreshTurn::Granted(_)));
}

#[test]
fn a_lock_that_is_lost_before_tokens_are_stored_gives_time_to_store_them() {
    let Some(server) = Server::new() else { return };
    let runtime = runtime();
    let (one, two, _) = two(&server, &runtime);
    let RefreshTurn::Granted(lock) = turn(&runtime, &one, 1) else { panic!("not granted") };
    let RefreshTurn::Busy = turn(&runtime, &two, 1) else { panic!("not busy") };
    server.run("select pg_terminate_backend(pid) from pg_stat_activity where query like '%advisory%' and pid <> pg_backend_pid()");
    assert!(runtime.block_on(lock.verify()).is_err(), "it may not use the refresh token any more");
    let begun = Instant::now();
    within("the other one waits", || matches!(turn(&runtime, &two, 1), RefreshTurn::Unsettled));
    // As if its process had been killed.
    std::mem::forget(lock);
    within("then it may", || matches!(turn(&runtime, &two, 1), RefreshTurn::Granted(_)));
    assert!(begun.elapsed() > Duration::from_secs(14), "{:?}", begun.elapsed());
}

#[test]
fn without_the_database_only_new_tokens_are_taken_and_they_are_stored_later() {
    let Some(mut server) = Server::new() else { return };
    let runtime = runtime();
    let (one, two, password) = two(&server, &runtime);
    server.stop();
    within("both notice", || one.trouble().is_some() && two.trouble().is_some());
    let new = Password::generate();
    let refused = one.add_slot(ANN, &password, "new", &new, Limits::default(), NOW);
    assert!(matches!(refused, Err(VaultError::Unavailable(_))), "{refused:?}");
    assert!(one.unlock(ANN, &new).is_err() && one.unlock(ANN, &password).is_ok());
    assert!(runtime.block_on(one.begin_refresh(ANN, 1)).is_err());
    assert_eq!(one.keep(ANN, 1, &tokens(ANN, 2)).unwrap(), 2);
    assert!(one.has_unsaved() && one.account(ANN).unwrap().generation() == 2);
    server.start();
    within("they are stored", || !one.has_unsaved() && one.trouble().is_none());
    within("and at the other", || two.account(ANN).is_some_and(|account| account.generation() == 2));
    assert_eq!(server.open(&runtime).unwrap().unlock(ANN, &password).unwrap().generation, 2);
}

#[test]
fn tables_of_another_version_or_of_somebody_else_are_left_alone() {
    let Some(server) = Server::new() else { return };
    let runtime = runtime();
    let refused = |word: &str| match server.open(&runtime) {
        Err(VaultError::Unusable(why)) => assert!(why.contains(word), "{why}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened in spite of {word}"),
    };
    server.run("create table postkey_records (mine text)");
    refused("postkey_records");
    server.run("drop table postkey_records");
    drop(server.open(&runtime).unwrap());
    server.run("update postkey_schema set version = 1000");
    refused("1000");
    server.run("update postkey_schema set version = 1");
    let other = DatabaseConfig { database: "nowhere".to_owned(), ..server.config() };
    let opened = runtime.block_on(open_database(&other, StateFolder::none()));
    assert!(matches!(opened, Err(VaultError::Unusable(why)) if why.contains("nowhere")));
    server.run("create role poor login; grant select on postkey_schema to poor");
    let poor = DatabaseConfig { user: "poor".to_owned(), ..server.config() };
    let opened = runtime.block_on(open_database(&poor, StateFolder::none()));
    assert!(matches!(opened, Err(VaultError::Unusable(why)) if why.contains("privilege")));
}

#[test]
fn a_vault_is_copied_into_the_database_and_back() {
    let Some(server) = Server::new() else { return };
    let (runtime, folder, password) = (runtime(), TempDir::new().unwrap(), Password::generate());
    let embedded = Vault::open(&folder.path().join("one")).unwrap();
    for address in [ANN, BEN] {
        embedded.authorize(&authorization(address, 1), Some(("main", &password)), NOW).unwrap();
    }
    embedded.forget(BEN).unwrap();
    let shared = server.open(&runtime).unwrap();
    for outcome in [Restored::Done, Restored::Same] {
        for address in embedded.addresses() {
            assert_eq!(shared.copy_from(&embedded, &address, false).unwrap(), outcome);
        }
    }
    shared.keep(ANN, 1, &tokens(ANN, 2)).unwrap();
    let back = Vault::open(&folder.path().join("two")).unwrap();
    for address in shared.addresses() {
        assert_eq!(back.copy_from(&shared, &address, false).unwrap(), Restored::Done);
    }
    assert_eq!(back.unlock(ANN, &password).unwrap().generation, 2);
    assert!(back.account(BEN).is_none() && back.addresses() == [ANN, BEN]);
    assert_eq!(shared.copy_from(&embedded, ANN, false).unwrap(), Restored::Newer, "nothing newer is replaced");
}
