//! `postkey settings`: how to set up one mail program, with the addresses on which this postkey listens.

use super::accounts;
use super::admin::AdminClient;
use super::terminal::{Input, complain, say};
use crate::certificates::certificate_authority_der;
use crate::config::{Config, Listening};
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::programs::{MailProgram, Served};

/// Shows the settings of an account for a program, or which programs there are.
pub async fn run(config: &Config, address: &str, program: Option<&str>, has_password: bool) -> Result<(), Failed> {
    let admin = AdminClient::connect(config).await?;
    let address = config.address_of(address);
    let status = accounts::select(&admin, config.owner_of(&address)).await?;
    let address = status.account(&address).map_or(address, |account| account.address.clone());
    let Some(name) = program else {
        say("Add `--for PROGRAM` for the settings of one of these programs:\n");
        for program in MailProgram::all() {
            say(format_args!("  {:<20} {}", program.name, program.title));
        }
        return Ok(());
    };
    let program = MailProgram::find(name)?;
    let password = match has_password {
        true => Some(Input::new().password("The app password: ").await?),
        false => None,
    };
    let password = password.as_ref().map(|password| std::str::from_utf8(password.expose()));
    let password = password
        .transpose()
        .map_err(|_| Failed::new(Exit::Data, "this app password is not UTF-8, and a program's settings are text"))?;
    // The settings are right for an account that will be set up later, such as one of a whole domain at its first login.
    if config.domain_of(&address).is_none() && accounts::is_missing(&status) {
        complain(accounts::missing(config, &admin, &address).await.message);
    }
    let settings = program.render(&served(config, &status, &address), password)?;
    // The standard output can be the program's file.
    complain(format_args!("the settings for {}:", program.title));
    say(settings.trim_end());
    Ok(())
}

fn served(config: &Config, status: &Status, address: &str) -> Served {
    let stored = status.account(address).map(|account| account.provider.clone());
    let provider = stored.or_else(|| config.provider_for(address).map(|provider| provider.name.clone()));
    let mut served = Served::new(config, listening(config, status), address, provider);
    served.authority = certificate_authority_der(config);
    served
}

/// The open ports of the daemon, or those of the configuration if none runs.
pub fn listening(config: &Config, status: &Status) -> Vec<Listening> {
    if status.listeners.is_empty() { config.listening() } else { status.listeners.clone() }
}
