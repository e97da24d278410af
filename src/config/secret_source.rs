//! Where a secret or a key comes from.

use std::fmt;
use std::path::PathBuf;

use super::reader::{Section, Value};
use super::words;
use crate::secret::Secret;

/// Where a secret or a key comes from. It is read anew whenever it is needed.
#[derive(Clone)]
pub enum SecretSource {
    /// The configuration itself.
    Text(Secret),
    /// A file.
    File(PathBuf),
    /// What a program writes to its standard output: the program and its arguments, run without a shell.
    Command(Vec<String>),
    /// A credential of the service, by its name (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// A variable of the environment, by its name.
    Environment(String),
}

/// The names of the places, each a key of the table that may stand for a secret.
const PLACES: [&str; 4] = ["file", "command", "credential", "environment"];

impl SecretSource {
    /// Reads a text, or a table that names one place.
    pub(super) fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_table() {
            return place(value.section()?);
        }
        let text = value.text()?;
        if value.is_public() {
            value.warn("stands in a file that everybody can read; take their right, or write { file = \"...\" }");
        }
        Some(Self::Text(Secret::new(text.as_bytes().to_vec())))
    }
}

fn place(mut section: Section<'_>) -> Option<SecretSource> {
    let file = section.file("file").map(SecretSource::File);
    let command = section.get("command").map(|value| {
        let words = value.list();
        SecretSource::Command(words.iter().filter_map(|word| word.text().map(str::to_owned)).collect())
    });
    let credential = section.get("credential").and_then(|value| value.parse(credential)).map(SecretSource::Credential);
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

/// For messages; a secret that stands in the configuration is not in them.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("the configuration"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Command(words) => write!(f, "`{}`", words.join(" ")),
            Self::Credential(name) => write!(f, "the credential {name}"),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// The configuration can be shown whole, and a secret is not for showing.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSource({self})")
    }
}
