//! Token files in JSON: those of sasl-xoauth2, mutt_oauth2.py and oama, and the plain answer of a token endpoint.

use std::path::Path;

use serde_json::{Map, Value};
use url::Url;

use super::account::{ImportedAccount, ImportedFiles, ImportedTokens, microsoft};
use crate::config::flow::Flow;
use crate::config::provider::Endpoints;
use crate::name::Name;
use crate::secret::{Secret, Token};

/// sasl-xoauth2 goes to Google unless its configuration or the token file has another endpoint.
const SASL_XOAUTH2_ENDPOINT: &str = "https://accounts.google.com/o/oauth2/token";

/// A JSON object from a file.
pub struct Json(pub Map<String, Value>);

/// What such an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonKind {
    SaslXoauth2,
    /// sasl-xoauth2.conf, which has the client for all token files.
    SaslXoauth2Configuration,
    MuttOauth2,
    Oama,
    /// The answer of a token endpoint.
    TokenAnswer,
}

impl Json {
    pub fn read(text: &str) -> Option<Self> {
        match serde_json::from_str(text.trim()) {
            Ok(Value::Object(members)) => Some(Self(members)),
            _ => None,
        }
    }

    pub fn kind(&self) -> Option<JsonKind> {
        let has = |name: &str| self.0.contains_key(name);
        match has("refresh_token") {
            true if has("registration") && has("authflow") => Some(JsonKind::MuttOauth2),
            true if has("service") && (has("exp_date") || has("email")) => Some(JsonKind::Oama),
            true if has("expiry") || has("user") || has("token_endpoint") || has("client_id") => {
                Some(JsonKind::SaslXoauth2)
            }
            true => Some(JsonKind::TokenAnswer),
            false if has("client_id") && has("client_secret") => Some(JsonKind::SaslXoauth2Configuration),
            false => None,
        }
    }

