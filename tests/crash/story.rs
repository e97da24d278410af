//! What is going on when the kill comes, and what has to be true afterwards.

use postkey::broker::AccountState;

use crate::trace::{Call, Trace};
use crate::world::{ANN, Beginning, Daemon, Told, World};

/// The deeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Ann authorizes her account for the first time.
    Authorize,
    /// She authorizes it again.
    Reauthorize,
    /// Her mail program logs in after her access token has expired.
    LogIn,
    /// Her mail program logs in, and the provider refuses her access token before its expiry.
    LogInRefused,
    /// She adds another app password.
    AddPassword,
    /// She removes an app password.
    RemovePassword,
    /// She removes her account.
    Forget,
}

/// The process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The daemon, while it starts or works.
    Daemon,
    /// The command, which opens the vault itself because no daemon runs.
    Command,
    /// The command, while a daemon works for it.
    Messenger,
}

/// One deed, with one victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    pub deed: Deed,
    pub victim: Victim,
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everybody can log in who could before, or who was told so.
    Kept,
    /// The server had issued the new token, but its answer had not been read, so nobody could have stored it.
    NotRead,
    /// The answer had just been read, and no record with it was in the vault yet.
    NotWritten,
}

/// All stories.
pub const STORIES: [Story; 14] = {
    use Deed::*;
    use Victim::*;
    [
        Story { deed: Authorize, victim: Command },
        Story { deed: Authorize, victim: Daemon },
        Story { deed: Authorize, victim: Messenger },
        Story { deed: LogIn, victim: Daemon },
        Story { deed: LogInRefused, victim: Daemon },
        Story { deed: AddPassword, victim: Command },
        Story { deed: AddPassword, victim: Daemon },
        Story { deed: RemovePassword, victim: Command },
        Story { deed: RemovePassword, victim: Daemon },
        Story { deed: Forget, victim: Command },
        Story { deed: Forget, victim: Daemon },
        Story { deed: Reauthorize, victim: Command },
        Story { deed: Reauthorize, victim: Daemon },
        Story { deed: Reauthorize, victim: Messenger },
    ]
};

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let deed = match self.deed {
            Deed::Authorize => "first authorization",
            Deed::Reauthorize => "renewed authorization",
            Deed::LogIn => "login, token expired",
            Deed::LogInRefused => "login, token refused",
            Deed::AddPassword => "password add",
            Deed::RemovePassword => "password remove",
            Deed::Forget => "forget",
        };
        let victim = match self.victim {
            Victim::Daemon => "daemon",
            Victim::Command => "command without a daemon",
            Victim::Messenger => "command with a daemon",
        };
        write!(f, "{deed}: {victim}")
    }
}

impl Story {
    /// Goes back to the beginning and runs the deed under strace. Returns what the doer was told, and whether strace
    /// killed it.
    pub async fn happen(self, world: &World, trace: &Trace) -> Result<(Told, bool), String> {
        world.begin(self.beginning()).await?;
        if self.deed == Deed::LogInRefused {
            world.provider.revoke_access_tokens();
        }
        if self.victim == Victim::Command {
            let told = self.act(world, None, Some(trace)).await?;
            let killed = told.killed;
            return Ok((told, killed));
        }
        let (of_daemon, of_command) =
            if self.victim == Victim::Daemon { (Some(trace), None) } else { (None, Some(trace)) };
        let daemon = world.start(of_daemon).await?;
        let told = if daemon.port == 0 { Told::default() } else { self.act(world, Some(&daemon), of_command).await? };
        let killed =
            if of_daemon.is_some() { daemon.fall().await? } else { daemon.kill().await.map(|()| told.killed)? };
        Ok((told, killed))
    }

    fn beginning(self) -> Beginning {
        match self.deed {
            Deed::Authorize => Beginning::NoAccount,
            Deed::LogIn => Beginning::Expired,
            _ => Beginning::Ready,
        }
    }

    async fn act(self, world: &World, daemon: Option<&Daemon>, trace: Option<&Trace>) -> Result<Told, String> {
        match self.deed {
            Deed::Authorize | Deed::Reauthorize => world.authorize(ANN, trace).await,
            Deed::AddPassword => world.add_password("printer", trace).await,
            Deed::RemovePassword => world.command(&["password", "remove", ANN, "scanner"], "", trace).await,
            Deed::Forget => world.command(&["forget", ANN], "", trace).await,
            Deed::LogIn | Deed::LogInRefused => {
                let daemon = daemon.ok_or("a login needs a daemon")?;
                Ok(Told { done: daemon.log_in(ANN, &world.main).await.is_ok(), ..Told::default() })
            }
        }
    }

