//! Checks the account's limit of connections, and whether the provider has asked for a pause.

use super::finding::Finding;
use crate::broker::{AccountStatus, Backoff, Occupancy};
use crate::exit::Exit;

/// Describes the connections of the account, and a pause that the provider asked for. Nothing if there is neither.
pub fn examine(AccountStatus { connections, backoff, .. }: &AccountStatus) -> Vec<Finding> {
    let limited: Vec<String> = connections.iter().filter_map(limited).collect();
    let limits = match () {
        () if limited.is_empty() => None,
        () if connections.iter().any(|one| one.waiting > 0) => {
            let text =
                format!("{}; close mail programs, or correct connections in the configuration", limited.join("; "));
            Some(Finding::problem("connections", Exit::Temporary, text))
        }
        () => Some(Finding::ok("connections", limited.join("; "))),
    };
    let pause = backoff.as_ref().map(|Backoff { until, why }| {
        let text = format!("the provider wants no logins until {until}: {why}");
        Finding::problem("rate limit", Exit::Temporary, text)
    });
    limits.into_iter().chain(pause).collect()
}

fn limited(Occupancy { protocol, open, limit, waiting }: &Occupancy) -> Option<String> {
    Some(format!("{protocol} {open} of {}, {waiting} waiting", (*limit)?))
}
