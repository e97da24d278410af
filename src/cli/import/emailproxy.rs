//! email-oauth2-proxy: `emailproxy.config`, and the file of its `--cache-store`.
//!
//! Both are INI files. A section whose name contains an @ is an account, `[IMAP-1993]` a local port. With
//! `allow_catch_all_accounts`, the section of a domain (`[@example.com]`) and the one of everybody (`[@]`) have the
//! options that an account leaves out.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use url::Url;

use super::account::{ClientSecret, ImportedAccount, ImportedFiles, ImportedListener, ImportedTokens, Lock, signs_in};
use super::ini::Ini;
use super::lock::Fernet;
use crate::config::flow::Flow;
use crate::config::provider::{Endpoints, MailServer};
use crate::config::secret_source::SecretSource;
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::protocol::{Protocol, Security};
use crate::secret::Secret;

/// The section with the program's own options.
const OWN: &str = "emailproxy";

/// The section of everybody.
const EVERYBODY: &str = "@";

/// The options that its cache store keeps.
const CACHED: [&str; 7] = [
    "access_token",
    "access_token_expiry",
    "refresh_token",
    "token_salt",
    "token_iterations",
    "client_secret_encrypted",
    "last_activity",
];

/// How often it derives a key: by default, and in files without `token_iterations`, which are from before October 2023.
const ROUNDS: u32 = 1_200_000;
const OLD_ROUNDS: u32 = 100_000;

/// Its files of one import.
pub struct Emailproxy {
    /// For messages, and the base of relative paths.
    file: PathBuf,
    ini: Ini,
    has_catch_all: bool,
}

/// Whether this is its configuration: it has a port, or an account with an endpoint.
pub fn is_configuration(ini: &Ini) -> bool {
    ini.sections()
        .any(|name| name == OWN || port(name).is_some() || name.contains('@') && ini.get(name, "token_url").is_some())
}

/// Whether this is the file of its cache store, which has only tokens.
pub fn is_cache(ini: &Ini) -> bool {
    let is_account = |name: &str| name.contains('@') && ini.names(name).all(|option| CACHED.contains(&option));
    ini.sections().next().is_some() && ini.sections().all(is_account)
}

/// Reads a cache store that was in AWS Secrets Manager: the same as JSON.
pub fn cache_of(json: &Map<String, Value>) -> Option<Ini> {
    let mut cache = Ini::default();
    for (account, options) in json {
        for (option, value) in options.as_object().filter(|_| account.contains('@'))? {
            cache.set(account, option, value.as_str()?);
        }
    }
    is_cache(&cache).then_some(cache)
}

/// The protocol and the port of a section such as `[IMAP-1993]`.
fn port(section: &str) -> Option<(Protocol, &str)> {
    let names = [("IMAP-", Protocol::Imap), ("POP-", Protocol::Pop3), ("SMTP-", Protocol::Smtp)];
    let (port, protocol) = names.into_iter().find_map(|(start, one)| Some((section.strip_prefix(start)?, one)))?;
    (!port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())).then_some((protocol, port))
}

impl Emailproxy {
    pub fn new(file: &Path, ini: Ini) -> Result<Self, Failed> {
        let mut proxy = Self { file: file.to_owned(), ini, has_catch_all: false };
        proxy.has_catch_all =
            proxy.flag(OWN, "allow_catch_all_accounts").map_err(|why| Failed::new(Exit::Data, why))?;
        Ok(proxy)
    }

    /// Adds the tokens of its cache store, as the program does when it starts.
    pub fn add_cache(&mut self, cache: &Ini) {
        for account in cache.sections().filter(|name| name.contains('@')) {
            if !self.has_catch_all && !self.ini.sections().any(|known| known == account) {
                continue;
            }
            for option in CACHED {
                if let Some(value) = cache.get(account, option) {
                    self.ini.set(account, option, value);
                }
            }
        }
    }

    pub fn found(&self) -> ImportedFiles {
        let mut found = ImportedFiles { program: "email-oauth2-proxy", ..ImportedFiles::default() };
        for name in self.ini.sections() {
            match (name.strip_prefix('@'), port(name)) {
                (Some(_), _) if !self.has_catch_all => {
                    found.left.push(format!("[{name}] has no effect, because allow_catch_all_accounts is not set"));
                }
                (Some(""), _) => found.left.push(
                    "[@] is for every address, and postkey has entries for one domain each; add \
                     [account.\"*@example.com\"] for each domain"
                        .to_owned(),
                ),
                (Some(domain), _) => self.add(&format!("*@{domain}"), name, &mut found),
                (None, _) if name.contains('@') => self.add(name, name, &mut found),
                (None, Some((protocol, port))) => match self.listener(name, protocol, port) {
                    Ok(listener) => found.listeners.push(listener),
                    Err(why) => found.left.push(format!("[{name}] cannot be used: {why}")),
                },
                _ => {}
            }
        }
        self.name_plug_ins(&mut found);
        found
    }

