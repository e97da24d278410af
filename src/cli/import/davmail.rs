//! DavMail: `davmail.properties`, and the file of `davmail.oauth.tokenFilePath`.
//!
//! Its refresh tokens are encrypted with the password of the mail program. They were issued for Exchange's own interfaces
//! (EWS or Graph), so mail needs the scopes named at each refresh, and the client has to be allowed to have them.

use std::collections::BTreeMap;

use super::account::{ImportedAccount, ImportedFiles, ImportedListener, ImportedTokens, Lock, microsoft};
use super::lock::Pbes2;
use crate::config::provider::MailServer;
use crate::name::Name;
use crate::protocol::{Protocol, Security};
use crate::secret::Token;

/// The parts before and after the user name in the key of a refresh token.
const BEFORE: &str = "davmail.oauth.";
const AFTER: &str = ".refreshToken";

/// The prefix of an encrypted token.
const ENCRYPTED: &str = "{AES}";

/// The salt and the initialization vector, unless `davmail.oauth.fingerprint` replaces both.
const FINGERPRINT: &str = "davmailgateway!&";

/// How often it derives the key.
const ROUNDS: u32 = 10_000;

/// Its local ports, and Microsoft's servers for the same protocols.
const PORTS: [(&str, Protocol, &str); 3] = [
    ("davmail.imapPort", Protocol::Imap, "outlook.office365.com"),
    ("davmail.popPort", Protocol::Pop3, "outlook.office365.com"),
    ("davmail.smtpPort", Protocol::Smtp, "smtp.office365.com"),
];

/// The properties of a file.
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Reads them as Java does, except for continued lines, which DavMail does not write.
    pub fn read(text: &str) -> Self {
        let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        Self(lines.filter_map(property).collect())
    }

    pub fn is_configuration(&self) -> bool {
        self.0.keys().any(|key| key.starts_with("davmail."))
    }

    /// Whether this is the file with the tokens: user names, each with a token.
    pub fn is_token_file(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(key, value)| key.contains('@') && value.starts_with(ENCRYPTED))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Everything in the configuration and in the token file, if there is one.
    pub fn found(&self, tokens: Option<&Self>) -> ImportedFiles {
        let mut found = ImportedFiles { program: "DavMail", ..ImportedFiles::default() };
        let own =
            self.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(BEFORE)?.strip_suffix(AFTER)?, value)));
        let others = tokens.into_iter().flat_map(|tokens| &tokens.0).map(|(key, value)| (key.as_str(), value));
        for (user, token) in own.chain(others).filter(|(_, token)| !token.is_empty()) {
            match self.account(user, token) {
                Ok(account) => found.accounts.push(account),
                Err(why) => found.left.push(format!("{user}: {why}")),
            }
        }
        match self.get("davmail.oauth.tokenFilePath") {
            Some(path) if tokens.is_none() => {
                found.left.push(format!("its tokens are in {path}; name that file as well"))
            }
            _ => {}
        }
        if !found.accounts.is_empty() {
            found.warnings.push(
                "DavMail's tokens were issued for Exchange's own interfaces. The import asks Microsoft for tokens for mail with \
                 them; if the client is not allowed to have these, nothing is changed, and `postkey authorize` with a client of \
                 your own is the way"
                    .to_owned(),
            );
        }
        self.add_ports(&mut found);
        found
    }

    fn account(&self, user: &str, token: &str) -> Result<ImportedAccount, String> {
        let tokens = match token.strip_prefix(ENCRYPTED) {
            Some(encrypted) => {
                let fingerprint = self.get("davmail.oauth.fingerprint").unwrap_or(FINGERPRINT).as_bytes().to_vec();
                ImportedTokens::Locked(Lock::DavMail(
                    Pbes2 { salt: fingerprint.clone(), iv: fingerprint, rounds: ROUNDS },
                    encrypted.to_owned(),
                ))
            }
            // Without a password it stores the token as it is.
            None => ImportedTokens::Open(Token::parse(token).ok_or("its refresh token is damaged")?),
        };
        let tld = self.get("davmail.tld").unwrap_or("com");
        let server =
            self.get("davmail.loginUrl").map_or_else(|| format!("https://login.microsoftonline.{tld}"), str::to_owned);
        Ok(ImportedAccount {
            address: Name::address(user)?.into(),
            endpoints: microsoft(&server, self.get("davmail.oauth.tenantId").unwrap_or("common")),
            client_id: self.get("davmail.oauth.clientId").map(str::to_owned),
            names_scope: true,
            tokens,
            ..ImportedAccount::default()
        })
    }

    fn add_ports(&self, found: &mut ImportedFiles) {
        let keystore = self.get("davmail.ssl.keystoreFile");
        let is_remote = self.get("davmail.allowRemote") == Some("true");
        for (key, protocol, host) in PORTS {
            let Some(port) = self.get(key).and_then(|port| port.parse().ok()).filter(|port| *port != 0) else {
                continue;
            };
            if let Some(keystore) = keystore {
                found.left.push(format!(
                    "{key}: its certificate is in the keystore {keystore}, and postkey needs PEM files; export it, and add a \
                     [[listener]] with certificate and key"
                ));
                continue;
            }
            found.listeners.push(ImportedListener {
                name: key.to_owned(),
                protocol,
                port,
                local: (!is_remote).then(|| "localhost".to_owned()),
                security: Security::Clear,
                certificate: None,
                server: MailServer { host: host.to_owned(), port, security: Security::Tls, ehlo_name: None },
            });
        }
        for key in ["davmail.caldavPort", "davmail.ldapPort"] {
            if self.get(key).is_some() {
                found.left.push(format!("{key}: postkey is for mail only"));
            }
        }
    }
}

