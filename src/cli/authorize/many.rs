//! Authorizes many accounts without a person: with a grant that needs none, or with refresh tokens of the same client.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::super::admin::AdminClient;
use super::super::arguments::AuthorizeOptions;
use super::super::progress::Progress;
use super::super::terminal::complain;
use super::preparation::chosen_options;
use super::taken_over::TokenSource;
use crate::authorization::{ChosenOptions, OnRemark, Plan, Remark, account_address};
use crate::broker::{AccountState, Connector};
use crate::config::Config;
use crate::config::flow::Flow;
use crate::control::{ControlRequest, LoginTest, NewAuthorization, Status};
use crate::exit::{Exit, Failed};
use crate::guard;
use crate::mutex::lock;
use crate::name::Name;
use crate::oauth::refresh::pasted;
use crate::secret::{Secret, Token};
use crate::vault::password::Password;
use crate::vault::{Authorization, check_slot_name};

/// How many accounts are authorized at a time, if their authorization servers allow so many refreshes.
const AT_ONCE: usize = 8;

/// The number of failures in a row after which the command stops, because the rest would fail, too.
const IN_A_ROW: usize = 20;

/// How many mistakes in a file are shown.
const SHOWN: usize = 20;

/// A line of the file.
struct BulkLine {
    number: usize,
    address: Name,
    token: Option<Token>,
}

/// An account to authorize.
struct BulkAccount {
    number: usize,
    address: String,
    connector: Arc<Connector>,
    source: TokenSource,
}

/// The result for an account.
struct Outcome {
    number: usize,
    address: String,
    authorization: Result<Authorization, Failed>,
    remarks: Vec<String>,
}

/// Authorizes the accounts of a file, except those that are authorized already. Prints the address and the app password of
/// each new one.
pub async fn run_many(config: &Config, file: &Path, options: &AuthorizeOptions) -> Result<(), Failed> {
    check_slot_name(&options.password_name)?;
    let lines = read(file)?;
    let admin = AdminClient::connect(config).await?;
    let mut run = BulkAuthorization::new(config, options, admin.status().await?, lines.len());
    let accounts = lines.into_iter().filter_map(|line| run.account(line)).collect();
    run.carry_out(&admin, accounts).await?;
    run.report(file)
}

struct BulkAuthorization<'a> {
    config: Arc<Config>,
    options: &'a AuthorizeOptions,
    chosen: Arc<ChosenOptions>,
    connectors: HashMap<String, Arc<Connector>>,
    /// The client registrations that the daemon knows. The accounts are left out, because no task needs them.
    status: Arc<Status>,
    /// By the canonical form of an account's name, its address, and whether it has to be authorized again.
    known: HashMap<String, (String, bool)>,
    progress: Progress,
    authorized: usize,
    skipped: usize,
    failures: Vec<(usize, String)>,
    /// The exit code of the first failure.
    exit: Option<Exit>,
    in_a_row: usize,
    /// Why no further account is started.
    stopped: Option<String>,
}

impl<'a> BulkAuthorization<'a> {
    fn new(config: &Config, options: &'a AuthorizeOptions, status: Status, count: usize) -> Self {
        let known = status.accounts.into_iter().map(|account| {
            let is_ended = account.state == AccountState::Ended;
            (Name::typed(&account.address).canonical().to_owned(), (account.address, is_ended))
        });
        Self {
            config: Arc::new(config.clone()),
            options,
            chosen: Arc::new(chosen_options(options)),
            connectors: HashMap::new(),
            known: known.collect(),
            status: Arc::new(Status { registered: status.registered, ..Status::default() }),
            progress: Progress::new(count),
            authorized: 0,
            skipped: 0,
            failures: Vec::new(),
            exit: None,
            in_a_row: 0,
            stopped: None,
        }
    }

    /// The account of a line, unless it is authorized already.
    fn account(&mut self, BulkLine { number, address, token }: BulkLine) -> Option<BulkAccount> {
        let typed = address.to_string();
        let account = match account_address(&self.config, &self.status, &typed) {
            Ok(address) => {
                let address = match self.known.get(Name::typed(&address).canonical()) {
                    Some((_, false)) => {
                        self.skipped += 1;
                        self.progress.step();
                        return None;
                    }
                    Some((spelling, true)) => spelling.clone(),
                    None => address,
                };
                self.prepare(&address, token).map(|(connector, source)| BulkAccount {
                    number,
                    address,
                    connector,
                    source,
                })
            }
            Err(failed) => Err(failed),
        };
        account.map_err(|failed| self.failed(number, &typed, failed)).ok()
    }

