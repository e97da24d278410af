//! `postkey authorize`: an account's one-time set-up.

use oauth2::AuthorizationCode;
use tokio::time::{Instant, timeout_at};

use super::AuthorizeOptions;
use super::hand::Hand;
use super::password::{check_name, chosen, show};
use super::terminal::{Input, complain, say};
use super::test::report;
use crate::broker::Reach;
use crate::clock::Clock;
use crate::config::{Config, Listener};
use crate::control::{Authorized, Listening, Request, Status};
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::{Pending, RedirectError};
use crate::oauth::identity::Identity;
use crate::oauth::{Failure, Registration, read_secret};
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::vault::Authorization;
use crate::vault::password::Password;
use crate::web::redirect::{Arrival, Outcome, RedirectListener};

/// Sets an account up, or renews its authorization: asks the person, stores the tokens, logs in with them, and says what to
/// type into a mail program.
pub async fn run(config: &Config, address: &str, options: AuthorizeOptions) -> Result<(), Failed> {
    let plan = Plan::new(config, address, &options)?;
    // The vault is not held while a person is waited for: a daemon may want to start.
    let status = Hand::reach(config).await?.status().await?;
    let mut input = Input::new();
    let first = plan.first_password(&status, &options, &mut input).await?;
    let tokens = plan.ask_person(&options, input).await?;
    say("\nAuthorized. Logging in with the new token:");
    let named = first.as_ref().map(|password| (options.password_name.clone(), password));
    let authorized = Authorized::new(&plan.authorization(tokens), named);
    let hand = Hand::reach(config).await?;
    let probes = hand.ask(Request::Authorize(Box::new(authorized))).await?.tested()?;
    let result = report(&probes);
    show_settings(&plan, config, &status, first.as_ref());
    result
}

/// All that is known before the person is asked.
struct Plan {
    address: String,
    reach: Reach,
    registration: Registration,
    /// Whether the registration came with the command, and is to be kept with the account.
    is_own_registration: bool,
    redirect_uri: url::Url,
    /// Who has to sign in.
    signs_in: String,
}

impl Plan {
    fn new(config: &Config, address: &str, options: &AuthorizeOptions) -> Result<Self, Failed> {
        let address = address.to_lowercase();
        let is_address =
            address.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'));
        if !is_address || address.chars().any(|c| c.is_control() || c.is_whitespace()) || address.len() > 255 {
            return Err(Failed::new(Exit::Usage, format!("{address:?} is no e-mail address")));
        }
        check_name(&options.password_name)?;
        let reach = Reach::new(config, &provider_name(config, &address, options)?);
        let reach = reach.map_err(|why| Failed::new(Exit::Config, why))?;
        let registration = registration(config, &address, options, &reach)?;
        let redirect_uri = options.redirect_uri.clone().unwrap_or_else(|| reach.provider.redirect_uri.clone());
        let is_own_registration = options.client_id.is_some();
        let signs_in = options.signs_in.as_ref().unwrap_or(&address).to_lowercase();
        Ok(Self { address, reach, registration, is_own_registration, redirect_uri, signs_in })
    }

