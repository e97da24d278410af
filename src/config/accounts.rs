//! What the file says of accounts: `[account."ADDRESS"]`, and `[account."*@DOMAIN"]` for all of a domain.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Config;
use super::client::Client;
use super::file::{address, flow, legacy, provider_name};
use super::flow::Flow;
use super::providers::{self, Providers};
use super::reader::{Section, Value};
use super::users::Users;
use crate::clock::Moment;
use crate::protocol::Protocol;

/// What the file says about an account. Everything is optional: what is not here, the authorization has recorded.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its provider, where the address's domain does not tell.
    pub provider: Option<String>,
    /// Whose authorization opens it, where it is a shared mailbox: the address of an account that has one.
    pub delegate: Option<String>,
    /// The user to log in as at the provider, by protocol, where it is not the address.
    pub user: BTreeMap<Protocol, String>,
    /// The scopes to ask for, where they are not the provider's.
    pub scope: Option<Vec<String>>,
    /// Who signs in for it, where it is not the address.
    pub signs_in: Option<String>,
    /// Parameters of its authorization request, beside its provider's or in place of them.
    pub authorization_parameters: BTreeMap<String, String>,
    /// How it gets its tokens, where not as all accounts of its provider.
    pub flow: Option<Flow>,
    /// Whether it may use the password grant.
    pub legacy: bool,
    /// The client registration to use for this account alone.
    pub client: Option<Client>,
    /// When that client's secret or certificate ends, where that is known.
    pub client_expires: Option<Moment>,
    /// The users of this machine who may log in to it.
    pub users: Users,
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
        self.aliases.get(&name).cloned().unwrap_or(name)
    }

    /// The further login names of an account.
    pub fn aliases_of(&self, address: &str) -> Vec<String> {
        let aliases = self.aliases.iter().filter(|(_, of)| *of == address);
        aliases.map(|(alias, _)| alias.clone()).collect()
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
    pub fn account(&self, address: &str) -> Cow<'_, Account> {
        let own = self.accounts.get(address).map(Cow::Borrowed).unwrap_or_default();
        match self.domain_of(address) {
            Some(domain) => Cow::Owned(own.into_owned().or(&domain.members, address)),
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
        for (key, value) in &members.authorization_parameters {
            self.authorization_parameters.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if self.client.is_none() {
            (self.client, self.client_expires) = (members.client.clone(), members.client_expires);
        }
        self.flow = self.flow.or(members.flow);
        self.legacy = self.legacy || members.legacy;
        self.provider = self.provider.or_else(|| members.provider.clone());
        self.scope = self.scope.or_else(|| members.scope.clone());
        self.users = self.users.or(&members.users);
        self
    }
}

/// What cannot be said of a shared mailbox, because its delegate's authorization has it.
const DELEGATES: [&str; 13] = [
    "provider",
    "client_id",
    "client_secret",
    "client_key",
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
pub(super) struct Entries<'a> {
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) domains: BTreeMap<String, Domain>,
    /// Whose each alias is.
    pub(super) aliases: BTreeMap<String, (String, Value<'a>)>,
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
        account.signs_in = section.get("signs_in").and_then(|value| value.parse(super::file::address));
        if let Some(value) = section.get("aliases") {
            self.read_aliases(address, &value);
        }
        if let Some(value) = delegate {
            account.delegate = value.parse(super::file::address);
            refuse(&mut section, &DELEGATES, |_| {
                "is the delegate's, whose authorization is used; remove this, or delegate".to_owned()
            });
            self.delegates.push((address.to_owned(), value));
        }
        section.finish();
        account
    }

    /// A login name stands for one account.
    fn read_aliases(&mut self, address: &str, value: &Value<'a>) {
        for value in value.list() {
            let Some(alias) = value.parse(login_name) else { continue };
            match self.aliases.entry(alias) {
                Entry::Vacant(place) => {
                    place.insert((address.to_owned(), value));
                }
                Entry::Occupied(place) => {
                    let (alias, line) = (place.key(), place.get().1.line());
                    value.mistake(format!("{alias} is an alias in line {line} already; remove one of the two"));
                }
            }
        }
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
        refuse(&mut section, &["aliases", "delegate", "signs_in"], |key| {
            format!("is for a single account; write [account.\"ann@{name}\"] with {key}")
        });
        let allow_remote = section.get("allow_remote").and_then(|value| value.flag()).unwrap_or_default();
        section.finish();
        self.domains.insert(name, Domain { members, allow_remote }).is_some()
    }

    /// An account goes by its own address.
    fn judge_aliases(&self) {
        for (alias, (_, value)) in self.aliases.iter().filter(|(alias, _)| self.accounts.contains_key(*alias)) {
            value.mistake(format!("{alias} is an account itself; remove one of the two"));
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
            } else if self.aliases.contains_key(delegate) {
                value.mistake(format!("{delegate} is an alias; write the account's address"));
            } else if has_delegate {
                value.mistake(format!("{delegate} has a delegate itself; write that one here"));
            }
        }
    }
}

