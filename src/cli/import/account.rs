//! The accounts of another program, in the form that all formats are read into.

use std::path::PathBuf;

use url::Url;

use super::lock::{Closed, Fernet, Pbes2};
use crate::config::flow::Flow;
use crate::config::provider::{Endpoints, MailServer};
use crate::config::secret_source::SecretSource;
use crate::protocol::{Protocol, Security};
use crate::secret::{Secret, Token};

/// The contents of one program's files.
#[derive(Default)]
pub struct ImportedFiles {
    /// The program's name.
    pub program: &'static str,
    pub accounts: Vec<ImportedAccount>,
    /// The settings of all addresses of a domain; the address begins with `*@`.
    pub domains: Vec<ImportedAccount>,
    pub listeners: Vec<ImportedListener>,
    /// Settings that postkey cannot take over, in sentences that say what to do instead.
    pub left: Vec<String>,
    /// Advice for the user before the import.
    pub warnings: Vec<String>,
}

/// An account, as far as the program's files describe it.
#[derive(Default)]
pub struct ImportedAccount {
    pub address: String,
    /// A provider that the program knows by a name that postkey has, too.
    pub provider: Option<&'static str>,
    /// The name of its provider in the configuration of its program.
    pub service: Option<String>,
    pub endpoints: Endpoints,
    pub scope: Vec<String>,
    /// Parameters of the password grant instead of scopes.
    pub resource: Option<String>,
    pub flow: Flow,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    /// The certificate and the private key of the client.
    pub client_key: Option<(PathBuf, PathBuf)>,
    /// The key of a service account.
    pub service_account: Option<SecretSource>,
    pub redirect_uri: Option<Url>,
    /// Whether its refresh token was issued for something else than mail, so that each refresh has to name the scopes.
    pub names_scope: bool,
    pub tokens: ImportedTokens,
}

/// In which state the account's tokens are.
#[derive(Default)]
pub enum ImportedTokens {
    /// There are none, so somebody has to sign in.
    #[default]
    Missing,
    Open(Token),
    /// The mail program's password opens them.
    Locked(Lock),
}

/// The secrets that a password opens.
pub enum Lock {
    Emailproxy(Fernet, Vec<String>, ClientSecret),
    DavMail(Pbes2, String),
}

/// The place of the client secret, beside tokens of email-oauth2-proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ClientSecret {
    /// Not under the lock.
    Elsewhere,
    /// The last one of the locked texts.
    Locked,
    /// The password itself.
    Password,
}

/// What was locked.
pub struct OpenedTokens {
    pub refresh: Option<Token>,
    pub client_secret: Option<Secret>,
}

impl Lock {
    pub fn open(&self, password: &Secret, flow: Flow) -> Result<OpenedTokens, Closed> {
        match self {
            Self::Emailproxy(fernet, texts, place) => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let mut opened = fernet.open(password, &texts)?;
                let client_secret = match place {
                    ClientSecret::Elsewhere => None,
                    ClientSecret::Locked => opened.pop(),
                    ClientSecret::Password => Some(password.clone()),
                };
                let refresh = opened.first().filter(|_| signs_in(flow)).map(token).transpose()?;
                Ok(OpenedTokens { refresh, client_secret })
            }
            Self::DavMail(pbes2, text) => {
                let refresh = Some(token(&pbes2.open(password, text)?)?);
                Ok(OpenedTokens { refresh, client_secret: None })
            }
        }
    }
}

fn token(opened: &Secret) -> Result<Token, Closed> {
    let text = std::str::from_utf8(opened.expose()).ok().and_then(Token::parse);
    text.ok_or_else(|| Closed::Damaged("its refresh token has characters that no token has".to_owned()))
}

/// The endpoints of Microsoft's authorization server for a tenant.
pub fn microsoft(server: &str, tenant: &str) -> Endpoints {
    let url = |last: &str| Url::parse(&format!("{server}/{tenant}/oauth2/v2.0/{last}")).ok();
    Endpoints { authorization: url("authorize"), token: url("token"), ..Endpoints::default() }
}

/// Whether somebody signs in for this grant, so that there is a refresh token.
pub const fn signs_in(flow: Flow) -> bool {
    matches!(flow, Flow::AuthorizationCode | Flow::DeviceCode)
}

/// A local port of the program, and the server to which it leads.
pub struct ImportedListener {
    /// How the program's file calls it.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// The local address or name; None for all addresses of the machine.
    pub local: Option<String>,
    pub security: Security,
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub server: MailServer,
}
