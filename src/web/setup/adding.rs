//! An account is added step by step: its address, its provider, a client registration where one is needed, the sign-in,
//! and at the end the app password and the settings of a mail program.

use std::sync::{Arc, Mutex};

use askama::Template;
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::account::programs;
use super::entrance::{BrowserSession, OwnSession};
use super::field::{Choice, Field};
use super::gate::SentForm;
use super::qr::QrPicture;
use super::setups::{AccountSetup, SetupStep};
use super::sign_in::SetupRun;
use super::state::SetupState;
use super::view::{self, Shell};
use crate::authorization::{Plan, Remark, Tell, Wishes, account_address, by_address};
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::flow::Flow;
use crate::config::secret_source::SecretSource;
use crate::config::{Config, provider::Provider};
use crate::control::LoginTest;
use crate::exit::{Exit, Failed};
use crate::mutex::lock;
use crate::net::mx::MailExchangers;
use crate::programs::MailProgram;
use crate::vault::password::Password;

/// The form that begins. It grows by what turns out to be needed.
#[derive(Template)]
#[template(path = "add.html")]
struct AddPage {
    shell: Shell,
    alert: Option<String>,
    address: Field,
    /// The providers to choose from, if nothing shows which one it is.
    providers: Vec<Choice>,
    provider_error: Option<String>,
    /// The provider that was found or chosen.
    provider: Option<String>,
    registration: Option<RegistrationSteps>,
    mailbox_password: Option<Field>,
    programs: Vec<Choice>,
    signs_in: Field,
    ways: Vec<Choice>,
}

/// How to register a client at a provider.
pub struct RegistrationSteps {
    pub provider: String,
    pub note: String,
    pub redirect_uri: String,
    client_id: Field,
    client_secret: Field,
}

/// The page of a set-up that waits for a person or has ended.
#[derive(Template)]
#[template(path = "step.html")]
struct StepPage<'a> {
    shell: Shell,
    setup: &'a AccountSetup,
    remarks: Vec<String>,
    view: StepView,
}

enum StepView {
    Working,
    SignIn { url: String, host: String, is_awaited: bool, complaint: Option<String>, pasted: Field },
    EnterCode { code: String, url: String, complete: Option<String>, picture: Option<QrPicture> },
    Done(Box<DoneView>),
}

struct DoneView {
    path: String,
    /// The new app password, the first time that the page is shown.
    password: Option<String>,
    tests: Arc<Vec<LoginTest>>,
    works: bool,
    program: &'static str,
    settings: Result<String, String>,
    programs: Vec<Choice>,
}

/// What is missing before a set-up can begin.
#[derive(Default)]
struct Missing {
    /// The field that is wrong; empty if it is none.
    field: &'static str,
    why: String,
    provider: Option<String>,
    asks_provider: bool,
    asks_client: bool,
    asks_password: bool,
}

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
    let registration = provider.filter(|_| missing.asks_client).map(|provider| RegistrationSteps {
        client_id: Field::new("add", "client_id", "Client id").value(typed("client_id")).error(error("client_id")),
        client_secret: Field::new("add", "client_secret", "Client secret")
            .secret()
            .optional()
            .hint("Only if the provider shows one."),
        ..RegistrationSteps::of(provider)
    });
    let chosen = typed("provider");
    let choices = config.providers.keys().map(|name| Choice::new(name, name, &chosen));
    AddPage {
        shell: Shell::new(session, "add"),
        alert: error("").map(view::sentence),
        address: Field::new("add", "address", "E-mail address").email().value(address).error(error("address")),
        providers: if missing.asks_provider { choices.collect() } else { Vec::new() },
        provider_error: error("provider").map(view::sentence),
        provider: missing.provider.clone(),
        registration,
        mailbox_password: missing.asks_password.then(|| {
            Field::new("add", "mailbox_password", format!("The password of {address} at the provider"))
                .secret()
                .hint("It opens more than the mail. postkey stores it sealed; use another way as soon as there is one.")
        }),
        programs: programs(session),
        signs_in: Field::new("add", "signs_in", "Sign in as")
            .value(typed("signs_in"))
            .hint("If the mailbox belongs to somebody else, is shared, or is an alias: the address of the person who signs in.")
            .optional(),
        ways: ways(&typed("way")),
    }
}