    /// The first app password of a new account. One that exists keeps those that it has.
    async fn first_password(
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

    /// Sends the person to the provider and waits for the answer, by the browser or pasted.
    async fn ask_person(&self, options: &AuthorizeOptions, input: Input) -> Result<TokenSet, Failed> {
        let deadline = Instant::now() + options.timeout;
        let listener = RedirectListener::bind(&self.redirect_uri).await.map_err(|error| {
            Failed::new(Exit::Os, format!("cannot wait for the browser at {}: {error}", self.redirect_uri))
        })?;
        let redirect_uri = listener.as_ref().map_or(&self.redirect_uri, |listener| &listener.uri).clone();
        let client_id = &self.registration.client_id;
        let endpoint = self.reach.provider.endpoints.authorization.clone().ok_or_else(no_endpoint)?;
        let pending = Pending::begin(&self.reach.provider, endpoint, client_id, redirect_uri, &self.signs_in);
        self.introduce(&pending, options, listener.is_some());
        let mut ways = Ways { listener, input: Some(input) };
        let (code, arrival) = timeout_at(deadline, ways.answer(&pending)).await.map_err(|_| {
            let waited = humantime::format_duration(options.timeout);
            Failed::new(Exit::NoPermission, format!("nobody signed in within {waited}; run the command again"))
        })?;
        let tokens = match code {
            Ok(code) => self.exchange(pending, code).await,
            Err(denied) => Err(Failed::new(Exit::NoPermission, denied)),
        };
        ways.finish(arrival, if tokens.is_ok() { Outcome::Authorized } else { Outcome::Failed }).await;
        tokens
    }

    async fn exchange(&self, pending: Pending, code: AuthorizationCode) -> Result<TokenSet, Failed> {
        let exchanged = pending.exchange(&self.reach.http, &self.registration, code, &Clock::System).await;
        let (tokens, identity) = exchanged.map_err(|failure| no_tokens(&failure))?;
        self.check_identity(&identity)?;
        Ok(tokens)
    }

    /// A browser is often signed in as somebody else, and the tokens of another mailbox must not take the place of good ones.
    fn check_identity(&self, identity: &Identity) -> Result<(), Failed> {
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

    fn introduce(&self, pending: &Pending, options: &AuthorizeOptions, is_waiting: bool) {
        let provider = &self.reach.provider;
        if let Some(note) = &provider.note {
            say(format_args!("{}: {note}\n", provider.name));
        }
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

    fn authorization(&self, tokens: TokenSet) -> Authorization {
        let own = self.is_own_registration;
        Authorization {
            address: self.address.clone(),
            provider: self.reach.provider.name.clone(),
            client_id: own.then(|| self.registration.client_id.clone()),
            client_secret: own.then(|| self.registration.client_secret.clone()).flatten(),
            tokens,
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
fn registration(
    config: &Config,
    address: &str,
    options: &AuthorizeOptions,
    reach: &Reach,
) -> Result<Registration, Failed> {
    let provider = &reach.provider;
    let account = config.accounts.get(address);
    let (client_id, secret_file) = match (&options.client_id, account.and_then(|account| account.client_id.as_ref())) {
        (Some(id), _) => (Some(id), options.client_secret_file.as_ref()),
        (None, Some(id)) => (Some(id), account.and_then(|account| account.client_secret_file.as_ref())),
        (None, None) => (provider.client_id.as_ref(), provider.client_secret_file.as_ref()),
    };
    let client_id = client_id.ok_or_else(|| {
        let note = provider.note.as_deref().unwrap_or_default();
        let message = format!(
            "{} asks for a client registration of your own: get a client id there, then add --client-id ID. {note}",
            provider.name
        );
        Failed::new(Exit::Config, message)
    })?;
    let client_secret = match secret_file {
        Some(file) => Some(read_secret(file).map_err(|failure| Failed::new(Exit::Config, failure))?),
        None => None,
    };
    let token_endpoint = provider.endpoints.token.clone().ok_or_else(no_endpoint)?;
    Ok(Registration { client_id: client_id.clone(), client_secret, token_endpoint })
}

fn no_endpoint() -> Failed {
    Failed::new(Exit::Config, "the provider's endpoints are not known")
}

/// The provider has answered, but there are no tokens.
fn no_tokens(failure: &Failure) -> Failed {
    let exit = match failure {
        Failure::Temporary(..) => Exit::Temporary,
        Failure::Ended(_) => Exit::NoPermission,
        Failure::Misconfigured(_) => Exit::Config,
    };
    Failed::new(exit, format!("no tokens came: {failure}"))
}

/// What to type into a mail program.
fn show_settings(plan: &Plan, config: &Config, status: &Status, first: Option<&Password>) {
    match first {
        Some(password) => {
            say("\nType this into your mail program; the password is shown only this once:\n");
            say(format_args!("  user name  {}", plan.address));
            match password.is_generated() {
                true => show(password),
                false => say("  password   the one that you chose"),
            }
        }
        None => {
            say("\nMail programs go on with the app passwords that they have:\n");
            say(format_args!("  user name  {}", plan.address));
        }
    }
    let listeners = if status.listeners.is_empty() { configured(config) } else { status.listeners.clone() };
    for listening in &listeners {
        let (protocol, address) = (listening.protocol.to_uppercase(), listening.address);
        say(format_args!(
            "  {protocol:<10} {} port {}, {}",
            address.ip(),
            address.port(),
            described(&listening.security)
        ));
    }
    if status.listeners.is_empty() {
        say("\nThe daemon does not run yet; `postkey` starts it.");
    }
}

fn configured(config: &Config) -> Vec<Listening> {
    let of = |listener: &Listener| {
        let addresses = listener.addresses.clone().into_iter();
        let (protocol, security) = (listener.protocol, listener.security);
        addresses.map(move |address| Listening::new(protocol, address, security)).collect::<Vec<_>>()
    };
    config.listeners.iter().flat_map(of).collect()
}

/// A listener's security in the words of mail programs' settings.
fn described(security: &str) -> &'static str {
    match security {
        "tls" => "SSL/TLS",
        "starttls" => "STARTTLS",
        _ => "no encryption, normal password",
    }
}