/// What can be said of one account and of all of a domain.
fn common(section: &mut Section<'_>, providers: &Providers) -> Account {
    let legacy = legacy(section).unwrap_or_default();
    Account {
        legacy,
        provider: section.get("provider").and_then(|value| provider_name(&value, providers)),
        user: section.get("user").map(|value| users(&value)).unwrap_or_default(),
        scope: providers::scope(section),
        authorization_parameters: providers::parameters(section).unwrap_or_default(),
        flow: flow(section, legacy),
        client: Client::read(section, None),
        client_expires: providers::day(section, "client_expires"),
        users: Users::read(section),
        ..Account::default()
    }
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

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::tests::{bad, good};
    use crate::protocol::Protocol;

    fn users(config: &Config, address: &str) -> [String; 3] {
        Protocol::ALL.map(|protocol| config.user_of(address, protocol))
    }

    #[test]
    fn a_shared_mailbox_is_read_as_itself_and_sends_as_its_delegate() {
        let config = good("[account.\"Office@a.test\"]\ndelegate = \"Ann@a.test\"\n");
        assert_eq!(config.owner_of("office@a.test"), "ann@a.test");
        assert_eq!(config.owner_of("ann@a.test"), "ann@a.test");
        assert_eq!(config.shared_with("ann@a.test"), ["office@a.test"]);
        assert_eq!(users(&config, "office@a.test"), ["office@a.test", "office@a.test", "ann@a.test"]);
        let config = good(
            "[account.\"office@a.test\"]\ndelegate = \"ann@gmail.com\"\nuser.imap = \"o\"\n[account.\"ann@gmail.com\"]\nuser = \"annie\"\n",
        );
        assert_eq!(users(&config, "office@a.test"), ["o", "office@a.test", "annie"]);
        assert_eq!(users(&config, "ann@gmail.com"), ["annie"; 3]);
        assert_eq!(config.provider_for("office@a.test").unwrap().name, "google", "the token is the delegate's");
    }

    #[test]
    fn a_login_name_stands_for_its_account_in_any_case() {
        let config = good("[account.\"ann@a.test\"]\naliases = [\"Scanner\", \"ann@b.test\"]\n");
        for name in ["scanner", "SCANNER", "Ann@B.test", "ANN@a.test"] {
            assert_eq!(config.address_of(name), "ann@a.test");
        }
        assert_eq!(config.address_of("Ben@a.test"), "ben@a.test");
    }

    #[test]
    fn an_account_of_a_domain_goes_by_its_own_entry_first() {
        let config = good(
            "[account.\"*@A.test\"]\nprovider = \"google\"\nuser = \"*@b.test\"\nscope = [\"x\"]\nclient_id = \"all\"\n\
             [account.\"ann@a.test\"]\nuser.smtp = \"annie\"\nclient_id = \"ann\"\n",
        );
        assert_eq!(users(&config, "ben@a.test"), ["ben@b.test"; 3]);
        assert_eq!(users(&config, "ann@a.test"), ["ann@b.test", "ann@b.test", "annie"]);
        assert_eq!(config.provider_for("ann@a.test").unwrap().name, "google");
        assert_eq!(config.account("ann@a.test").scope.as_deref().unwrap(), ["x"]);
        assert!(config.provider_for("ann@sub.a.test").is_none(), "another domain");
        let allow = |more: &str| {
            let config = good(&format!("[account.\"*@gmail.com\"]\n{more}"));
            config.domain_of("ann@gmail.com").unwrap().allow_remote
        };
        assert!(!allow("") && allow("allow_remote = true"));
    }

    #[test]
    fn names_that_clash_and_delegates_that_cannot_be_are_mistakes() {
        let [ann, ben] = ["[account.\"ann@a\"]\n", "[account.\"ben@a\"]\n"];
        for (text, expected) in [
            (
                format!("{ann}aliases = [\"a\"]\n{ben}aliases = [\"A\"]"),
                "4:12: account.\"ben@a\".aliases: a is an alias in line 2 already",
            ),
            (
                format!("{ann}aliases = [\"Ben@a\"]\n{ben}"),
                "2:12: account.\"ann@a\".aliases: ben@a is an account itself",
            ),
            (format!("{ann}aliases = [\"Ann@A\"]"), "2:12: account.\"ann@a\".aliases: ann@a is an account itself"),
            (format!("{ann}aliases = [\"a b\"]"), "2:12: account.\"ann@a\".aliases: must be a user name such as"),
            (format!("{ann}aliases = [\"*@b\"]"), "2:12: account.\"ann@a\".aliases: must be a user name such as"),
            (
                format!("{ann}delegate = \"Ann@a\""),
                "2:12: account.\"ann@a\".delegate: an account is not its own delegate",
            ),
            (format!("{ann}delegate = \"ben\""), "2:12: account.\"ann@a\".delegate: must be an address"),
            (format!("{ann}delegate = \"*@a\""), "2:12: account.\"ann@a\".delegate: must be an address"),
            (
                format!("{ann}delegate = \"ben@a\"\n{ben}delegate = \"c@a\""),
                "2:12: account.\"ann@a\".delegate: ben@a has a delegate itself",
            ),
            (
                format!("{ann}delegate = \"b@b\"\n{ben}aliases = [\"b@b\"]"),
                "2:12: account.\"ann@a\".delegate: b@b is an alias",
            ),
            (format!("{ann}delegate = \"b@b\"\nscope = [\"x\"]"), "3:9: account.\"ann@a\".scope: is the delegate's"),
            (
                format!("{ann}delegate = \"b@b\"\nprovider = \"google\""),
                "3:12: account.\"ann@a\".provider: is the delegate's",
            ),
            (
                format!("{ann}user = {{ imao = \"x\" }}"),
                "2:10: account.\"ann@a\".user.imao: unknown key; did you mean \"imap\"?",
            ),
            (format!("{ann}scope = \"a b\""), "2:9: account.\"ann@a\".scope: is several scopes in one text"),
            (format!("{ann}allow_remote = true"), "2:1: account.\"ann@a\".allow_remote: unknown key"),
            ("[account.\"*@\"]".to_owned(), "1:1: account.\"*@\": must be a domain behind"),
            ("[account.\"*@a b\"]".to_owned(), "1:1: account.\"*@a b\": must be a domain behind"),
            (
                "[account.\"*@a.test\"]".to_owned(),
                "1:1: account.\"*@a.test\": its domain does not tell its provider; add provider",
            ),
            (
                "[account.\"*@gmail.com\"]\naliases = [\"a\"]".to_owned(),
                "2:11: account.\"*@gmail.com\".aliases: is for a single account; write [account.\"ann@gmail.com\"] with aliases",
            ),
            (
                "[account.\"*@gmail.com\"]\n[account.\"*@GMAIL.com\"]".to_owned(),
                "1:1: account.\"*@gmail.com\": occurs twice",
            ),
        ] {
            let mistakes = bad(&text);
            assert!(mistakes.len() == 1 && mistakes[0].starts_with(expected), "{text}\n{mistakes:#?}\n{expected}");
        }
    }
}
