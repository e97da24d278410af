//! `[account."ADDRESS"]`, and `[account."*@DOMAIN"]` for all addresses of a domain.

use std::collections::BTreeMap;

use super::reader::{Section, Value};
use super::{client, fields};
use crate::config::provider::{self, Providers};
use crate::config::{AccountConfig, Domain};
use crate::name::{Name, find};

/// The keys of a shared mailbox. All others belong to its delegate, because that has the authorization.
const OF_SHARED: [&str; 5] = ["aliases", "allow_uids", "connections", "delegate", "user"];

/// All entries, and the positions of those values that are checked against other entries.
#[derive(Default)]
pub struct Entries<'a> {
    pub accounts: BTreeMap<Name, AccountConfig>,
    pub domains: BTreeMap<String, Domain>,
    /// The account of each alias.
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
            value.mistake("occurs twice, because upper and lower case make no difference; merge the two");
        }
    }
    entries.judge_aliases();
    entries.judge_delegates();
    entries
}

impl<'a> Entries<'a> {
    /// Reads an entry. Returns whether there already is one of this account.
    fn read_account(&mut self, name: &str, value: &Value<'a>, providers: &Providers) -> bool {
        let Some(address) = value.judge(Name::address(name)) else { return false };
        let account = value.section().map(|section| self.account(section, &address, providers)).unwrap_or_default();
        if let Some((other, _)) = find(&self.accounts, &address).filter(|(other, _)| **other != address) {
            value.warn(format!(
                "is the same mailbox as {other}, but each entry only applies to its own spelling; remove one of the two"
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
            let of_delegate = section.known().filter(|key| !OF_SHARED.contains(key)).collect::<Vec<_>>();
            let message = "comes from the delegate, whose authorization is used; remove this, or delegate";
            refuse(&mut section, &of_delegate, message);
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
                    value.mistake(format!("{alias} is already an alias in line {}; remove one of the two", at.line()));
                }
                _ => drop(self.aliases.insert(alias, (address.clone(), value))),
            }
        }
    }

    /// Reads an entry. Returns whether there already is one of this domain.
    fn read_domain(&mut self, name: &str, value: &Value<'a>, providers: &Providers) -> bool {
        let example = || format!("must be a domain after \"*@\", such as \"*@example.test\", and is \"*@{name}\"");
        let Some(name) = value.judge(fields::host_name(name).ok_or_else(example)) else { return false };
        let Some(mut section) = value.section() else { return false };
        let members = common(&mut section, providers);
        let is_known = members.provider.is_some() || provider::of_domain(providers, &name).is_some();
        if !is_known {
            section.absence("no provider has this domain; add provider");
        }
        let message = format!("is for single accounts; write it in [account.\"ann@{name}\"]");
        refuse(&mut section, &["aliases", "delegate", "signs_in"], &message);
        let allow_remote = section.flag("allow_remote");
        section.finish();
        self.domains.insert(name, Domain { members, allow_remote }).is_some()
    }

    /// Refuses aliases that are accounts themselves.
    fn judge_aliases(&self) {
        for (alias, (of, value)) in &self.aliases {
            // Another spelling of the account itself is allowed.
            let account = find(&self.accounts, alias).filter(|(account, _)| *account == alias || *account != of);
            if account.is_some() {
                value.mistake(format!("{alias} is an account itself; remove one of the two"));
            }
        }
    }

    /// Refuses delegates that have no authorization of their own.
    fn judge_delegates(&self) {
        for (address, value) in &self.delegates {
            let delegate = self.accounts.get(address).and_then(|account| account.delegate.as_ref());
            let Some(delegate) = delegate else { continue };
            let entry = find(&self.accounts, delegate);
            let has_delegate = entry.is_some_and(|(_, account)| account.delegate.is_some());
            if delegate.same_as(address) {
                value.mistake("an account cannot be its own delegate; remove this, or name another account");
            } else if entry.is_none() && find(&self.aliases, delegate).is_some() {
                value.mistake(format!("{delegate} is an alias; write the account's address"));
            } else if has_delegate {
                value.mistake(format!("{delegate} itself has a delegate; write that one here"));
            }
        }
    }
}

/// Reads the keys that an account and a domain have in common.
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

/// Notes a mistake for each of these keys that is present.
fn refuse(section: &mut Section<'_>, keys: &[&'static str], message: &str) {
    for value in keys.iter().filter_map(|key| section.get(key)) {
        value.mistake(message);
    }
}

/// Reads what a mail program sends as a user name: an address, or a word, because some devices do not accept an @.
fn login_name(text: &str) -> Result<Name, String> {
    let name = Name::typed(text);
    let fits = text.len() <= 255 && !text.contains('*') && !name.as_str().contains(char::is_whitespace);
    match fits {
        true => Ok(name),
        false => {
            Err("must be a user name such as \"ann\" or \"ann@example.test\", without spaces and asterisks".to_owned())
        }
    }
}
