//! Keys that several tables have.

use std::collections::BTreeMap;

use url::Host;

use super::reader::{Section, Value};
use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::config::provider::{ConnectionLimits, Providers};
use crate::config::{UNKNOWN_USER, Users, uid_of, words};
use crate::protocol::Protocol;

/// A larger number of connections would not limit anything.
const MOST: u32 = 10_000;

const LIMIT: &str = "a number of connections from 1 to 10000, or \"none\"";

/// The parameters of an authorization request that postkey sets itself.
const OWN_PARAMETERS: [&str; 9] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "login_hint",
    "nonce",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
];

pub fn flow(section: &mut Section<'_>, legacy: bool) -> Option<Flow> {
    let value = section.get("flow")?;
    let flow = value.choice(&Flow::ALL.map(|flow| (flow.name(), flow)))?;
    if flow == Flow::Password && !legacy {
        value.mistake("gives the mailbox's own password to postkey; if there is no other way, add legacy = true");
    }
    Some(flow)
}

/// Whether the password grant may be used.
pub fn legacy(section: &mut Section<'_>) -> bool {
    let Some(value) = section.get("legacy") else { return false };
    let legacy = value.flag().unwrap_or_default();
    if legacy {
        value.warn(
            "lets postkey store a mailbox's own password, which opens more than mail; use another grant if possible",
        );
    }
    legacy
}

/// The name of a provider that exists.
pub fn provider(section: &mut Section<'_>, providers: &Providers) -> Option<String> {
    let value = section.get("provider")?;
    let name = value.text()?;
    if !providers.contains_key(name) {
        let names: Vec<&str> = providers.keys().map(String::as_str).collect();
        value.absence(format!("there is no provider \"{name}\"; {}", words::did_you_mean(name, &names)));
    }
    Some(name.to_owned())
}

/// `client_expires`: the beginning of a day, in UTC.
pub fn client_expires(section: &mut Section<'_>) -> Option<Moment> {
    section.parse("client_expires", |text| {
        let refusal = "must be a day such as \"2027-01-31\"".to_owned();
        let time = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).map_err(|_| refusal.clone())?;
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| refusal)?;
        Ok(Moment(since.as_secs()))
    })
}

/// The name of a host, in lower case; an international one in its ASCII form.
pub fn host_name(text: &str) -> Option<String> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !name.contains('*') => Some(name),
        _ => None,
    }
}

pub fn scope(section: &mut Section<'_>) -> Option<Vec<String>> {
    // RFC 6749 section 3.3 separates scopes by spaces.
    let one = |text: &str| match text.contains(char::is_whitespace) {
        true => Err("has several scopes in one text; write a list, [\"one\", \"two\"]".to_owned()),
        false => Ok(text.to_owned()),
    };
    section.list("scope", |value| value.parse(one))
}

/// `authorization_parameters`
pub fn parameters(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for (name, value) in section.section("authorization_parameters").iter().flat_map(Section::named) {
        if OWN_PARAMETERS.contains(&name) {
            value.mistake("is a parameter that postkey sets itself; remove it");
        }
        parameters.extend(value.text().map(|text| (name.to_owned(), text.to_owned())));
    }
    parameters
}

/// Reads one value for all protocols, or a table with a value for each.
pub fn by_protocol<T: Clone>(
    section: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> BTreeMap<Protocol, T> {
    let Some(value) = section.get(key) else { return BTreeMap::new() };
    let Some(mut table) = value.is_table().then(|| value.section()).flatten() else {
        let all = read(&value);
        return Protocol::ALL.iter().filter_map(|protocol| Some((*protocol, all.clone()?))).collect();
    };
    let one = |protocol: &Protocol| Some((*protocol, read(&table.get(protocol.name())?)?));
    let values = Protocol::ALL.iter().filter_map(one).collect();
    table.finish();
    values
}

pub fn connections(section: &mut Section<'_>) -> ConnectionLimits {
    by_protocol(section, "connections", |value| {
        if value.integer().is_none() {
            let none = |text: &str| text.eq_ignore_ascii_case("none").then_some(None);
            return value.parse(|text| none(text).ok_or_else(|| format!("must be {LIMIT}")));
        }
        usize::try_from(value.whole(LIMIT, 1..=MOST)?).ok().map(Some)
    })
}

/// Reads users of this machine: a number, a name, or a list of both.
pub fn users(section: &mut Section<'_>, key: &'static str) -> Users {
    let Some(value) = section.get(key) else { return Users::default() };
    let values = if value.integer().is_some() { vec![value] } else { value.list() };
    Users::only(values.iter().filter_map(user).collect())
}

fn user(value: &Value<'_>) -> Option<u32> {
    let user = match value.integer() {
        Some(text) => {
            value.judge(text.parse().map_err(|_| "must be a user's number, or its name in quotes".to_owned()))
        }
        None => value.parse(uid_of),
    };
    if user == Some(UNKNOWN_USER) {
        value.mistake(format!(
            "is {UNKNOWN_USER}, which stands for all users that the kernel cannot identify; name another user"
        ));
    }
    user
}
