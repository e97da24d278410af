//! A secret: a text, or a table that names its source.

use super::reader::{Section, Value};
use crate::config::secret_source::SecretSource;
use crate::config::words;
use crate::secret::Secret;

/// The keys of such a table.
const SOURCES: [&str; 4] = ["file", "command", "credential", "environment"];

pub fn read(value: &Value<'_>) -> Option<SecretSource> {
    if value.is_table() {
        return table(value.section()?);
    }
    let text = value.text()?;
    if value.is_public() {
        value.warn("is a secret in a world-readable file; run `chmod o-r` on it, or write { file = \"...\" }");
    }
    Some(SecretSource::Text(Secret::new(text.as_bytes().to_vec())))
}

fn table(mut section: Section<'_>) -> Option<SecretSource> {
    let file = section.get("file").and_then(|value| value.secret_file()).map(SecretSource::File);
    let command = section.get("command").and_then(|value| value.command()).map(SecretSource::Command);
    let credential = section.parse("credential", credential).map(SecretSource::Credential);
    let environment = section.text("environment").map(SecretSource::Environment);
    let named = section.count(&SOURCES);
    if named != 1 {
        let all = words::listing(&SOURCES, "or");
        section.absence(format!("names {named} sources; a secret comes from one of {all}"));
    }
    section.finish();
    file.or(command).or(credential).or(environment)
}

fn credential(name: &str) -> Result<String, String> {
    match name.contains('/') || name.starts_with('.') {
        true => Err("must be the name of a credential, not a path".to_owned()),
        false => Ok(name.to_owned()),
    }
}
