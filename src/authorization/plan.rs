//! Collects everything that is needed before a person is asked to sign in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::chosen::ChosenOptions;
use super::remark::{OnRemark, Remark};
use super::server::{DiscoveredServer, Wanted, no_token_endpoint};
use crate::broker::Connector;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::config::provider::Provider;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::oauth::grant::GrantRequest;
use crate::oauth::{Proof, Registration};
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::vault::{Authorization, Secrets, VaultError};

/// Everything that is needed before a person is asked to sign in.
pub struct Plan {
    pub address: String,
    pub connector: Connector,
    pub flow: Flow,
    pub server: DiscoveredServer,
    pub registration: Registration,
    pub redirect: Redirect,
    /// Extra parameters of the authorization request.
    pub parameters: BTreeMap<String, String>,
    /// The address of the person who has to sign in.
    pub signs_in: String,
    /// The addresses of the existing accounts.
    pub known: Vec<String>,
    /// Shows notes and warnings to the person.
    pub tell: OnRemark,
    /// The mailbox at the provider.
    user: String,
}

/// Where the browser returns to.
pub struct Redirect {
    pub uri: url::Url,
    /// Where to wait for the browser, if not at the URI.
    pub listen: Option<SocketAddr>,
}

impl Plan {
    /// Plans the authorization of an account at a provider. The address has to be as [`account_address`] returns it.
    pub async fn new(
        config: &Config,
        address: String,
        provider: &str,
        chosen: &ChosenOptions,
        status: &Status,
        tell: OnRemark,
    ) -> Result<Self, Failed> {
        let connector = Connector::new(config, provider).map_err(|why| Failed::new(Exit::Config, why))?;
        Self::at(connector, config, address, chosen, status, tell).await
    }

    /// The same at a provider to which there is a connector already.
    pub async fn at(
        mut connector: Connector,
        config: &Config,
        address: String,
        chosen: &ChosenOptions,
        status: &Status,
        tell: OnRemark,
    ) -> Result<Self, Failed> {
        let account = config.account(&address).into_owned();
        if let Some(scope) = account.scope {
            Arc::make_mut(&mut connector.provider).scope = scope;
        }
        let redirect = Redirect::new(chosen, &connector.provider);
        let flow = chosen.flow.or(account.flow).unwrap_or(connector.provider.flow);
        if flow == Flow::Password && !connector.provider.legacy && !account.legacy {
            let why =
                "the grant `password` is for old servers only; set `legacy = true` for the provider or the account";
            return Err(Failed::new(Exit::Config, why));
        }
        let redirect_uri = &redirect.uri;
        let wanted = Wanted { config, address: &address, chosen, flow, status, redirect_uri, tell: &tell };
        let server = DiscoveredServer::find(&connector, &wanted).await?;
        let token_endpoint = server.endpoints.token.as_ref().ok_or_else(no_token_endpoint)?;
        let registration = Registration::new(&server.client, token_endpoint).await;
        let registration = registration.map_err(|failure| Failed::new(Exit::Config, failure))?;
        let registration = registration.discovered(server.discovered.as_ref());
        let signs_in = chosen.signs_in.as_ref().map(|name| Name::typed(name).into()).or(account.signs_in);
        let mut parameters = connector.provider.authorization_parameters.clone();
        parameters.extend(account.authorization_parameters);
        Ok(Self {
            signs_in: signs_in.unwrap_or_else(|| address.clone()),
            known: status.accounts.iter().map(|account| account.address.clone()).collect(),
            user: config.user_of(&address, Protocol::Imap),
            address,
            connector,
            flow,
            server,
            registration,
            redirect,
            parameters,
            tell,
        })
    }

    /// Shows the provider's note.
    pub fn show_note(&self) {
        let provider = &self.connector.provider;
        if let Some(note) = &provider.note {
            (self.tell)(Remark::Note(format!("{}: {note}", provider.name)));
        }
    }

    /// Checks that the account's record can be replaced. A damaged one can, but its app passwords are lost.
    ///
    /// # Errors
    ///
    /// Fails if a newer version of postkey wrote the record.
    pub fn check_record(&self, status: &Status) -> Result<(), Failed> {
        if status.newer.contains(&self.address) {
            return Err(VaultError::Newer(self.address.clone()).into());
        }
        if status.damaged.contains(&self.address) {
            (self.tell)(Remark::Warning(format!(
                "the vault's record of {} is damaged; this authorization replaces it, and its app passwords are lost",
                self.address
            )));
        }
        Ok(())
    }

    /// The token request. `secret` is the one that the grant itself needs ([`Secrets`]).
    pub fn request<'a>(&'a self, secret: Option<&'a Secret>) -> GrantRequest<'a> {
        GrantRequest {
            flow: self.flow,
            provider: &self.connector.provider,
            scope: &self.server.scope,
            user: &self.user,
            secret,
        }
    }

    /// The authorization to store in the vault, with the secret that the grant itself needs.
    pub fn authorization(&self, tokens: TokenSet, grant_secret: Option<Secret>) -> Authorization {
        let own = self.server.is_own_client;
        let client_secret = match &self.registration.proof {
            Proof::Secret(secret) if own => Some(secret.clone()),
            _ => None,
        };
        Authorization {
            address: self.address.clone(),
            provider: self.connector.provider.name.clone(),
            flow: self.flow,
            client_id: own.then(|| self.registration.client_id.clone()),
            secrets: Secrets { client_secret, grant_secret },
            discovered: self.server.discovered.clone(),
            tokens,
        }
    }
}

impl Redirect {
    fn new(chosen: &ChosenOptions, provider: &Provider) -> Self {
        let uri = chosen.redirect_uri.clone().unwrap_or_else(|| provider.redirect_uri.clone());
        Self { uri, listen: chosen.redirect_listen.or(provider.redirect_listen) }
    }
}

/// The address of the account that a person means, in the spelling of its record if it exists.
///
/// # Errors
///
/// Fails if it is not an e-mail address, or one of a shared mailbox.
pub fn account_address(config: &Config, status: &Status, typed: &str) -> Result<String, Failed> {
    let address = config.address_of(checked(typed)?.as_str());
    let address = status.account(&address).map_or(address, |account| account.address.clone());
    refuse_shared(config, &address)?;
    Ok(address)
}

/// Checks that this is an e-mail address.
fn checked(address: &str) -> Result<Name, Failed> {
    let name = Name::address(address).ok();
    let name = name.filter(|name| name.parts().is_some_and(|(_, domain)| domain.contains('.')));
    name.ok_or_else(|| {
        let why = format!("{address:?} is not an e-mail address such as ann@example.com");
        Failed::new(Exit::Usage, why)
    })
}

/// Refuses a shared mailbox, which uses its delegate's authorization.
fn refuse_shared(config: &Config, address: &str) -> Result<(), Failed> {
    match config.owner_of(address) {
        owner if owner == address => Ok(()),
        owner => Err(Failed::new(
            Exit::Usage,
            format!("{address} uses the authorization of {owner}; run `postkey authorize {owner}`"),
        )),
    }
}
