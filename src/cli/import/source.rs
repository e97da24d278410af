//! Reads the files of other programs, and finds out by their content what they are.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::{ImportedAccount, ImportedFiles, ImportedTokens};
use super::davmail::Properties;
use super::emailproxy::{self, Emailproxy};
use super::ini::Ini;
use super::json::{Json, JsonKind};
use super::oama::Services;
use super::{oama, pizauth};
use crate::exit::{Exit, Failed};
use crate::oauth::refresh::pasted;
use crate::pasted::decoded;
use crate::secret::Secret;

/// The largest file to read, in bytes. An account of email-oauth2-proxy with its tokens takes some 10 KiB.
const MOST: u64 = 8 * 1024 * 1024;

/// What postkey can import, for messages.
const KNOWN: &str = "the configuration and the cache store of email-oauth2-proxy, token files of sasl-xoauth2, mutt_oauth2.py and \
                     oama and the configurations of the first and the last, the configuration and the dump of pizauth, \
                     davmail.properties, and a refresh token by itself";

/// The first bytes of a message of OpenPGP (RFC 9580 section 4.2) with a session key: old packets and new ones.
const OPENPGP: [u8; 6] = [0x84, 0x85, 0x86, 0x8c, 0xc1, 0xc3];

/// A file, read while the command still has the rights of whoever runs it.
pub struct Contents {
    pub path: PathBuf,
    text: Secret,
    kind: Kind,
}

/// What a file is.
enum Kind {
    Emailproxy(Ini),
    EmailproxyCache(Ini),
    Json(JsonKind, Json),
    Oama(Services),
    Pizauth,
    PizauthDump,
    DavMail(Properties),
    DavMailTokens(Properties),
    RefreshToken,
}

impl Contents {
    pub fn read(path: &Path, decrypt: Option<&str>) -> Result<Self, Failed> {
        if let Some(name) = path.to_str().and_then(|path| path.strip_prefix("aws:")) {
            return Err(Failed::new(
                Exit::Usage,
                format!(
                    "postkey does not read from AWS; save the secret as a file with `aws secretsmanager get-secret-value \
                     --secret-id {name} --query SecretString --output text`, and import that file"
                ),
            ));
        }
        let text = read_file(path).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file".to_owned(),
                io::ErrorKind::IsADirectory => "it is a folder; name the file in it".to_owned(),
                _ => error.to_string(),
            };
            Failed::new(Exit::Io, format!("cannot read {}: {why}", path.display()))
        })?;
        match (recognize(&text), decrypt) {
            (Ok(kind), _) => Ok(Self { path: path.to_owned(), text, kind }),
            (Err(_), Some(command)) => {
                let text = decrypted(command, &text).map_err(|why| unusable(path, &why))?;
                let kind = recognize(&text).map_err(|why| unusable(path, &format!("after `{command}`, {why}")))?;
                Ok(Self { path: path.to_owned(), text, kind })
            }
            (Err(why), None) => Err(unusable(path, &why)),
        }
    }

    fn unusable(&self, why: &str) -> Failed {
        unusable(&self.path, why)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.text.expose()).unwrap_or_default()
    }
}

fn unusable(path: &Path, why: &str) -> Failed {
    Failed::new(Exit::Data, format!("cannot import {}: {why}; nothing was changed", path.display()))
}

fn read_file(path: &Path) -> io::Result<Secret> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    std::fs::File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST {
        true => Err(io::Error::other("it is larger than 8 MiB, so it is none of the files that postkey can import")),
        false => Ok(Secret::new(decoded(&bytes).into_owned())),
    }
}

/// Runs the user's own command in a shell, with the user's environment, because it may talk to an agent or ask on the
/// terminal.
fn decrypted(command: &str, text: &Secret) -> Result<Secret, String> {
    let failed = |error: io::Error| format!("the command `{command}` failed: {error}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, bytes) = (child.stdin.take(), text.clone());
    // In a thread of its own, because the command may write before it has read everything.
    let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(bytes.expose())));
    let output = child.wait_with_output().map_err(failed)?;
    let _written = writer.join();
    match output.status.success() {
        true => Ok(Secret::new(decoded(&output.stdout).into_owned())),
        false => Err(format!("the command `{command}` failed with {}; see above", output.status)),
    }
}

