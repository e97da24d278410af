//! `[account."ADDRESS"]`, and `[account."*@DOMAIN"]` for all addresses of a domain.

use std::collections::BTreeMap;

use super::reader::{Section, Value};
use super::{client, fields};
use crate::config::provider::{self, Providers};
use crate::config::{AccountConfig, Domain};
use crate::name::{Name, find};

/// What cannot be said of a shared mailbox, because its delegate's authorization has it.
const DELEGATES: [&str; 14] = [
    "provider",
    "client_id",
    "client_secret",
    "client_key",
    "client_key_password",
    "client_certificate",
    "client_algorithm",
    "client_assertion",
    "client_expires",
    "scope",
    "signs_in",
    "authorization_parameters",
    "flow",
    "legacy",
];

/// All entries, and where those values stand that have to be seen beside other entries.
#[derive(Default)]
pub struct Entries<'a> {
    pub accounts: BTreeMap<Name, AccountConfig>,
    pub domains: BTreeMap<String, Domain>,
    /// Whose each alias is.
    pub aliases: BTreeMap<Name, (Name, Value<'a>)>,
    delegates: Vec<(Name, Value<'a>)>,
}

/// Reads the table of accounts.
pub fn read<'a>(table: &Section<'a>, providers: &Providers) -> Entries<'a> {
    let mut entries = Entries::default();
    for (name, value) in table.named() {
        let is_twice = match name.strip_prefix("*@") {
            Some(domain) => entries.read_domain(domain, &value, providers),
            None => entries.read_account(name, &value, providers),
        };
        if is_twice {
            value.mistake("occurs twice, because upper and lower case are the same; merge the two");
        }
    }
    entries.judge_aliases();
    entries.judge_delegates();
    entries
}

impl<'a> Entries<'a> {
    /// Whether there is one for this account already.
    fn read_account(&mut self, name: &str, value: &Value<'a>, providers: &Providers) -> bool {
        let Some(address) = value.judge(Name::address(name)) else { return false };
        let account = value.section().map(|section| self.account(section, &address, providers)).unwrap_or_default();
        if let Some((other, _)) = find(&self.accounts, &address).filter(|(other, _)| **other != address) {
            value.warn(format!(
                "is the same mailbox as {other}; each goes by its own spelling; better keep one of the two"
            ));
        }
        self.accounts.insert(address, account).is_some()
    }

    fn account(&mut self, mut section: Section<'a>, address: &Name, providers: &Providers) -> AccountConfig {
        let delegate = section.get("delegate");
        let mut account = common(&mut section, providers);
        account.signs_in = section.parse("signs_in", Name::address).map(String::from);
        if let Some(value) = section.get("aliases") {
            self.read_aliases(address, &value);
        }
        if let Some(value) = delegate {
            account.delegate = value.parse(Name::address);
            refuse(&mut section, &DELEGATES, |_| {
                "is the delegate's, whose authorization is used; remove this, or delegate".to_owned()
            });
            self.delegates.push((address.clone(), value));
        }
        section.finish();
        account
    }

    /// A login name stands for one account, in all its spellings.
    fn read_aliases(&mut self, address: &Name, value: &Value<'a>) {
        for value in value.list() {
            let Some(alias) = value.parse(login_name) else { continue };
            match find(&self.aliases, &alias) {
                Some((other, (of, at))) if of != address || *other == alias => {
                    value.mistake(format!("{alias} is an alias in line {} already; remove one of the two", at.line()));
                }
                _ => drop(self.aliases.insert(alias, (address.clone(), value))),
            }
        }
    }

    /// Whether there is one for this domain already.
    fn read_domain(&mut self, name: &str, value: &Value<'a>, providers: &Providers) -> bool {
        let example = || format!("must be a domain behind \"*@\", such as \"*@example.test\", and is \"*@{name}\"");
        let Some(name) = value.judge(fields::host_name(name).ok_or_else(example)) else { return false };
        let Some(mut section) = value.section() else { return false };
        let members = common(&mut section, providers);
        let is_known = members.provider.is_some() || provider::of_domain(providers, &name).is_some();
        if !is_known {
            section.absence("its domain does not tell its provider; add provider");
        }
        refuse(&mut section, &["aliases", "delegate", "signs_in"], |key| {
            format!("is for a single account; write [account.\"ann@{name}\"] with {key}")
        });
        let allow_remote = section.flag("allow_remote");
        section.finish();
        self.domains.insert(name, Domain { members, allow_remote }).is_some()
    }

    /// An account goes by its own address.
    fn judge_aliases(&self) {
        for (alias, (of, value)) in &self.aliases {
            // An account may well name further spellings of itself.
            let account = find(&self.accounts, alias).filter(|(account, _)| *account == alias || *account != of);
            if account.is_some() {
                value.mistake(format!("{alias} is an account itself; remove one of the two"));
            }
        }
    }

    /// A delegate is an account with an authorization of its own.
    fn judge_delegates(&self) {
        for (address, value) in &self.delegates {
            let delegate = self.accounts.get(address).and_then(|account| account.delegate.as_ref());
            let Some(delegate) = delegate else { continue };
            let entry = find(&self.accounts, delegate);
            let has_delegate = entry.is_some_and(|(_, account)| account.delegate.is_some());
            if delegate.same_as(address) {
                value.mistake("an account is not its own delegate; remove this, or name who signs in for it");
            } else if entry.is_none() && find(&self.aliases, delegate).is_some() {
                value.mistake(format!("{delegate} is an alias; write the account's address"));
            } else if has_delegate {
                value.mistake(format!("{delegate} has a delegate itself; write that one here"));
            }
        }
    }
}

/// What can be said of one account and of all of a domain.
fn common(section: &mut Section<'_>, providers: &Providers) -> AccountConfig {
    let legacy = fields::legacy(section);
    AccountConfig {
        legacy,
        provider: fields::provider(section, providers),
        user: fields::by_protocol(section, "user", |value| value.text().map(str::to_owned)),
        scope: fields::scope(section),
        authorization_parameters: fields::parameters(section),
        flow: fields::flow(section, legacy),
        client: client::read(section),
        client_expires: fields::client_expires(section),
        connections: fields::connections(section),
        users: fields::users(section, "allow_uids"),
        ..AccountConfig::default()
    }
}

/// Notes those of the keys that are there, and cannot be here.
fn refuse(section: &mut Section<'_>, keys: &[&'static str], why: impl Fn(&str) -> String) {
    for key in keys {
        if let Some(value) = section.get(key) {
            value.mistake(why(key));
        }
    }
}

/// What can be typed as a user name: an address, or a word, as some devices take no @.
fn login_name(text: &str) -> Result<Name, String> {
    let name = Name::typed(text);
    let fits = text.len() <= 255 && !text.contains('*') && !name.as_str().contains(char::is_whitespace);
    match fits {
        true => Ok(name),
        false => {
            Err("must be a user name such as \"ann\" or \"ann@example.test\", without blanks and stars".to_owned())
        }
    }
}
