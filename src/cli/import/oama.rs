//! oama's configuration, which has the clients for its token files.
//!
//! It is YAML. This reads the part that oama's own template has: services with scalar values, in blocks.

use std::collections::BTreeMap;

use url::Url;

use super::account::{ImportedAccount, microsoft};
use crate::config::provider::Endpoints;
use crate::secret::Secret;

/// The settings of each service by name.
#[derive(Default)]
pub struct Services(BTreeMap<String, BTreeMap<String, String>>);

/// Whether this is the configuration.
pub fn is_configuration(text: &str) -> bool {
    let has = |key: &str| text.lines().any(|line| line.trim_end() == key);
    has("services:") && has("encryption:")
}

impl Services {
    pub fn read(text: &str) -> Self {
        let mut services = Self::default();
        let (mut is_inside, mut service, mut indent) = (false, None::<String>, 0);
        for line in text.lines() {
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let depth = line.chars().take_while(|letter| *letter == ' ').count();
            let Some((key, value)) = content.split_once(':') else { continue };
            match depth {
                0 => (is_inside, service) = (key == "services", None),
                _ if !is_inside => {}
                _ if service.is_none() || depth <= indent => {
                    indent = depth;
                    service = Some(plain(key));
                }
                _ => {
                    let settings = services.0.entry(service.clone().unwrap_or_default()).or_default();
                    settings.insert(key.trim().to_owned(), plain(value));
                }
            }
        }
        services
    }

    /// Completes an account of a token file. Returns what the user has to know about it.
    pub fn complete(&self, account: &mut ImportedAccount) -> Option<String> {
        let name = account.service.clone()?;
        let get = |key: &str| self.0.get(&name)?.get(key).filter(|value| !value.is_empty());
        match name.as_str() {
            "google" => account.provider = Some("google"),
            "microsoft" => {
                let tenant = get("tenant").map_or("common", String::as_str);
                account.endpoints = microsoft("https://login.microsoftonline.com", tenant);
            }
            _ => {
                let url = |key: &str| get(key).and_then(|text| Url::parse(text).ok());
                let (authorization, token) = (url("auth_endpoint"), url("token_endpoint"));
                account.endpoints = Endpoints { authorization, token, ..Endpoints::default() };
            }
        }
        account.client_id = get("client_id").cloned();
        account.client_secret = get("client_secret").map(|secret| Secret::new(secret.clone().into_bytes()));
        account.scope =
            get("auth_scope").into_iter().flat_map(|scope| scope.split_whitespace().map(str::to_owned)).collect();
        let command = ["client_id_cmd", "client_secret_cmd"].into_iter().find_map(get)?;
        Some(format!(
            "oama gets the client of {name} from the command `{command}`, which postkey does not run; add `--client-id`, and \
             `--client-secret-file` if there is a secret"
        ))
    }
}

/// A scalar without its quotes and without a comment after it.
fn plain(text: &str) -> String {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some((inside, _)) = text.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inside.to_owned();
        }
    }
    text.split(" #").next().unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "## oama\nencryption:\n    tag: GPG\n    contents: KEY\nservices:\n  google:\n    client_id: 'my id'\n    \
        # auth_scope: no\n    client_secret: \"s#x\" # mine\n  microsoft:\n    client_id: m\n    tenant: contoso.example\n  \
        own:\n    auth_endpoint: https://auth.example.com/a\n    token_endpoint: https://auth.example.com/t\n    auth_scope: mail x\n    client_id_cmd: pass x\n";

    fn account(service: &str) -> (ImportedAccount, Option<String>) {
        let mut account = ImportedAccount { service: Some(service.to_owned()), ..ImportedAccount::default() };
        let note = Services::read(TEXT).complete(&mut account);
        (account, note)
    }

    #[test]
    fn services_complete_token_files() {
        assert!(is_configuration(TEXT));
        let (google, note) = account("google");
        assert_eq!((google.client_id.as_deref(), google.provider, note), (Some("my id"), Some("google"), None));
        assert_eq!(google.client_secret.unwrap().expose(), b"s#x");
        let (microsoft, _) = account("microsoft");
        assert_eq!(microsoft.endpoints.token.unwrap().path(), "/contoso.example/oauth2/v2.0/token");
        let (own, note) = account("own");
        assert_eq!((own.scope, own.client_id), (vec!["mail".to_owned(), "x".to_owned()], None));
        assert!(note.unwrap().contains("`pass x`") && own.endpoints.token.is_some());
        assert!(account("other").0.endpoints.token.is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[a: \n'\"#]{0,60}") {
            let _services = Services::read(&text);
        }
    }
}