    /// Its variant with plug-ins has them as options of ports.
    fn name_plug_ins(&self, found: &mut ImportedFiles) {
        for name in self.ini.sections().filter(|name| self.ini.get(name, "plugins").is_some()) {
            found.left.push(format!("the plug-ins of [{name}]: postkey passes mail on unchanged and has none"));
        }
    }

    /// Reads an account, or the settings of a domain.
    fn add(&self, address: &str, section: &str, found: &mut ImportedFiles) {
        match self.account(address, section) {
            Ok(account) if address.starts_with('*') => found.domains.push(account),
            Ok(account) => found.accounts.push(account),
            Err(why) => found.left.push(format!("[{section}]: {why}")),
        }
    }

    fn account(&self, address: &str, section: &str) -> Result<ImportedAccount, String> {
        let option = |name: &str| self.option(section, name);
        let address = match address.strip_prefix("*@") {
            Some(domain) => format!("*@{}", domain.to_lowercase()),
            None => Name::address(address)?.into(),
        };
        if option("client_id").is_some_and(|id| id.contains("*** your")) {
            return Err("is the example of its documentation, so it is left out".to_owned());
        }
        let flow = flow(option("oauth2_flow"), option("permission_url").is_some())?;
        let mut account = ImportedAccount {
            address,
            endpoints: self.endpoints(section, flow)?,
            scope: option("oauth2_scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            resource: option("oauth2_resource").map(str::to_owned),
            flow,
            client_id: option("client_id").map(str::to_owned),
            client_secret: option("client_secret").map(|secret| Secret::new(secret.into())),
            client_key: option("jwt_certificate_path")
                .zip(option("jwt_key_path"))
                .map(|(one, two)| (self.path(one), self.path(two))),
            redirect_uri: option("redirect_uri").and_then(|uri| Url::parse(uri).ok()),
            ..ImportedAccount::default()
        };
        if flow == Flow::JwtBearer {
            self.take_service_account(&mut account)?;
        }
        account.tokens = self.tokens(section, &account)?;
        if account.client_secret.is_some() || option("client_secret_encrypted").is_some() {
            // As there, a secret comes before a certificate.
            account.client_key = None;
        }
        Ok(account)
    }

    fn endpoints(&self, section: &str, flow: Flow) -> Result<Endpoints, String> {
        let url = |name: &'static str| match self.option(section, name) {
            Some(text) => Url::parse(text).map(Some).map_err(|error| format!("{name} is not an address ({error})")),
            None => Ok(None),
        };
        let (page, token) = (url("permission_url")?, url("token_url")?);
        let token = Some(token.ok_or("token_url is missing, so the program cannot use this account either")?);
        Ok(match flow {
            Flow::DeviceCode => Endpoints { device_authorization: page, token, ..Endpoints::default() },
            _ => Endpoints { authorization: page, token, ..Endpoints::default() },
        })
    }

    /// In this flow, `client_id` says what `client_secret` is: the key, or the path of its file.
    fn take_service_account(&self, account: &mut ImportedAccount) -> Result<(), String> {
        let key = account.client_secret.take().ok_or("the key of its service account is missing (client_secret)")?;
        let text = String::from_utf8_lossy(key.expose()).into_owned();
        account.service_account = match account.client_id.take().as_deref() {
            Some("file") => Some(SecretSource::File(self.path(&text))),
            Some("key") => Some(SecretSource::Text(key)),
            _ => return Err("client_id of a service account must be file or key".to_owned()),
        };
        Ok(())
    }

    fn tokens(&self, section: &str, account: &ImportedAccount) -> Result<ImportedTokens, String> {
        let own = |name: &str| self.ini.get(section, name).filter(|value| !value.is_empty()).map(str::to_owned);
        let refresh = own("refresh_token").filter(|_| signs_in(account.flow));
        if section.starts_with('@') || refresh.is_none() && signs_in(account.flow) {
            return Ok(ImportedTokens::Missing);
        }
        let locked_secret = self.option(section, "client_secret_encrypted").filter(|_| account.client_secret.is_none());
        let is_password = account.flow == Flow::ClientCredentials
            && account.client_secret.is_none()
            && account.client_key.is_none()
            && self.flag(OWN, "use_login_password_as_client_credentials_secret")?;
        let place = match locked_secret {
            Some(_) => ClientSecret::Locked,
            None if is_password => ClientSecret::Password,
            None => ClientSecret::Elsewhere,
        };
        let texts: Vec<String> = refresh.or_else(|| own("access_token")).into_iter().collect();
        let texts: Vec<String> = texts.into_iter().chain(locked_secret.map(str::to_owned)).collect();
        Ok(ImportedTokens::Locked(Lock::Emailproxy(self.lock(section, texts.is_empty())?, texts, place)))
    }

