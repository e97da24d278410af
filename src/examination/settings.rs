//! Checks an account's record and configuration.

use std::sync::Arc;

use super::finding::Finding;
use crate::broker::{Broker, Connector};
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::flow::Flow;
use crate::config::provider::Endpoints;
use crate::exit::{Exit, Failed};
use crate::oauth::Registration;
use crate::vault::{StoredAccount, VaultError};

/// The known properties of an account without its tokens.
pub struct Known {
    pub record: Arc<StoredAccount>,
    pub connector: Arc<Connector>,
    pub endpoints: Endpoints,
}

/// Checks record, vault, provider and client registration. None if one of them prevents all further checks.
pub async fn examine(broker: &Broker, address: &str, findings: &mut Vec<Finding>) -> Option<Known> {
    let owner = &broker.resolve(address).owner;
    let Some(record) = broker.context.vault.account(owner) else {
        findings.push(missing(broker, owner));
        return None;
    };
    findings.push(account(address, &record));
    findings.push(vault(broker, &record));
    let connector = match broker.accounts.connector(&record.provider) {
        Ok(connector) => connector,
        Err(refusal) => {
            findings.push(Finding::problem("provider", Exit::Config, refusal.text));
            return None;
        }
    };
    let endpoints = match &record.discovered {
        Some(discovered) => connector.provider.endpoints.or(&discovered.endpoints),
        None => connector.provider.endpoints.clone(),
    };
    let known = Known { record, connector, endpoints };
    findings.push(client(broker, &known).await);
    Some(known)
}

fn missing(broker: &Broker, address: &str) -> Finding {
    let is_damaged = broker.context.vault.damaged().iter().any(|damaged| damaged == address);
    let error = if is_damaged { VaultError::Damaged } else { VaultError::NoAccount };
    let Failed { exit, message } = error(address.to_owned()).into();
    Finding::problem("account", exit, message)
}

fn account(address: &str, record: &StoredAccount) -> Finding {
    let slots = match record.slots.len() {
        1 => "1 app password".to_owned(),
        count => format!("{count} app passwords"),
    };
    let (owner, provider, flow, since) = (&record.address, &record.provider, record.flow.name(), record.authorized);
    let delegate = if owner == address { String::new() } else { format!(", which uses the authorization of {owner}") };
    Finding::ok("account", format!("{address}{delegate}, provider {provider}, by {flow}, authorized {since}, {slots}"))
}

fn vault(broker: &Broker, record: &StoredAccount) -> Finding {
    const SUBJECT: &str = "vault";
    if let Some(trouble) = broker.context.vault.trouble() {
        let (since, why) = (trouble.since, trouble.why);
        let text = match broker.context.vault.is_shared() {
            true => format!("nothing can be changed since {since}: {why}; see the log of the database"),
            false => format!(
                "the newest tokens have not been on stable storage since {since}: {why}; free space, or repair the disk"
            ),
        };
        return Finding::problem(SUBJECT, Exit::Io, text);
    }
    if record.doubtful {
        return Finding::ok(
            SUBJECT,
            "one copy of the record was damaged, and the other may be older; the next lines show whether it works",
        );
    }
    Finding::ok(SUBJECT, "the account's record can be read and written")
}

async fn client(broker: &Broker, known: &Known) -> Finding {
    const SUBJECT: &str = "client registration";
    let Known { record, connector, endpoints } = known;
    let (address, provider) = (&record.address, &connector.provider.name);
    let Some(token_endpoint) = &endpoints.token else {
        let text = format!("the token endpoint of {provider} is not known; run `postkey authorize {address}`");
        return Finding::problem(SUBJECT, Exit::Config, text);
    };
    let client = match &record.client_id {
        Some(id) => ClientRegistration { id: id.clone(), authentication: ClientAuthentication::None },
        None => match broker.config().client_for(address, &connector.provider) {
            Some(client) => client,
            // Its assertion identifies the client.
            None if record.flow == Flow::JwtBearer => return Finding::ok(SUBJECT, "none, and none is needed"),
            None => {
                let text = format!("the configuration no longer has a client_id for {provider}; restore it");
                return Finding::problem(SUBJECT, Exit::Config, text);
            }
        },
    };
    match Registration::new(&client, token_endpoint).await {
        Err(failure) => Finding::problem(SUBJECT, Exit::Config, failure.to_string()),
        Ok(_) if record.client_id.is_some() => Finding::ok(SUBJECT, format!("{}, stored with the account", client.id)),
        Ok(_) => Finding::ok(
            SUBJECT,
            format!("{}, from the configuration; its secret, if it has one, can be read", client.id),
        ),
    }
}
