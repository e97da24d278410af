//! The page of an account.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use super::entrance::{BrowserSession, OwnSession};
use super::field::{Choice, Field};
use super::form::SentForm;
use super::overview::AccountCard;
use super::settings::ProgramChooser;
use super::state::SetupState;
use super::view::{self, Shell};
use crate::broker::SlotStatus;
use crate::exit::Failed;
use crate::protocol::Protocol;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    card: AccountCard,
    slots: Vec<SlotStatus>,
    aliases: Vec<String>,
    mailboxes: Vec<String>,
    chooser: ProgramChooser,
    protocols: Vec<Choice>,
    /// An error that is not about a single field.
    alert: Option<String>,
    name: Field,
    uids: Field,
    for_adding: Field,
    actions: Vec<AccountAction>,
    for_forgetting: Field,
}

/// A form with at most one field.
struct AccountAction {
    /// The last segment of its path.
    name: &'static str,
    title: &'static str,
    about: &'static str,
    field: Option<Field>,
    button: &'static str,
}

/// A form that was sent from an account's page.
pub struct AccountForm {
    pub site: Arc<SetupState>,
    session: Arc<BrowserSession>,
    pub address: String,
    pub form: SentForm,
}

/// An error in one of the forms.
struct FormError<'a> {
    form: &'a SentForm,
    action: &'static str,
    /// The field that is wrong; empty if it is none.
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

impl FromRequestParts<Arc<SetupState>> for AccountForm {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<SetupState>) -> Result<Self, Response> {
        type Extracted = (OwnSession, Path<String>, Extension<SentForm>);
        let (Extension(session), Path(address), Extension(form)) = Extracted::from_request_parts(parts, site).await?;
        Ok(Self { site: Arc::clone(site), session, address, form })
    }
}

impl AccountForm {
    pub fn shell(&self) -> Shell {
        Shell::new(&self.session, "account")
    }

    pub fn path(&self) -> String {
        view::account_path(&self.address)
    }

    pub fn chooser(&self, label: &'static str) -> ProgramChooser {
        ProgramChooser::new(&self.session, &self.address, label)
    }

    /// Shows the account's page again, with an error in this form.
    pub async fn refuse(&self, action: &'static str, field: &'static str, failed: Failed) -> Response {
        let error = FormError { form: &self.form, action, field, why: failed.message };
        present(&self.site, &self.session, &self.address, Some(error)).await
    }
}

/// Renders the page of an account.
async fn present(site: &SetupState, session: &BrowserSession, address: &str, error: Option<FormError<'_>>) -> Response {
    let shell = Shell::new(session, "account");
    let status = match site.account(address).await {
        Ok((_, account)) => account,
        Err(failed) => return view::failed(&shell, StatusCode::NOT_FOUND, "No such account", &failed.message, "/"),
    };
    let of_action = |action: &str| error.as_ref().filter(|error| error.action == action);
    let typed = |action: &str, name: &str| of_action(action).map(|it| it.form.text(name)).unwrap_or_default();
    let wrong = |action: &str, name: &str| of_action(action).filter(|it| it.field == name).map(|it| it.why.as_str());
    let password = |action: &'static str, label: &str| {
        Field::new(action, "password", label).secret().error(wrong(action, "password"))
    };
    let checked = error.as_ref().map(|error| error.form.all("protocol")).unwrap_or_default();
    let protocol = |one: Protocol| Choice {
        value: one.name().to_owned(),
        label: one.to_string(),
        chosen: checked.iter().any(|name| name == one.name()),
    };
    let page = AccountPage {
        card: AccountCard::new(&status, site.control.broker.context.now()),
        chooser: ProgramChooser::new(session, &status.address, "Mail program"),
        protocols: Protocol::ALL.map(protocol).into(),
        alert: error.as_ref().filter(|error| error.field.is_empty()).map(|error| view::sentence(&error.why)),
        name: Field::new("add", "name", "Name")
            .hint("The mail program or device that it is for.")
            .value(typed("add", "name"))
            .error(wrong("add", "name")),
        uids: Field::new("add", "uids", "Only for these users of this machine")
            .hint("Names or numbers, with blanks between them.")
            .value(typed("add", "uids"))
            .error(wrong("add", "uids"))
            .optional(),
        for_adding: password("add", WORKING).hint("It opens the vault, so that another one can be added."),
        actions: actions(password),
        for_forgetting: password("forget", ANY)
            .optional()
            .hint("With it, the authorization at the provider is revoked, too, even if no mail program has logged in."),
        slots: status.slots,
        aliases: status.aliases,
        mailboxes: status.mailboxes,
        shell,
    };
    let code = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    view::page(code, &page)
}

/// The labels of the field for an app password.
const WORKING: &str = "An app password that works now";
const ANY: &str = "An app password";

fn actions(password: impl Fn(&'static str, &str) -> Field) -> Vec<AccountAction> {
    let for_doctor = password("doctor", ANY).optional().hint("Without it, the tokens and the logins are not checked.");
    vec![
        AccountAction {
            name: "sign-in",
            title: "Sign in again",
            about: "Renews the authorization at the provider. App passwords stay.",
            field: None,
            button: "Sign in again",
        },
        AccountAction {
            name: "test",
            title: "Test",
            about: "Logs in to each of the provider's servers.",
            field: Some(password("test", WORKING)),
            button: "Test",
        },
        AccountAction {
            name: "doctor",
            title: "Doctor",
            about: "Finds out why an account does not work. The report contains no secrets, so you can show it to others.",
            field: Some(for_doctor),
            button: "Examine",
        },
    ]
}
