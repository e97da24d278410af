//! `postkey authorize`: an account's one-time set-up.

mod browser;
mod plan;
mod provider;
mod server;
mod settings;

use super::AuthorizeOptions;
use super::hand::Hand;
use super::terminal::{Input, say};
use super::test::report;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::control::{Authorized, Request};
use crate::exit::{Exit, Failed};
use crate::oauth::Failure;
use crate::token::TokenSet;
use plan::Plan;
use settings::show_settings;

/// Sets an account up, or renews its authorization: gets the first tokens, stores them, logs in with them, and says what to
/// type into a mail program.
pub async fn run(config: &Config, address: &str, options: AuthorizeOptions) -> Result<(), Failed> {
    // The vault is not held while a person is waited for: a daemon may want to start.
    let status = Hand::reach(config).await?.status().await?;
    let mut input = Input::new();
    let plan = Plan::new(config, address, &options, &status, &mut input).await?;
    let first = plan.first_password(&status, &options, &mut input).await?;
    let tokens = first_tokens(&plan, &options, input).await?;
    say("\nAuthorized. Logging in with the new token:");
    let named = first.as_ref().map(|password| (options.password_name.clone(), password));
    let authorized = Authorized::new(&plan.authorization(tokens, None), named);
    let hand = Hand::reach(config).await?;
    let probes = hand.ask(Request::Authorize(Box::new(authorized))).await?.tested()?;
    let result = report(&probes, false);
    show_settings(&plan, config, &status, first.as_ref());
    result
}

/// Gets the first tokens, as the account's grant has it.
async fn first_tokens(plan: &Plan, options: &AuthorizeOptions, input: Input) -> Result<TokenSet, Failed> {
    match plan.flow {
        Flow::AuthorizationCode => plan.ask_person(options, input).await,
        Flow::ClientCredentials | Flow::DeviceCode | Flow::JwtBearer | Flow::Password => {
            let tokens = plan.ask(None).renew(&plan.reach.http, &plan.registration, None, &Clock::System).await;
            tokens.map_err(|failure| no_tokens(&failure))
        }
    }
}

/// The provider has answered, but there are no tokens.
fn no_tokens(failure: &Failure) -> Failed {
    let exit = match failure {
        Failure::Temporary(..) => Exit::Temporary,
        Failure::Ended(_) | Failure::Forbidden(_) => Exit::NoPermission,
        Failure::Misconfigured(_) => Exit::Config,
    };
    Failed::new(exit, format!("no tokens came: {failure}"))
}
