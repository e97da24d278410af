//! `[vault]`: the database that several replicas share.

use std::borrow::Cow;
use std::path::PathBuf;

use url::Url;

use super::reader::Section;
use super::secret_source;
use crate::config::database::{DatabaseConfig, DatabaseHost};

/// The port of PostgreSQL.
const PORT: u16 = 5432;

const FORM: &str = "must be the URL of a database, such as \"postgresql://postkey@db.example.com/postkey\"";

/// Reads the table. None if it has a mistake.
pub fn read(mut section: Section<'_>) -> Option<DatabaseConfig> {
    section.require(&["postgresql"]);
    let parsed = section.parse("postgresql", database);
    let password = section.get("password").and_then(|value| secret_source::read(&value));
    let ca_file = section.file("ca_file");
    section.finish();
    Some(DatabaseConfig { password, ca_file, ..parsed? })
}

/// Reads a URL in the form of libpq. Its parameters can be `host` (the folder of a Unix socket), `port`, `user` and
/// `sslmode`.
fn database(text: &str) -> Result<DatabaseConfig, String> {
    // libpq accepts a user without a host; URLs do not. The host is among the parameters then.
    let url = Url::parse(&text.replacen("@/", "@localhost/", 1)).map_err(|_| FORM.to_owned())?;
    if !matches!(url.scheme(), "postgresql" | "postgres") {
        return Err(FORM.to_owned());
    }
    if url.password().is_some() {
        return Err("contains a password; remove it, and write it to password".to_owned());
    }
    let mut read = DatabaseConfig {
        host: DatabaseHost::Name(url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned()),
        port: url.port().unwrap_or(PORT),
        user: decoded(url.username()),
        database: decoded(url.path().trim_start_matches('/')),
        is_encrypted: true,
        password: None,
        ca_file: None,
    };
    for (key, value) in url.query_pairs() {
        parameter(&mut read, &key, &value)?;
    }
    complete(read)
}

fn parameter(read: &mut DatabaseConfig, key: &str, value: &str) -> Result<(), String> {
    match (key, value) {
        ("host", folder) if folder.starts_with('/') => read.host = DatabaseHost::Folder(PathBuf::from(folder)),
        ("port", port) => {
            read.port = port.parse().map_err(|_| format!("has the port {port}, which is not a number"))?
        }
        ("user", user) => user.clone_into(&mut read.user),
        ("sslmode", "verify-full") => read.is_encrypted = true,
        ("sslmode", "disable") => read.is_encrypted = false,
        ("sslmode", mode) => {
            return Err(format!(
                "has sslmode={mode}, which does not verify whose server it is; write sslmode=verify-full"
            ));
        }
        ("password", _) => return Err("contains a password; remove it, and write it to password".to_owned()),
        (key, _) => return Err(format!("has the parameter {key}, which postkey does not know; remove it")),
    }
    Ok(())
}

/// Checks what is required beyond the form.
fn complete(mut read: DatabaseConfig) -> Result<DatabaseConfig, String> {
    if let DatabaseHost::Name(name) = &mut read.host {
        // An IPv6 address has brackets in a URL, and nowhere else.
        *name = name.trim_matches(['[', ']']).to_owned();
    }
    if read.user.is_empty() || read.database.is_empty() {
        let what = if read.user.is_empty() { "user" } else { "database" };
        return Err(format!("names no {what}; write \"postgresql://USER@HOST/DATABASE\""));
    }
    // PostgreSQL has no TLS on Unix sockets.
    read.is_encrypted &= read.host.folder().is_none();
    if !read.is_encrypted && !read.host.is_local() {
        return Err("has sslmode=disable, and its host is another machine; write sslmode=verify-full".to_owned());
    }
    Ok(read)
}

/// Decodes the %XX of a URL.
fn decoded(text: &str) -> String {
    // A query decodes `+` as well, which only means itself here.
    let pairs = format!("text={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(pairs.as_bytes()).next().map(|(_, value)| value);
    decoded.unwrap_or(Cow::Borrowed("")).into_owned()
}
