//! Collects everything that is needed before a person is asked to sign in.

use std::sync::Arc;

use super::super::arguments::AuthorizeOptions;
use super::super::password::chosen;
use super::super::terminal::{Input, complain, say};
use super::provider;
use crate::authorization::{ChosenOptions, OnRemark, Plan, Remark, account_address};
use crate::config::Config;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::secret_source::SecretSource;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::vault::check_slot_name;
use crate::vault::password::Password;

/// Plans what the command line says, and asks for the provider if nothing shows it.
pub async fn plan(
    config: &Config,
    address: &str,
    options: &AuthorizeOptions,
    status: &Status,
    input: &mut Input,
) -> Result<Plan, Failed> {
    let address = account_address(config, status, address)?;
    check_slot_name(&options.password_name)?;
    let provider = provider::find(config, &address, options.provider.as_deref(), input).await?;
    let tell: OnRemark = Arc::new(|remark| match remark {
        Remark::Note(text) => say(format_args!("{text}\n")),
        Remark::Warning(text) => complain(format_args!("warning: {text}")),
    });
    Plan::new(config, address, &provider, &chosen_options(options), status, tell).await
}

pub fn chosen_options(options: &AuthorizeOptions) -> ChosenOptions {
    let client = options.client_id.as_ref().map(|id| {
        let secret = options.client_secret.clone().map(SecretSource::Text);
        let secret = secret.or_else(|| options.client_secret_file.clone().map(SecretSource::File));
        let authentication = secret.map_or(ClientAuthentication::None, ClientAuthentication::Secret);
        ClientRegistration { id: id.clone(), authentication }
    });
    ChosenOptions {
        flow: options.flow,
        client,
        redirect_uri: options.redirect_uri.clone(),
        redirect_listen: options.redirect_listen,
        signs_in: options.signs_in.clone(),
    }
}

/// The first app password of a new account. An existing account keeps its passwords.
pub async fn first_password(
    plan: &Plan,
    status: &Status,
    options: &AuthorizeOptions,
    input: &mut Input,
) -> Result<Option<Password>, Failed> {
    plan.check_record(status)?;
    match (status.account(&plan.address), options.password_stdin) {
        (Some(_), true) => Err(Failed::new(
            Exit::Usage,
            format!(
                "{0} already has app passwords; add one with `postkey password add {0} NAME --choose`",
                plan.address
            ),
        )),
        (Some(_), false) => Ok(None),
        (None, false) => Ok(Some(Password::generate())),
        (None, true) => {
            let missing = || Failed::new(Exit::Data, "there was no password on standard input");
            chosen(&input.line().await.ok_or_else(missing)?).map(Some)
        }
    }
}

pub fn nobody_signed_in(options: &AuthorizeOptions) -> Failed {
    let waited = humantime::format_duration(options.timeout);
    Failed::new(Exit::NoPermission, format!("nobody signed in within {waited}; run the command again"))
}
