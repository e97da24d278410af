//! What is known before a person is asked.

use super::super::AuthorizeOptions;
use super::super::password::{check_name, chosen};
use super::super::terminal::{Input, say};
use crate::broker::Reach;
use crate::config::Config;
use crate::config::client::{Client, ClientAuthentication};
use crate::config::flow::Flow;
use crate::config::secret_source::SecretSource;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::oauth::grant::Ask;
use crate::oauth::identity::Identity;
use crate::oauth::{Proof, Registration};
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::vault::password::Password;
use crate::vault::{Authorization, Secrets};

/// All that is known before a person is asked.
pub struct Plan {
    pub address: String,
    pub reach: Reach,
    pub flow: Flow,
    pub registration: Registration,
    /// Whether the registration came with the command, and is to be kept with the account.
    is_own_registration: bool,
    pub redirect_uri: url::Url,
    /// Who has to sign in.
    pub signs_in: String,
    /// The mailbox at the provider.
    user: String,
}

impl Plan {
    pub async fn new(config: &Config, address: &str, options: &AuthorizeOptions) -> Result<Self, Failed> {
        let address = address.to_lowercase();
        let is_address =
            address.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
        if !is_address || address.chars().any(|c| c.is_control() || c.is_whitespace()) || address.len() > 255 {
            return Err(Failed::new(Exit::Usage, format!("{address:?} is no e-mail address")));
        }
        check_name(&options.password_name)?;
        let reach = Reach::new(config, &provider_name(config, &address, options)?);
        let reach = reach.map_err(|why| Failed::new(Exit::Config, why))?;
        let account = config.accounts.get(&address);
        let flow = options.flow.or_else(|| account?.flow).unwrap_or(reach.provider.flow);
        if flow == Flow::Password && !reach.provider.legacy && !account.is_some_and(|account| account.legacy) {
            let why = "the grant password needs legacy = true in the configuration, for the provider or the account";
            return Err(Failed::new(Exit::Config, why));
        }
        let client = client(config, &address, flow, options, &reach)?;
        let registration = Registration::new(&client, &reach.provider.token_endpoint).await;
        let registration = registration.map_err(|failure| Failed::new(Exit::Config, failure))?;
        let redirect_uri = options.redirect_uri.clone().unwrap_or_else(|| reach.provider.redirect_uri.clone());
        let is_own_registration = options.client_id.is_some();
        let signs_in = options.signs_in.as_ref().unwrap_or(&address).to_lowercase();
        let user = account.and_then(|account| account.user.clone()).unwrap_or_else(|| address.clone());
        Ok(Self { address, reach, flow, registration, is_own_registration, redirect_uri, signs_in, user })
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

    /// A browser is often signed in as somebody else, and the tokens of another mailbox must not take the place of good ones.
    pub fn check_identity(&self, identity: &Identity) -> Result<(), Failed> {
        match identity.other_than(&self.signs_in) {
            None => Ok(()),
            Some(other) => Err(Failed::new(
                Exit::NoPermission,
                format!(
                    "{other} has signed in, not {}; nothing was changed. Sign in as {} in the browser; or, if {other} is the one \
                     to sign in for this mailbox, add --signs-in {other}",
                    self.signs_in, self.signs_in
                ),
            )),
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
        let own = self.is_own_registration;
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
            tokens,
        }
    }
}

/// The provider that the command line names, or the address's.
fn provider_name(config: &Config, address: &str, options: &AuthorizeOptions) -> Result<String, Failed> {
    let known = || config.providers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match &options.provider {
        Some(name) if config.providers.contains_key(name) => Ok(name.clone()),
        Some(name) => {
            Err(Failed::new(Exit::Usage, format!("there is no provider {name}; the configuration knows {}", known())))
        }
        None => config.provider_for(address).map(|provider| provider.name.clone()).ok_or_else(|| {
            let message = format!(
                "the domain of {address} does not tell its provider; name it with --provider, one of {}, \
                 or describe your own in the configuration",
                known()
            );
            Failed::new(Exit::Usage, message)
        }),
    }
}

/// The client registration: the command line's, or the configuration's for this account or its provider.
fn client(
    config: &Config,
    address: &str,
    flow: Flow,
    options: &AuthorizeOptions,
    reach: &Reach,
) -> Result<Client, Failed> {
    if let Some(id) = &options.client_id {
        let secret = options.client_secret_file.clone().map(SecretSource::File);
        let authentication = secret.map_or(ClientAuthentication::None, ClientAuthentication::Secret);
        return Ok(Client { id: id.clone(), authentication });
    }
    let provider = &reach.provider;
    let nobody = (flow == Flow::JwtBearer).then(Client::nobody);
    config.client_for(address, provider).or(nobody).ok_or_else(|| {
        let note = provider.note.as_deref().unwrap_or_default();
        let message = format!(
            "{} asks for a client registration of your own: get a client id there, then add --client-id ID. {note}",
            provider.name
        );
        Failed::new(Exit::Config, message)
    })
}
