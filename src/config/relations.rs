//! The further login names and the shared mailboxes of all accounts, found once for all of them.

use std::collections::HashMap;

use super::Config;
use crate::name::Name;

pub struct Relations<'a> {
    aliases: HashMap<&'a str, Vec<String>>,
    shared: HashMap<&'a str, Vec<String>>,
}

impl<'a> Relations<'a> {
    pub fn of(config: &'a Config) -> Self {
        let (mut aliases, mut shared) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (alias, address) in &config.aliases {
            aliases.entry(address.canonical()).or_default().push(alias.to_string());
        }
        for (address, account) in &config.accounts {
            if let Some(delegate) = &account.delegate {
                shared.entry(delegate.canonical()).or_default().push(address.to_string());
            }
        }
        Self { aliases, shared }
    }

    /// The further login names of an account.
    pub fn aliases_of(&self, address: &str) -> Vec<String> {
        self.aliases.get(Name::typed(address).canonical()).cloned().unwrap_or_default()
    }

    /// The shared mailboxes that this account's authorization opens.
    pub fn shared_with(&self, delegate: &str) -> Vec<String> {
        self.shared.get(Name::typed(delegate).canonical()).cloned().unwrap_or_default()
    }
}