    /// The provider of an account, and the way to get its tokens.
    fn prepare(&mut self, address: &str, token: Option<Token>) -> Result<(Arc<Connector>, TokenSource), Failed> {
        let provider = match &self.options.provider {
            Some(name) => self.config.providers.get(name).map(AsRef::as_ref),
            None => self.config.provider_for(address),
        };
        let why = "its provider is unknown; set it in the configuration, or use `--provider`";
        let provider = provider.ok_or_else(|| Failed::new(Exit::Usage, why))?;
        let flow = self.options.flow.or(self.config.account(address).flow).unwrap_or(provider.flow);
        let source = source_of(flow, token)?;
        // Otherwise each account would register a client of its own.
        let has_client = self.chosen.client.is_some() || self.config.client_for(address, provider).is_some();
        if !has_client && flow != Flow::JwtBearer {
            let why = format!("{} has no client registration; set `client_id`, or use `--client-id`", provider.name);
            return Err(Failed::new(Exit::Config, why));
        }
        if let Some(connector) = self.connectors.get(&provider.name) {
            return Ok((Arc::clone(connector), source));
        }
        let connector = Connector::new(&self.config, &provider.name).map_err(|why| Failed::new(Exit::Config, why))?;
        let connector = Arc::new(connector);
        self.connectors.insert(provider.name.clone(), Arc::clone(&connector));
        Ok((connector, source))
    }

    /// Requests the tokens of several accounts at a time, and stores each as soon as it is there, because the one in the file
    /// may be invalid from then on. After an interrupt it starts no further account, and stores those that are under way.
    async fn carry_out(&mut self, admin: &AdminClient<'_>, accounts: Vec<BulkAccount>) -> Result<(), Failed> {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| Failed::new(Exit::Os, error))?;
        let limits = accounts.iter().map(|account| account.connector.provider.concurrent_refreshes);
        let at_once = limits.min().unwrap_or(1).min(AT_ONCE);
        let (mut accounts, mut tasks) = (accounts.into_iter(), JoinSet::new());
        loop {
            while self.stopped.is_none() && tasks.len() < at_once {
                let Some(account) = accounts.next() else { break };
                let (config, status) = (Arc::clone(&self.config), Arc::clone(&self.status));
                let chosen = Arc::clone(&self.chosen);
                tasks.spawn(async move { account.carry_out(&config, &status, &chosen).await });
            }
            tokio::select! {
                ended = tasks.join_next() => {
                    let Some(ended) = ended else { return Ok(()) };
                    let outcome: Outcome = ended.map_err(|error| Failed::new(Exit::Software, error))?;
                    self.note(admin, outcome).await;
                }
                _ = interrupts.recv(), if self.stopped.is_none() => self.stopped = Some("interrupted".to_owned()),
            }
        }
    }

    /// Stores an authorization. The app password of a new account is printed before that, so that there is no account whose
    /// password nobody knows.
    async fn store(&mut self, admin: &AdminClient<'_>, authorization: Authorization) -> Result<(), Failed> {
        let address = &authorization.address;
        let is_new = !self.known.contains_key(Name::typed(address).canonical());
        let first = is_new.then(Password::generate);
        if let Some(password) = &first
            && let Err(error) = print(address, password)
        {
            self.stopped = Some(format!("cannot write to standard output: {error}"));
            return Err(Failed::new(Exit::Io, "not stored, because nobody would know its app password"));
        }
        let name = self.options.password_name.clone();
        let authorized = NewAuthorization { authorization, name, first, is_tested: false };
        admin.ask::<Vec<LoginTest>>(ControlRequest::Authorize(Box::new(authorized))).await.map(drop)
    }

    async fn note(&mut self, admin: &AdminClient<'_>, outcome: Outcome) {
        let Outcome { number, address, authorization, remarks } = outcome;
        self.progress.hide();
        remarks.iter().for_each(|remark| complain(format_args!("{address}: {remark}")));
        let stored = match authorization {
            Ok(authorization) => self.store(admin, authorization).await,
            Err(failed) => Err(failed),
        };
        match stored {
            Ok(()) => {
                (self.authorized, self.in_a_row) = (self.authorized + 1, 0);
                self.progress.step();
            }
            Err(failed) => {
                self.in_a_row += 1;
                self.failed(number, &address, failed);
            }
        }
        if self.in_a_row == IN_A_ROW {
            self.stopped.get_or_insert(format!("stopped after {IN_A_ROW} failures in a row"));
        }
    }

    fn failed(&mut self, number: usize, address: &str, Failed { exit, message }: Failed) {
        self.exit.get_or_insert(exit);
        self.failures.push((number, format!("{address}: {message}")));
        self.progress.step();
    }

    /// Reports what was done, and what was not done and why.
    fn report(self, file: &Path) -> Result<(), Failed> {
        drop(self.progress);
        let Self { mut failures, authorized, skipped, stopped, exit, .. } = self;
        failures.sort_unstable_by_key(|(number, _)| *number);
        for (number, why) in &failures {
            complain(format_args!("{}:{number}: {why}", file.display()));
        }
        let failed = failures.len();
        let summary = format!("{authorized} authorized, {skipped} already authorized, {failed} failed");
        match (stopped, exit) {
            (None, None) => {
                complain(summary);
                Ok(())
            }
            (None, Some(exit)) => Err(Failed::new(exit, summary)),
            (Some(why), exit) => Err(Failed::new(
                exit.unwrap_or(Exit::Temporary),
                format!("{summary}; {why}; run the command again for the rest"),
            )),
        }
    }
}

