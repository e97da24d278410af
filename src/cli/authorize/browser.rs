//! A person consents in a browser: on this machine, or on another one, whose last address is pasted here.

use oauth2::AuthorizationCode;
use tokio::time::{Instant, timeout_at};

use super::super::AuthorizeOptions;
use super::super::terminal::{Input, complain, say};
use super::plan::{Plan, Redirect};
use super::{no_tokens, nobody_came};
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::{Asking, Granted, Pending, RedirectError};
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::web::redirect::{Arrival, Outcome, RedirectListener};

/// Why a sign-in has brought no tokens.
enum Refused {
    /// Somebody else has signed in, whose address this is; another try may do better.
    SomebodyElse(String),
    /// Another try would not help.
    Failed(Failed),
}

impl Plan {
    /// Sends the person to the provider and waits for the answer, by the browser or pasted. Where somebody else has signed
    /// in, the person may try again.
    pub async fn ask_in_browser(&self, options: &AuthorizeOptions, input: Input) -> Result<TokenSet, Failed> {
        let deadline = Instant::now() + options.timeout;
        let Redirect { uri, listen, page } = &self.redirect;
        let listener = RedirectListener::bind(uri, *listen, page.clone()).await.map_err(|error| {
            let place = listen.map_or_else(|| uri.to_string(), |listen| listen.to_string());
            Failed::new(Exit::Os, format!("cannot wait for the browser at {place}: {error}"))
        })?;
        let mut ways = Ways { listener, input: Some(input) };
        self.show_note();
        loop {
            let pending = self.begin(&ways)?;
            self.introduce(&pending, options, ways.listener.is_some());
            let answer = timeout_at(deadline, ways.answer(&pending)).await;
            let (code, arrival) = answer.map_err(|_| nobody_came(options))?;
            let tokens = match code {
                Ok(code) => self.exchange(pending, code).await,
                Err(denied) => Err(Refused::Failed(Failed::new(Exit::NoPermission, denied))),
            };
            match tokens {
                Ok(tokens) => {
                    ways.finish(arrival, Outcome::Authorized).await;
                    return Ok(tokens);
                }
                Err(Refused::SomebodyElse(other)) => {
                    complain(self.somebody_else(&other));
                    arrival.into_iter().for_each(|arrival| arrival.reply(Outcome::SomebodyElse));
                }
                Err(Refused::Failed(failed)) => {
                    ways.finish(arrival, Outcome::Failed).await;
                    return Err(failed);
                }
            }
        }
    }

    /// A new authorization request.
    fn begin(&self, ways: &Ways) -> Result<Pending, Failed> {
        let missing =
            || Failed::new(Exit::Config, "the authorization server's metadata name no authorization endpoint");
        let provider = &self.reach.provider;
        Ok(Pending::begin(&Asking {
            endpoint: self.server.endpoints.authorization.as_ref().ok_or_else(missing)?,
            issuer: provider.issuer.as_deref(),
            names_itself: self.server.names_itself,
            client_id: &self.registration.client_id,
            redirect_uri: ways.listener.as_ref().map_or(&self.redirect.uri, |listener| &listener.uri),
            scope: &provider.scope,
            parameters: &self.parameters,
            login_hint: &self.signs_in,
        }))
    }

    async fn exchange(&self, pending: Pending, code: AuthorizationCode) -> Result<TokenSet, Refused> {
        let granted = pending.exchange(&self.reach.http, &self.registration, code, &Clock::System).await;
        let Granted { tokens, id_token, nonce } = granted.map_err(|failure| Refused::Failed(no_tokens(&failure)))?;
        match self.whose(&tokens, id_token.as_deref(), nonce.as_deref()).await.map_err(Refused::Failed)? {
            None => Ok(tokens),
            Some(other) => {
                self.give_back(&other, &tokens).await;
                Err(Refused::SomebodyElse(other))
            }
        }
    }

    fn introduce(&self, pending: &Pending, options: &AuthorizeOptions, is_waiting: bool) {
        say(format_args!("To let postkey into {}, sign in on this page:\n\n  {}\n", self.address, pending.url));
        let waited = humantime::format_duration(options.timeout);
        match is_waiting {
            true => say(format_args!(
                "Waiting for up to {waited}. If the browser runs on another machine, its last page will not load: \
                 paste that page's address here."
            )),
            false => say(format_args!(
                "Waiting for up to {waited}. At the end the browser arrives at a page that does not load: \
                 paste that page's address here."
            )),
        }
        if !options.no_browser && has_display() {
            let quiet = webbrowser::BrowserOptions::new().with_suppress_output(true).clone();
            // The page can be opened by hand just as well.
            let _opened =
                webbrowser::open_browser_with_options(webbrowser::Browser::Default, pending.url.as_str(), &quiet);
        }
    }
}

/// The ways by which the provider's answer may come.
struct Ways {
    listener: Option<RedirectListener>,
    /// None once the standard input has ended.
    input: Option<Input>,
}

impl Ways {
    /// The first answer that belongs to this authorization, a code or a no, and the browser that brought it. What does not
    /// belong to it is told to whoever brought it.
    async fn answer(&mut self, pending: &Pending) -> (Result<AuthorizationCode, RedirectError>, Option<Arrival>) {
        loop {
            let (result, arrival) = tokio::select! {
                arrival = arrival(&mut self.listener) => (pending.code(&arrival.query), Some(arrival)),
                line = line(&mut self.input) => (pending.pasted(&String::from_utf8_lossy(line.expose())), None),
            };
            match (result, arrival) {
                (result @ (Ok(_) | Err(RedirectError::Denied(_))), arrival) => return (result, arrival),
                (Err(_), Some(arrival)) => arrival.reply(Outcome::Ignored),
                (Err(error), None) => complain(error),
            }
        }
    }

    /// Shows the browser, if it waits, how it went.
    async fn finish(self, arrival: Option<Arrival>, outcome: Outcome) {
        if let (Some(arrival), Some(listener)) = (arrival, self.listener) {
            arrival.reply(outcome);
            listener.finish().await;
        }
    }
}

/// The next browser that comes back; never, if there is nothing to come back to.
async fn arrival(listener: &mut Option<RedirectListener>) -> Arrival {
    match listener {
        Some(open) => match open.arrival().await {
            Some(arrival) => arrival,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// The next line that is not empty; never, if the standard input has ended.
async fn line(input: &mut Option<Input>) -> Secret {
    while let Some(open) = input {
        match open.line().await {
            Some(line) if line.expose().trim_ascii().is_empty() => {}
            Some(line) => return line,
            None => *input = None,
        }
    }
    std::future::pending().await
}

/// A browser can be opened where there is a screen, or where the user has named one.
fn has_display() -> bool {
    ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
