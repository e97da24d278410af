//! What a listener lets in: who may connect, and which accounts are served there.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio_rustls::rustls::ServerConfig;

use crate::broker::Broker;
use crate::config::users::Users;
use crate::net::peer::Peer;
use crate::protocol::{Protocol, Security};
use crate::stop::Stop;
use crate::wire::{Capabilities, Credentials};

/// What the sessions of one listener share.
pub struct Door {
    /// What is spoken.
    pub protocol: Protocol,
    /// How connections are protected.
    pub security: Security,
    /// For TLS, where the listener has it.
    pub tls: Option<Arc<ServerConfig>>,
    /// The one provider, or the one account, that is served here, where it is only one.
    pub provider: Option<String>,
    /// See `provider`.
    pub account: Option<String>,
    /// From where clients may come, where that is not from everywhere.
    pub allow_addresses: Option<Vec<IpNet>>,
    /// The login for clients that send mail without one, where they may.
    pub own: Option<Credentials>,
    /// The users of this machine who may connect.
    pub users: Users,
    /// Our name in greetings.
    pub host: String,
    /// Owns the accounts.
    pub broker: Arc<Broker>,
    /// Says when to stop.
    pub stop: Stop,
}

impl Door {
    /// What a client may be promised before it has said who it is: what the servers of all accounts that are served here
    /// offer. Nothing, as long as one of them has not been seen.
    pub(super) fn known(&self) -> Capabilities {
        let config = self.broker.config();
        let only = self.account.as_ref().map(|only| config.owner_of(only));
        let accounts = self.broker.vault().accounts().into_iter().filter(|account| {
            only.is_none_or(|only| *only == account.address) && self.serves_provider(&account.provider)
        });
        let mut lists = accounts.map(|account| account.known.get(self.protocol.name()).cloned().unwrap_or_default());
        let mut common = lists.next().unwrap_or_default();
        for list in lists {
            common.retain(|entry| list.contains(entry));
        }
        Capabilities(common)
    }

    /// Whether a client from there may come. On a Unix socket there are only users to tell apart.
    pub fn is_open_to(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address.map(|address| address.to_canonical()) else { return true };
        self.allow_addresses.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Whether the configuration lets this user of this machine try to log in to an account; a shared mailbox is
    /// opened by its delegate, who has a say, too.
    pub(super) fn admits(&self, account: &str, peer: &Peer) -> bool {
        let config = self.broker.config();
        let address = config.address_of(account);
        let accounts = [config.account(&address), config.account(config.owner_of(&address))];
        accounts.iter().all(|account| account.users.allow(peer.user))
    }

    /// A listener may be for one account, or for one provider, only.
    pub(super) fn serves(&self, account: &str, provider: &str) -> bool {
        self.account.as_ref().is_none_or(|only| only == account) && self.serves_provider(provider)
    }

    /// The same for what a client logs in as, which need not have an account yet.
    pub(super) fn serves_name(&self, name: &str) -> bool {
        let config = self.broker.config();
        let address = config.address_of(name);
        config.provider_for(&address).is_some_and(|provider| self.serves(&address, &provider.name))
    }

    fn serves_provider(&self, provider: &str) -> bool {
        self.provider.as_ref().is_none_or(|only| only == provider)
    }
}