/// How to get the tokens. Without a choice, the configuration or the provider decides.
fn ways(chosen: &str) -> Vec<Choice> {
    let all = [
        ("", "As the provider usually does it"),
        (Flow::AuthorizationCode.name(), "In this browser"),
        (Flow::DeviceCode.name(), "On another device, with a code"),
        (Flow::ClientCredentials.name(), "Nobody signs in: the client itself has access (client credentials)"),
        (Flow::JwtBearer.name(), "Nobody signs in: a service account, whose key is in the configuration"),
    ];
    all.map(|(value, label)| Choice::new(value, label, chosen)).into()
}

impl RegistrationSteps {
    /// The steps at a provider, without what is typed.
    pub fn of(provider: &Provider) -> Self {
        let redirect_uri = provider.redirect_uri.to_string();
        let general = format!(
            "Register a client at your provider, of the kind \"desktop\" or \"native\", with the redirect URI {redirect_uri} and the \
             permissions that mail needs. Copy the client id, and the secret if there is one."
        );
        Self {
            provider: provider.name.clone(),
            note: provider.note.clone().unwrap_or(general),
            redirect_uri,
            client_id: Field::new("add", "client_id", ""),
            client_secret: Field::new("add", "client_secret", ""),
        }
    }
}

pub async fn begin(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    headers: HeaderMap,
    Extension(form): Extension<SentForm>,
) -> Response {
    let address = form.text("address");
    start(&site, &session, &headers, &address, None, &form).await
}

/// Begins to set up an account again that exists.
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
    let named = provider.or_else(|| Some(form.text("provider"))).filter(|name| config.providers.contains_key(name));
    let provider = match named {
        Some(name) => name,
        None => found(&config, &address).await?,
    };
    let mailbox_password = form.secret("mailbox_password");
    let wishes = wishes(site, &config, &address, &provider, form);
    let flow = wishes.flow.or(config.account(&address).flow);
    let flow = flow.or_else(|| config.providers.get(&provider).map(|provider| provider.flow));
    if flow == Some(Flow::Password) && mailbox_password.is_none() {
        return Err(Missing { provider: Some(provider), asks_password: true, ..Missing::default() });
    }
    let remarks = Arc::new(Mutex::new(Vec::new()));
    let plan = Plan::new(&config, address.clone(), &provider, &wishes, &status, teller(&remarks)).await;
    let plan = plan.and_then(|plan| plan.check_record(&status).map(|()| plan));
    let plan = plan.map_err(|failed| refused(&config, &address, &provider, &wishes, failed))?;
    let first = status.account(&address).is_none().then(|| (session.program(), Password::generate()));
    let (setup, pasted) = site.setups.begin(&session.form_key, &address, &provider, remarks);
    let run = SetupRun {
        control: Arc::clone(control),
        plan,
        mailbox_password,
        first,
        page: format!("http://{host}/add/{}", setup.id),
        users: session.users.clone(),
        pasted,
    };
    setup.run_by(tokio::spawn(run.run(Arc::clone(&setup))).abort_handle());
    Ok(setup)
}

/// The provider to which the address itself leads.
async fn found(config: &Config, address: &str) -> Result<String, Missing> {
    let found = by_address(config, address, &MailExchangers::system()).await;
    found.map(|(name, _)| name).ok_or_else(|| Missing {
        field: "provider",
        why: format!("neither the domain nor its MX records show the provider of {address}; choose it"),
        asks_provider: true,
        ..Missing::default()
    })
}

/// What the form says, and the client registration that another account of the provider has.
fn wishes(site: &SetupState, config: &Config, address: &str, provider: &str, form: &SentForm) -> Wishes {
    let id = Some(form.text("client_id")).filter(|id| !id.is_empty());
    let typed = id.map(|id| {
        let secret =
            form.secret("client_secret").map(|secret| ClientAuthentication::Secret(SecretSource::Text(secret)));
        ClientRegistration { id, authentication: secret.unwrap_or(ClientAuthentication::None) }
    });
    let is_configured = config.providers.get(provider).is_some_and(|one| config.client_for(address, one).is_some());
    let known = || if is_configured { None } else { site.control.broker.typed_client(provider) };
    Wishes {
        flow: form.text("way").parse().ok(),
        client: typed.or_else(known),
        signs_in: Some(form.text("signs_in")).filter(|name| !name.is_empty()),
        ..Wishes::default()
    }
}

