//! A secret: in the file itself, or a table that names another place.

use super::reader::{Section, Value};
use crate::config::secret_source::SecretSource;
use crate::config::words;
use crate::secret::Secret;

/// The names of the places, each a key of the table that may stand for a secret.
const PLACES: [&str; 4] = ["file", "command", "credential", "environment"];

/// Reads a text, or a table that names one place.
pub fn read(value: &Value<'_>) -> Option<SecretSource> {
    if value.is_table() {
        return place(value.section()?);
    }
    let text = value.text()?;
    if value.is_public() {
        value.warn("stands in a file that everybody can read; take their right, or write { file = \"...\" }");
    }
    Some(SecretSource::Text(Secret::new(text.as_bytes().to_vec())))
}

fn place(mut section: Section<'_>) -> Option<SecretSource> {
    let file = section.get("file").and_then(|value| value.secret_file()).map(SecretSource::File);
    let command = section.get("command").and_then(|value| value.command()).map(SecretSource::Command);
    let credential = section.parse("credential", credential).map(SecretSource::Credential);
    let environment = section.text("environment").map(SecretSource::Environment);
    let named = section.count(&PLACES);
    if named != 1 {
        let all = words::listing(&PLACES, "or");
        section.absence(format!("names {named} places; a secret comes from one of {all}"));
    }
    section.finish();
    file.or(command).or(credential).or(environment)
}

fn credential(name: &str) -> Result<String, String> {
    match name.contains('/') || name.starts_with('.') {
        true => Err("is the name of a credential, and no path".to_owned()),
        false => Ok(name.to_owned()),
    }
}
