//! Nothing is used before it is stored: the order of the system calls of a refresh.

use crate::story::{self, Deed, Story, Victim};
use crate::trace::{Call, Trace};
use crate::world::World;
use postkey::protocol::{Protocol, Security};

/// New tokens are longer than anything else that goes to the mail server, so the line that has one shows even under TLS.
const TOKEN: usize = 3000;

/// Traces both kinds of refresh. Returns whether all is well.
pub async fn run(world: &World) -> Result<bool, String> {
    println!("\nThe order of the calls");
    let before = 200;
    let mut is_well = true;
    for deed in [Deed::LogIn, Deed::LogInRefused] {
        let story = Story { deed, victim: Victim::Daemon };
        world.provider.change(|settings| settings.token_length = TOKEN);
        let trace = Trace::watch(&world.path("trace"));
        let happened = story.happen(world, &trace).await;
        world.provider.change(|settings| settings.token_length = before);
        happened?;
        match check(world, &trace.calls().await) {
            Ok(synced) => println!("  {story}: {synced} synced between the token's arrival and its first use"),
            Err(why) => {
                println!("  FAILED {story}: {why}");
                is_well = false;
            }
        }
    }
    Ok(is_well)
}

/// What a power cut may lose: the numbers of the newest writes, which only show whether older files were put back. They
/// may be behind the records but never ahead, and are not worth an fsync (`src/vault/counters.rs`).
const UNSYNCED: [&str; 2] = ["/counters.new", "/counters.log"];

/// Between the answer's arrival and the line that uses the token, everything else that is written to the vault is
/// synced. Returns the files that were.
fn check(world: &World, calls: &[Call]) -> Result<String, String> {
    let state = world.state_dir().display().to_string();
    let read = story::answer_read(world, calls).ok_or("the answer of the token endpoint was not seen")?;
    let server = format!("->127.0.0.1:{}]", world.provider.port(Protocol::Imap, Security::Tls));
    let uses = |call: &&Call| {
        let sends = call.is(&["write", "writev", "sendto", "sendmsg"]) && call.text.contains(&server);
        sends && call.result().is_some_and(|size| size > TOKEN)
    };
    let used = calls.iter().find(uses).ok_or("the login with the new token was not seen")?.began;
    let between: Vec<&Call> = calls.iter().filter(|call| call.began > read && call.began < used).collect();
    let mut synced = Vec::new();
    for call in between.iter().filter(|call| call.is(&["write", "writev", "pwrite64"])) {
        for file in call.files(&state).into_iter().filter(|file| !UNSYNCED.iter().any(|name| file.ends_with(name))) {
            let syncs = |other: &&&Call| {
                let after = call.succeeded.is_some_and(|returned| other.began > returned);
                let in_time = other.succeeded.is_some_and(|returned| returned < used);
                other.is(&["fsync", "fdatasync"]) && other.files(&state).contains(&file) && after && in_time
            };
            between.iter().find(syncs).ok_or_else(|| format!("{file} was not synced before the token was used"))?;
            synced.push(file.trim_start_matches(&*state).trim_start_matches('/').to_owned());
        }
    }
    synced.sort();
    synced.dedup();
    if synced.is_empty() {
        Err("nothing was written before the token was used".to_owned())
    } else {
        Ok(synced.join(", "))
    }
}