/// A key and its value. A backslash escapes a character that would end the key, and itself.
fn property(line: &str) -> Option<(String, String)> {
    let mut key = String::new();
    let mut letters = line.chars();
    loop {
        match letters.next()? {
            '\\' => key.extend(letters.next()),
            '=' | ':' => break,
            letter => key.push(letter),
        }
    }
    let mut value = String::new();
    let mut letters = letters.as_str().trim_start().chars();
    while let Some(letter) = letters.next() {
        value.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    Some((key.trim_end().to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flow::Flow;
    use crate::secret::Secret;

    /// Encrypted by Java's own `PBEWithHmacSHA256AndAES_128`, with DavMail's salt and rounds.
    const TOKEN: &str = "{AES}87sdAt4TSxrGspTwOqK3WH1YGsAu1zhl2jmIb0NmuPo=";

    #[test]
    fn its_tokens_are_opened_with_the_password_of_the_mail_program() {
        let text = format!(
            "# DavMail\ndavmail.mode=O365Modern\ndavmail.oauth.clientId=id\ndavmail.oauth.tenantId=contoso.example\n\
            davmail.imapPort=1143\ndavmail.ldapPort=1389\ndavmail.oauth.ann@example.com.refreshToken={TOKEN}\n"
        );
        let properties = Properties::read(&text);
        assert!(properties.is_configuration() && !properties.is_token_file());
        let found = properties.found(None);
        let account = &found.accounts[0];
        assert_eq!((account.address.as_str(), account.client_id.as_deref()), ("ann@example.com", Some("id")));
        assert_eq!(account.endpoints.token.as_ref().unwrap().path(), "/contoso.example/oauth2/v2.0/token");
        assert_eq!((found.listeners.len(), found.left.len()), (1, 1));
        let ImportedTokens::Locked(lock) = &account.tokens else { panic!("it is locked") };
        let open = |password: &str| lock.open(&Secret::new(password.into()), Flow::AuthorizationCode);
        assert_eq!(open("correct horse").ok().unwrap().refresh.unwrap().expose(), "1.AXo-a_refresh.token");
        assert!(open("wrong horse").is_err());
    }

    #[test]
    fn its_token_file_is_read_beside_its_configuration() {
        let tokens = Properties::read(&format!("#Oauth tokens\nann@example.com={}\n", TOKEN.replace('=', "\\=")));
        assert!(tokens.is_token_file());
        let properties =
            Properties::read("davmail.oauth.tokenFilePath=/tokens\ndavmail.oauth.ben@example.com.refreshToken=open\n");
        assert_eq!(properties.found(Some(&tokens)).accounts.len(), 2);
        assert!(properties.found(None).left[0].contains("/tokens"));
    }
}
