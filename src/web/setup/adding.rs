//! The form that adds an account. It asks for the address, and then for what is missing, such as a client registration.

use std::sync::{Arc, Mutex};

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::entrance::{BrowserSession, OwnSession};
use super::field::{Choice, Field};
use super::form::SentForm;
use super::registration::{RegistrationSteps, StepPart};
use super::settings::programs;
use super::setups::AccountSetup;
use super::sign_in::SetupRun;
use super::state::SetupState;
use super::view::{self, Shell};
use crate::authorization::{ChosenOptions, OnRemark, Plan, Remark, account_address, by_address};
use crate::config::Config;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::flow::Flow;
use crate::config::secret_source::SecretSource;
use crate::exit::{Exit, Failed};
use crate::mutex::lock;
use crate::net::mx::MailExchangers;
use crate::programs::MailProgram;
use crate::vault::password::Password;

/// The form. It has more fields when something is missing.
#[derive(Template)]
#[template(path = "add.html")]
struct AddPage {
    shell: Shell,
    alert: Option<String>,
    address: Field,
    /// The providers to choose from, if postkey cannot find the provider.
    providers: Vec<Choice>,
    provider_error: Option<String>,
    /// The provider that was found or chosen.
    provider: Option<String>,
    /// The domain that it was found or chosen for.
    domain: String,
    registration: Option<RegistrationSteps>,
    /// The fields for what is missing.
    asked: Vec<Field>,
    programs: Vec<Choice>,
    signs_in: Field,
    ways: Vec<Choice>,
    /// Whether the last two, which few people need, are visible at once.
    is_open: bool,
}

/// Why a set-up cannot begin: an error, or fields that are missing.
#[derive(Default)]
struct Missing {
    /// The field that is wrong; empty if it is none.
    field: &'static str,
    why: String,
    provider: Option<String>,
    asks_provider: bool,
    /// Those of [`ASKABLE`] that are needed.
    asks: Vec<&'static str>,
}

/// The fields that the form has only if they are needed.
const ASKABLE: [&str; 4] = [CLIENT_ID, CLIENT_SECRET, MAILBOX_PASSWORD, SERVICE_ACCOUNT];
const CLIENT_ID: &str = "client_id";
const CLIENT_SECRET: &str = "client_secret";
const MAILBOX_PASSWORD: &str = "mailbox_password";
const SERVICE_ACCOUNT: &str = "service_account";

const PROVIDER: &str = "provider";

/// The domain whose provider the form names in a hidden field.
const PROVIDER_OF: &str = "provider_of";

impl Missing {
    fn at(field: &'static str, failed: Failed) -> Self {
        Self { field, why: failed.message, ..Self::default() }
    }
}

pub async fn show(State(site): State<Arc<SetupState>>, Extension(session): OwnSession) -> Response {
    view::shown(&add_page(&site, &session, "", None, None))
}

fn add_page(
    site: &SetupState,
    session: &BrowserSession,
    address: &str,
    form: Option<&SentForm>,
    missing: Option<Missing>,
) -> AddPage {
    let config = site.control.broker.config();
    let missing = missing.unwrap_or_default();
    let typed = |name: &str| form.map(|form| form.text(name)).unwrap_or_default();
    let error = |field: &str| Some(missing.why.as_str()).filter(|why| missing.field == field && !why.is_empty());
    let provider = missing.provider.as_deref().and_then(|name| config.providers.get(name));
    let was_sent = |name: &str| form.is_some_and(|form| form.find(name).is_some());
    let asks = |name: &&'static str| missing.asks.contains(name) || was_sent(name);
    let registration = provider.filter(|_| asks(&CLIENT_ID)).map(|provider| RegistrationSteps::of(provider));
    let ask = |name: &'static str| asked(name, address, &typed(name)).error(error(name));
    let chosen = typed(PROVIDER);
    let choices = config.providers.keys().map(|name| Choice::new(name, name, &chosen));
    AddPage {
        shell: Shell::new(session, "add"),
        alert: error("").map(view::sentence),
        address: Field::new("add", "address", "E-mail address").email().value(address).error(error("address")),
        providers: if missing.asks_provider { choices.collect() } else { Vec::new() },
        provider_error: error(PROVIDER).map(view::sentence),
        provider: missing.provider.clone(),
        domain: domain_of(address).to_owned(),
        registration,
        asked: ASKABLE.into_iter().filter(asks).map(ask).collect(),
        programs: programs(session),
        signs_in: Field::new("add", "signs_in", "Sign in as")
            .value(typed("signs_in"))
            .hint("If the mailbox belongs to somebody else, is shared, or is an alias: the address of the person who signs in.")
            .optional(),
        ways: ways(&typed("way")),
        is_open: ["signs_in", "way"].iter().any(|name| !typed(name).is_empty()),
    }
}

