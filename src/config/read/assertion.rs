//! `service_account` and `[provider.NAME.assertion]`: the issuer of assertions for the JWT bearer grant.

use std::time::Duration;

use serde_json::Map;

use super::reader::{Section, Value};
use super::secret_source;
use crate::config::assertion::{Algorithm, AssertionIssuer, Issuer, KeySource};

/// Google's maximum. No provider is known to need more.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// The claims that postkey sets itself, and the key that changes each.
const SET: [(&str, &str); 7] = [
    ("iss", "issuer"),
    ("sub", "subject"),
    ("aud", "audience"),
    ("exp", "lifetime"),
    ("iat", "lifetime"),
    ("scope", "the provider's scope"),
    ("nbf", "lifetime"),
];

pub fn read(section: &mut Section<'_>) -> Option<AssertionIssuer> {
    let service_account = section.get("service_account");
    let assertion = section.get("assertion");
    if let (Some(_), Some(value)) = (&service_account, &assertion) {
        value.mistake("has the same purpose as service_account; remove one of the two");
    }
    match service_account {
        Some(value) => secret_source::read(&value).map(AssertionIssuer::ServiceAccount),
        None => issuer(assertion?.section()?).map(AssertionIssuer::Issuer),
    }
}

pub fn algorithm(section: &mut Section<'_>, key: &'static str) -> Option<Algorithm> {
    section.choice(key, &Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm)))
}

fn issuer(mut section: Section<'_>) -> Option<Issuer> {
    section.require(&["issuer", "key"]);
    let (name, key) = (section.text("issuer"), section.get("key"));
    let lifetime = section.parse("lifetime", lifetime);
    let [audience, subject, key_id] = ["audience", "subject", "key_id"].map(|key| section.text(key));
    let algorithm = algorithm(&mut section, "algorithm");
    let claims = section.get("claims").and_then(|value| claims(&value));
    let password = section.get("key_password").and_then(|value| secret_source::read(&value));
    section.finish();
    Some(Issuer {
        name: name?,
        audience,
        subject,
        lifetime: lifetime.unwrap_or(LONGEST_LIFETIME),
        claims: claims.unwrap_or_default(),
        key: KeySource { file: secret_source::read(&key?)?, password },
        key_id,
        // Google accepts this one.
        algorithm: algorithm.unwrap_or(Algorithm::Rs256),
    })
}

fn claims(value: &Value<'_>) -> Option<Map<String, serde_json::Value>> {
    let serde_json::Value::Object(claims) = value.json()? else { return None };
    for (claim, key) in SET.iter().filter(|(claim, _)| claims.contains_key(*claim)) {
        value.mistake(format!("has {claim}, which postkey sets itself; remove it, and use {key} to change it"));
    }
    Some(claims)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| (Duration::from_secs(60)..=LONGEST_LIFETIME).contains(time));
    time.ok_or_else(|| "must be a time from \"1m\" to \"1h\"".to_owned())
}
