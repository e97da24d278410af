//! The page of the configuration. It shows the file's content and does not change it.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::entrance::OwnSession;
use super::registration::{RegistrationSteps, StepPart};
use super::state::SetupState;
use super::view::{self, Shell};

#[derive(Template)]
#[template(path = "configuration.html")]
struct ConfigurationPage {
    shell: Shell,
    state_dir: String,
    control_socket: String,
    listeners: Vec<String>,
    warnings: Vec<String>,
    providers: Vec<ProviderLine>,
    aliases: Vec<(String, String)>,
}

struct ProviderLine {
    name: String,
    client: String,
}

#[derive(Template)]
#[template(path = "provider.html")]
struct ProviderPage {
    shell: Shell,
    steps: RegistrationSteps,
    client: Option<String>,
    accounts: Vec<String>,
}

pub async fn show(State(site): State<Arc<SetupState>>, Extension(session): OwnSession) -> Response {
    let config = site.control.broker.config();
    let listener =
        |one: crate::config::Listening| format!("{} {} security {}", one.protocol, one.address, one.security.name());
    let provider = |one: &crate::config::provider::Provider| ProviderLine {
        name: one.name.clone(),
        client: one.client.as_ref().map(|client| client.id.clone()).unwrap_or_default(),
    };
    view::shown(&ConfigurationPage {
        shell: Shell::new(&session, "configuration"),
        state_dir: config.state_dir.display().to_string(),
        control_socket: config.control_socket.display().to_string(),
        listeners: config.listening().into_iter().map(listener).collect(),
        warnings: config.warnings.iter().map(|warning| view::sentence(&warning.to_string())).collect(),
        providers: config.providers.values().map(AsRef::as_ref).map(provider).collect(),
        aliases: config.aliases.iter().map(|(alias, of)| (alias.to_string(), of.to_string())).collect(),
    })
}

pub async fn provider(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(name): Path<String>,
) -> Response {
    let shell = Shell::new(&session, "configuration");
    let config = site.control.broker.config();
    let Some(provider) = config.providers.get(&name) else {
        let why = "the configuration has no provider of this name";
        return view::failed(&shell, StatusCode::NOT_FOUND, "Not found", why, "/configuration");
    };
    let configured = provider.client.as_ref().map(|client| client.id.clone());
    let typed = || site.control.broker.typed_client(&name).map(|client| client.id);
    let status = site.status().await.unwrap_or_default();
    let accounts = status.accounts.into_iter().filter(|account| account.provider == name);
    view::shown(&ProviderPage {
        steps: RegistrationSteps::of(provider),
        client: configured.or_else(typed),
        accounts: accounts.map(|account| account.address).collect(),
        shell,
    })
}