    /// A text that is not empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    fn tokens(&self) -> Result<ImportedTokens, String> {
        let token = self.text("refresh_token").ok_or("its refresh token is empty; sign in there first")?;
        Token::parse(token).map(ImportedTokens::Open).ok_or_else(|| "its refresh token is damaged".to_owned())
    }

    /// Reads a token file. `general` is sasl-xoauth2's configuration, if it was named as well.
    pub fn found(&self, kind: JsonKind, file: &Path, general: Option<&Self>) -> Result<ImportedFiles, String> {
        let mut account = ImportedAccount { tokens: self.tokens()?, ..ImportedAccount::default() };
        let program = match kind {
            JsonKind::MuttOauth2 => {
                self.read_mutt(&mut account);
                "mutt_oauth2"
            }
            JsonKind::Oama => {
                account.address = self.text("email").unwrap_or_default().to_owned();
                account.service = self.text("service").map(str::to_owned);
                "oama"
            }
            JsonKind::SaslXoauth2 => {
                self.read_sasl_xoauth2(&mut account, general)?;
                "sasl-xoauth2"
            }
            JsonKind::TokenAnswer | JsonKind::SaslXoauth2Configuration => "token file",
        };
        if account.address.is_empty() {
            // Postfix's users mostly name the file after the account.
            let names = [file.file_stem(), file.file_name()];
            let names = names.map(|name| name.and_then(|name| name.to_str()).unwrap_or_default());
            let is_address = |name: &&str| name.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('.'));
            account.address = names.into_iter().find(is_address).unwrap_or_default().to_owned();
        }
        account.address = Name::address(&account.address).map(String::from).unwrap_or_default();
        Ok(ImportedFiles { program, accounts: vec![account], ..ImportedFiles::default() })
    }

    fn read_mutt(&self, account: &mut ImportedAccount) {
        account.address = self.text("email").unwrap_or_default().to_owned();
        self.read_client(account);
        match self.text("registration") {
            Some("microsoft") => account.endpoints = microsoft("https://login.microsoftonline.com", "common"),
            Some("google") => account.provider = Some("google"),
            _ => {}
        }
        if self.text("authflow") == Some("devicecode") {
            account.flow = Flow::DeviceCode;
        }
    }

    fn read_sasl_xoauth2(&self, account: &mut ImportedAccount, general: Option<&Self>) -> Result<(), String> {
        account.address = self.text("user").unwrap_or_default().to_owned();
        if let Some(general) = general {
            general.read_client(account);
        }
        self.read_client(account);
        let named = self.text("token_endpoint").or_else(|| general?.text("token_endpoint"));
        let endpoint = named.unwrap_or(SASL_XOAUTH2_ENDPOINT);
        let token = Url::parse(endpoint).map_err(|error| format!("its token_endpoint is not an address ({error})"))?;
        account.endpoints = Endpoints { token: Some(token), ..Endpoints::default() };
        Ok(())
    }

    fn read_client(&self, account: &mut ImportedAccount) {
        if let Some(id) = self.text("client_id") {
            account.client_id = Some(id.to_owned());
        }
        if let Some(secret) = self.text("client_secret") {
            account.client_secret = Some(Secret::new(secret.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, file: &str) -> (JsonKind, ImportedAccount) {
        let json = Json::read(text).unwrap();
        let kind = json.kind().unwrap();
        (kind, json.found(kind, Path::new(file), None).ok().unwrap().accounts.pop().unwrap())
    }

    #[test]
    fn a_token_file_of_sasl_xoauth2_has_its_own_client_and_endpoint() {
        let text = r#"{"access_token": "a", "client_id": "id", "client_secret": "s3cret", "expiry": "1795959273",
            "refresh_token": "r", "token_endpoint": "https://login.microsoftonline.com/common/oauth2/v2.0/token",
            "user": "Ann@Example.com"}"#;
        let (kind, account) = read(text, "/etc/tokens/x");
        assert_eq!((kind, account.address.as_str()), (JsonKind::SaslXoauth2, "ann@example.com"));
        assert_eq!(account.client_id.as_deref(), Some("id"));
        assert_eq!(account.client_secret.unwrap().expose(), b"s3cret");
        assert!(account.endpoints.token.unwrap().as_str().contains("/common/"));
    }

    #[test]
    fn a_token_file_of_sasl_xoauth2_is_completed_by_its_name_and_its_configuration() {
        let general =
            Json::read(r#"{"client_id": "general", "client_secret": "", "log_to_syslog_on_failure": "yes"}"#).unwrap();
        assert_eq!(general.kind(), Some(JsonKind::SaslXoauth2Configuration));
        let json = Json::read(r#"{"expiry": "0", "refresh_token": "1//r"}"#).unwrap();
        let found =
            json.found(JsonKind::SaslXoauth2, Path::new("/etc/tokens/ben@gmail.com"), Some(&general)).ok().unwrap();
        let account = &found.accounts[0];
        assert_eq!((account.address.as_str(), account.client_id.as_deref()), ("ben@gmail.com", Some("general")));
        assert_eq!(account.endpoints.token.as_ref().unwrap().host_str(), Some("accounts.google.com"));
    }

    #[test]
    fn a_token_file_of_mutt_names_its_provider() {
        let text = r#"{"registration": "microsoft", "authflow": "devicecode", "email": "ann@example.com", "access_token": "",
            "access_token_expiration": "", "refresh_token": "1.r", "client_id": "id", "client_secret": ""}"#;
        let (kind, account) = read(text, "tokens");
        assert_eq!((kind, account.flow), (JsonKind::MuttOauth2, Flow::DeviceCode));
        assert!(account.client_secret.is_none() && account.endpoints.token.is_some());
        assert_eq!(read(&text.replace("microsoft", "google"), "tokens").1.provider, Some("google"));
    }

    #[test]
    fn a_token_file_of_oama_names_its_service() {
        let text = r#"{"access_token":"a","email":"ann@gmail.com","exp_date":"2026-11-29 12:00 UTC","expires_in":3599,
            "refresh_token":"1//r","scope":"https://mail.google.com/","service":"google","token_type":"Bearer"}"#;
        let (kind, account) = read(text, "ann@gmail.com.oama");
        assert_eq!((kind, account.service.as_deref()), (JsonKind::Oama, Some("google")));
    }

    #[test]
    fn tokens_that_are_empty_or_damaged_are_reported() {
        for token in ["", "two words"] {
            let json = Json::read(&format!(r#"{{"refresh_token": "{token}"}}"#)).unwrap();
            assert!(json.found(JsonKind::TokenAnswer, Path::new("t"), None).err().unwrap().contains("refresh token"));
        }
        assert!(Json::read("[1]").is_none() && Json::read("{").is_none());
        assert_eq!(Json::read("{}").unwrap().kind(), None);
    }
}
