//! `postkey import`: takes over accounts of another program with their tokens, so that nobody signs in again.
//!
//! `source.rs` reads the files, with one module for each format; `plan.rs` decides what becomes of each account,
//! `show.rs` shows that, and `configuration.rs` adds what it needs to the configuration. Then each account is opened with
//! the password of its mail program, renewed once at the provider, and stored with that password: as a whole or not at
//! all.

mod account;
mod block;
mod configuration;
mod davmail;
mod emailproxy;
mod ini;
mod json;
mod lock;
mod oama;
mod passwords;
mod pizauth;
mod plan;
mod provider;
mod show;
mod source;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::Path;

use super::admin::{AdminClient, ask_running};
use super::arguments::{AuthorizeOptions, ImportOptions};
use super::authorize::{TokenSource, take_over};
use super::terminal::{Input, complain, say};
use super::test::report;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::control::{ControlRequest, LoginTest, NewAuthorization, Status};
use crate::exit::{Exit, Failed};
use configuration::Addition;
pub use passwords::ImportFiles;
use passwords::{OldPasswords, OpenedAccount};
use plan::ImportPlan;

pub async fn run(
    config: &Config,
    file: Option<&Path>,
    options: ImportOptions,
    files: ImportFiles,
) -> Result<(), Failed> {
    let found = source::read(&files.contents)?;
    let status = status(config).await?;
    let plan = ImportPlan::new(config, configuration::file(file), found, &status, &options)?;
    show::plan(&plan, &options);
    if options.dry_run {
        return Ok(());
    }
    plan.check()?;
    let mut input = Input::new();
    confirm(&options, plan.importable().count(), &mut input).await?;
    let passwords = OldPasswords { files: files.passwords, is_new: options.new_password };
    let mut results = Results::default();
    let mut opened = Vec::new();
    for account in plan.importable() {
        results.note(&account.account.address, passwords.open(account, &mut input).await.map(|one| opened.push(one)));
    }
    if opened.is_empty() {
        return results.end();
    }
    let config = plan.addition.as_ref().map_or(config, |addition| &addition.config);
    if let Some(addition) = &plan.addition {
        extend(config, addition, &status).await?;
    }
    let mut stored = 0;
    for account in opened {
        let address = account.address.clone();
        let result = import(config, &status, account, &options, &mut stored).await;
        results.note(&address, result);
    }
    match (stored, &plan.addition) {
        (0, Some(addition)) => put_back(config, addition, &status).await,
        (0, None) => {}
        _ => show::end(&plan, config, &options).await,
    }
    results.end()
}

/// The state of the accounts. If there is no vault yet, none is created.
async fn status(config: &Config) -> Result<Status, Failed> {
    match config.state_dir.exists() {
        true => AdminClient::connect(config).await?.status().await,
        false => Ok(Status::default()),
    }
}

async fn confirm(options: &ImportOptions, count: usize, input: &mut Input) -> Result<(), Failed> {
    if options.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let why = "nothing was changed, because nobody can be asked here; add `--yes` to import, or `--dry-run` to only see this";
        return Err(Failed::new(Exit::Usage, why));
    }
    let accounts = if count == 1 { "this account".to_owned() } else { format!("these {count} accounts") };
    say(format_args!("\nImport {accounts}? Type yes or no:"));
    let answer = input.line().await.map(|line| String::from_utf8_lossy(line.expose()).trim().to_lowercase());
    match answer.as_deref() {
        Some("y" | "yes") => Ok(()),
        _ => Err(Failed::new(Exit::Usage, "not confirmed; nothing was changed")),
    }
}

/// Extends the configuration, and has a running daemon use it.
async fn extend(config: &Config, addition: &Addition, status: &Status) -> Result<(), Failed> {
    addition.write()?;
    match reload(config, status).await {
        Err(failed) => {
            put_back(config, addition, status).await;
            let advice = "If a port is in use, stop the other program first, and run the command again";
            Err(Failed::new(failed.exit, format!("{}. {advice}. Nothing was changed", failed.message)))
        }
        Ok(()) => {
            say(format_args!("\n{} has been extended.", addition.path().display()));
            if addition.is_change() {
                say(format_args!("The old file is {}.", addition.kept().display()));
            }
            Ok(())
        }
    }
}

/// Only a running daemon has listeners.
async fn reload(config: &Config, status: &Status) -> Result<(), Failed> {
    match status.listeners.is_empty() {
        true => Ok(()),
        false => ask_running::<()>(config, &ControlRequest::Reload).await,
    }
}

async fn put_back(config: &Config, addition: &Addition, status: &Status) {
    let undone = addition.undo();
    let undone = undone.map_err(|error| Failed::new(Exit::Io, error));
    let undone = match undone {
        Ok(()) => reload(config, status).await,
        failed => failed,
    };
    match undone {
        Ok(()) => say(format_args!("{} is again what it was.", addition.path().display())),
        Err(failed) => complain(format_args!(
            "cannot put back {}: {}; its old content is in {}",
            addition.path().display(),
            failed.message,
            addition.kept().display()
        )),
    }
}

/// Renews an account's tokens once, stores them, and logs in with them.
async fn import(
    config: &Config,
    status: &Status,
    account: OpenedAccount,
    options: &ImportOptions,
    stored: &mut usize,
) -> Result<(), Failed> {
    let source = match (account.flow, account.refresh, &account.typed) {
        (_, Some(refresh), _) => TokenSource::Refresh(refresh),
        (Flow::Password, None, Some(password)) => TokenSource::Password(password.clone()),
        (_, None, _) => TokenSource::Client,
    };
    let how = AuthorizeOptions {
        provider: Some(account.provider),
        flow: Some(account.flow),
        client_id: account.client_id,
        client_secret: account.client_secret,
        client_secret_file: options.client_secret_file.clone(),
        password_name: account.program.to_owned(),
        ..AuthorizeOptions::default()
    };
    let authorization = take_over(config, status, &account.address, &how, source).await?;
    let authorized = NewAuthorization {
        authorization,
        name: how.password_name,
        first: Some(account.password.clone()),
        is_tested: true,
    };
    let admin = AdminClient::connect(config).await?;
    let tests: Vec<LoginTest> = admin.ask(ControlRequest::Authorize(Box::new(authorized))).await?;
    *stored += 1;
    say(format_args!("\n{} is imported. Logging in with a new token:", account.address));
    report(&tests, false);
    super::password::show(&account.password);
    // The import has succeeded even if one of the servers refuses the login.
    match tests.iter().any(|test| test.refused.is_none()) {
        true => Ok(()),
        false => {
            Err(Failed::new(Exit::Unavailable, "it is imported, but none of the provider's servers accepted the login"))
        }
    }
}

/// How the accounts have fared: a failure of one does not stop the others.
#[derive(Default)]
struct Results {
    first: Option<Exit>,
    failed: Vec<String>,
}

impl Results {
    fn note(&mut self, address: &str, result: Result<(), Failed>) {
        let Err(failed) = result else { return };
        complain(format_args!("{address}: {}", failed.message));
        self.first.get_or_insert(failed.exit);
        self.failed.push(address.to_owned());
    }

    fn end(self) -> Result<(), Failed> {
        match self.first {
            None => Ok(()),
            Some(exit) => {
                Err(Failed::new(exit, format!("not everything was imported: {}; see above", self.failed.join(", "))))
            }
        }
    }
}
