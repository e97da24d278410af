//! The page of an account, and what its forms do.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::entrance::{BrowserSession, OwnSession};
use super::field::{Choice, Field};
use super::gate::SentForm;
use super::overview::AccountCard;
use super::state::SetupState;
use super::view::{self, Shell};
use crate::broker::{AccountStatus, SlotStatus, Withdrawal};
use crate::config::uid_of;
use crate::control::{ControlRequest, LoginTest, Status, read};
use crate::examination::{Finding, FindingState};
use crate::exit::{Exit, Failed};
use crate::programs::{MailProgram, Served};
use crate::protocol::Protocol;
use crate::vault::password::Password;
use crate::vault::{Limits, check_slot_name};

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    card: AccountCard,
    slots: Vec<SlotStatus>,
    aliases: Vec<String>,
    mailboxes: Vec<String>,
    programs: Vec<Choice>,
    protocols: Vec<Choice>,
    /// What could not be done, if it is not about a single field.
    alert: Option<String>,
    name: Field,
    uids: Field,
    for_adding: Field,
    for_test: Field,
    for_doctor: Field,
    for_forgetting: Field,
}

/// A new app password, which is shown once.
#[derive(Template)]
#[template(path = "password.html")]
struct NewPassword {
    shell: Shell,
    address: String,
    path: String,
    name: String,
    password: String,
    programs: Vec<Choice>,
}

#[derive(Template)]
#[template(path = "tests.html")]
struct TestsPage {
    shell: Shell,
    address: String,
    path: String,
    tests: Vec<LoginTest>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage {
    shell: Shell,
    address: String,
    path: String,
    findings: Vec<FindingLine>,
}

struct FindingLine {
    tone: &'static str,
    mark: &'static str,
    subject: String,
    text: String,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    shell: Shell,
    address: String,
    path: String,
    title: &'static str,
    settings: String,
    programs: Vec<Choice>,
}

#[derive(Template)]
#[template(path = "forgotten.html")]
struct ForgottenPage {
    shell: Shell,
    address: String,
    withdrawal: String,
    is_revoked: bool,
}

/// A form that was sent and not accepted: which one, and what is wrong where.
struct Unaccepted<'a> {
    form: &'a SentForm,
    action: &'static str,
    field: &'static str,
    why: String,
}

pub async fn show(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
) -> Response {
    present(&site, &session, &address, None).await
}

/// The page of an account, perhaps with a form that was not accepted.
async fn present(
    site: &SetupState,
    session: &BrowserSession,
    address: &str,
    mistake: Option<Unaccepted<'_>>,
) -> Response {
    let shell = Shell::new(session, "account");
    let status = match account(site, address).await {
        Ok((_, account)) => account,
        Err(failed) => return view::failed(&shell, StatusCode::NOT_FOUND, "No such account", &failed.message, "/"),
    };
    let typed = |action: &str, name: &str| {
        let form = mistake.as_ref().filter(|mistake| mistake.action == action).map(|mistake| mistake.form);
        form.map(|form| form.text(name)).unwrap_or_default()
    };
    let wrong = |action: &str, name: &str| {
        let is_it = |one: &&Unaccepted<'_>| one.action == action && one.field == name;
        mistake.as_ref().filter(is_it).map(|mistake| mistake.why.as_str())
    };
    let password = |action: &'static str| {
        let label =
            if ["add", "test"].contains(&action) { "An app password that works now" } else { "An app password" };
        Field::new(action, "password", label).secret().error(wrong(action, "password"))
    };
    let checked = mistake.as_ref().map(|mistake| mistake.form.all("protocol")).unwrap_or_default();
    let protocol = |one: Protocol| Choice {
        value: one.name().to_owned(),
        label: one.to_string(),
        chosen: checked.iter().any(|name| name == one.name()),
    };
    let page = AccountPage {
        card: AccountCard::new(&status, site.control.broker.context.now()),
        programs: programs(session),
        protocols: Protocol::ALL.map(protocol).into(),
        alert: mistake.as_ref().filter(|mistake| mistake.field.is_empty()).map(|mistake| view::sentence(&mistake.why)),
        name: Field::new("add", "name", "Name")
            .hint("The mail program or device that it is for.")
            .value(typed("add", "name"))
            .error(wrong("add", "name")),
        uids: Field::new("add", "uids", "Only for these users of this machine")
            .hint("Names or numbers, with blanks between them.")
            .value(typed("add", "uids"))
            .error(wrong("add", "uids"))
            .optional(),
        for_adding: password("add").hint("It opens the vault, so that another one can be added."),
        for_test: password("test"),
        for_doctor: password("doctor").optional().hint("Without it, the tokens and the logins are not checked."),
        for_forgetting: password("forget")
            .optional()
            .hint("With it, the authorization at the provider is revoked, too, even if no mail program has logged in."),
        slots: status.slots,
        aliases: status.aliases,
        mailboxes: status.mailboxes,
        shell,
    };
    let code = if mistake.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    view::page(code, &page)
}

