//! Shows what an import would do, and what remains to be done after it.

use super::super::admin::AdminClient;
use super::super::arguments::ImportOptions;
use super::super::settings::listening;
use super::super::terminal::say;
use super::account::{ImportedAccount, ImportedTokens};
use super::plan::{Fate, ImportPlan, PlannedAccount};
use crate::config::Config;

pub fn plan(plan: &ImportPlan, options: &ImportOptions) {
    for planned in &plan.accounts {
        account(planned, options);
    }
    ports(plan, options);
    for (program, why) in &plan.left {
        say(format_args!("\nNot taken over from {program}: {why}."));
    }
    for warning in &plan.warnings {
        say(format_args!("\nNote: {warning}."));
    }
    if !plan.block.is_empty() {
        let file = plan.file.display();
        match &plan.addition {
            Some(_) => say(format_args!("\nThis is added to {file}:")),
            None => say(format_args!("\n{file} needs these tables; `--write` adds them:")),
        }
        say(plan.block.shown.trim_end());
    }
    if plan.importable().next().is_some() {
        let programs = plan.programs.join(" and ");
        say(format_args!(
            "\nStop {programs} first, and do not use it with these accounts again: many providers replace a refresh token when \
             it is used, and then only postkey has one that works. The files of {programs} stay as they are."
        ));
    }
}

fn account(planned: &PlannedAccount, options: &ImportOptions) {
    let PlannedAccount { program, account, fate } = planned;
    say(format_args!("\n{} ({program})", account.address));
    let provider = match fate {
        Fate::Exists => return say("  is already in postkey and stays as it is; `postkey forget` removes it first"),
        Fate::Impossible(why) => return say(format_args!("  cannot be imported: {why}")),
        Fate::Import(provider) | Fate::SignIn(provider) => provider,
    };
    say(format_args!("  provider  {provider}"));
    if let Some(client) = &account.client_id {
        say(format_args!("  client    {client}{}", proof(account)));
    }
    match (fate, &account.tokens) {
        (Fate::SignIn(_), _) => {
            let secret = if account.client_secret.is_some() { " --client-secret-file FILE" } else { "" };
            let client = account.client_id.as_ref().map(|id| format!(" --client-id {id}{secret}")).unwrap_or_default();
            say("  tokens    none in these files, so somebody has to sign in once:");
            say(format_args!("            postkey authorize {} --provider {provider}{client}", account.address));
        }
        (_, ImportedTokens::Locked(_)) if options.new_password => {
            say("  tokens    taken over, opened with the password of its mail programs");
            say("  password  a new one, to be entered in its mail programs");
        }
        (_, ImportedTokens::Locked(_)) => {
            say("  tokens    taken over; nobody has to sign in again");
            say("  password  the one that its mail programs already have");
        }
        _ => {
            say("  tokens    taken over; nobody has to sign in again");
            say("  password  a new one, to be entered in its mail programs");
        }
    }
}

fn proof(account: &ImportedAccount) -> &'static str {
    match (&account.client_secret, &account.client_key) {
        (Some(_), _) => ", with its secret",
        (None, Some(_)) => ", with its certificate",
        (None, None) => "",
    }
}

fn ports(plan: &ImportPlan, options: &ImportOptions) {
    if plan.listeners.is_empty() {
        return;
    }
    match options.keep_ports {
        true => say("\nPorts that postkey takes over:"),
        false => say("\nPorts, which postkey takes over with `--keep-ports`:"),
    }
    for port in &plan.listeners {
        let listener = &port.listener;
        let provider = port.provider.as_deref().map(|name| format!(", for {name} only")).unwrap_or_default();
        say(format_args!("  {:<5} {:<5} to {}{provider}", listener.protocol, listener.port, listener.server.host));
    }
}

/// What to do after an import.
pub async fn end(plan: &ImportPlan, config: &Config, options: &ImportOptions) {
    let status = match AdminClient::connect(config).await {
        Ok(admin) => admin.status().await.unwrap_or_default(),
        Err(_) => return,
    };
    match options.keep_ports && !plan.listeners.is_empty() {
        true => say("\nMail programs keep all their settings."),
        false => {
            say("\nMail programs connect to these ports:");
            for listening in &listening(config, &status) {
                say(format_args!(
                    "  {:<5} {}, security {}",
                    listening.protocol,
                    listening.address,
                    listening.security.name()
                ));
            }
        }
    }
    if status.listeners.is_empty() {
        say("\nNo daemon is running yet; start it with `postkey`, once the other program has stopped.");
    }
}
