//! Power cuts: the vault is opened on what a disk may have after one, at every call with which it was written.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use postkey::protocol::{Protocol, Security};
use postkey::vault::Vault;
use postkey::vault::password::Password;
use tempfile::TempDir;

use crate::replay::{Disk, Left};
use crate::support::Settings;
use crate::trace::{Call, Trace};
use crate::world::{ANN, BEN, Beginning, World};

/// New access tokens are longer than anything else that goes to the mail server, so the line that has one shows under TLS;
/// and a record with one takes more than a page.
const TOKEN: usize = 5000;

/// How often Ann's token is refreshed in a tale.
const REFRESHES: usize = 6;

/// What is being written when the power fails.
#[derive(Clone, Copy, Debug)]
enum Tale {
    /// The first account of a new vault.
    First,
    /// Refreshes, one after another.
    Refreshes,
    /// The same in a vault whose sled is damaged, so that it is rebuilt first.
    Damaged,
}

/// The trace of a tale.
struct Told {
    disk: Disk,
    calls: Vec<Call>,
    password: String,
    /// Ann's refresh tokens in order, and the lines after which each of them, or a later one, has to be on the disk.
    tokens: Vec<(usize, String)>,
}

/// What was tried.
#[derive(Default)]
struct Tally {
    cuts: usize,
    states: usize,
    failed: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.states += other.states;
        self.failed += other.failed;
    }
}

/// Cuts the power at each call of each tale. What was not synced is left in one of four ways, in turn, or, in a
/// complete run, in each of them: nothing, the names, the bytes, and several random parts. Returns whether all is well.
pub async fn run(world: &World, whole: Option<u64>) -> Result<bool, String> {
    println!("\nPower cuts");
    let mut all = Tally::default();
    for tale in [Tale::First, Tale::Refreshes, Tale::Damaged] {
        let told = tell(world, tale).await.map_err(|why| format!("{tale:?}: {why}\n{}", world.log()))?;
        let tally = cut(world, tale, told, whole)?;
        println!("  {tale:?}: {} cuts, {} states of the disk, {} FAILED", tally.cuts, tally.states, tally.failed);
        all += tally;
    }
    println!("  all: {} cuts, {} states of the disk, {} FAILED", all.cuts, all.states, all.failed);
    Ok(all.failed == 0)
}

/// Runs it without a cut.
async fn tell(world: &World, tale: Tale) -> Result<Told, String> {
    world.begin(if matches!(tale, Tale::First) { Beginning::NoAccount } else { Beginning::Expired }).await?;
    let state = world.state_dir();
    match tale {
        Tale::First => std::fs::remove_dir_all(&state).map_err(|error| error.to_string())?,
        Tale::Refreshes => {}
        Tale::Damaged => damage(&state.join("sled/db"))?,
    }
    let disk = Disk::of(&state)?;
    let trace = Trace::record(&world.path("trace"));
    world.provider.change(|settings| settings.token_length = TOKEN);
    let happened = match tale {
        Tale::First => first(world, &trace).await,
        Tale::Refreshes | Tale::Damaged => refreshes(world, &trace).await,
    };
    world.provider.change(|settings| settings.token_length = Settings::default().token_length);
    let (password, tokens) = happened?;
    let calls = trace.calls().await;
    let lines = match tale {
        Tale::First => vec![shown(&calls, &password).ok_or("the app password was not seen")?],
        Tale::Refreshes | Tale::Damaged => [0].into_iter().chain(uses(world, &calls)?).collect(),
    };
    if lines.len() != tokens.len() {
        return Err(format!("{} refresh tokens came, and {} were used", tokens.len(), lines.len()));
    }
    Ok(Told { disk, calls, password, tokens: lines.into_iter().zip(tokens).collect() })
}

/// A bit in the middle of what sled has written.
fn damage(file: &Path) -> Result<(), String> {
    let mut bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    bytes.get_mut(written / 2).map(|byte| *byte ^= 1).ok_or("sled is empty")?;
    std::fs::write(file, bytes).map_err(|error| error.to_string())
}

async fn first(world: &World, trace: &Trace) -> Result<(String, Vec<String>), String> {
    let told = world.authorize(ANN, Some(trace)).await?;
    let password = told.password().ok_or(told.text)?;
    Ok((password, vec![current(world)?]))
}

async fn refreshes(world: &World, trace: &Trace) -> Result<(String, Vec<String>), String> {
    let mut tokens = vec![current(world)?];
    let daemon = world.start(Some(trace)).await?;
    for _ in 0..REFRESHES {
        // Each login needs a refresh.
        world.provider.revoke_access_tokens();
        daemon.log_in(ANN, &world.main).await?;
        tokens.push(current(world)?);
    }
    // What is written after the last answer belongs to it.
    daemon.fall().await?;
    Ok((world.main.clone(), tokens))
}

fn current(world: &World) -> Result<String, String> {
    world.provider.memory().refresh_token(ANN).ok_or("Ann has no grant".to_owned())
}