    /// The salt and the numbers of rounds to try, as the program does. Without any tokens, every password is the right one.
    fn lock(&self, section: &str, is_empty: bool) -> Result<Fernet, String> {
        if is_empty {
            return Ok(Fernet { salt: Vec::new(), rounds: vec![1] });
        }
        let salt = self
            .option(section, "token_salt")
            .ok_or("token_salt is missing, without which no password opens its tokens")?;
        let salt = BASE64_STANDARD.decode(salt).map_err(|_| "token_salt is damaged: it is not base64".to_owned())?;
        let own = self.option(section, "token_iterations").map_or(Ok(OLD_ROUNDS), str::parse);
        let own: u32 = own.map_err(|_| "token_iterations is damaged: it is not a number".to_owned())?;
        let others = [ROUNDS, OLD_ROUNDS].into_iter().filter(|rounds| *rounds != own);
        let rounds = std::iter::once(own).chain(others).collect();
        Ok(Fernet { salt, rounds })
    }

    fn listener(&self, name: &str, protocol: Protocol, port: &str) -> Result<ImportedListener, String> {
        let option = |key: &str| self.option(name, key);
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u16>().ok()).filter(|port| *port != 0);
        let is_smtp = protocol == Protocol::Smtp;
        let old_starttls = self.flag(name, "starttls")?;
        let server_starttls =
            if option("server_starttls").is_some() { self.flag(name, "server_starttls")? } else { old_starttls };
        let server = MailServer {
            host: option("server_address").ok_or("server_address is missing")?.to_lowercase(),
            port: number(option("server_port")).ok_or("server_port is missing or not a port")?,
            security: if is_smtp && server_starttls { Security::StartTls } else { Security::Tls },
            ehlo_name: None,
        };
        let certificate = option("local_certificate_path").zip(option("local_key_path"));
        let security = match certificate {
            None => Security::Clear,
            Some(_) if is_smtp && self.flag(name, "local_starttls")? => Security::StartTls,
            Some(_) => Security::Tls,
        };
        Ok(ImportedListener {
            name: name.to_owned(),
            protocol,
            port: number(Some(port)).ok_or("this port cannot be used")?,
            local: option("local_address").filter(|address| !["::", "0.0.0.0"].contains(address)).map(str::to_owned),
            security,
            certificate: certificate.map(|(certificate, key)| (self.path(certificate), self.path(key))),
            server,
        })
    }

    /// An option of a section, or of those that hand it on.
    fn option(&self, section: &str, option: &str) -> Option<&str> {
        let domain = section.rsplit_once('@').map(|(_, domain)| format!("@{domain}")).filter(|_| self.has_catch_all);
        let inherited = || domain.as_deref().and_then(|domain| self.ini.get(domain, option));
        let everybody = || domain.as_deref().and_then(|_| self.ini.get(EVERYBODY, option));
        let value = self.ini.get(section, option).or_else(inherited).or_else(everybody);
        value.filter(|value| !value.is_empty())
    }

    /// An option that is on or off, in Python's words.
    fn flag(&self, section: &str, option: &str) -> Result<bool, String> {
        match self.ini.get(section, option).map(str::to_lowercase).as_deref() {
            None | Some("0" | "no" | "false" | "off") => Ok(false),
            Some("1" | "yes" | "true" | "on") => Ok(true),
            Some(other) => {
                Err(format!("{option} in [{section}] of {} is {other}, not true or false", self.file.display()))
            }
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path))
    }
}

/// The grant. With a page to sign in on, it is the one with a code, unless it is that for devices.
fn flow(named: Option<&str>, has_page: bool) -> Result<Flow, String> {
    match (named, has_page) {
        (Some("device"), true) => Ok(Flow::DeviceCode),
        (_, true) => Ok(Flow::AuthorizationCode),
        (Some("client_credentials"), false) => Ok(Flow::ClientCredentials),
        (Some("password"), false) => Ok(Flow::Password),
        (Some("service_account"), false) => Ok(Flow::JwtBearer),
        (Some(other), false) => Err(format!("postkey does not know its oauth2_flow {other} without a permission_url")),
        (None, false) => Err("neither permission_url nor oauth2_flow says how it gets tokens".to_owned()),
    }
}
