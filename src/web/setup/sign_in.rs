//! Gets the tokens of an account that is being set up, stores them, and logs in with them.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::super::page::Page;
use super::super::redirect::{Arrival, Outcome, RedirectListener};
use super::setups::{AccountSetup, LONGEST, SetupStep};
use crate::authorization::{Plan, SignInError};
use crate::config::flow::Flow;
use crate::control::{Control, NewAuthorization};
use crate::exit::{Exit, Failed};
use crate::mutex::lock;
use crate::oauth::authorization_code::RedirectError;
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::vault::password::Password;

/// The task that runs one set-up.
pub struct SetupRun {
    pub control: Arc<Control>,
    pub plan: Plan,
    /// The grant's own secret ([`crate::vault::Secrets`]), if it was typed.
    pub secret: Option<Secret>,
    /// The name and the first app password of a new account.
    pub first: Option<(String, Password)>,
    /// The page of this set-up, to which the browser returns.
    pub page: String,
    /// The users whose browsers may return from the provider.
    pub users: Vec<u32>,
    pub pasted: mpsc::Receiver<String>,
}

impl SetupRun {
    /// Runs the set-up and publishes each step.
    pub async fn run(mut self, setup: Arc<AccountSetup>) {
        let done = match self.tokens(&setup).await {
            Ok(tokens) => self.store(&setup, tokens).await,
            Err(failed) => Err(failed),
        };
        if let Err(failed) = done {
            setup.set(SetupStep::Failed { why: failed.message });
        }
    }

    async fn tokens(&mut self, setup: &AccountSetup) -> Result<TokenSet, Failed> {
        match self.plan.flow {
            Flow::AuthorizationCode => self.sign_in(setup).await,
            Flow::DeviceCode => self.enter_code(setup).await,
            Flow::ClientCredentials | Flow::JwtBearer | Flow::Password => {
                self.plan.request_tokens(self.secret.as_ref()).await
            }
        }
    }

    /// Stores the tokens, and logs in to each of the provider's servers.
    async fn store(self, setup: &AccountSetup, tokens: TokenSet) -> Result<(), Failed> {
        // The plan adds warnings about missing scopes to the remarks.
        let _ends = self.plan.check_granted(&tokens);
        let authorization = self.plan.authorization(tokens, self.secret);
        let (name, first) = self.first.map_or((String::new(), None), |(name, password)| (name, Some(password)));
        let authorized = NewAuthorization { authorization, name, first: first.clone(), is_tested: false };
        let account = self.control.authorize(authorized).await?;
        *lock(&setup.password) = first;
        let mut tests = Vec::new();
        for protocol in account.connector.provider.servers.keys() {
            setup.set(SetupStep::Done { tests: tests.clone(), is_complete: false });
            tests.extend(self.control.try_login(&account, *protocol).await);
        }
        setup.set(SetupStep::Done { tests, is_complete: true });
        Ok(())
    }

    /// Waits for the browser that returns from the provider, or for the address of its last page.
    async fn sign_in(&mut self, setup: &AccountSetup) -> Result<TokenSet, Failed> {
        let deadline = Instant::now() + LONGEST;
        let back = Page::leading_to(self.page.clone());
        let mut listener = RedirectListener::of(&self.plan, back, self.users.clone()).await?;
        let mut complaint = None;
        loop {
            let uri = listener.as_ref().map_or(&self.plan.redirect.uri, |listener| &listener.uri).clone();
            let pending = self.plan.begin(&uri)?;
            let (url, is_awaited) = (pending.url.clone(), listener.is_some());
            let show = |wrong_paste| {
                let (url, complaint) = (url.clone(), complaint.clone());
                setup.set(SetupStep::SignIn { url, is_awaited, complaint, wrong_paste });
            };
            show(None);
            let code = loop {
                let answer = timeout_at(deadline, answer(&mut listener, &mut self.pasted)).await;
                let (code, arrival) = match answer.map_err(|_| self.nobody_returned(&uri))? {
                    BrowserAnswer::Returned(arrival) => (pending.code(&arrival.query), Some(arrival)),
                    BrowserAnswer::Pasted(text) => (pending.pasted(&text), None),
                };
                match (code, arrival) {
                    (Err(RedirectError::Denied(failure)), arrival) => {
                        lead_back(arrival);
                        let exit = failure.exit();
                        finish_later(listener);
                        return Err(Failed::new(exit, RedirectError::Denied(failure)));
                    }
                    (Ok(code), arrival) => {
                        setup.set(SetupStep::Working);
                        lead_back(arrival);
                        break code;
                    }
                    (Err(_), Some(arrival)) => arrival.reply(Outcome::Ignored),
                    (Err(error), None) => show(Some(error.to_string())),
                }
            };
            match self.plan.exchange(pending, code).await {
                Err(SignInError::SomebodyElse(other)) => complaint = Some(self.plan.somebody_else(&other)),
                Err(SignInError::Failed(failed)) => {
                    finish_later(listener);
                    return Err(failed);
                }
                Ok(tokens) => {
                    finish_later(listener);
                    return Ok(tokens);
                }
            }
        }
    }

    /// The server reports a wrong client id or redirect URI only to the person, and does not send the browser back (RFC
    /// 6749 section 4.1.2.1).
    fn nobody_returned(&self, uri: &Url) -> Failed {
        let why = format!(
            "nobody signed in within 10 minutes; if the browser showed an error page of the provider, check that the \
             client {} exists there, and that its redirect URI is {uri}",
            self.plan.registration.client_id
        );
        Failed::new(Exit::NoPermission, why)
    }

    /// Shows a code, and waits until a person has entered it.
    async fn enter_code(&self, setup: &AccountSetup) -> Result<TokenSet, Failed> {
        let deadline = Instant::now() + LONGEST;
        let consent = self.plan.begin_on_device().await?;
        setup.set(SetupStep::EnterCode {
            code: consent.0.user_code.clone(),
            url: consent.0.verification_uri.clone(),
            complete: consent.0.verification_uri_complete.clone(),
        });
        let nobody = |_| Failed::new(Exit::NoPermission, "nobody entered the code within 10 minutes; try again");
        let tokens = timeout_at(deadline, self.plan.await_device(&consent)).await.map_err(nobody)?;
        setup.set(SetupStep::Working);
        tokens.map_err(|error| match error {
            SignInError::SomebodyElse(other) => Failed::new(Exit::NoPermission, self.plan.somebody_else(&other)),
            SignInError::Failed(failed) => failed,
        })
    }
}

/// The provider's answer, from the redirect listener or pasted.
enum BrowserAnswer {
    Returned(Arrival),
    Pasted(String),
}

async fn answer(listener: &mut Option<RedirectListener>, pasted: &mut mpsc::Receiver<String>) -> BrowserAnswer {
    let returned = async {
        match listener {
            Some(listener) => listener.arrival().await,
            None => None,
        }
    };
    tokio::select! {
        Some(arrival) = returned => BrowserAnswer::Returned(arrival),
        Some(text) = pasted.recv() => BrowserAnswer::Pasted(text),
        // The page is closed.
        else => std::future::pending().await,
    }
}

/// Redirects the browser to the page of the set-up, which shows the result.
fn lead_back(arrival: Option<Arrival>) {
    if let Some(arrival) = arrival {
        arrival.reply(Outcome::Authorized);
    }
}

/// Closes the listener in the background after the browser has loaded its last page.
fn finish_later(listener: Option<RedirectListener>) {
    if let Some(listener) = listener {
        tokio::spawn(listener.finish());
    }
}