    /// Starts the daemon again. Every access token has ended, so each login shows that the vault has the refresh token
    /// that the server accepts next.
    pub async fn check(self, world: &World, told: &Told, calls: &[Call]) -> Result<Outcome, String> {
        let spent = world.provider.memory().spent(ANN);
        world.provider.revoke_access_tokens();
        let daemon = world.serve().await?;
        let status = world.status().await?;
        if !status.damaged.is_empty() || status.accounts.iter().any(|account| account.doubtful) {
            return Err(format!("damaged: {:?}; or doubtful: {:?}", status.damaged, status.accounts));
        }
        world.ben_logs_in(&daemon).await?;
        let is_known = status.accounts.iter().any(|account| account.address == ANN);
        let outcome = match self.deed {
            Deed::Authorize => check_first(world, &daemon, told, is_known).await,
            Deed::LogIn | Deed::LogInRefused => match daemon.log_in(ANN, &world.main).await {
                Ok(()) => Ok(Outcome::Kept),
                Err(reply) => check_loss(world, &daemon, reply, spent, calls).await,
            },
            Deed::Forget => check_forgotten(world, &daemon, told, is_known).await,
            Deed::AddPassword | Deed::RemovePassword | Deed::Reauthorize => {
                self.check_passwords(world, &daemon, told).await
            }
        };
        let outcome = outcome.map_err(|why| format!("{why}\n{}", world.log()))?;
        daemon.kill().await?;
        match outcome == Outcome::Kept && world.provider.memory().has_ended(ANN) {
            true => Err("a refresh token was used twice".to_owned()),
            false => Ok(outcome),
        }
    }

    /// Whatever the result of the deed, the other passwords open the account.
    async fn check_passwords(self, world: &World, daemon: &Daemon, told: &Told) -> Result<Outcome, String> {
        daemon.log_in(ANN, &world.main).await?;
        if let Some(password) = told.password() {
            daemon.log_in(ANN, &password).await?;
        }
        let scanner = daemon.log_in(ANN, &world.scanner).await;
        match (self.deed, scanner) {
            (Deed::RemovePassword, Ok(())) if told.done => Err("a removed password opens the account".to_owned()),
            (Deed::RemovePassword, _) => Ok(Outcome::Kept),
            (_, scanner) => scanner.map(|()| Outcome::Kept),
        }
    }
}

/// A password that was shown works. Otherwise the person, who is still there, starts again.
async fn check_first(world: &World, daemon: &Daemon, told: &Told, is_known: bool) -> Result<Outcome, String> {
    if let Some(password) = told.password() {
        daemon.log_in(ANN, &password).await?;
        return Ok(Outcome::Kept);
    }
    if is_known {
        world.command(&["forget", ANN], "", None).await?;
    }
    let told = world.authorize(ANN, None).await?;
    let password = told.password().ok_or(format!("it does not work the second time: {}", told.text))?;
    daemon.log_in(ANN, &password).await.map(|()| Outcome::Kept)
}

/// An account exists completely, or not at all.
async fn check_forgotten(world: &World, daemon: &Daemon, told: &Told, is_known: bool) -> Result<Outcome, String> {
    let login = daemon.log_in(ANN, &world.main).await;
    match (told.done, is_known, login) {
        (true, true, _) => Err("a forgotten account is still there".to_owned()),
        (_, known, login) if known != login.is_ok() => Err(format!("known: {known}, login: {login:?}")),
        _ => Ok(Outcome::Kept),
    }
}

/// A refresh token is lost. That is allowed only until the new one is in the vault. It has to be reported and curable.
async fn check_loss(
    world: &World,
    daemon: &Daemon,
    reply: String,
    spent: usize,
    calls: &[Call],
) -> Result<Outcome, String> {
    if spent == 0 {
        return Err(format!("lost, though the server had not rotated: {reply}"));
    }
    let outcome = match answer_read(world, calls) {
        None => Outcome::NotRead,
        Some(read) if !is_written_after(world, calls, read) => Outcome::NotWritten,
        Some(_) => return Err(format!("lost, though it was in the vault: {reply}")),
    };
    let status = world.status().await?;
    if !status.accounts.iter().any(|account| account.address == ANN && account.state == AccountState::Ended) {
        return Err(format!("the status does not say that a person is needed: {reply}"));
    }
    world.authorize(ANN, None).await?;
    daemon.log_in(ANN, &world.main).await.map(|()| outcome)
}

/// Where the first answer of the token endpoint was read, if one was.
pub fn answer_read(world: &World, calls: &[Call]) -> Option<usize> {
    answers_read(world, calls).first().copied()
}

/// Where the answers of the token endpoint were read.
pub fn answers_read(world: &World, calls: &[Call]) -> Vec<usize> {
    let issuer = world.provider.issuer();
    let port = issuer.rsplit_once(':').map_or("", |(_, port)| port);
    let is_it = |call: &&Call| {
        call.is(&["read", "recvfrom", "recvmsg"])
            && call.text.contains(&format!(":{port}]>"))
            && call.text.contains("HTTP/1.1 200")
    };
    calls.iter().filter(is_it).filter_map(|call| call.succeeded).collect()
}

/// Whether a record was written to the vault after this line: to sled's log, or by its name to the second copy.
fn is_written_after(world: &World, calls: &[Call], line: usize) -> bool {
    let state = world.state_dir().display().to_string();
    let comes_in =
        |call: &&Call| call.is(&["pwrite64", "rename", "renameat", "renameat2"]) && !call.files(&state).is_empty();
    calls.iter().filter(comes_in).any(|call| call.succeeded.is_some_and(|returned| returned > line))
}
