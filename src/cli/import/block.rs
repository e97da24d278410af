//! The tables that an import adds to the configuration, as TOML.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::Value;

use super::account::{ImportedAccount, ImportedListener, signs_in};
use super::provider::NewProvider;
use crate::config::flow::Flow;
use crate::config::provider::Provider;
use crate::config::secret_source::SecretSource;
use crate::protocol::Security;

/// Tables of TOML. Secrets are in the text that is written, but not in the one that is shown.
#[derive(Default)]
pub struct Block {
    pub written: String,
    pub shown: String,
}

impl Block {
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    fn line(&mut self, line: &str) {
        for text in [&mut self.written, &mut self.shown] {
            text.push_str(line);
            text.push('\n');
        }
    }

    fn table(&mut self, head: &str) {
        self.line(&format!("\n{head}"));
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.line(&format!("{key} = {}", value.into()));
    }

    fn set_texts(&mut self, key: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.set(key, texts.iter().map(|text| Value::from(text.as_str())).collect::<Vec<_>>());
        }
    }

    fn set_secret(&mut self, key: &str, secret: &SecretSource) {
        match secret {
            SecretSource::File(path) => self.line(&format!("{key} = {{ file = {} }}", text(&path.to_string_lossy()))),
            SecretSource::Text(secret) => {
                let _infallible = writeln!(self.written, "{key} = {}", text(&String::from_utf8_lossy(secret.expose())));
                let _infallible = writeln!(self.shown, "{key} = \"...\"  # from the file, not shown here");
            }
            SecretSource::Command(_) | SecretSource::Credential(_) | SecretSource::Environment(_) => {}
        }
    }

    pub fn add_provider(&mut self, new: &NewProvider) {
        self.table(&format!("[provider.{}]", new.name));
        self.set_texts("domains", &new.domains);
        for (name, url) in new.endpoints.named() {
            let key = if name == "jwks" { "jwks_uri".to_owned() } else { format!("{name}_endpoint") };
            self.set(&key, url.as_str());
        }
        self.set_texts("scope", &new.scope);
        if let Some(resource) = &new.resource {
            self.set("resource", resource.as_str());
        }
        if new.flow != Flow::AuthorizationCode {
            self.set("flow", new.flow.name());
        }
        if new.flow == Flow::Password {
            self.set("legacy", true);
        }
        if let Some(uri) = &new.redirect_uri {
            self.set("redirect_uri", uri.as_str());
        }
        if new.refresh_scope {
            self.set("refresh_scope", true);
        }
        if let Some(key) = &new.service_account {
            self.set_secret("service_account", key);
        }
        self.add_habits(new.base.as_deref());
        for (protocol, server) in &new.servers {
            self.line(&format!("[provider.{}.{}]", new.name, protocol.name()));
            self.set("host", server.host.as_str());
            self.set("port", i64::from(server.port));
            self.set("security", server.security.name());
        }
    }

    /// How the known provider's servers behave. The other programs know XOAUTH2 only.
    fn add_habits(&mut self, base: Option<&Provider>) {
        let mechanisms =
            base.map_or_else(Vec::new, |base| base.mechanisms.iter().map(|one| one.name().to_owned()).collect());
        self.set_texts("mechanisms", if mechanisms.is_empty() { &XOAUTH2 } else { &mechanisms });
        let Some(base) = base else { return };
        let limits = base
            .connections
            .iter()
            .filter_map(|(protocol, limit)| Some(format!("{} = {}", protocol.name(), (*limit)?)));
        let limits: Vec<String> = limits.collect();
        if !limits.is_empty() {
            self.line(&format!("connections = {{ {} }}", limits.join(", ")));
        }
        if let Some(life) = base.refresh_token_life {
            self.set("refresh_token_life", i64::try_from(life.as_secs() / (24 * 3600)).unwrap_or(i64::MAX));
        }
        if base.session_ends_with_token {
            self.set("session_ends_with_token", true);
        }
    }

    /// The entry of an account or a domain, if the vault's record has not all that it needs.
    pub fn add_account(&mut self, account: &ImportedAccount, provider: &str) {
        let is_domain = account.address.starts_with('*');
        if !is_domain && account.client_key.is_none() && signs_in(account.flow) {
            return;
        }
        self.table(&format!("[account.{}]", text(&account.address)));
        self.set("provider", provider);
        self.set("flow", account.flow.name());
        if account.flow == Flow::Password {
            self.set("legacy", true);
        }
        self.set_texts("scope", &account.scope);
        let has_client = is_domain || account.client_key.is_some();
        if let Some(id) = account.client_id.as_ref().filter(|_| has_client) {
            self.set("client_id", id.as_str());
        }
        if let Some(secret) = account.client_secret.as_ref().filter(|_| has_client) {
            self.set_secret("client_secret", &SecretSource::Text(secret.clone()));
        }
        if let Some((certificate, key)) = &account.client_key {
            self.set_secret("client_key", &SecretSource::File(key.clone()));
            self.set("client_certificate", certificate.to_string_lossy().as_ref());
            self.set("client_algorithm", "RS256");
        }
    }

    /// A port that takes the place of the other program's. Returns a sentence if it is open to fewer clients than before.
    pub fn add_listener(&mut self, listener: &ImportedListener, provider: Option<&str>) -> Option<String> {
        let (addresses, warning) = addresses(listener);
        let is_remote = addresses.iter().any(|address| !address.ip().is_loopback());
        self.line(&format!("\n# In place of [{}].", listener.name));
        self.line("[[listener]]");
        self.set("protocol", listener.protocol.name());
        self.set_texts("address", &addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.set("security", listener.security.name());
        if let Some((certificate, key)) = &listener.certificate {
            self.set("certificate", certificate.to_string_lossy().as_ref());
            self.set("key", key.to_string_lossy().as_ref());
        }
        if is_remote {
            self.set("allow_remote", true);
        }
        if let Some(provider) = provider {
            self.set("provider", provider);
        }
        warning
    }
}

static XOAUTH2: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| vec!["XOAUTH2".to_owned()]);

/// A text in quotes.
fn text(text: &str) -> Value {
    Value::from(text)
}

/// The addresses of a port. Without TLS these are the ones of this machine, because passwords pass there.
fn addresses(listener: &ImportedListener) -> (Vec<SocketAddr>, Option<String>) {
    let here = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let is_clear = listener.security == Security::Clear;
    let name = &listener.name;
    let (ips, warning) = match listener.local.as_deref().map(|local| (local, local.parse::<IpAddr>())) {
        Some((_, Ok(ip))) if ip.is_loopback() || !is_clear => (vec![ip], None),
        Some(("localhost", _)) => (here.to_vec(), None),
        None if !is_clear => (everywhere.to_vec(), None),
        None => (
            here.to_vec(),
            Some(format!(
                "[{name}] accepted passwords without encryption from other machines as well. postkey listens only on this \
                 machine there; other machines need TLS, which docs/guide/mail-programs.md explains"
            )),
        ),
        Some((local, _)) => (
            here.to_vec(),
            Some(format!(
                "[{name}] listened on {local}. postkey listens only on this machine there; change the address in the \
                 configuration, with TLS if other machines can reach it"
            )),
        ),
    };
    (ips.into_iter().map(|ip| SocketAddr::new(ip, listener.port)).collect(), warning)
}
