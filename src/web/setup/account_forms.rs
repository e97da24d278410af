//! Carries out the forms of an account's page.

use askama::Template;
use axum::response::Response;

use super::account::AccountForm;
use super::settings::ProgramChooser;
use super::view::{self, Shell};
use crate::broker::Withdrawal;
use crate::config::uid_of;
use crate::control::{ControlRequest, LoginTest};
use crate::examination::{Finding, FindingState, conclusion, examine_ports};
use crate::exit::{Exit, Failed};
use crate::protocol::Protocol;
use crate::vault::password::Password;
use crate::vault::{Limits, check_slot_name};

/// A new app password, which is shown once.
#[derive(Template)]
#[template(path = "password.html")]
struct NewPassword {
    shell: Shell,
    address: String,
    path: String,
    name: String,
    password: String,
    chooser: ProgramChooser,
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
    conclusion: String,
}

struct FindingLine {
    tone: &'static str,
    finding: Finding,
}

#[derive(Template)]
#[template(path = "forgotten.html")]
struct ForgottenPage {
    shell: Shell,
    address: String,
    withdrawal: String,
    is_revoked: bool,
}

pub async fn add_password(sent: AccountForm) -> Response {
    match try_to_add(&sent).await {
        Ok((name, password)) => view::shown(&NewPassword {
            shell: sent.shell(),
            path: sent.path(),
            chooser: sent.chooser("Settings for a mail program"),
            name,
            password: String::from_utf8_lossy(&password.expose()).into_owned(),
            address: sent.address,
        }),
        Err((field, failed)) => sent.refuse("add", field, failed).await,
    }
}

async fn try_to_add(
    AccountForm { site, address, form, .. }: &AccountForm,
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
        ControlRequest::AddSlot { address: address.clone(), password, name: name.clone(), new: new.clone(), limits };
    let added = site.control.answer(request).await;
    added.map_err(|failed| (if failed.exit == Exit::NoPermission { "password" } else { "name" }, failed))?;
    Ok((name, new))
}

pub async fn remove_password(sent: AccountForm) -> Response {
    let name = sent.form.find("name").unwrap_or_default();
    match sent.site.control.answer(ControlRequest::RemoveSlot { address: sent.address.clone(), name }).await {
        Ok(_) => view::see_other(&sent.path()),
        Err(failed) => sent.refuse("remove", "", failed).await,
    }
}

pub async fn test(sent: AccountForm) -> Response {
    let tests = async {
        let missing = || Failed::new(Exit::Data, "type an app password of the account");
        let password = sent.form.secret("password").ok_or_else(missing)?;
        sent.site.ask(ControlRequest::Test { address: sent.address.clone(), password }).await
    };
    match tests.await {
        Ok(tests) => view::shown(&TestsPage { shell: sent.shell(), path: sent.path(), address: sent.address, tests }),
        Err(failed) => sent.refuse("test", "password", failed).await,
    }
}

pub async fn doctor(sent: AccountForm) -> Response {
    match examine(&sent).await {
        Ok(findings) => view::shown(&ReportPage {
            shell: sent.shell(),
            path: sent.path(),
            conclusion: conclusion(&findings),
            findings: findings.into_iter().map(FindingLine::new).collect(),
            address: sent.address,
        }),
        Err(failed) => sent.refuse("doctor", "password", failed).await,
    }
}

async fn examine(AccountForm { site, address, form, .. }: &AccountForm) -> Result<Vec<Finding>, Failed> {
    let request = ControlRequest::Examine { address: address.clone(), password: form.secret("password") };
    let mut findings: Vec<Finding> = site.ask(request).await?;
    let broker = &site.control.broker;
    findings.extend(examine_ports(&broker.config(), &site.status().await?.listeners, broker.context.now()).await);
    Ok(findings)
}

impl FindingLine {
    fn new(finding: Finding) -> Self {
        let tone = match finding.state {
            FindingState::Ok => "good",
            FindingState::Problem => "bad",
            FindingState::Skipped => "wait",
        };
        Self { tone, finding }
    }
}

pub async fn forget(sent: AccountForm) -> Response {
    if sent.form.text("sure") != "yes" {
        let why = "nothing was removed; tick the box to confirm that you want to remove the account";
        return sent.refuse("forget", "", Failed::new(Exit::Data, why)).await;
    }
    let request = ControlRequest::Forget { address: sent.address.clone(), password: sent.form.secret("password") };
    match sent.site.ask::<Withdrawal>(request).await {
        Ok(withdrawal) => view::shown(&ForgottenPage {
            shell: sent.shell(),
            address: sent.address,
            is_revoked: withdrawal == Withdrawal::Done,
            withdrawal: withdrawal.to_string(),
        }),
        Err(failed) => sent.refuse("forget", "password", failed).await,
    }
}
