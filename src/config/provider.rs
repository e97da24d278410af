//! A provider: its authorization server and its mail servers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use url::Url;

use super::assertion::Bearer;
use super::client::Client;
use super::flow::Flow;
use crate::protocol::{Mechanism, Protocol, Security};

/// All that is known of a provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// The domains of its addresses, lower case; `name.*` is the name under any ending (see [`Self::has_family_of`]).
    pub domains: Vec<String>,
    /// How its accounts get their tokens.
    pub flow: Flow,
    /// RFC 6749 section 3.1; may carry a query of its own. Only the authorization code grant needs it.
    pub authorization_endpoint: Option<Url>,
    /// RFC 8628 section 3.1; [`Self::device_endpoint`] is the one to use.
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 6749 section 3.2.
    pub token_endpoint: Url,
    /// What `iss` in the authorization response has to be (RFC 9207), where it is known.
    pub issuer: Option<String>,
    /// The scopes that mail needs.
    pub scope: Vec<String>,
    /// Parameters of the authorization request beside the standard ones.
    pub authorization_parameters: BTreeMap<String, String>,
    /// The client registration, where one is configured for all accounts.
    pub client: Option<Client>,
    /// Who speaks for the owners of mailboxes in the JWT bearer grant.
    pub bearer: Option<Bearer>,
    /// What the password grant asks for beside or instead of scopes.
    pub resource: Option<String>,
    /// Whether the password grant may be used.
    pub legacy: bool,
    /// Where the browser returns to; without a port any free one is used (RFC 8252 section 7.3).
    pub redirect_uri: Url,
    /// The mechanisms to use, the best first.
    pub mechanisms: Vec<Mechanism>,
    /// The certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Its mail servers; a protocol that is missing is not served.
    pub servers: BTreeMap<Protocol, Server>,
    /// What a user should know before starting.
    pub note: Option<String>,
}

impl Provider {
    /// Where a device asks for a code (RFC 8628 section 3.1). Microsoft documents it as the neighbour of an authorization
    /// endpoint that ends in `authorize`.
    pub fn device_endpoint(&self) -> Option<Url> {
        self.device_authorization_endpoint.clone().or_else(|| {
            let mut neighbour = self.authorization_endpoint.clone()?;
            let folder = neighbour.path().strip_suffix("/authorize")?;
            neighbour.set_path(&format!("{folder}/devicecode"));
            neighbour.set_query(None);
            Some(neighbour)
        })
    }

    /// Whether the domain, in lower case, is one of those that are named in full.
    pub fn has_domain(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own == domain)
    }

    /// Whether the domain, in lower case, is one of a family such as `outlook.*`: the name before a top-level domain, or
    /// before `co` or `com` and a country. More would be somebody else's host, as `live.example.edu` is.
    pub fn has_family_of(&self, domain: &str) -> bool {
        let Some((name, ending)) = domain.split_once('.') else { return false };
        let country = ending.strip_prefix("co.").or_else(|| ending.strip_prefix("com."));
        let is_ending = country.map_or(!ending.contains('.'), |country| country.len() == 2);
        is_ending && self.domains.iter().any(|own| own.strip_suffix(".*") == Some(name))
    }
}

/// A mail server of a provider.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name, which its certificate must have.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// [`Security::Tls`] or [`Security::StartTls`].
    pub security: Security,
}
