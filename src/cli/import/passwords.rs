//! Opens accounts with the passwords that mail programs use with the other program.

use std::io::IsTerminal as _;
use std::path::Path;

use super::super::arguments::ImportOptions;
use super::super::password::chosen;
use super::super::terminal::{Input, complain};
use super::account::{ImportedTokens, OpenedTokens};
use super::lock::Closed;
use super::plan::{Fate, PlannedAccount};
use super::source::Contents;
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::secret::{Secret, Token};
use crate::vault::password::Password;

/// How often a person may mistype a password.
const TRIES: usize = 3;

/// What the command line names, read with the rights of whoever runs the command.
#[derive(Default)]
pub struct ImportFiles {
    pub contents: Vec<Contents>,
    /// Passwords, each for one account or for all.
    pub passwords: Vec<(Option<Name>, Secret)>,
}

impl ImportFiles {
    pub fn read(options: &ImportOptions) -> Result<Self, Failed> {
        let contents = options
            .files
            .iter()
            .map(|path| Contents::read(path, options.decrypt_command.as_deref()))
            .collect::<Result<_, _>>()?;
        let passwords = options.password_file.iter().map(|named| password_file(named)).collect::<Result<_, _>>()?;
        Ok(Self { contents, passwords })
    }
}

/// Reads the password of `ADDRESS=FILE` or `FILE`.
fn password_file(named: &str) -> Result<(Option<Name>, Secret), Failed> {
    let (address, path) = match named.split_once('=') {
        Some((address, path)) if address.contains('@') => (Some(Name::typed(address)), path),
        _ => (None, named),
    };
    let password = std::fs::File::open(Path::new(path)).and_then(Secret::read);
    let password =
        password.map_err(|error| Failed::new(Exit::Io, format!("cannot read the password file {path}: {error}")))?;
    match password.is_empty() {
        true => Err(Failed::new(Exit::Data, format!("the password file {path} is empty"))),
        false => Ok((address, password)),
    }
}

/// The source of passwords.
pub struct OldPasswords {
    pub files: Vec<(Option<Name>, Secret)>,
    /// Whether the accounts get new app passwords.
    pub is_new: bool,
}

/// An account whose tokens are open.
pub struct OpenedAccount {
    pub address: String,
    pub program: &'static str,
    pub provider: String,
    pub flow: Flow,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub refresh: Option<Token>,
    /// The password that opened it.
    pub typed: Option<Secret>,
    /// Its first app password.
    pub password: Password,
}

impl OldPasswords {
    /// Opens an account. Asks for its password if no file has it.
    pub async fn open(&self, planned: &PlannedAccount, input: &mut Input) -> Result<OpenedAccount, Failed> {
        let account = &planned.account;
        let Fate::Import(provider) = &planned.fate else {
            return Err(Failed::new(Exit::Software, "this account is not for import; please report this defect"));
        };
        let (opened, typed) = match &account.tokens {
            ImportedTokens::Missing => (OpenedTokens { refresh: None, client_secret: None }, None),
            ImportedTokens::Open(token) => (OpenedTokens { refresh: Some(token.clone()), client_secret: None }, None),
            ImportedTokens::Locked(_) => {
                self.unlock(planned, input).await.map(|(opened, typed)| (opened, Some(typed)))?
            }
        };
        let password = match typed.as_ref().filter(|_| !self.is_new) {
            Some(typed) => kept(typed)?,
            None => Password::generate(),
        };
        let has_own_client = account.client_key.is_none();
        Ok(OpenedAccount {
            address: account.address.clone(),
            program: planned.program,
            provider: provider.clone(),
            flow: account.flow,
            client_id: account.client_id.clone().filter(|_| has_own_client),
            client_secret: account.client_secret.clone().or(opened.client_secret).filter(|_| has_own_client),
            refresh: opened.refresh,
            typed,
            password,
        })
    }

    async fn unlock(&self, planned: &PlannedAccount, input: &mut Input) -> Result<(OpenedTokens, Secret), Failed> {
        let (account, program) = (&planned.account, planned.program);
        let ImportedTokens::Locked(lock) = &account.tokens else { return Err(wrong(program)) };
        if let Some(password) = self.of(&account.address) {
            let opened = lock.open(password, account.flow).map_err(|closed| failed(closed, program))?;
            return Ok((opened, password.clone()));
        }
        let prompt = format!("The password that mail programs use for {} with {program}: ", account.address);
        let tries = if std::io::stdin().is_terminal() { TRIES } else { 1 };
        for attempt in 1..=tries {
            let password = input.password(&prompt).await?;
            match lock.open(&password, account.flow) {
                Ok(opened) => return Ok((opened, password)),
                Err(Closed::WrongPassword) if attempt < tries => {
                    complain("this password does not open its tokens; try again")
                }
                Err(closed) => return Err(failed(closed, program)),
            }
        }
        Err(wrong(program))
    }

    /// The password from a file: the account's own, or else that of all.
    fn of(&self, address: &str) -> Option<&Secret> {
        let address = Name::typed(address);
        let is_own = |name: &Option<Name>| name.as_ref().is_some_and(|name| name.same_as(&address));
        let own = self.files.iter().find(|(name, _)| is_own(name));
        own.or_else(|| self.files.iter().find(|(name, _)| name.is_none())).map(|(_, password)| password)
    }
}

fn failed(closed: Closed, program: &str) -> Failed {
    match closed {
        Closed::WrongPassword => wrong(program),
        Closed::Damaged(why) => {
            Failed::new(Exit::Data, format!("{why}; nothing was changed. Run `postkey authorize` for it instead"))
        }
    }
}

fn wrong(program: &str) -> Failed {
    let why = format!(
        "this password does not open its tokens; nothing was changed. It is the one that the mail program sends to {program}, not \
         the one at the provider"
    );
    Failed::new(Exit::NoPermission, why)
}

/// The app password that a mail program already has.
fn kept(typed: &Secret) -> Result<Password, Failed> {
    chosen(typed).map_err(|refused| {
        let advice = "nothing was changed. Add `--new-password`, and enter the new one in its mail programs";
        Failed::new(refused.exit, format!("its password opens the tokens, but {}; {advice}", refused.message))
    })
}