/// Where the command showed the app password.
fn shown(calls: &[Call], password: &str) -> Option<usize> {
    calls.iter().find(|call| call.is(&["write"]) && call.text.contains(password)).map(|call| call.began)
}

/// Where each new token was used first: the first long line to the mail server after each answer of the token endpoint.
fn uses(world: &World, calls: &[Call]) -> Result<Vec<usize>, String> {
    let server = format!("->127.0.0.1:{}]", world.provider.port(Protocol::Imap, Security::Tls));
    let uses = |call: &&Call| {
        call.is(&["write", "writev", "sendto", "sendmsg"])
            && call.text.contains(&server)
            && call.result().is_some_and(|size| size > TOKEN)
    };
    let answers = crate::story::answers_read(world, calls);
    let first_use = |read: usize| calls.iter().filter(uses).map(|call| call.began).find(|began| *began > read);
    answers.into_iter().map(|read| first_use(read).ok_or("a token was not used".to_owned())).collect()
}

/// Cuts at each call that changes or syncs something.
fn cut(world: &World, tale: Tale, told: Told, whole: Option<u64>) -> Result<Tally, String> {
    let Told { mut disk, mut calls, password, tokens } = told;
    let mut tally = Tally::default();
    calls.retain(|call| call.succeeded.is_some());
    calls.sort_by_key(|call| call.succeeded);
    let bystander = matches!(tale, Tale::Refreshes | Tale::Damaged).then_some(world.ben());
    for call in &calls {
        if !disk.act(call)? {
            continue;
        }
        tally.cuts += 1;
        let line = call.succeeded.unwrap_or_default();
        let required = tokens.iter().rposition(|(since, _)| *since <= line);
        let allowed: Vec<&str> = tokens.iter().skip(required.unwrap_or(0)).map(|(_, token)| &**token).collect();
        for left in ways(tally.cuts as u64, whole) {
            tally.states += 1;
            let state = leave(&disk, left)?;
            let needed = Needed { password: &password, allowed: &allowed, is_certain: required.is_some(), bystander };
            if let Err(why) = needed.check(&state.path().join("state")) {
                tally.failed += 1;
                let Call { name, text, .. } = call;
                let about: String = text.chars().filter(char::is_ascii_graphic).take(160).collect();
                println!("  FAILED {tale:?}, {left:?} left behind {name} in line {line}: {why}\n         | {about}");
            }
        }
    }
    Ok(tally)
}

fn ways(cut: u64, whole: Option<u64>) -> Vec<Left> {
    let all = [Left::Nothing, Left::Names, Left::Bytes];
    match (whole, cut % 4) {
        (Some(times), _) => all.into_iter().chain((0..times).map(|time| Left::Some(cut * times + time))).collect(),
        (None, 3) => vec![Left::Some(cut)],
        (None, way) => all.into_iter().skip(way as usize).take(1).collect(),
    }
}

/// What has to be in the vault.
struct Needed<'a> {
    password: &'a str,
    allowed: &'a [&'a str],
    /// Whether the account has to be there at all.
    is_certain: bool,
    bystander: Option<&'a str>,
}

impl Needed<'_> {
    fn check(&self, state: &Path) -> Result<(), String> {
        // The state after the first start, and after the second one.
        for start in ["first", "second"] {
            let vault = Vault::open(state).map_err(|error| format!("{start} start: {error}"))?;
            if !vault.damaged().is_empty() || vault.trouble().is_some() {
                return Err(format!("{start} start: damaged {:?}, trouble {:?}", vault.damaged(), vault.trouble()));
            }
            if vault.accounts().iter().any(|account| account.doubtful) {
                return Err(format!("{start} start: it doubts what it has"));
            }
            match refresh_token(&vault, ANN, self.password) {
                Some(token) if self.allowed.contains(&&*token) => {}
                None if !self.is_certain && vault.accounts().is_empty() => {}
                Some(_) => return Err(format!("{start} start: an old refresh token")),
                None => return Err(format!("{start} start: no refresh token")),
            }
            if self.bystander.is_some_and(|password| refresh_token(&vault, BEN, password).is_none()) {
                return Err(format!("{start} start: Ben was harmed"));
            }
        }
        Ok(())
    }
}

fn refresh_token(vault: &Vault, address: &str, password: &str) -> Option<String> {
    let tokens = vault.unlock(address, &Password::read(password.as_bytes())).ok()?.tokens;
    tokens.refresh.map(|token| token.expose().to_owned())
}

/// The disk after the cut, in a folder where fsync costs nothing.
fn leave(disk: &Disk, left: Left) -> Result<TempDir, String> {
    let memory = PathBuf::from("/dev/shm");
    let folder = TempDir::new_in(memory).or_else(|_| TempDir::new()).map_err(|error| error.to_string())?;
    disk.leave(left, folder.path()).map_err(|error| error.to_string())?;
    Ok(folder)
}