/// Says why a plan could not be made. Without any client registration, that is what is missing.
fn refused(config: &Config, address: &str, provider: &str, wishes: &Wishes, failed: Failed) -> Missing {
    let has_client = wishes.client.is_some()
        || config.providers.get(provider).is_some_and(|one| config.client_for(address, one).is_some());
    let asks_client = !has_client && failed.exit == Exit::Config;
    Missing {
        why: if asks_client { String::new() } else { failed.message },
        provider: Some(provider.to_owned()),
        asks_client,
        ..Missing::default()
    }
}

fn teller(remarks: &Arc<Mutex<Vec<String>>>) -> Tell {
    let remarks = Arc::clone(remarks);
    Arc::new(move |remark| {
        let (Remark::Note(text) | Remark::Warning(text)) = remark;
        lock(&remarks).push(view::sentence(&text));
    })
}

/// The query with which a person says that the code is entered.
const ENTERED: &str = "entered";

pub async fn step(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let shell = Shell::new(&session, "add");
    let Some(setup) = site.setups.get(&id, &session.form_key) else {
        let why = "this set-up is over, or was begun in another browser";
        return view::failed(&shell, StatusCode::NOT_FOUND, "Not found", why, "/add");
    };
    let view = match setup.settled_step(query.as_deref() == Some(ENTERED)).await {
        SetupStep::Working => StepView::Working,
        SetupStep::SignIn { url, is_awaited, complaint, wrong_paste } => StepView::SignIn {
            host: url.host_str().unwrap_or_default().to_owned(),
            url: url.to_string(),
            is_awaited,
            pasted: Field::new("paste", "pasted", "Address of the last page").error(wrong_paste.as_deref()),
            complaint: complaint.as_deref().map(view::sentence),
        },
        SetupStep::EnterCode { code, url, complete } => StepView::EnterCode {
            picture: QrPicture::of(complete.as_ref().unwrap_or(&url).as_str()),
            code,
            url: url.to_string(),
            complete: complete.map(|url| url.to_string()),
        },
        SetupStep::Done { tests } => StepView::Done(Box::new(done(&site, &session, &setup, tests).await)),
        SetupStep::Failed { why } => {
            let missing = Missing { why, provider: Some(setup.provider.clone()), ..Missing::default() };
            let page = add_page(&site, &session, &setup.address, None, Some(missing));
            return view::page(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
    };
    let remarks = lock(&setup.remarks).clone();
    view::shown(&StepPage { shell, setup: &setup, remarks, view })
}

async fn done(
    site: &SetupState,
    session: &BrowserSession,
    setup: &AccountSetup,
    tests: Arc<Vec<LoginTest>>,
) -> DoneView {
    let password = lock(&setup.password).take().map(|first| String::from_utf8_lossy(&first.expose()).into_owned());
    let chosen = session.program();
    let program = MailProgram::find(&chosen);
    let settings = async {
        let status = site.status().await?;
        let account = status.account(&setup.address).cloned();
        let account = account.ok_or_else(|| Failed::new(Exit::NoUser, "the account was removed"))?;
        MailProgram::find(&chosen)?.render(&site.served(status, &account), password.as_deref())
    };
    DoneView {
        path: view::account_path(&setup.address),
        works: tests.iter().any(|test| test.refused.is_none()),
        tests,
        program: program.map_or("", |program| program.title),
        settings: settings.await.map_err(|failed| view::sentence(&failed.message)),
        password,
        programs: programs(session),
    }
}

pub async fn paste(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(id): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    if let Some(setup) = site.setups.get(&id, &session.form_key) {
        setup.paste(form.text("pasted"));
    }
    view::see_other(&format!("/add/{id}"))
}
