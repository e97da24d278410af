//! The settings of an account, and of all accounts of a domain.

use std::collections::BTreeMap;

use super::client::ClientRegistration;
use super::flow::Flow;
use super::listener::Users;
use super::provider::ConnectionLimits;
use crate::clock::Moment;
use crate::name::Name;
use crate::protocol::Protocol;

/// The settings of an account. All are optional.
#[derive(Clone, Debug, Default)]
pub struct AccountConfig {
    /// Its provider, if it is not the one that has the domain.
    pub provider: Option<String>,
    /// For a shared mailbox, the account whose authorization opens it.
    pub delegate: Option<Name>,
    /// The user name at the provider by protocol, if it is not the address.
    pub user: BTreeMap<Protocol, String>,
    /// Replaces the provider's.
    pub scope: Option<Vec<String>>,
    /// The person who signs in for it, if it is not the address.
    pub signs_in: Option<String>,
    /// Parameters of its authorization request, which add to its provider's or replace them.
    pub authorization_parameters: BTreeMap<String, String>,
    /// Replaces the provider's.
    pub flow: Option<Flow>,
    /// Whether it may use the password grant.
    pub legacy: bool,
    /// Replaces the provider's.
    pub client: Option<ClientRegistration>,
    /// When that client's secret or certificate expires, if that is known.
    pub client_expires: Option<Moment>,
    /// Replaces the provider's.
    pub connections: ConnectionLimits,
    /// The users of this machine who may log in to it.
    pub users: Users,
}

/// The settings of all addresses of a domain, each of which can be authorized at its first login.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    /// The settings that an account's own entry does not have. In `user`, `*` stands for the part before the @.
    pub members: AccountConfig,
    /// Whether the first login can come from another machine.
    pub allow_remote: bool,
}

impl AccountConfig {
    /// Adds what is missing from the entry for the account's domain.
    pub(super) fn or(mut self, members: &Self, address: &str) -> Self {
        let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
        let users = members.user.iter().map(|(protocol, user)| (*protocol, user.replace('*', local)));
        self.user = users.chain(self.user).collect();
        self.connections = members.connections.clone().into_iter().chain(self.connections).collect();
        let parameters = members.authorization_parameters.clone().into_iter();
        self.authorization_parameters = parameters.chain(self.authorization_parameters).collect();
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

/// Whether this can be an account's address and is in lower case.
pub fn is_address(text: &str) -> bool {
    Name::address(text).is_ok_and(|address| address.as_str() == text)
}