/// Creates one of the [`ASKABLE`] fields. Secrets are not shown again.
fn asked(name: &'static str, address: &str, typed: &str) -> Field {
    let field = |label: &str| Field::new("add", name, label);
    match name {
        CLIENT_SECRET => field("Client secret").secret().optional().hint("Only if the provider shows one."),
        MAILBOX_PASSWORD => field(&format!("The password of {address} at the provider"))
            .secret()
            .hint("It opens more than the mail. postkey stores it sealed; use another way as soon as there is one."),
        SERVICE_ACCOUNT => field("The key of the service account")
            .file()
            .hint("The content of the JSON file that Google created. postkey stores it sealed, with this account."),
        _ => field("Client id").value(typed),
    }
}

/// The grants to choose from. Without a choice, the configuration or the provider decides.
fn ways(chosen: &str) -> Vec<Choice> {
    let all = [
        ("", "As the provider usually does it"),
        (Flow::AuthorizationCode.name(), "In this browser"),
        (Flow::DeviceCode.name(), "On another device, with a code"),
        (Flow::ClientCredentials.name(), "Nobody signs in: the client itself has access (client credentials)"),
        (Flow::JwtBearer.name(), "Nobody signs in: a service account has access"),
    ];
    all.map(|(value, label)| Choice::new(value, label, chosen)).into()
}

pub async fn begin(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    headers: HeaderMap,
    Extension(form): Extension<SentForm>,
) -> Response {
    let address = form.text("address");
    start(&site, &session, &headers, &address, None, &of_this_domain(form, &address)).await
}

/// Leaves out what was typed for the provider of another domain, because the person has corrected the address since.
fn of_this_domain(form: SentForm, address: &str) -> SentForm {
    let is_other = form.find(PROVIDER_OF).is_some_and(|domain| !domain.eq_ignore_ascii_case(domain_of(address)));
    if is_other { form.without(&[&ASKABLE[..], &[PROVIDER]].concat()) } else { form }
}

/// The part of an address behind the `@`; empty if there is none.
fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// Authorizes an existing account again.
pub async fn sign_in_again(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    headers: HeaderMap,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    let status = site.status().await.ok();
    let provider = status.and_then(|status| status.account(&address).map(|account| account.provider.clone()));
    start(&site, &session, &headers, &address, provider, &form).await
}

