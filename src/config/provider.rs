//! A provider: its authorization server and its mail servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::assertion::AssertionIssuer;
use super::client::ClientRegistration;
use super::flow::Flow;
use crate::clock::Moment;
use crate::protocol::{Mechanism, Protocol, Security};

/// By name. Whoever uses a provider shares it with the configuration.
pub type Providers = BTreeMap<String, Arc<Provider>>;

/// The maximum of simultaneous connections by protocol. None means that there is no limit.
pub type ConnectionLimits = BTreeMap<Protocol, Option<usize>>;

/// The provider that has this domain, which is in lower case.
pub fn of_domain<'a>(providers: &'a Providers, domain: &str) -> Option<&'a Provider> {
    let exact = providers.values().find(|provider| provider.has_domain(domain));
    exact.or_else(|| providers.values().find(|provider| provider.has_family_of(domain))).map(AsRef::as_ref)
}

#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// The domains of its addresses in lower case. `name.*` stands for all endings (see [`Self::has_family_of`]).
    pub domains: Vec<String>,
    /// The mail exchangers of domains that it hosts, in lower case. `*.example.test` stands for all names below that one.
    pub mx: Vec<String>,
    pub flow: Flow,
    /// What `iss` in the authorization response must be (RFC 9207), if it is known, and the address of the metadata
    /// (RFC 8414).
    pub issuer: Option<String>,
    /// Whether the authorization response contains `iss` (RFC 9207 section 3), even if its metadata do not say so.
    pub names_itself: bool,
    /// The configured endpoints of its authorization server. If one is missing that the grant needs, there is an issuer,
    /// whose metadata have it.
    pub endpoints: Endpoints,
    /// The scopes that mail needs.
    pub scope: Vec<String>,
    /// Whether a refresh names the scope. Otherwise it names none, which asks for what was granted.
    pub refresh_scope: bool,
    /// Whether to try a new refresh token once while the person is still there.
    pub first_refresh: bool,
    /// Parameters of the authorization request beside the standard ones.
    pub authorization_parameters: BTreeMap<String, String>,
    /// The client registration for all accounts, if there is one.
    pub client: Option<ClientRegistration>,
    /// The service account that acts for the owners of mailboxes in the JWT bearer grant.
    pub bearer: Option<AssertionIssuer>,
    /// Parameters of the password grant beside or instead of scopes.
    pub resource: Option<String>,
    /// Whether the password grant may be used.
    pub legacy: bool,
    /// When the client's secret or certificate expires, if that is known.
    pub client_expires: Option<Moment>,
    /// Without a port, any free port is used (RFC 8252 section 7.3).
    pub redirect_uri: Url,
    /// Where to wait for the browser, if not at the redirect URI itself, which may lead to a tunnel or into a container.
    pub redirect_listen: Option<SocketAddr>,
    /// The mechanisms to use, the best first.
    pub mechanisms: Vec<Mechanism>,
    /// The proxy to its mail servers and its authorization server.
    pub proxy: Option<ProxyConfig>,
    /// The certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The time after which an unused refresh token expires, if the provider has such a limit.
    pub refresh_token_life: Option<Duration>,
    /// How many refreshes may be under way at its authorization server at a time.
    pub concurrent_refreshes: usize,
    /// Whether its mail servers end a session when the access token expires that has opened it.
    pub session_ends_with_token: bool,
    /// The limits for each account.
    pub connections: ConnectionLimits,
    /// How long a spare connection to one of its mail servers is kept. None if there must not be one.
    pub spare_connection: Option<Duration>,
    /// Its mail servers. Without one, postkey does not serve the protocol.
    pub servers: BTreeMap<Protocol, MailServer>,
    /// Advice for a user before the first authorization.
    pub note: Option<String>,
}

impl Provider {
    /// Whether this domain, in lower case, is one of its full domains.
    pub fn has_domain(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own == domain)
    }

    /// Whether this domain, in lower case, belongs to a family such as `outlook.*`: the name before a top-level domain, or
    /// before `co` or `com` and a country. Anything longer is somebody else's, such as `live.example.edu`.
    pub fn has_family_of(&self, domain: &str) -> bool {
        let Some((name, ending)) = domain.split_once('.') else { return false };
        let country = ending.strip_prefix("co.").or_else(|| ending.strip_prefix("com."));
        let is_ending = country.map_or(!ending.contains('.'), |country| country.len() == 2);
        is_ending && self.domains.iter().any(|own| own.strip_suffix(".*") == Some(name))
    }

    /// Whether this host, in lower case, is the mail exchanger of domains that the provider hosts.
    pub fn has_exchanger(&self, host: &str) -> bool {
        self.mx.iter().any(|own| match own.strip_prefix('*') {
            Some(ending) => host.len() > ending.len() && host.ends_with(ending),
            None => host == own,
        })
    }
}

