//! A provider: its authorization server and its mail servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::assertion::AssertionIssuer;
use super::client::ClientRegistration;
use super::flow::Flow;
use crate::clock::Moment;
use crate::protocol::{Mechanism, Protocol, Security};

/// The providers by name.
pub type Providers = BTreeMap<String, Provider>;

/// By protocol: the most connections at a time, or None where it is said that there is no limit.
pub type ConnectionLimits = BTreeMap<Protocol, Option<usize>>;

/// Whose domain this is, in lower case.
pub fn of_domain<'a>(providers: &'a Providers, domain: &str) -> Option<&'a Provider> {
    let exact = providers.values().find(|provider| provider.has_domain(domain));
    exact.or_else(|| providers.values().find(|provider| provider.has_family_of(domain)))
}

/// All that is known of a provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// The domains of its addresses, lower case; `name.*` is the name under any ending (see [`Self::has_family_of`]).
    pub domains: Vec<String>,
    /// The mail exchangers of domains that it hosts, lower case; `*.example.test` is every name below that one.
    pub mx: Vec<String>,
    /// How its accounts get their tokens.
    pub flow: Flow,
    /// What `iss` in the authorization response has to be (RFC 9207), where it is known; and where its metadata are
    /// (RFC 8414).
    pub issuer: Option<String>,
    /// Whether it is known to name itself when the browser returns (RFC 9207 section 3), whatever its metadata say.
    pub names_itself: bool,
    /// Its authorization server's endpoints, as far as they are configured. Where the two that every grant needs are
    /// missing there is an issuer, whose metadata tell them.
    pub endpoints: Endpoints,
    /// The scopes that mail needs.
    pub scope: Vec<String>,
    /// Whether a refresh names the scope. Otherwise it asks for what was granted, by naming none.
    pub refresh_scope: bool,
    /// Whether a new refresh token is used once while the person is still there.
    pub first_refresh: bool,
    /// Parameters of the authorization request beside the standard ones.
    pub authorization_parameters: BTreeMap<String, String>,
    /// The client registration, where one is configured for all accounts.
    pub client: Option<ClientRegistration>,
    /// Who speaks for the owners of mailboxes in the JWT bearer grant.
    pub bearer: Option<AssertionIssuer>,
    /// What the password grant asks for beside or instead of scopes.
    pub resource: Option<String>,
    /// Whether the password grant may be used.
    pub legacy: bool,
    /// When the client's secret or certificate ends, where that is known.
    pub client_expires: Option<Moment>,
    /// Where the browser returns to; without a port any free one is used (RFC 8252 section 7.3).
    pub redirect_uri: Url,
    /// Where to wait for the browser, if not at the redirect URI itself: that may lead to a tunnel, or into a container.
    pub redirect_listen: Option<SocketAddr>,
    /// The mechanisms to use, the best first.
    pub mechanisms: Vec<Mechanism>,
    /// What to connect through, to its mail servers and for token requests alike.
    pub proxy: Option<ProxyConfig>,
    /// The certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The time after which a refresh token that nobody uses is not good any more, where the provider has such a time.
    pub refresh_token_life: Option<Duration>,
    /// Whether its mail servers end a session when the access token expires that has opened it.
    pub session_ends_with_token: bool,
    /// How many connections of one account it takes at a time.
    pub connections: ConnectionLimits,
    /// Its mail servers; a protocol that is missing is not served.
    pub servers: BTreeMap<Protocol, MailServer>,
    /// What a user should know before starting.
    pub note: Option<String>,
}

impl Provider {
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

    /// Whether this host, in lower case, takes the mail of domains that the provider hosts.
    pub fn has_exchanger(&self, host: &str) -> bool {
        self.mx.iter().any(|own| match own.strip_prefix('*') {
            Some(ending) => host.len() > ending.len() && host.ends_with(ending),
            None => host == own,
        })
    }
}

/// An authorization server's endpoints, as far as they are known. RFC 8414 section 2 has their names, each with
/// `_endpoint` behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// RFC 6749 section 3.1; may carry a query of its own.
    pub authorization: Option<Url>,
    /// RFC 6749 section 3.2.
    pub token: Option<Url>,
    /// RFC 8628 section 3.1.
    pub device_authorization: Option<Url>,
    /// RFC 7009.
    pub revocation: Option<Url>,
    /// RFC 7591: where a client registers itself.
    pub registration: Option<Url>,
    /// OpenID Connect Core 1.0 section 5.3: who has signed in.
    pub userinfo: Option<Url>,
    /// `jwks_uri`: the keys by which the server signs id_tokens (RFC 7517).
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

    /// Where a device asks for a code. Microsoft documents it as the neighbour of an authorization endpoint that ends in
    /// `authorize`.
    pub fn device(&self) -> Option<Url> {
        self.device_authorization.clone().or_else(|| {
            let mut neighbour = self.authorization.clone()?;
            let folder = neighbour.path().strip_suffix("/authorize")?;
            neighbour.set_path(&format!("{folder}/devicecode"));
            neighbour.set_query(None);
            Some(neighbour)
        })
    }

    /// Those that are known.
    pub fn all(&self) -> impl Iterator<Item = &Url> {
        self.named().map(|(_, url)| url)
    }

    /// Those that are known, with their names. Records of the vault are bound to these names.
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

    /// These, and where they lack one that of `other`.
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

/// Whether a URL is https, or http that does not leave this machine.
pub fn is_protected(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// What stands between us and a provider's servers.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are to it, where it wants to know: a user name, and the file that holds the password.
    pub login: Option<(String, PathBuf)>,
}

/// What a proxy speaks. Both are given the names of servers and look them up themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP with the method CONNECT (RFC 9110 section 9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

/// A mail server of a provider.
#[derive(Clone, Debug)]
pub struct MailServer {
    /// Its name, which its certificate must have.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// [`Security::Tls`] or [`Security::StartTls`].
    pub security: Security,
    /// What postkey calls itself in SMTP's EHLO where the server refuses the mail program's name for itself.
    pub ehlo_name: Option<String>,
}

/// What an authorization server's metadata say of how clients show who they are (RFC 8414 section 2). A list is empty where they
/// say nothing.
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
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What authorizing an account has found out about its authorization server, and is needed from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The server's issuer identifier.
    pub issuer: String,
    /// The endpoints of its metadata.
    pub endpoints: Endpoints,
    /// Whether the account's client is one that postkey has registered itself, as a public one and for the provider's usual
    /// redirect URI: other accounts can use it, too.
    pub is_registered: bool,
    /// Whether postkey has registered the account's client itself, in whatever way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_self_registered: bool,
    /// How clients may show who they are.
    #[serde(default, skip_serializing_if = "ClientMethods::is_empty")]
    pub methods: ClientMethods,
}

impl Discovered {
    /// Whether endpoints of another issuer are in it than the one that the provider has now.
    pub fn is_foreign_to(&self, provider: &Provider) -> bool {
        self.endpoints.all().next().is_some() && provider.issuer.as_ref().is_some_and(|issuer| *issuer != self.issuer)
    }
}