impl BulkAccount {
    /// Gets the tokens.
    async fn carry_out(self, config: &Config, status: &Status, chosen: &ChosenOptions) -> Outcome {
        let Self { number, address, connector, source } = self;
        let remarks = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&remarks);
        let tell: OnRemark = Arc::new(move |remark| match remark {
            Remark::Note(text) => lock(&told).push(text),
            Remark::Warning(text) => lock(&told).push(format!("warning: {text}")),
        });
        let authorization =
            match Plan::at(Connector::clone(&connector), config, address.clone(), chosen, status, tell).await {
                Ok(plan) => plan.take_over(source).await,
                Err(failed) => Err(failed),
            };
        let remarks = std::mem::take(&mut *lock(&remarks));
        Outcome { number, address, authorization, remarks }
    }
}

/// The way to get an account's tokens by this grant, with the token of its line.
fn source_of(flow: Flow, token: Option<Token>) -> Result<TokenSource, Failed> {
    let name = flow.name();
    let why = match (token, flow) {
        (Some(token), Flow::AuthorizationCode | Flow::DeviceCode) => return Ok(TokenSource::Refresh(token)),
        (None, Flow::ClientCredentials | Flow::JwtBearer) => return Ok(TokenSource::Client),
        (Some(_), _) => format!("the grant {name} uses no refresh token; remove it from the line"),
        (None, _) => format!(
            "the grant {name} needs a person; add a refresh token to the line, or authorize the account by itself"
        ),
    };
    Err(Failed::new(Exit::Data, why))
}

/// Prints an address and its app password. Returns an error if it cannot, because nobody could find out the password later.
fn print(address: &str, password: &Password) -> io::Result<()> {
    let line = Zeroizing::new([address.as_bytes(), b" ", &Zeroizing::new(password.expose()), b"\n"].concat());
    let mut out = io::stdout();
    out.write_all(&line).and_then(|()| out.flush())
}

/// Reads the file: in each line an address, and a refresh token if there is one. Empty lines and those that begin with # do
/// not count.
///
/// # Errors
///
/// All mistakes in the file, before anything is done.
fn read(file: &Path) -> Result<Vec<BulkLine>, Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Io, format!("cannot read {}: {error}", file.display()));
    guard::readable(file).map_err(failed)?;
    let bytes = Secret::new(std::fs::read(file).map_err(failed)?);
    let (mut lines, mut mistakes, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for (number, bytes) in (1..).zip(bytes.expose().split(|byte| *byte == b'\n')) {
        match line(number, bytes) {
            Ok(None) => {}
            Ok(Some(line)) => match seen.insert(line.address.canonical().to_owned(), number) {
                None => lines.push(line),
                Some(before) => mistakes.push((number, format!("{} is in line {before}, too", line.address))),
            },
            Err(why) => mistakes.push((number, why)),
        }
    }
    if mistakes.is_empty() && lines.is_empty() {
        mistakes.push((1, "there is no address in the file".to_owned()));
    }
    let more = mistakes.len().saturating_sub(SHOWN);
    let shown = mistakes.iter().take(SHOWN).map(|(number, why)| format!("{}:{number}: {why}", file.display()));
    let shown: Vec<String> = shown.chain((more > 0).then(|| format!("and {more} more mistakes"))).collect();
    if shown.is_empty() { Ok(lines) } else { Err(Failed::new(Exit::Data, shown.join("\n"))) }
}

/// Reads a line. The error does not repeat its words, because one of them may be a token.
fn line(number: usize, bytes: &[u8]) -> Result<Option<BulkLine>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the line is not UTF-8")?;
    let mut words = text.split_whitespace();
    let Some(address) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
    let address = Name::address(address).map_err(|why| format!("the first word {why}"))?;
    let token = words.next().map(pasted).transpose()?;
    match words.next() {
        Some(_) => Err("there is more than an address and a refresh token".to_owned()),
        None => Ok(Some(BulkLine { number, address, token })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_an_address_and_perhaps_a_refresh_token() {
        let read = |text: &str| {
            line(7, text.as_bytes()).map(|line| line.map(|line| (line.address.to_string(), line.token.is_some())))
        };
        assert_eq!(read("Ann@example.test\r"), Ok(Some(("ann@example.test".to_owned(), false))));
        assert_eq!(read(" ann@example.test\t1//0gToken "), Ok(Some(("ann@example.test".to_owned(), true))));
        for nothing in ["", "  ", "# ann@example.test", "#"] {
            assert_eq!(read(nothing), Ok(None), "{nothing:?}");
        }
        for bad in
            ["ann", "ann@example.test a b", "1//0gToken", "1//0gToken ann@example.test", "ann@example.test t\u{e4}"]
        {
            let why = read(bad).expect_err(bad);
            assert!(!why.contains("0gToken"), "{why}");
        }
        assert!(line(7, b"\xff\xfe").is_err());
    }
}