/// The known endpoints of an authorization server. In RFC 8414 section 2, each name ends with `_endpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// RFC 6749 section 3.1. It may have a query.
    pub authorization: Option<Url>,
    /// RFC 6749 section 3.2.
    pub token: Option<Url>,
    /// RFC 8628 section 3.1.
    pub device_authorization: Option<Url>,
    /// RFC 7009.
    pub revocation: Option<Url>,
    /// Where a client registers itself (RFC 7591).
    pub registration: Option<Url>,
    /// Says who has signed in (OpenID Connect Core 1.0 section 5.3).
    pub userinfo: Option<Url>,
    /// `jwks_uri`, the keys with which the server signs id_tokens (RFC 7517).
    pub jwks: Option<Url>,
}

impl Endpoints {
    /// Reads them by their names in RFC 8414 section 2.
    pub fn read(mut url: impl FnMut(&'static str) -> Option<Url>) -> Self {
        Self {
            authorization: url("authorization_endpoint"),
            token: url("token_endpoint"),
            device_authorization: url("device_authorization_endpoint"),
            revocation: url("revocation_endpoint"),
            registration: url("registration_endpoint"),
            userinfo: url("userinfo_endpoint"),
            jwks: url("jwks_uri"),
        }
    }

    /// The device authorization endpoint. If it is not known, it is the one that Microsoft documents beside an authorization
    /// endpoint that ends in `authorize`.
    pub fn device(&self) -> Option<Url> {
        self.device_authorization.clone().or_else(|| {
            let mut neighbour = self.authorization.clone()?;
            let folder = neighbour.path().strip_suffix("/authorize")?;
            neighbour.set_path(&format!("{folder}/devicecode"));
            neighbour.set_query(None);
            Some(neighbour)
        })
    }

    pub fn all(&self) -> impl Iterator<Item = &Url> {
        self.named().map(|(_, url)| url)
    }

    /// The known endpoints with their names. Records of the vault are bound to these names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Url)> {
        let Self { authorization, token, device_authorization, revocation, registration, userinfo, jwks } = self;
        let named = [
            ("authorization", authorization),
            ("token", token),
            ("device_authorization", device_authorization),
            ("revocation", revocation),
            ("registration", registration),
            ("userinfo", userinfo),
            ("jwks", jwks),
        ];
        named.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?)))
    }

    /// These, completed from `other`.
    pub fn or(&self, other: &Self) -> Self {
        let first = |one: &Option<Url>, other: &Option<Url>| one.as_ref().or(other.as_ref()).cloned();
        Self {
            authorization: first(&self.authorization, &other.authorization),
            token: first(&self.token, &other.token),
            device_authorization: first(&self.device_authorization, &other.device_authorization),
            revocation: first(&self.revocation, &other.revocation),
            registration: first(&self.registration, &other.registration),
            userinfo: first(&self.userinfo, &other.userinfo),
            jwks: first(&self.jwks, &other.jwks),
        }
    }
}

/// Whether a URL is https, or http on this machine.
pub fn is_protected(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// The proxy between postkey and a provider's servers.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    pub kind: ProxyKind,
    /// A name or an IP address.
    pub host: String,
    pub port: u16,
    /// A user name, and the file with the password, if it requires a login.
    pub login: Option<(String, PathBuf)>,
}

/// The protocol of a proxy. Both kinds get host names and resolve them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP with the method CONNECT (RFC 9110 section 9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

#[derive(Clone, Debug)]
pub struct MailServer {
    /// The name that its certificate must have.
    pub host: String,
    pub port: u16,
    /// Never [`Security::Clear`].
    pub security: Security,
    /// The name for EHLO that postkey sends if the server refuses the mail program's.
    pub ehlo_name: Option<String>,
}

/// How clients can authenticate, according to the authorization server's metadata (RFC 8414 section 2). A list that they do
/// not have is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientMethods {
    /// `token_endpoint_auth_methods_supported`.
    pub token: Vec<String>,
    /// `token_endpoint_auth_signing_alg_values_supported`.
    pub algorithms: Vec<String>,
    /// `revocation_endpoint_auth_methods_supported`.
    pub revocation: Vec<String>,
}

impl ClientMethods {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The metadata that an account's authorization has discovered and that are needed from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    pub issuer: String,
    /// The endpoints from its metadata.
    pub endpoints: Endpoints,
    /// Whether other accounts can use the account's client, too, because postkey has registered it as a public one with the
    /// provider's usual redirect URI.
    pub is_registered: bool,
    /// Whether postkey has registered the account's client itself, in any way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_self_registered: bool,
    #[serde(default, skip_serializing_if = "ClientMethods::is_empty")]
    pub methods: ClientMethods,
}

impl Discovered {
    /// Whether it has endpoints of another issuer than the provider has now.
    pub fn is_foreign_to(&self, provider: &Provider) -> bool {
        self.endpoints.all().next().is_some() && provider.issuer.as_ref().is_some_and(|issuer| *issuer != self.issuer)
    }
}
