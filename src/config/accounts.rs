//! What the file says of accounts: `[account."ADDRESS"]`, and `[account."*@DOMAIN"]` for all of a domain.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Config;
use super::file::{address, provider_name};
use super::providers::{self, Providers};
use super::reader::{Section, Value};
use crate::protocol::Protocol;

/// What the file says about an account. Everything is optional: what is not here, the authorization has recorded.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its provider, where the address's domain does not tell.
    pub provider: Option<String>,
    /// Whose authorization opens it, where it is a shared mailbox: the address of an account that has one.
    pub delegate: Option<String>,
    /// Its further login names, in lower case.
    pub aliases: Vec<String>,
    /// The user to log in as at the provider, by protocol, where it is not the address.
    pub user: BTreeMap<Protocol, String>,
    /// The scopes to ask for, where they are not the provider's.
    pub scope: Option<Vec<String>>,
    /// The client registration to use for this account alone.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret_file: Option<PathBuf>,
}

/// What the file says about all addresses of a domain, each of which can be authorized at its first login.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    /// What each account goes by, as far as it has no entry of its own. In `user`, `*` stands for the part before the @.
    pub members: Account,
    /// Whether a first login from another machine counts.
    pub allow_remote: bool,
}

impl Config {
    /// The address of the account that a login name stands for. Case does not matter.
    pub fn address_of(&self, name: &str) -> String {
        let name = name.to_lowercase();
        let named = self.accounts.iter().find(|(_, account)| account.aliases.contains(&name));
        named.map_or(name, |(address, _)| address.clone())
    }

    /// Under which address the authorization is kept that opens an account: its delegate's, or its own.
    pub fn owner_of<'a>(&'a self, address: &'a str) -> &'a str {
        self.accounts.get(address).and_then(|account| account.delegate.as_deref()).unwrap_or(address)
    }

    /// The shared mailboxes that this account's authorization opens.
    pub fn shared_with(&self, delegate: &str) -> Vec<String> {
        let shared = self.accounts.iter().filter(|(_, account)| account.delegate.as_deref() == Some(delegate));
        shared.map(|(address, _)| address.clone()).collect()
    }

    /// The entry for the domain of an address.
    pub fn domain_of(&self, address: &str) -> Option<&Domain> {
        self.domains.get(address.rsplit_once('@')?.1)
    }

    /// What the file says of an account: in its own entry, or else in that of its domain.
    pub fn account(&self, address: &str) -> Account {
        let own = self.accounts.get(address).cloned().unwrap_or_default();
        match self.domain_of(address) {
            Some(domain) => own.or(&domain.members, address),
            None => own,
        }
    }

    /// Who logs in to the provider for an account. A shared mailbox's mail is sent by its delegate, whose name is also the
    /// one that Microsoft's SMTP server takes with the delegate's token.
    pub fn user_of(&self, address: &str, protocol: Protocol) -> String {
        let account = self.account(address);
        match (account.user.get(&protocol), &account.delegate) {
            (Some(user), _) => user.clone(),
            (None, Some(delegate)) if protocol == Protocol::Smtp => self.user_of(delegate, protocol),
            (None, _) => address.to_owned(),
        }
    }
}

impl Account {
    /// The same, with what it does not say taken from the entry for its domain.
    fn or(mut self, members: &Self, address: &str) -> Self {
        let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
        for (protocol, user) in &members.user {
            self.user.entry(*protocol).or_insert_with(|| user.replace('*', local));
        }
        if self.client_id.is_none() {
            // A secret belongs to its client.
            (self.client_id, self.client_secret_file) = (members.client_id.clone(), members.client_secret_file.clone());
        }
        self.provider = self.provider.or_else(|| members.provider.clone());
        self.scope = self.scope.or_else(|| members.scope.clone());
        self
    }
}

/// All entries, and where those values stand that have to be seen beside other entries.
#[derive(Default)]
pub(super) struct Entries<'a> {
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) domains: BTreeMap<String, Domain>,
    aliases: Vec<(String, Value<'a>)>,
    delegates: Vec<(String, Value<'a>)>,
}

/// Reads the table of accounts.
pub(super) fn read<'a>(table: &Section<'a>, providers: &Providers) -> Entries<'a> {
    let mut entries = Entries::default();
    for (name, value) in table.named() {
        let is_twice = match name.strip_prefix("*@") {
            Some(domain) => entries.read_domain(domain, &value, providers),
            None => entries.read_account(name, &value, providers),
        };
        if is_twice {
            value.mistake("occurs twice, for upper and lower case are the same; merge the two");
        }
    }
    entries.judge_aliases();
    entries.judge_delegates();
    entries
}

impl<'a> Entries<'a> {
    /// Whether there is one for this account already.
    fn read_account(&mut self, name: &str, value: &Value<'a>, providers: &Providers) -> bool {
        let Some(address) = value.judge(address(name)) else { return false };
        let account = value.section().map(|section| self.account(section, &address, providers)).unwrap_or_default();
        self.accounts.insert(address, account).is_some()
    }

