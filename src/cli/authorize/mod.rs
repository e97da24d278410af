//! `postkey authorize`: an account's one-time set-up.

mod browser;
mod device;
mod many;
mod preparation;
mod provider;
mod settings;
mod taken_over;
mod unattended;

use super::admin::AdminClient;
use super::arguments::AuthorizeOptions;
use super::terminal::{Input, say};
use super::test::report;
use crate::authorization::Plan;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::control::{ControlRequest, LoginTest, NewAuthorization};
use crate::exit::{Exit, Failed};
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::web::page::Page;
pub use many::run_many;
use preparation::{first_password, plan};
use settings::show_settings;
pub use taken_over::{TokenSource, take_over};

/// Sets up an account, or renews its authorization: gets the first tokens, stores them, logs in with them, and shows
/// the settings for a mail program.
pub async fn run(config: &Config, address: &str, options: AuthorizeOptions) -> Result<(), Failed> {
    // Do not keep the vault open while waiting for a person, because a daemon may start meanwhile.
    let status = AdminClient::connect(config).await?.status().await?;
    let mut input = Input::new();
    let plan = plan(config, address, &options, &status, &mut input).await?;
    let first = first_password(&plan, &status, &options, &mut input).await?;
    let page = last_page(config)?;
    let (tokens, password) = first_tokens(&plan, &options, page, input).await?;
    let complete = plan.check_granted(&tokens);
    say("\nAuthorized. Logging in with the new token:");
    let (authorization, name) = (plan.authorization(tokens, password), options.password_name.clone());
    let authorized = NewAuthorization { authorization, name, first: first.clone(), is_tested: true };
    let admin = AdminClient::connect(config).await?;
    let tests: Vec<LoginTest> = admin.ask(ControlRequest::Authorize(Box::new(authorized))).await?;
    report(&tests, false);
    show_settings(&plan, config, &status, first.as_ref());
    // The authorization has succeeded even if one of the servers refuses the login.
    match tests.iter().any(|test| test.refused.is_none()) {
        true => complete,
        false => Err(Failed::new(Exit::Unavailable, "none of the provider's servers accepted the login")),
    }
}

/// Gets the first tokens by the account's grant, and the mailbox's own password if it has to be stored.
async fn first_tokens(
    plan: &Plan,
    options: &AuthorizeOptions,
    page: Page,
    mut input: Input,
) -> Result<(TokenSet, Option<Secret>), Failed> {
    if options.refresh_token_stdin {
        return Ok((plan.import_refresh_token(&mut input).await?, None));
    }
    match plan.flow {
        Flow::AuthorizationCode => Ok((plan.sign_in_by_browser(options, page, input).await?, None)),
        Flow::DeviceCode => Ok((plan.sign_in_by_code(options).await?, None)),
        Flow::ClientCredentials | Flow::JwtBearer => Ok((plan.request_tokens(None).await?, None)),
        Flow::Password => plan.request_by_password(&mut input).await.map(|(tokens, password)| (tokens, Some(password))),
    }
}

/// The page to show in the browser after success.
fn last_page(config: &Config) -> Result<Page, Failed> {
    match &config.finish_page {
        Some(file) => std::fs::read(file)
            .map(Page::foreign)
            .map_err(|error| Failed::new(Exit::Config, format!("cannot read the page {}: {error}", file.display()))),
        None => Ok(Page::AUTHORIZED),
    }
}