/// Finds out what a file is. The error says what it is instead, or where it is damaged.
fn recognize(bytes: &Secret) -> Result<Kind, String> {
    if let Some(dump) = pizauth::dump(bytes.expose()) {
        return dump.map(|_| Kind::PizauthDump);
    }
    let is_pgp = bytes.expose().first().is_some_and(|first| OPENPGP.contains(first));
    let Ok(text) = std::str::from_utf8(bytes.expose()) else {
        return Err(if is_pgp {
            pgp()
        } else {
            format!("it is not text in UTF-8, and not a dump of pizauth. {}", unknown())
        });
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    match lines.next() {
        None => Err("it is empty".to_owned()),
        Some(line) if line.starts_with("-----BEGIN PGP MESSAGE") => Err(pgp()),
        Some(line) if line.starts_with('[') => recognize_ini(text),
        Some(line) if line.starts_with('{') => recognize_json(text),
        Some(_) if pizauth::is_configuration(text) => Ok(Kind::Pizauth),
        Some(_) if oama::is_configuration(text) => Ok(Kind::Oama(Services::read(text))),
        Some(first) => match Properties::read(text) {
            properties if properties.is_token_file() => Ok(Kind::DavMailTokens(properties)),
            properties if properties.is_configuration() => Ok(Kind::DavMail(properties)),
            _ if lines.next().is_none() && is_token(first) => Ok(Kind::RefreshToken),
            _ => Err(unknown()),
        },
    }
}

/// Whether a line can be a refresh token: in practice they are long and have only these signs.
fn is_token(line: &str) -> bool {
    let is_usual = |letter: char| letter.is_ascii_alphanumeric() || "-._~+/=!*$".contains(letter);
    line.len() >= 20 && line.chars().all(is_usual)
}

fn recognize_ini(text: &str) -> Result<Kind, String> {
    match Ini::read(text) {
        Ok(ini) if emailproxy::is_cache(&ini) => Ok(Kind::EmailproxyCache(ini)),
        Ok(ini) if emailproxy::is_configuration(&ini) => Ok(Kind::Emailproxy(ini)),
        Ok(_) => Err(unknown()),
        Err((line, why)) => Err(format!("line {line} is damaged: {why}")),
    }
}

fn recognize_json(text: &str) -> Result<Kind, String> {
    let json = Json::read(text).ok_or("it begins like JSON but is damaged")?;
    if let Some(cache) = emailproxy::cache_of(&json.0) {
        return Ok(Kind::EmailproxyCache(cache));
    }
    json.kind().map(|kind| Kind::Json(kind, json)).ok_or_else(unknown)
}

fn unknown() -> String {
    format!("it is none of the files that postkey can import, which are {KNOWN}")
}

fn pgp() -> String {
    "it is encrypted with OpenPGP; add `--decrypt-command 'gpg --decrypt'`".to_owned()
}

/// Reads all files, with those of one program together.
pub fn read(files: &[Contents]) -> Result<Vec<ImportedFiles>, Failed> {
    let mut found = emailproxies(files)?;
    let general = files.iter().find_map(|file| match &file.kind {
        Kind::Json(JsonKind::SaslXoauth2Configuration, json) => Some(json),
        _ => None,
    });
    let davmail_tokens = files.iter().find_map(|file| match &file.kind {
        Kind::DavMailTokens(tokens) => Some(tokens),
        _ => None,
    });
    // A dump has all that the configuration says.
    let has_dump = files.iter().any(|file| matches!(file.kind, Kind::PizauthDump));
    for file in files {
        match &file.kind {
            Kind::Json(JsonKind::SaslXoauth2Configuration, _) => {}
            Kind::Pizauth if has_dump => {}
            Kind::Json(kind, json) => {
                found.push(json.found(*kind, &file.path, general).map_err(|why| file.unusable(&why))?);
            }
            Kind::Pizauth => found.push(pizauth::configuration(file.text())),
            Kind::DavMail(properties) => found.push(properties.found(davmail_tokens)),
            Kind::RefreshToken => found.push(refresh_token(file)?),
            Kind::PizauthDump => found.extend(pizauth::dump(file.text.expose()).and_then(Result::ok)),
            _ => {}
        }
    }
    complete_oama(files, &mut found);
    match found.is_empty() {
        true => Err(Failed::new(
            Exit::Data,
            "these files have no tokens and no accounts; name the token files as well, in the same command. Nothing was changed",
        )),
        false => Ok(found),
    }
}

fn emailproxies(files: &[Contents]) -> Result<Vec<ImportedFiles>, Failed> {
    let mut proxies = Vec::new();
    for file in files {
        if let Kind::Emailproxy(ini) = &file.kind {
            proxies.push(Emailproxy::new(&file.path, ini.clone())?);
        }
    }
    for file in files {
        let Kind::EmailproxyCache(cache) = &file.kind else { continue };
        if proxies.is_empty() {
            let why =
                "it has only the tokens of email-oauth2-proxy; name its emailproxy.config as well, in the same command";
            return Err(file.unusable(why));
        }
        proxies.iter_mut().for_each(|proxy| proxy.add_cache(cache));
    }
    Ok(proxies.iter().map(Emailproxy::found).collect())
}

/// A file with nothing but a refresh token; the command line says whose it is.
fn refresh_token(file: &Contents) -> Result<ImportedFiles, Failed> {
    let token = pasted(file.text()).map_err(|why| file.unusable(&why))?;
    let account = ImportedAccount { tokens: ImportedTokens::Open(token), ..ImportedAccount::default() };
    Ok(ImportedFiles { program: "refresh token", accounts: vec![account], ..ImportedFiles::default() })
}

/// oama's token files name services, which its configuration describes. The usual ones are known without it.
fn complete_oama(files: &[Contents], found: &mut [ImportedFiles]) {
    let none = Services::default();
    let services = files.iter().find_map(|file| match &file.kind {
        Kind::Oama(services) => Some(services),
        _ => None,
    });
    for found in found.iter_mut().filter(|found| found.program == "oama") {
        for account in &mut found.accounts {
            found.warnings.extend(services.unwrap_or(&none).complete(account));
        }
    }
}
