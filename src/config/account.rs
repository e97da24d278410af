//! What the configuration says of an account, and of all accounts of a domain.

use std::collections::BTreeMap;

use super::client::ClientRegistration;
use super::flow::Flow;
use super::provider::ConnectionLimits;
use super::users::Users;
use crate::clock::Moment;
use crate::name::Name;
use crate::protocol::Protocol;

/// What the file says about an account. Everything is optional: what is not here, the authorization has recorded.
#[derive(Clone, Debug, Default)]
pub struct AccountConfig {
    /// Its provider, where the address's domain does not tell.
    pub provider: Option<String>,
    /// Whose authorization opens it, where it is a shared mailbox: the address of an account that has one.
    pub delegate: Option<Name>,
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
    pub client: Option<ClientRegistration>,
    /// When that client's secret or certificate ends, where that is known.
    pub client_expires: Option<Moment>,
    /// How many connections there may be to it at a time, where that is not what its provider's entry says.
    pub connections: ConnectionLimits,
    /// The users of this machine who may log in to it.
    pub users: Users,
}

/// What the file says about all addresses of a domain, each of which can be authorized at its first login.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    /// What each account goes by, as far as it has no entry of its own. In `user`, `*` stands for the part before the @.
    pub members: AccountConfig,
    /// Whether a first login from another machine counts.
    pub allow_remote: bool,
}

impl AccountConfig {
    /// The same, with what it does not say taken from the entry for its domain.
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

/// Whether this can be an account's address, in lower case.
pub fn is_address(text: &str) -> bool {
    Name::address(text).is_ok_and(|address| address.as_str() == text)
}
