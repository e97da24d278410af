//! A person consents in a browser. If it runs on another machine, the person pastes the address of its last page.

use oauth2::AuthorizationCode;
use tokio::time::{Instant, timeout_at};

use super::super::arguments::AuthorizeOptions;
use super::super::browser::{has_display, start_browser};
use super::super::terminal::{Input, complain, say};
use super::preparation::nobody_signed_in;
use crate::authorization::{Plan, SignInError};
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::{PendingAuthorization, RedirectError};
use crate::pasted::is_open;
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::web::beginning::Beginning;
use crate::web::page::Page;
use crate::web::redirect::{Arrival, Outcome, RedirectListener, own_users};

/// The longest address to assemble from pasted lines, in bytes.
const MAX_PASTED: usize = 16 * 1024;

impl Plan {
    /// Sends the person to the provider and waits for the answer, from the browser or pasted. If somebody else has
    /// signed in, the person can try again.
    pub async fn sign_in_by_browser(
        &self,
        options: &AuthorizeOptions,
        page: Page,
        input: Input,
    ) -> Result<TokenSet, Failed> {
        let deadline = Instant::now() + options.timeout;
        let listener = RedirectListener::of(self, page, own_users()).await?;
        let mut ways = Ways { listener, input: Some(input), begun: String::new() };
        self.show_note();
        loop {
            let pending = self.begin(ways.listener.as_ref().map_or(&self.redirect.uri, |listener| &listener.uri))?;
            let _open = self.introduce(&pending, options, ways.listener.is_some());
            let answer = timeout_at(deadline, ways.answer(&pending)).await;
            let (code, arrival) = answer.map_err(|_| self.nobody_returned(&pending, options))?;
            let tokens = match code {
                Ok(code) => self.exchange(pending, code).await,
                Err(denied) => Err(not_authorized(&denied).into()),
            };
            match tokens {
                Ok(tokens) => {
                    ways.finish(arrival, Outcome::Authorized).await;
                    return Ok(tokens);
                }
                Err(SignInError::SomebodyElse(other)) => {
                    complain(format_args!(
                        "{}. If {other} should sign in for this mailbox, stop this command and add `--signs-in {other}`",
                        self.somebody_else(&other)
                    ));
                    arrival.into_iter().for_each(|arrival| arrival.reply(Outcome::SomebodyElse));
                }
                Err(SignInError::Failed(failed)) => {
                    ways.finish(arrival, Outcome::Failed).await;
                    return Err(failed);
                }
            }
        }
    }

    /// The server reports a wrong client id or redirect URI only to the person, and does not send the browser back (RFC
    /// 6749 section 4.1.2.1).
    fn nobody_returned(&self, pending: &PendingAuthorization, options: &AuthorizeOptions) -> Failed {
        let Failed { exit, message } = nobody_signed_in(options);
        let (server, client) = (pending.url.host_str().unwrap_or_default(), &self.registration.client_id);
        Failed::new(
            exit,
            format!(
                "{message}. If the browser shows an error page of {server}, check that the client {client} exists \
                 there, and that its redirect URI is {}",
                pending.redirect_uri()
            ),
        )
    }

    /// Shows where to sign in, and starts a browser if there is one. The local page that redirects it exists as long as
    /// the returned value.
    fn introduce(
        &self,
        pending: &PendingAuthorization,
        options: &AuthorizeOptions,
        is_waiting: bool,
    ) -> Option<Beginning> {
        say(format_args!("To give postkey access to {}, sign in on this page:\n\n  {}\n", self.address, pending.url));
        let waited = humantime::format_duration(options.timeout);
        match is_waiting {
            true => say(format_args!(
                "Waiting for up to {waited}. If the browser runs on another machine, its last page will not load: \
                 paste that page's address here."
            )),
            false => say(format_args!(
                "Waiting for up to {waited}. When you have signed in, paste the address of the browser's last page here, whether \
                 it loads or not."
            )),
        }
        // If this fails, the person can still open the page.
        if options.no_browser || !has_display() { None } else { start_browser(&pending.url) }
    }
}

/// The failure for a browser that returned without a code.
fn not_authorized(denied: &RedirectError) -> Failed {
    let exit = if let RedirectError::Denied(failure) = denied { failure.exit() } else { Exit::NoPermission };
    Failed::new(exit, denied)
}

/// The ways in which the provider's answer can arrive.
struct Ways {
    listener: Option<RedirectListener>,
    /// None after standard input has ended.
    input: Option<Input>,
    /// The beginning of a pasted address that is not complete yet.
    begun: String,
}

impl Ways {
    /// Returns the first answer that belongs to this authorization, a code or a refusal, with the browser that brought
    /// it. Reports any other answer in the browser or terminal from which it came.
    async fn answer(
        &mut self,
        pending: &PendingAuthorization,
    ) -> (Result<AuthorizationCode, RedirectError>, Option<Arrival>) {
        loop {
            let (result, arrival) = tokio::select! {
                arrival = arrival(&mut self.listener) => (pending.code(&arrival.query), Some(arrival)),
                line = line(&mut self.input) => (self.pasted(pending, &String::from_utf8_lossy(line.expose())), None),
            };
            match (result, arrival) {
                (result @ (Ok(_) | Err(RedirectError::Denied(_))), arrival) => {
                    return (result, arrival);
                }
                (Err(_), Some(arrival)) => arrival.reply(Outcome::Ignored),
                // Report this once, not for each line that follows.
                (Err(RedirectError::BrokenOff), None) if self.begun.contains('\n') => {}
                (Err(error), None) => complain(error),
            }
        }
    }

    /// Reads a pasted line: an answer, or the continuation of the lines before it.
    fn pasted(&mut self, pending: &PendingAuthorization, line: &str) -> Result<AuthorizationCode, RedirectError> {
        let begun = std::mem::take(&mut self.begun);
        let joined = if begun.is_empty() { line.to_owned() } else { format!("{begun}\n{line}") };
        let mut result = (joined.clone(), pending.pasted(&joined));
        if result.1.is_err() && !begun.is_empty() && (line.contains("://") || line.contains("code=")) {
            // The person may have pasted the whole address again.
            let alone = pending.pasted(line);
            if alone.is_ok() || !matches!(result.1, Err(RedirectError::BrokenOff)) {
                result = (line.to_owned(), alone);
            }
        }
        let (text, result) = result;
        let is_open = is_open(&text) && result.is_ok();
        if (is_open || matches!(result, Err(RedirectError::BrokenOff))) && text.len() < MAX_PASTED {
            self.begun = text;
            return Err(RedirectError::BrokenOff);
        }
        result
    }

    /// Shows the result in the browser, if one waits.
    async fn finish(self, arrival: Option<Arrival>, outcome: Outcome) {
        if let (Some(arrival), Some(listener)) = (arrival, self.listener) {
            arrival.reply(outcome);
            listener.finish().await;
        }
    }
}

/// Waits for the next browser that returns; forever, if there is no listener.
async fn arrival(listener: &mut Option<RedirectListener>) -> Arrival {
    match listener {
        Some(open) => match open.arrival().await {
            Some(arrival) => arrival,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Waits for the next line that is not empty; forever, if standard input has ended.
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
