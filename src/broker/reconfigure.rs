//! A new configuration for a broker that goes on.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::{Broker, Reach, lock};
use crate::config::Config;
use crate::exit::{Exit, Failed};

impl Broker {
    /// Goes by a new configuration from now on, or, where one of the providers that are in use cannot be set up by it,
    /// stays with the old one. Logins that are under way end as they began; no token is lost, and an account's refreshes
    /// stay one at a time.
    ///
    /// # Errors
    ///
    /// What is wrong with a provider.
    pub async fn reconfigure(&self, config: Config) -> Result<(), Failed> {
        let config = Arc::new(config);
        let in_use: Vec<String> = lock(&self.reaches).keys().cloned().collect();
        let new = Arc::clone(&config);
        // Reading the system's certificate authorities takes a while.
        let reaches = tokio::task::spawn_blocking(move || set_up(&new, in_use)).await;
        let reaches =
            reaches.map_err(|_| Failed::new(Exit::Software, "the new configuration could not be tried"))??;

        let mut open = lock(&self.open);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        *lock(&self.reaches) = reaches;
        // An account whose provider is gone is refused at its next login, which says why. One that has another owner now is
        // another account for its password, too.
        let config = self.config();
        open.accounts.retain(|address, account| {
            let is_same = config.address_of(address) == *address && config.owner_of(address) == account.owner;
            match self.account(address, &account.owner, Arc::clone(&account.tokens)) {
                Ok(anew) if is_same => {
                    *account = Arc::new(anew);
                    true
                }
                _ => false,
            }
        });
        let accounts = open.accounts.clone();
        open.checked.retain(|_, opened| match accounts.get(&opened.account.address) {
            Some(anew) => {
                opened.account = Arc::clone(anew);
                true
            }
            None => false,
        });
        // A check that is under way has found the account as it was.
        open.withdrawals += 1;
        Ok(())
    }
}

/// Sets up those of the providers that the configuration still has.
fn set_up(config: &Config, providers: Vec<String>) -> Result<HashMap<String, Arc<Reach>>, Failed> {
    let known = providers.into_iter().filter(|name| config.providers.contains_key(name));
    let set_up = |name: String| match Reach::new(config, &name) {
        Ok(reach) => Ok((name, Arc::new(reach))),
        Err(why) => Err(Failed::new(Exit::Config, format!("the provider {name} cannot be used: {why}"))),
    };
    known.map(set_up).collect()
}
