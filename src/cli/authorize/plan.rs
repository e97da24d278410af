//! What is known before a person is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::AuthorizeOptions;
use super::super::password::{check_name, chosen};
use super::super::terminal::{Input, say};
use super::provider;
use super::server::{Server, Wanted};
use crate::broker::Reach;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::config::provider::Provider;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::oauth::grant::Ask;
use crate::oauth::{Proof, Registration};
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::vault::password::Password;
use crate::vault::{Authorization, Secrets};
use crate::web::redirect::Page;

/// All that is known before a person is asked.
pub struct Plan {
    pub address: String,
    pub reach: Reach,
    pub flow: Flow,
    pub server: Server,
    pub registration: Registration,
    pub redirect: Redirect,
    /// Parameters of the authorization request beside the standard ones.
    pub parameters: BTreeMap<String, String>,
    /// Who has to sign in.
    pub signs_in: String,
    /// The accounts that there are.
    pub known: Vec<String>,
    /// The mailbox at the provider.
    user: String,
}

/// Where the browser returns to, and what it is shown there.
pub struct Redirect {
    pub uri: url::Url,
    /// Where to wait for it, if not there.
    pub listen: Option<SocketAddr>,
    /// The page at a good end.
    pub page: Page,
}

impl Plan {
    pub async fn new(
        config: &Config,
        address: &str,
        options: &AuthorizeOptions,
        status: &Status,
        input: &mut Input,
    ) -> Result<Self, Failed> {
        let address = config.address_of(&checked(address)?);
        refuse_shared(config, &address)?;
        check_name(&options.password_name)?;
        let name = provider::find(config, &address, options.provider.as_deref(), input).await?;
        let mut reach = Reach::new(config, &name).map_err(|why| Failed::new(Exit::Config, why))?;
        let account = config.account(&address).into_owned();
        reach.provider.scope = account.scope.unwrap_or(reach.provider.scope);
        let redirect = Redirect::new(config, options, &reach.provider)?;
        let flow = options.flow.or(account.flow).unwrap_or(reach.provider.flow);
        if flow == Flow::Password && !reach.provider.legacy && !account.legacy {
            let why = "the grant password needs legacy = true in the configuration, for the provider or the account";
            return Err(Failed::new(Exit::Config, why));
        }
        let wanted = Wanted { config, address: &address, options, flow, status, redirect_uri: &redirect.uri };
        let server = Server::find(&reach, &wanted).await?;
        let registration =
            Registration::new(&server.client, server.endpoints.token.as_ref().ok_or_else(no_token)?).await;
        let registration = registration.map_err(|failure| Failed::new(Exit::Config, failure))?;
        let signs_in = options.signs_in.as_ref().map(|address| address.to_lowercase()).or(account.signs_in);
        let mut parameters = reach.provider.authorization_parameters.clone();
        parameters.extend(account.authorization_parameters);
        Ok(Self {
            signs_in: signs_in.unwrap_or_else(|| address.clone()),
            known: status.accounts.iter().map(|account| account.address.clone()).collect(),
            user: config.user_of(&address, Protocol::Imap),
            address,
            reach,
            flow,
            server,
            registration,
            redirect,
            parameters,
        })
    }

    /// The first app password of a new account. One that exists keeps those that it has.
    pub async fn first_password(
        &self,
        status: &Status,
        options: &AuthorizeOptions,
        input: &mut Input,
    ) -> Result<Option<Password>, Failed> {
        let exists = status.accounts.iter().any(|account| account.address == self.address);
        match (exists, options.password_stdin) {
            (true, true) => Err(Failed::new(
                Exit::Usage,
                format!(
                    "{0} has app passwords already; `postkey password add {0} NAME --choose` adds one",
                    self.address
                ),
            )),
            (true, false) => Ok(None),
            (false, false) => Ok(Some(Password::generate())),
            (false, true) => {
                let typed = input
                    .line()
                    .await
                    .ok_or_else(|| Failed::new(Exit::Data, "no password came on the standard input"))?;
                chosen(&typed).map(Some)
            }
        }
    }

    /// What a user has to know of the provider.
    pub fn show_note(&self) {
        let provider = &self.reach.provider;
        if let Some(note) = &provider.note {
            say(format_args!("{}: {note}\n", provider.name));
        }
    }

    /// What is asked for. `password` is the mailbox's own, where the grant sends it.
    pub fn ask<'a>(&'a self, password: Option<&'a Secret>) -> Ask<'a> {
        let provider = &self.reach.provider;
        Ask { flow: self.flow, provider, scope: &provider.scope, user: &self.user, password }
    }

    /// What goes into the vault. `password` is the mailbox's own, where the grant sends it.
    pub fn authorization(&self, tokens: TokenSet, password: Option<Secret>) -> Authorization {
        let own = self.server.is_own_client;
        let client_secret = match &self.registration.proof {
            Proof::Secret(secret) if own => Some(secret.clone()),
            _ => None,
        };
        Authorization {
            address: self.address.clone(),
            provider: self.reach.provider.name.clone(),
            flow: self.flow,
            client_id: own.then(|| self.registration.client_id.clone()),
            secrets: Secrets { client_secret, password },
            discovered: self.server.discovered.clone(),
            tokens,
        }
    }
}

impl Redirect {
    fn new(config: &Config, options: &AuthorizeOptions, provider: &Provider) -> Result<Self, Failed> {
        let page = match &config.finish_page {
            Some(file) => Page::foreign(std::fs::read(file).map_err(|error| {
                Failed::new(Exit::Config, format!("the page {} cannot be read: {error}", file.display()))
            })?),
            None => Page::AUTHORIZED,
        };
        let uri = options.redirect_uri.clone().unwrap_or_else(|| provider.redirect_uri.clone());
        Ok(Self { uri, listen: options.redirect_listen.or(provider.redirect_listen), page })
    }
}

/// An e-mail address, in lower case.
fn checked(address: &str) -> Result<String, Failed> {
    let is_address = address.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
    if !is_address || address.chars().any(|c| c.is_control() || c.is_whitespace()) || address.len() > 255 {
        return Err(Failed::new(Exit::Usage, format!("{address:?} is no e-mail address")));
    }
    Ok(address.to_lowercase())
}

/// A shared mailbox is opened with its delegate's authorization.
fn refuse_shared(config: &Config, address: &str) -> Result<(), Failed> {
    match config.owner_of(address) {
        owner if owner == address => Ok(()),
        owner => Err(Failed::new(
            Exit::Usage,
            format!("{address} is opened with the authorization of {owner}; run `postkey authorize {owner}`"),
        )),
    }
}

fn no_token() -> Failed {
    Failed::new(Exit::Config, "the authorization server's metadata name no token endpoint")
}