/// The account with this address, in any spelling.
async fn account(site: &SetupState, address: &str) -> Result<(Status, AccountStatus), Failed> {
    let status = site.status().await?;
    let address = site.control.broker.resolve(address).address;
    let account = status.account(&address).cloned();
    let missing =
        || Failed::new(Exit::NoUser, format!("there is no account {address}; add it on the page Add an account"));
    account.map(|account| (status, account)).ok_or_else(missing)
}

/// The mail programs to choose from, the one that was chosen last first.
pub fn programs(session: &BrowserSession) -> Vec<Choice> {
    let chosen = session.program();
    let served = |program: &MailProgram| !["autoconfig", "autodiscover"].contains(&program.name);
    MailProgram::all().filter(served).map(|one| Choice::new(one.name, one.title, &chosen)).collect()
}

pub async fn add_password(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    match try_to_add(&site, &address, &form).await {
        Ok((name, password)) => view::shown(&NewPassword {
            shell: Shell::new(&session, "account"),
            path: view::account_path(&address),
            address,
            name,
            password: String::from_utf8_lossy(&password.expose()).into_owned(),
            programs: programs(&session),
        }),
        Err((field, failed)) => {
            let mistake = Unaccepted { form: &form, action: "add", field, why: failed.message };
            present(&site, &session, &address, Some(mistake)).await
        }
    }
}

async fn try_to_add(
    site: &SetupState,
    address: &str,
    form: &SentForm,
) -> Result<(String, Password), (&'static str, Failed)> {
    let name = form.text("name");
    check_slot_name(&name).map_err(|failed| ("name", failed))?;
    let missing = || ("password", Failed::new(Exit::Data, "type an app password that the account already has"));
    let password = form.secret("password").ok_or_else(missing)?;
    let user = |word: &str| word.parse().or_else(|_| uid_of(word));
    let uids = form.text("uids").split([' ', ',']).filter(|word| !word.is_empty()).map(user).collect::<Result<_, _>>();
    let uids = uids.map_err(|why: String| ("uids", Failed::new(Exit::Data, why)))?;
    let is_known = |name: &String| Protocol::ALL.iter().any(|one| one.name() == name);
    let protocols = form.all("protocol").into_iter().filter(is_known).collect();
    let new = Password::generate();
    let limits = Limits { protocols, uids };
    let request =
        ControlRequest::AddSlot { address: address.to_owned(), password, name: name.clone(), new: new.clone(), limits };
    let added = site.control.answer(request).await;
    added.map_err(|failed| (if failed.exit == Exit::NoPermission { "password" } else { "name" }, failed))?;
    Ok((name, new))
}

pub async fn remove_password(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    let request = ControlRequest::RemoveSlot { address: address.clone(), name: form.find("name").unwrap_or_default() };
    match site.control.answer(request).await {
        Ok(_) => view::see_other(&view::account_path(&address)),
        Err(failed) => {
            let mistake = Unaccepted { form: &form, action: "remove", field: "", why: failed.message };
            present(&site, &session, &address, Some(mistake)).await
        }
    }
}