async fn start(
    site: &Arc<SetupState>,
    session: &BrowserSession,
    headers: &HeaderMap,
    address: &str,
    provider: Option<String>,
    form: &SentForm,
) -> Response {
    let program = form.text("program");
    if MailProgram::find(&program).is_ok() {
        session.choose(&program);
    }
    // The gate has checked the host.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match try_to_begin(site, session, host, address, provider, form).await {
        Ok(setup) => view::see_other(&format!("/add/{}", setup.id)),
        Err(missing) => {
            let page = add_page(site, session, address, Some(form), Some(missing));
            view::page(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

async fn try_to_begin(
    site: &Arc<SetupState>,
    session: &BrowserSession,
    host: &str,
    address: &str,
    provider: Option<String>,
    form: &SentForm,
) -> Result<Arc<AccountSetup>, Missing> {
    let (control, config) = (&site.control, site.control.broker.config());
    let status = site.status().await.map_err(|failed| Missing::at("", failed))?;
    let address = account_address(&config, &status, address).map_err(|failed| Missing::at("address", failed))?;
    let named = provider.or_else(|| Some(form.text(PROVIDER))).filter(|name| config.providers.contains_key(name));
    let provider = match named {
        Some(name) => name,
        None => found(&config, &address).await?,
    };
    let chosen = chosen_options(site, &config, &address, &provider, form);
    let secret = match secret_field(&config, &provider, flow(&config, &address, &provider, form)) {
        None => None,
        Some(field) => match form.secret(field) {
            None => return Err(Missing { provider: Some(provider), asks: vec![field], ..Missing::default() }),
            typed => typed,
        },
    };
    let remarks = Arc::new(Mutex::new(Vec::new()));
    let plan = Plan::new(&config, address.clone(), &provider, &chosen, &status, teller(&remarks)).await;
    let plan = plan.and_then(|plan| plan.check_record(&status).map(|()| plan));
    let plan = plan.map_err(|failed| refused(&config, &address, &provider, &chosen, failed))?;
    let first = status.account(&address).is_none().then(|| (session.program(), Password::generate()));
    let (setup, pasted) = site.setups.begin(&session.form_key, &address, &provider, form, remarks);
    let run = SetupRun {
        control: Arc::clone(control),
        plan,
        secret,
        first,
        page: format!("http://{host}/add/{}", setup.id),
        users: session.users.clone(),
        pasted,
    };
    setup.run_by(tokio::spawn(run.run(Arc::clone(&setup))).abort_handle());
    Ok(setup)
}

/// The grant: the one in the form, or else the one of the account or the provider in the configuration.
fn flow(config: &Config, address: &str, provider: &str, form: &SentForm) -> Option<Flow> {
    let way = form.text("way").parse().ok().or(config.account(address).flow);
    way.or_else(|| Some(config.providers.get(provider)?.flow))
}

/// The field for the secret that the grant itself needs, if the configuration has none.
fn secret_field(config: &Config, provider: &str, flow: Option<Flow>) -> Option<&'static str> {
    let has_key = || config.providers.get(provider).is_some_and(|provider| provider.bearer.is_some());
    match flow? {
        Flow::Password => Some(MAILBOX_PASSWORD),
        Flow::JwtBearer if !has_key() => Some(SERVICE_ACCOUNT),
        _ => None,
    }
}

/// Whether the configuration has a client registration for this account.
fn has_client(config: &Config, address: &str, provider: &str) -> bool {
    config.providers.get(provider).is_some_and(|provider| config.client_for(address, provider).is_some())
}

/// Finds the provider by the address.
async fn found(config: &Config, address: &str) -> Result<String, Missing> {
    let found = by_address(config, address, &MailExchangers::system()).await;
    found.map(|(name, _)| name).ok_or_else(|| Missing {
        field: PROVIDER,
        why: format!("neither the domain nor its MX records show the provider of {address}; choose it"),
        asks_provider: true,
        ..Missing::default()
    })
}

/// Reads the form. Without a client id in it, the client registration of another account of the provider is used.
fn chosen_options(site: &SetupState, config: &Config, address: &str, provider: &str, form: &SentForm) -> ChosenOptions {
    let id = Some(form.text(CLIENT_ID)).filter(|id| !id.is_empty());
    let typed = id.map(|id| {
        let secret = form.secret(CLIENT_SECRET).map(|secret| ClientAuthentication::Secret(SecretSource::Text(secret)));
        ClientRegistration { id, authentication: secret.unwrap_or(ClientAuthentication::None) }
    });
    // A service account needs no client, and the server might refuse it this grant.
    let needs_known =
        !has_client(config, address, provider) && flow(config, address, provider, form) != Some(Flow::JwtBearer);
    let known = || if needs_known { site.control.broker.typed_client(provider) } else { None };
    ChosenOptions {
        flow: form.text("way").parse().ok(),
        client: typed.or_else(known),
        signs_in: Some(form.text("signs_in")).filter(|name| !name.is_empty()),
        ..ChosenOptions::default()
    }
}

/// Explains why planning failed. If there is no client registration, the form asks for one.
fn refused(config: &Config, address: &str, provider: &str, chosen: &ChosenOptions, failed: Failed) -> Missing {
    let has_client = chosen.client.is_some() || has_client(config, address, provider);
    let asks_client = !has_client && failed.exit == Exit::Config;
    Missing {
        why: if asks_client { String::new() } else { failed.message },
        provider: Some(provider.to_owned()),
        asks: if asks_client { vec![CLIENT_ID, CLIENT_SECRET] } else { Vec::new() },
        ..Missing::default()
    }
}

fn teller(remarks: &Arc<Mutex<Vec<String>>>) -> OnRemark {
    let remarks = Arc::clone(remarks);
    Arc::new(move |remark| {
        let (Remark::Note(text) | Remark::Warning(text)) = remark;
        lock(&remarks).push(view::sentence(&text));
    })
}

/// Shows the form again after a set-up failed, with everything that was typed except secrets.
pub fn failed(site: &SetupState, session: &BrowserSession, setup: &AccountSetup, why: String) -> Response {
    let missing = Missing { why, provider: Some(setup.provider.clone()), ..Missing::default() };
    let page = add_page(site, session, &setup.address, Some(&setup.form), Some(missing));
    view::page(StatusCode::UNPROCESSABLE_ENTITY, &page)
}