    fn account(&mut self, mut section: Section<'a>, address: &str, providers: &Providers) -> Account {
        let delegate = section.get("delegate");
        let mut account = common(&mut section, providers);
        if let Some(value) = section.get("aliases") {
            account.aliases = self.read_aliases(&value, address);
        }
        if let Some(value) = delegate {
            account.delegate = value.parse(super::file::address);
            refuse(&mut section, &["provider", "client_id", "client_secret_file", "scope"], |_| {
                "is the delegate's, whose authorization is used; remove this, or delegate".to_owned()
            });
            self.delegates.push((address.to_owned(), value));
        }
        section.finish();
        account
    }

    fn read_aliases(&mut self, value: &Value<'a>, address: &str) -> Vec<String> {
        let mut aliases = Vec::new();
        for value in value.list() {
            let Some(alias) = value.parse(login_name) else { continue };
            if alias == address || aliases.contains(&alias) {
                value.mistake(format!("{alias} is a name of this account already; remove it here"));
            }
            aliases.push(alias.clone());
            self.aliases.push((alias, value));
        }
        aliases
    }

    /// Whether there is one for this domain already.
    fn read_domain(&mut self, name: &str, value: &Value<'a>, providers: &Providers) -> bool {
        let example = || format!("must be a domain behind \"*@\", such as \"*@example.test\", and is \"*@{name}\"");
        let Some(name) = value.judge(providers::host_name(name).ok_or_else(example)) else { return false };
        let Some(mut section) = value.section() else { return false };
        let members = common(&mut section, providers);
        let is_known = members.provider.is_some() || providers::of_domain(providers, &name).is_some();
        if !is_known {
            section.absence("its domain does not tell its provider; add provider");
        }
        refuse(&mut section, &["aliases", "delegate"], |key| {
            format!("is for a single account; write [account.\"ann@{name}\"] with {key}")
        });
        let allow_remote = section.get("allow_remote").and_then(|value| value.flag()).unwrap_or_default();
        section.finish();
        self.domains.insert(name, Domain { members, allow_remote }).is_some()
    }

    /// A login name stands for one account.
    fn judge_aliases(&self) {
        for (place, (alias, value)) in self.aliases.iter().enumerate() {
            let earlier = self.aliases.iter().take(place).find(|(other, _)| other == alias);
            if self.accounts.contains_key(alias) {
                value.mistake(format!("{alias} is an account itself; remove one of the two"));
            } else if let Some((_, other)) = earlier {
                value.mistake(format!("{alias} is an alias in line {} already; remove one of the two", other.line()));
            }
        }
    }

    /// A delegate is an account with an authorization of its own.
    fn judge_delegates(&self) {
        for (address, value) in &self.delegates {
            let delegate = self.accounts.get(address).and_then(|account| account.delegate.as_ref());
            let Some(delegate) = delegate else { continue };
            let has_delegate = self.accounts.get(delegate).is_some_and(|account| account.delegate.is_some());
            if delegate == address {
                value.mistake("an account is not its own delegate; remove this, or name who signs in for it");
            } else if self.aliases.iter().any(|(alias, _)| alias == delegate) {
                value.mistake(format!("{delegate} is an alias; write the account's address"));
            } else if has_delegate {
                value.mistake(format!("{delegate} has a delegate itself; write that one here"));
            }
        }
    }
}

/// What can be said of one account and of all of a domain.
fn common(section: &mut Section<'_>, providers: &Providers) -> Account {
    let account = Account {
        provider: section.get("provider").and_then(|value| provider_name(&value, providers)),
        user: section.get("user").map(|value| users(&value)).unwrap_or_default(),
        scope: providers::scope(section),
        client_id: section.text("client_id"),
        client_secret_file: section.file("client_secret_file"),
        ..Account::default()
    };
    providers::secret_has_client(section, account.client_id.is_some());
    account
}

/// One user for all protocols, or a table of them.
fn users(value: &Value<'_>) -> BTreeMap<Protocol, String> {
    if !value.is_table() {
        let user = value.text();
        return Protocol::ALL.iter().filter_map(|protocol| Some((*protocol, user?.to_owned()))).collect();
    }
    let Some(mut section) = value.section() else { return BTreeMap::new() };
    let users = Protocol::ALL.iter().filter_map(|protocol| Some((*protocol, section.text(protocol.name())?))).collect();
    section.finish();
    users
}

/// Notes those of the keys that are there, and cannot be here.
fn refuse(section: &mut Section<'_>, keys: &[&'static str], why: impl Fn(&str) -> String) {
    for key in keys {
        if let Some(value) = section.get(key) {
            value.mistake(why(key));
        }
    }
}

/// Whether this can be an account's address, in lower case.
pub fn is_address(text: &str) -> bool {
    address(text).is_ok_and(|address| address == text)
}

/// What can be typed as a user name, in lower case: an address, or a word, as some devices take no @.
fn login_name(text: &str) -> Result<String, String> {
    let fits = text.len() <= 255 && !text.contains('*') && !text.chars().any(char::is_whitespace);
    match fits {
        true => Ok(text.to_lowercase()),
        false => {
            Err("must be a user name such as \"ann\" or \"ann@example.test\", without blanks and stars".to_owned())
        }
    }
}