pub async fn test(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    let tests = async {
        let missing = || Failed::new(Exit::Data, "type an app password of the account");
        let password = form.secret("password").ok_or_else(missing)?;
        read(&site.control.answer(ControlRequest::Test { address: address.clone(), password }).await?)
    };
    match tests.await {
        Ok(tests) => {
            let (shell, path) = (Shell::new(&session, "account"), view::account_path(&address));
            view::shown(&TestsPage { shell, path, address, tests })
        }
        Err(Failed { message: why, .. }) => {
            let mistake = Unaccepted { form: &form, action: "test", field: "password", why };
            present(&site, &session, &address, Some(mistake)).await
        }
    }
}

pub async fn doctor(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    let request = ControlRequest::Examine { address: address.clone(), password: form.secret("password") };
    let findings = site.control.answer(request).await.and_then(|answer| read::<Vec<Finding>>(&answer));
    match findings {
        Ok(findings) => {
            let findings = findings.into_iter().map(FindingLine::new).collect();
            let (shell, path) = (Shell::new(&session, "account"), view::account_path(&address));
            view::shown(&ReportPage { shell, path, address, findings })
        }
        Err(Failed { message: why, .. }) => {
            let mistake = Unaccepted { form: &form, action: "doctor", field: "password", why };
            present(&site, &session, &address, Some(mistake)).await
        }
    }
}

impl FindingLine {
    fn new(finding: Finding) -> Self {
        let (tone, mark) = match finding.state {
            FindingState::Ok => ("good", "ok"),
            FindingState::Problem => ("bad", "problem"),
            FindingState::Skipped => ("wait", "skipped"),
        };
        Self { tone, mark, subject: finding.subject, text: finding.text }
    }
}

pub async fn forget(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    let (form, action) = (&form, "forget");
    if form.text("sure") != "yes" {
        let why = "nothing was removed; tick the box to confirm that you want to remove the account".to_owned();
        return present(&site, &session, &address, Some(Unaccepted { form, action, field: "", why })).await;
    }
    let request = ControlRequest::Forget { address: address.clone(), password: form.secret("password") };
    match site.control.answer(request).await.and_then(|answer| read::<Withdrawal>(&answer)) {
        Ok(withdrawal) => view::shown(&ForgottenPage {
            shell: Shell::new(&session, "overview"),
            address,
            is_revoked: withdrawal == Withdrawal::Done,
            withdrawal: withdrawal.to_string(),
        }),
        Err(Failed { message: why, .. }) => {
            present(&site, &session, &address, Some(Unaccepted { form, action, field: "password", why })).await
        }
    }
}

#[derive(Deserialize)]
pub struct ChosenProgram {
    #[serde(rename = "for")]
    program: Option<String>,
}

pub async fn settings(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Query(chosen): Query<ChosenProgram>,
) -> Response {
    let shell = Shell::new(&session, "account");
    let name = chosen.program.unwrap_or_else(|| session.program());
    let rendered = async {
        let (status, account) = account(&site, &address).await?;
        let program = MailProgram::find(&name)?;
        session.choose(&name);
        Ok::<_, Failed>((program.title, program.render(&site.served(status, &account), None)?))
    };
    match rendered.await {
        Ok((title, settings)) => {
            let (path, programs) = (view::account_path(&address), programs(&session));
            view::shown(&SettingsPage { shell, address, path, title, settings, programs })
        }
        Err(failed) => {
            let back = view::account_path(&address);
            view::failed(&shell, StatusCode::UNPROCESSABLE_ENTITY, "No settings", &failed.message, &back)
        }
    }
}

impl SetupState {
    /// An account, and the listeners through which mail programs reach it.
    pub fn served(&self, status: Status, account: &AccountStatus) -> Served {
        let config = self.control.broker.config();
        let mut served = Served::new(&config, status.listeners, &account.address, Some(account.provider.clone()));
        served.authority = crate::certificates::certificate_authority_der(&config);
        served
    }
}
