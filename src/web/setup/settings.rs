//! The settings of a mail program: to copy, or as a file where the program reads one.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::entrance::{BrowserSession, OwnSession};
use super::field::Choice;
use super::form::SentForm;
use super::state::SetupState;
use super::view::{self, Shell};
use crate::exit::{Exit, Failed};
use crate::programs::MailProgram;

/// The settings of one program, and a list to choose another one from.
#[derive(Template)]
#[template(path = "program.html")]
pub struct ProgramSettings {
    key: String,
    path: String,
    name: String,
    pub title: &'static str,
    /// The name of the file that the program reads.
    file: Option<&'static str>,
    text: Result<String, String>,
    /// The app password that they contain.
    password: Option<String>,
    chooser: ProgramChooser,
}

/// A list of mail programs, which leads to the settings of the chosen one.
#[derive(Template)]
#[template(path = "chooser.html")]
pub struct ProgramChooser {
    path: String,
    label: &'static str,
    programs: Vec<Choice>,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    shell: Shell,
    address: String,
    path: String,
    settings: ProgramSettings,
}

#[derive(Deserialize)]
pub struct ChosenProgram {
    #[serde(rename = "for")]
    program: Option<String>,
}

/// The mail programs to choose from, with the one marked that was chosen last.
pub fn programs(session: &BrowserSession) -> Vec<Choice> {
    let chosen = session.program();
    let is_served = |program: &MailProgram| !["autoconfig", "autodiscover"].contains(&program.name);
    MailProgram::all().filter(is_served).map(|one| Choice::new(one.name, one.title, &chosen)).collect()
}

impl ProgramChooser {
    pub fn new(session: &BrowserSession, address: &str, label: &'static str) -> Self {
        Self { path: view::account_path(address), label, programs: programs(session) }
    }
}

impl ProgramSettings {
    /// Fills in the settings of the program that was chosen last. Without a password they have a placeholder.
    pub async fn of(site: &SetupState, session: &BrowserSession, address: &str, password: Option<&str>) -> Self {
        let name = session.program();
        let program = MailProgram::find(&name);
        let text = match &program {
            Ok(program) => render(site, address, program, password).await,
            Err(failed) => Err(failed.clone()),
        };
        Self {
            key: session.form_key.clone(),
            path: view::account_path(address),
            name,
            title: program.as_ref().map_or("", |program| program.title),
            file: program.ok().and_then(|program| program.file()),
            text: text.map_err(|failed| view::sentence(&failed.message)),
            password: password.map(str::to_owned),
            chooser: ProgramChooser::new(session, address, "Another mail program"),
        }
    }
}

async fn render(
    site: &SetupState,
    address: &str,
    program: &MailProgram,
    password: Option<&str>,
) -> Result<String, Failed> {
    let (status, account) = site.account(address).await?;
    program.render(&site.served(status, &account), password)
}

pub async fn show(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Query(chosen): Query<ChosenProgram>,
) -> Response {
    let shell = Shell::new(&session, "account");
    let known = async {
        site.account(&address).await?;
        if let Some(name) = &chosen.program {
            session.choose(MailProgram::find(name)?.name);
        }
        Ok::<_, Failed>(())
    };
    let path = view::account_path(&address);
    match known.await {
        Ok(()) => {
            let settings = ProgramSettings::of(&site, &session, &address, None).await;
            view::shown(&SettingsPage { shell, address, path, settings })
        }
        Err(failed) => no_settings(&shell, &failed, &path),
    }
}

/// Sends the settings as a file. The password comes with the form, so it is in no address.
pub async fn download(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(address): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    let password = form.find("password").filter(|password| !password.is_empty());
    let rendered = async {
        let program = MailProgram::find(&form.text("for"))?;
        let missing = || Failed::new(Exit::Usage, format!("{} reads no file with these settings", program.title));
        let file = program.file().ok_or_else(missing)?;
        Ok::<_, Failed>((file, render(&site, &address, &program, password.as_deref()).await?))
    };
    match rendered.await {
        Ok((file, text)) => view::download(file, text),
        Err(failed) => no_settings(&Shell::new(&session, "account"), &failed, &view::account_path(&address)),
    }
}

fn no_settings(shell: &Shell, failed: &Failed, back: &str) -> Response {
    view::failed(shell, StatusCode::UNPROCESSABLE_ENTITY, "No settings", &failed.message, back)
}
